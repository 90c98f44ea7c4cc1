"""What one request came to, told to whoever listens: the log, the metrics, the dashboard."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from app.relay.trace import Trace

log = logging.getLogger("gateway.api")


@dataclass(eq=False)
class RequestRecord:
    """Filled while a request runs, and complete once it has ended."""

    request_id: str
    path: str
    model: str
    upstream_model: str
    stream: bool
    trace: Trace
    client: str = ""
    """Which client key asked, as a label that is not the key; "" when none is needed."""
    at: float = field(default_factory=time.time)
    """When it came in, in epoch seconds."""
    status: int = 0
    outcome: str = ""
    """``ok``, or what went wrong, in a word or two; "" while it runs."""
    served_model: str = ""
    stop_reason: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict)

    def complete(self) -> None:
        """Fill in what is known only at the end."""

    def fields(self) -> dict[str, Any]:
        """Return all of it as plain values, the same names everywhere; ``ms`` is milliseconds."""
        trace = self.trace
        return {
            "request_id": self.request_id,
            "at": round(self.at, 3),
            "client": self.client,
            "path": self.path,
            "status": self.status,
            "outcome": self.outcome,
            "model": self.model,
            "upstream_model": self.upstream_model,
            "served_model": self.served_model,
            "stream": self.stream,
            "attempts": [
                {
                    "account": attempt.account,
                    "project": attempt.project,
                    "status": attempt.status,
                    "outcome": attempt.outcome,
                    "ms": attempt.ms,
                }
                for attempt in trace.attempts
            ],
            "first_event_ms": trace.first_event_ms,
            "keepalives": trace.keepalives,
            "retry_refused": trace.retry_refused,
            "ms": trace.elapsed_ms(),
            "stop_reason": self.stop_reason,
            "input_tokens": self.usage.get("input_tokens"),
            "cache_read_input_tokens": self.usage.get("cache_read_input_tokens"),
            "output_tokens": self.usage.get("output_tokens"),
        }


class Listener(Protocol):
    """Hears of every request that was let in: once when it begins, once when it has ended."""

    def started(self, record: RequestRecord) -> None:
        """A request begins; ``record`` is still being filled."""
        ...

    def finished(self, record: RequestRecord, fields: Mapping[str, Any]) -> None:
        """It has ended; ``fields`` are those of ``record``."""
        ...


@runtime_checkable
class RefusalListener(Protocol):
    """Hears of requests that were not let in, too; others must not, as anybody can cause them."""

    def refused(self, fields: Mapping[str, Any]) -> None:
        """One was refused; ``fields`` are those of `app.api.refusals`."""
        ...


class Recorder:
    """Tells the listeners; one that fails costs the request nothing. Thread-safe."""

    def __init__(self, listeners: Sequence[Listener] = ()) -> None:
        self._listeners = tuple(listeners)
        self._of_refusals = [one for one in listeners if isinstance(one, RefusalListener)]
        self._lock = threading.Lock()
        self._live: dict[RequestRecord, None] = {}

    def begin(self, record: RequestRecord) -> RequestRecord:
        """Begin to watch a request; returns its record."""
        with self._lock:
            self._live[record] = None
        for listener in self._listeners:
            try:
                listener.started(record)
            except Exception:
                log.exception("noting the beginning of %s failed", record.request_id)
        return record

    def end(self, record: RequestRecord) -> None:
        """Tell that it has ended; a second call does nothing."""
        with self._lock:
            if record not in self._live:
                return
            del self._live[record]
        record.complete()
        fields = record.fields()
        for listener in self._listeners:
            try:
                listener.finished(record, fields)
            except Exception:
                log.exception("noting the end of %s failed", record.request_id)

    def refused(self, fields: Mapping[str, Any]) -> None:
        """Tell of a request that was not let in."""
        for listener in self._of_refusals:
            try:
                listener.refused(fields)
            except Exception:
                log.exception("noting the end of %s failed", fields["request_id"])

    def live(self) -> list[RequestRecord]:
        """Return the requests under way, the oldest first."""
        with self._lock:
            return list(self._live)
