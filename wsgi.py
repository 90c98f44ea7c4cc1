"""The WSGI application, for gunicorn and every other server."""

from app import create_app
from app.ops.command_errors import one_line_in_commands

with one_line_in_commands():
    app = create_app()
