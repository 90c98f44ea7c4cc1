"""What one request came to, as one log line."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.relay.trace import Trace

log = logging.getLogger("gateway.request")


@dataclass
class RequestRecord:
    """Filled while a request runs; `write` puts it into the log once, when it has ended."""

    request_id: str
    path: str
    model: str
    upstream_model: str
    stream: bool
    trace: Trace
    status: int = 0
    outcome: str = ""
    """``ok``, or what went wrong, in a word or two."""
    served_model: str = ""
    stop_reason: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict)
    _written: bool = False

    def write(self) -> None:
        """Log the line; a second call does nothing."""
        if self._written:
            return
        self._written = True
        trace = self.trace
        fields = {
            "request_id": self.request_id,
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
            "ms": trace.elapsed_ms(),
            "stop_reason": self.stop_reason,
            "input_tokens": self.usage.get("input_tokens"),
            "cache_read_input_tokens": self.usage.get("cache_read_input_tokens"),
            "output_tokens": self.usage.get("output_tokens"),
        }
        log.info(
            "%s %s %d %s: %s -> %s, %s, %d ms",
            self.request_id,
            self.path,
            self.status,
            self.outcome,
            self.model,
            self.served_model or self.upstream_model,
            trace.way(),
            fields["ms"],
            extra={"fields": fields},
        )
