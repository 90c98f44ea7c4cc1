"""The WSGI application, for gunicorn and every other server."""

from app import create_app

app = create_app()
