"""What a request went through, for the log and the dashboard."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The request that this thread or greenlet works for, "" when it is none; the log tells it."""


@dataclass
class AttemptRecord:
    """One upstream try. ``outcome`` is "ok" or a short reason; ``ms`` milliseconds it took."""

    account: str
    project: str
    outcome: str = ""
    status: int = 0
    ms: int = 0
    started: float = field(default_factory=time.monotonic, repr=False)

    def end(self, outcome: str, status: int = 0) -> None:
        """Write down how it went; only the first word counts."""
        if not self.outcome:
            self.outcome = outcome
            self.status = status
            self.ms = round((time.monotonic() - self.started) * 1000)

    def __str__(self) -> str:
        name = f"{self.account}/{self.project}" if self.project else self.account
        status = f" {self.status}" if self.status and self.outcome != "ok" else ""
        return f"{name}{status} {self.outcome or 'open'} {self.ms}ms"


@dataclass
class Trace:
    """All attempts of a request, and milliseconds to its first event (None while there is none)."""

    attempts: list[AttemptRecord] = field(default_factory=list)
    first_event_ms: int | None = None
    keepalives: int = 0
    """Keep-alives sent while the client would have heard nothing."""
    retry_refused: bool = False
    """Whether a retry was due, and there was none left of `app.relay.budget`."""
    started: float = field(default_factory=time.monotonic, repr=False)

    def first_event(self) -> None:
        """Note the time to the first event, once."""
        if self.first_event_ms is None:
            self.first_event_ms = self.elapsed_ms()

    def elapsed_ms(self) -> int:
        """Milliseconds since the request came in."""
        return round((time.monotonic() - self.started) * 1000)

    def way(self) -> str:
        """Return the attempts as a phrase: ``key-1 429 per-minute 120ms → key-2 ok 812ms``."""
        return " → ".join(str(attempt) for attempt in self.attempts) or "-"
