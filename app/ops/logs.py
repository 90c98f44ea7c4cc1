"""Logs: text for people, JSON for shippers, gunicorn's own lines included."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from gunicorn.glogging import Logger

TEXT_FORMAT = "%(asctime)s %(levelname)s %(message)s"


class JsonFormatter(logging.Formatter):
    """One JSON object a line; a record's ``fields`` (see `app.api.record`) become keys of it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def formatter(log_format: str) -> logging.Formatter:
    """Return the formatter for ``text`` or ``json``."""
    return JsonFormatter() if log_format == "json" else logging.Formatter(TEXT_FORMAT)


def configure(log_level: str, log_format: str) -> None:
    """Send the gateway's own logs, and warnings of its libraries, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(log_format))
    root = logging.getLogger()
    for old in list(root.handlers):
        if getattr(old, "of_gateway", False):
            root.removeHandler(old)
    handler.of_gateway = True  # type: ignore[attr-defined]
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("gateway").setLevel(log_level.upper())
    logging.captureWarnings(True)


class GunicornLogger(Logger):  # type: ignore[misc]
    """gunicorn's logger in the gateway's format, chosen by ``logger_format`` of the class."""

    log_format = "text"

    def setup(self, cfg: Any) -> None:
        """Set up as gunicorn does, then change the formatters."""
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            for handler in log.handlers:
                handler.setFormatter(formatter(self.log_format))


class GunicornJsonLogger(GunicornLogger):
    """The same for ``LOG_FORMAT=json``."""

    log_format = "json"
