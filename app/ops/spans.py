"""Spans: one for each request of the API, and in it one for each attempt.

Names and attributes of attempts follow the GenAI semantic conventions, those of requests the HTTP
ones: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/. No prompt, no answer and no
credential is in any of them. Needs the extra ``otel``.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, g, request
from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode

if TYPE_CHECKING:
    from app.api.record import RequestRecord
    from app.relay.trace import AttemptRecord

log = logging.getLogger("gateway.tracing")

SERVICE = "claude-gateway"
TRACED = "/v1/"
"""Only the API: health checks, scrapes and the dashboard's own requests would drown it."""
_PROVIDERS = {"vertex": "gcp.vertex_ai", "code_assist": "gcp.gen_ai"}
"""By kind of account; all others are asked through the Gemini API."""
_COUNTING = "/v1/messages/count_tokens"


def provider(exporter: str) -> trace.TracerProvider:
    """Return the process' provider of tracers; ``exporter`` is ``otlp``, ``console`` or "".

    One that is there already, as under ``opentelemetry-instrument``, is used as it is. Ours starts
    a thread, so it is made in each worker, after the fork; it sends what is left at the exit.
    """
    present = trace.get_tracer_provider()
    if not isinstance(present, trace.ProxyTracerProvider):
        return present
    if exporter not in ("", "otlp", "console"):
        log.warning("OTEL_TRACES_EXPORTER=%s is not known here; otlp is used", exporter)
    from app import __version__  # noqa: PLC0415 - the package imports this module

    own = {"service.version": __version__}
    named = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if not os.environ.get("OTEL_SERVICE_NAME") and "service.name=" not in named:
        own["service.name"] = SERVICE
    made = TracerProvider(resource=Resource.create(own))
    target = ConsoleSpanExporter() if exporter == "console" else OTLPSpanExporter()
    made.add_span_processor(BatchSpanProcessor(target))
    trace.set_tracer_provider(made)
    return made


class Tracing:
    """A listener of the recorder that makes the attempts' spans, in the request's own one."""

    def __init__(
        self, tracers: trace.TracerProvider, kinds: Callable[[], Mapping[str, str]]
    ) -> None:
        self._provider = tracers
        self._tracer = tracers.get_tracer("claude-gateway")
        self._kinds = kinds
        self._parents: dict[RequestRecord, context.Context] = {}

    def install(self, app: Flask) -> None:
        """Have ``app`` make a span for each request of the API, open until its last byte."""
        plain = app.wsgi_app
        traced = OpenTelemetryMiddleware(plain, tracer_provider=self._provider)

        def wsgi_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            inside = environ.get("PATH_INFO", "").startswith(TRACED)
            return (traced if inside else plain)(environ, start_response)

        app.wsgi_app = wsgi_app  # type: ignore[method-assign]

        @app.after_request
        def _name(response: Response) -> Response:
            span = trace.get_current_span()
            if span.is_recording():
                route = request.url_rule.rule if request.url_rule else ""
                span.update_name(f"{request.method} {route}".rstrip())
                if route:
                    span.set_attribute("http.route", route)
                span.set_attribute("gateway.request_id", g.request_id)
            return response

    def started(self, record: RequestRecord) -> None:
        """Remember the span that the attempts will be children of."""
        self._parents[record] = context.get_current()

    def finished(self, record: RequestRecord, fields: Mapping[str, Any]) -> None:
        """Make the spans of the attempts, with the times that they had."""
        parent = self._parents.pop(record, None)
        span = trace.get_current_span(parent)
        if not span.get_span_context().trace_flags.sampled:
            return
        if span.is_recording():
            span.set_attributes(_known(_about_request(fields)))
            if fields["status"] >= 500:  # also behind a 200 that was sent already
                span.set_status(Status(StatusCode.ERROR, fields["outcome"]))
        kinds = self._kinds()
        to_wall = time.time_ns() - time.monotonic_ns()
        for attempt in record.trace.attempts:
            self._attempt(attempt, record, fields, parent=parent, kinds=kinds, to_wall=to_wall)

    def _attempt(
        self,
        attempt: AttemptRecord,
        record: RequestRecord,
        fields: Mapping[str, Any],
        *,
        parent: context.Context | None,
        kinds: Mapping[str, str],
        to_wall: int,
    ) -> None:
        operation = "count_tokens" if fields["path"] == _COUNTING else "generate_content"
        begin = int(attempt.started * 1e9) + to_wall
        attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": _PROVIDERS.get(kinds.get(attempt.account, ""), "gcp.gemini"),
            "gen_ai.request.model": fields["upstream_model"],
            "gen_ai.request.stream": fields["stream"],
            "gateway.request_id": fields["request_id"],
            "gateway.account": attempt.account,
            "gateway.project": attempt.project,
            "gateway.attempt.outcome": attempt.outcome,
            "http.response.status_code": attempt.status or None,
            **_first_chunk(attempt, record),
        }
        if attempt.outcome == "ok":
            attributes |= _about_answer(fields)
        elif attempt.outcome != "hung up":
            attributes["error.type"] = str(attempt.status or attempt.outcome)
        made = self._tracer.start_span(
            f"{operation} {fields['upstream_model']}",
            context=parent,
            kind=SpanKind.CLIENT,
            attributes=_known(attributes),
            start_time=begin,
        )
        if "error.type" in attributes:
            made.set_status(Status(StatusCode.ERROR, attempt.outcome))
        # Milliseconds may be rounded up: it has ended by now all the same, before its request.
        made.end(min(begin + attempt.ms * 1_000_000, time.monotonic_ns() + to_wall))


def _about_request(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "gateway.request_id": fields["request_id"],
        "gateway.client": fields["client"],
        "gateway.outcome": fields["outcome"],
        "gateway.requested_model": fields["model"],
    }


def _about_answer(fields: Mapping[str, Any]) -> dict[str, Any]:
    plain, cached = fields["input_tokens"], fields["cache_read_input_tokens"]
    return {
        "gen_ai.response.model": fields["served_model"],
        "gen_ai.response.finish_reasons": [fields["stop_reason"]]
        if fields["stop_reason"]
        else None,
        # The convention counts cached tokens in, Anthropic's field does not.
        "gen_ai.usage.input_tokens": None if plain is None else plain + (cached or 0),
        "gen_ai.usage.cache_read.input_tokens": cached,
        "gen_ai.usage.output_tokens": fields["output_tokens"],
    }


def _first_chunk(attempt: AttemptRecord, record: RequestRecord) -> dict[str, float]:
    """Return seconds to the first event, if it came in this attempt and is one of a stream."""
    first = record.trace.first_event_ms
    if first is None or not record.stream:
        return {}
    seconds = record.trace.started + first / 1000 - attempt.started
    if not 0 <= seconds <= (attempt.ms + 1) / 1000:
        return {}
    return {"gen_ai.response.time_to_first_chunk": round(seconds, 3)}


def _known(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what has a value: absent is what is not known, not empty."""
    return {name: value for name, value in attributes.items() if value not in (None, "")}
