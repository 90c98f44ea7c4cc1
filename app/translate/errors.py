"""What can be wrong with a client's request or with Gemini's answer."""

from __future__ import annotations

import re


class BadAnswer(Exception):
    """Gemini's answer is no answer.

    ``message`` is for the client; ``retryable`` tells whether a new try can do better.
    """

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = retryable


class InvalidRequest(ValueError):
    """The client's request can't be right; ``message`` is ``path: reason``, as Anthropic's.

    ``code`` is Anthropic's ``error.details.error_code``, by which its SDKs know what to do; "" for
    none.
    """

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class Unsuited(InvalidRequest):
    """The request can't be written for one of Google's API surfaces, but perhaps for another."""


_TOO_LONG = re.compile(
    r"input token count \(?(\d+)\)? exceeds the maximum number of tokens allowed \(?(\d+)\)?", re.I
)


def client_message(google_message: str) -> str:
    """Return ``google_message`` in the wording that Anthropic's clients parse, where there is one.

    Claude Code recognises "prompt is too long", numbers included, and compacts the conversation.
    """
    match = _TOO_LONG.search(google_message)
    if match:
        return f"prompt is too long: {match[1]} tokens > {match[2]} maximum"
    return google_message
