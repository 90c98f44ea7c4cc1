"""The gateway's application in a worker that ends who takes no piece of an answer for a second."""

from app.ops import worker
from wsgi import app

__all__ = ["app"]

worker.UNTAKEN = 1.0
