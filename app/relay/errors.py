"""How a request can end badly, in words that the API turns into statuses."""

from __future__ import annotations

from enum import Enum


class Failure(Enum):
    """Why the client gets no answer; the API knows the status of each."""

    QUOTA = "quota"
    """Every account that could serve is out of quota until ``retry_after``."""
    NO_ACCOUNT = "no_account"
    """No account is usable at all; the reasons are in the log only."""
    BUSY = "busy"
    """All accounts stayed busy for as long as a request may wait."""
    FORBIDDEN = "forbidden"
    TIMEOUT = "timeout"
    OVERLOADED = "overloaded"
    BROKEN = "broken"
    NOT_FOUND = "not_found"
    REJECTED = "rejected"
    """The request's own fault; ``status`` is what the upstream gave."""
    STOPPING = "stopping"
    """The process ends and the time for open streams is over."""
    INTERNAL = "internal"
    """A fault of ours, logged with its traceback."""


class RelayError(Exception):
    """The request failed for good.

    ``message`` is for the client: no account, no secret. ``retry_after`` is seconds until another
    try makes sense, None when nobody knows. ``status`` is the upstream's, 0 when there was none.
    """

    def __init__(
        self,
        failure: Failure,
        message: str,
        *,
        status: int = 0,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.failure = failure
        self.message = message
        self.status = status
        self.retry_after = retry_after


class ClientGone(Exception):
    """The client hung up; nobody is left to answer."""
