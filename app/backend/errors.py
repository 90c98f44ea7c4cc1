"""What went wrong upstream, in words the relay decides by."""

from __future__ import annotations

from enum import Enum

from app.pool.cooldown import Exhausted


class Fault(Enum):
    """The rows of the behaviour table: each value has exactly one reaction in the relay."""

    QUOTA = "quota"
    """429 or its look-alike: cool down, go on, no retry consumed."""
    UNAUTHENTICATED = "unauthenticated"
    """401: refresh the token, one retry consumed, same account."""
    CREDENTIAL = "credential"
    """The account can't work until an operator acts: mark it, rotate, no retry consumed."""
    FORBIDDEN = "forbidden"
    """Any other 403: one retry, another account; 403 to the client at the end."""
    TIMEOUT = "timeout"
    """408, 504, connect or read timeout: one retry, another account; 504 at the end."""
    UNAVAILABLE = "unavailable"
    """503 (and Google's 499): one retry, another account; 529 at the end."""
    BROKEN = "broken"
    """500, 502, refused or cut connection, garbage, empty 200: one retry; 502 at the end."""
    SIGNATURE = "signature"
    """400 that names a thought signature: once again without the foreign ones, same account."""
    LOST = "lost"
    """The lease was lost, by no fault upstream: one retry, any account; 529 at the end."""
    UNSUITED = "unsuited"
    """This kind of account can't carry the request: go on, no retry consumed; 400 at the end."""
    NOT_FOUND = "not_found"
    """404: the model does not exist for this account; to the client."""
    REJECTED = "rejected"
    """Any other 4xx: the request's own fault; to the client."""


class UpstreamError(Exception):
    """One upstream try failed.

    ``fault`` decides what happens; ``status`` is Google's HTTP status (0 when there was none);
    ``message`` is Google's own words with every credential removed; ``reason`` is ErrorInfo's
    ``reason`` or Google's ``status`` word ("API_KEY_INVALID", "UNAVAILABLE"), for logs;
    ``exhausted`` is set when and only when ``fault`` is QUOTA; ``per_project`` is True when a
    CREDENTIAL fault concerns only the project that was asked for, not the whole account.
    """

    def __init__(
        self,
        fault: Fault,
        message: str,
        *,
        status: int = 0,
        reason: str = "",
        exhausted: Exhausted | None = None,
        per_project: bool = False,
    ) -> None:
        super().__init__(message)
        self.fault = fault
        self.message = message
        self.status = status
        self.reason = reason
        self.exhausted = exhausted
        self.per_project = per_project
