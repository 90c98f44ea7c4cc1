"""Whether traces are wanted; OpenTelemetry is imported only then."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.ops.spans import Tracing

log = logging.getLogger("gateway.tracing")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
EXPORTER = "OTEL_TRACES_EXPORTER"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
_DEFAULTS = {
    # The names of HTTP attributes that are stable by now.
    "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
    # Headers are captured only on demand; keys in them never.
    "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS": (
        ".*api-key.*,.*authorization.*,.*cookie.*,.*token.*,.*secret.*"
    ),
}


def wanted(environ: Mapping[str, str]) -> bool:
    """Tell whether OpenTelemetry's own variables ask for traces.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environ.get(EXPORTER, "").strip().lower()
    if exporter:
        return exporter != "none"
    return any(environ.get(name) for name in ENDPOINTS)


def open_tracing(
    environ: Mapping[str, str], kinds: Callable[[], Mapping[str, str]]
) -> Tracing | None:
    """Return what makes spans, None when they are not wanted or can't be made.

    ``environ`` are the settings' variables, those of ``.env`` included; ``kinds`` returns the kind
    of each account by its name.
    """
    if not wanted(environ):
        return None
    try:
        from app.ops.spans import Tracing, provider  # noqa: PLC0415 - who traces pays for it
    except ImportError as error:
        log.warning(
            "no traces: OTEL_… asks for them, but OpenTelemetry is not installed (%s): "
            "pip install '.[otel]' in the gateway's folder",
            error.name,
        )
        return None
    for name in _PROTOCOLS:
        protocol = environ.get(name, "").strip()
        if protocol not in ("", "http/protobuf"):
            log.warning("%s=%s is not spoken here: traces go out as http/protobuf", name, protocol)
    # OpenTelemetry reads the process' environment only.
    for name, value in environ.items():
        if name.startswith("OTEL_"):
            os.environ.setdefault(name, value)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    return Tracing(provider(environ.get(EXPORTER, "").strip().lower()), kinds)
