"""Logs: text for people, JSON for shippers, gunicorn's own lines included.

A line says which request it belongs to wherever there is one: the id is in `REQUEST_ID`, which
attempts take along to their threads. Nothing is written past the log: what nobody caught is
logged, too.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from gunicorn.glogging import Logger

from app.relay.trace import REQUEST_ID

TEXT_FORMAT = "%(asctime)s %(levelname)s %(message)s"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_IN_LINES = re.compile(r"(?!\n)[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_unhandled = logging.getLogger("gateway.unhandled")


class JsonFormatter(logging.Formatter):
    """One JSON object a line; a record's ``fields`` (see `app.api.record`) become keys of it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, in ASCII: no encoding of the stream can spoil it."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        request_id = REQUEST_ID.get()
        if request_id:
            line["request_id"] = request_id
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """A line for people, and a traceback indented under it.

    No message can pretend to be several lines, and none can steer a terminal.
    """

    def __init__(self) -> None:
        super().__init__(TEXT_FORMAT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line without the traceback; the request's id ends it where it is not in it."""
        message = record.message.rstrip("\n")
        request_id = REQUEST_ID.get()
        if request_id and request_id not in message:
            message = f"{message} [{request_id}]"
        record.message = _CONTROL.sub(_escaped, message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Return the traceback; what begins at the margin is always a line of the log."""
        text = _CONTROL_IN_LINES.sub(_escaped, super().formatException(ei))
        return "\n".join(f"  {line}" for line in text.split("\n"))


def _escaped(match: re.Match[str]) -> str:
    return ascii(match.group())[1:-1]


def formatter(log_format: str) -> logging.Formatter:
    """Return the formatter for ``text`` or ``json``."""
    return JsonFormatter() if log_format == "json" else TextFormatter()


def configure(log_level: str, log_format: str) -> None:
    """Send the gateway's own logs, warnings of its libraries and uncaught faults to stderr."""
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


def catch_unhandled() -> None:
    """Log what threads and finalizers fail with, which Python would print as it likes.

    For processes that are the gateway and nothing else.
    """
    threading.excepthook = lambda args: unhandled(
        f"the thread {args.thread.name}" if args.thread else "a thread",
        args.exc_type,
        args.exc_value,
        args.exc_traceback,
    )
    sys.unraisablehook = lambda args: unhandled(
        args.err_msg or "a finalizer", args.exc_type, args.exc_value, args.exc_traceback
    )


def unhandled(where: object, kind: Any, value: Any, traceback: Any) -> None:
    """Log a fault that nobody caught; also gevent's ``print_exception`` of the hub.

    Not at the interpreter's end, when locks no longer work: what is taken apart there may complain.
    """
    if (kind and issubclass(kind, SystemExit | KeyboardInterrupt)) or sys.is_finalizing():
        return
    name = where if isinstance(where, str) else type(where).__name__
    _unhandled.error("nobody caught what failed in %s", name, exc_info=(kind, value, traceback))


def refusal(message: str, log_format: str) -> str:
    """Return the line that a refused start ends with."""
    text = f"claude-gemini-gateway can't start: {message}"
    if log_format != "json":
        return text
    record = logging.LogRecord("gateway", logging.CRITICAL, "", 0, text, None, None)
    return JsonFormatter().format(record)


class GunicornLogger(Logger):  # type: ignore[misc]
    """gunicorn's logger in the gateway's format, chosen by ``log_format`` of the class."""

    log_format = "text"

    def setup(self, cfg: Any) -> None:
        """Set up as gunicorn does, then change the formatters."""
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            for handler in log.handlers:
                handler.setFormatter(formatter(self.log_format))

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Write the line of the access log, if there is one, with its parts as fields."""
        if not self.access_log_enabled:
            return
        atoms = self.atoms(resp, req, environ, request_time)
        fields = {
            "request_id": atoms.get("{request-id}o", ""),
            "remote": atoms["h"],
            "method": atoms["m"],
            "path": atoms["U"],
            "status": int(atoms["s"]),
            "bytes": atoms["B"],
            "ms": atoms["M"],
        }
        line: Callable[..., None] = self.access_log.info
        line(
            self.cfg.access_log_format,
            self.atoms_wrapper_class(atoms),
            extra={"fields": fields},
        )


class GunicornJsonLogger(GunicornLogger):
    """The same for ``LOG_FORMAT=json``."""

    log_format = "json"
