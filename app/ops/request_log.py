"""One log line for each request."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.api.record import RequestRecord

log = logging.getLogger("gateway.request")


class RequestLog:
    """Writes the line when a request has ended; with ``LOG_FORMAT=json`` every field is a key."""

    def started(self, record: RequestRecord) -> None:
        """Write nothing yet."""

    def finished(self, record: RequestRecord, fields: Mapping[str, Any]) -> None:
        """Write the line."""
        if not log.isEnabledFor(logging.INFO):
            return
        log.info(
            "%s %s %d %s: %s -> %s, %s, %d ms",
            record.request_id,
            record.path,
            record.status,
            record.outcome,
            record.model,
            record.served_model or record.upstream_model,
            record.trace.way(),
            fields["ms"],
            extra={"fields": dict(fields)},
        )

    def refused(self, fields: Mapping[str, Any]) -> None:
        """Write the line of a request that was not let in: it has no model and no attempts."""
        log.info(
            "%s %s %d %s: %s, not let in",
            fields["request_id"],
            fields["path"],
            fields["status"],
            fields["outcome"],
            fields["method"],
            extra={"fields": dict(fields)},
        )
