"""Google's error bodies, read into one shape whatever they came in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"
_STRAY_COMMAS = re.compile(r",(?=\s*[,}\]])|(?<=[\[{])\s*,")


@dataclass(frozen=True)
class Violation:
    """One entry of a ``QuotaFailure``."""

    quota_id: str = ""
    metric: str = ""
    value: str = ""


@dataclass(frozen=True)
class GoogleError:
    """One error object: ``google.rpc.Status`` with the details that decide something.

    ``code`` is the HTTP status, 0 when a mid-stream error named none. ``status`` is Google's word
    for it ("RESOURCE_EXHAUSTED"). ``google`` is False when the body was no Google error at all.
    """

    code: int
    message: str = ""
    status: str = ""
    google: bool = False
    infos: tuple[tuple[str, Mapping[str, str]], ...] = ()
    """(reason, metadata) of every ``ErrorInfo``."""
    violations: tuple[Violation, ...] = ()
    retry_delay: str = ""
    links: tuple[str, ...] = ()
    legacy_reasons: tuple[str, ...] = ()
    """``errors[].reason`` of the older error format ("rateLimitExceeded")."""

    @property
    def reasons(self) -> frozenset[str]:
        """Every ``ErrorInfo`` reason."""
        return frozenset(reason for reason, _ in self.infos)

    @property
    def word(self) -> str:
        """The most telling single word for logs."""
        first = next((reason for reason, _ in self.infos if reason), "")
        return first or self.status or next(iter(self.legacy_reasons), "")


STATUS_CODES = {
    "CANCELLED": 499,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""HTTP status of each ``google.rpc.Code`` (its ``code.proto``); the others are 500."""


def parse_body(status: int, body: bytes) -> GoogleError:
    """Return what the body of an HTTP answer with ``status`` says; never raises.

    Takes the array form of streaming endpoints, OAuth's flat form, and JSON with the stray commas
    and no-break spaces that Code Assist sends.
    """
    value = _loads(body)
    while isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        return GoogleError(status)
    error = value.get("error")
    if isinstance(error, str):  # {"error": "invalid_grant", "error_description": "..."}
        description = _text(value.get("error_description"))
        return GoogleError(status, description or error, error, google=True)
    if isinstance(error, dict):
        return parse_error(error, code=status)
    return GoogleError(status, _text(value.get("message")))


def parse_error(error: Mapping[str, Any], *, code: int = 0) -> GoogleError:
    """Return what an ``error`` object says; its own code counts only when ``code`` is 0."""
    status = _text(error.get("status"))
    if not code:
        own = str(error.get("code", ""))
        code = int(own) if own.isascii() and own.isdigit() and len(own) < 5 else 0
        code = code if code >= 100 else STATUS_CODES.get(status, 500)
    infos: list[tuple[str, Mapping[str, str]]] = []
    violations: list[Violation] = []
    links: list[str] = []
    delay = ""
    for detail in _objects(error.get("details")):
        kind = _text(detail.get("@type")).rpartition(".")[2]
        if kind == "ErrorInfo":
            metadata = detail.get("metadata")
            items = metadata.items() if isinstance(metadata, dict) else ()
            infos.append((_text(detail.get("reason")), {key: _text(text) for key, text in items}))
        elif kind == "QuotaFailure":
            violations += [
                Violation(
                    _text(item.get("quotaId")),
                    _text(item.get("quotaMetric")),
                    _text(item.get("quotaValue")),
                )
                for item in _objects(detail.get("violations"))
            ]
        elif kind == "RetryInfo":
            delay = _text(detail.get("retryDelay")) or delay
        elif kind == "Help":
            links += [_text(link.get("url")) for link in _objects(detail.get("links"))]
    return GoogleError(
        code,
        _text(error.get("message")),
        status,
        google=True,
        infos=tuple(infos),
        violations=tuple(violations),
        retry_delay=delay,
        links=tuple(link for link in links if link),
        legacy_reasons=tuple(_text(item.get("reason")) for item in _objects(error.get("errors"))),
    )


def _loads(body: bytes) -> Any:
    text = body.decode("utf-8", "replace")
    for candidate in (text, _STRAY_COMMAS.sub("", text.replace(_NO_BREAK_SPACE, " "))):
        try:
            return json.loads(candidate)
        except (ValueError, RecursionError):
            continue
    return None


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
