"""What can be wrong with a client's request or with Gemini's answer."""

from __future__ import annotations


class BadAnswer(Exception):
    """Gemini's answer is no answer.

    ``message`` is for the client; ``retryable`` tells whether a new try can do better.
    """

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = retryable
