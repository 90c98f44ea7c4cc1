"""Spans of requests and attempts: their tree, names, attributes and times."""

import importlib
import logging
import sys

import pytest

from app import create_app
from app.config import load_settings
from app.ops import tracing
from app.relay.trace import AttemptRecord
from app.simulator.server import Simulator
from tests.services import missing

try:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace import SpanKind, StatusCode
except ImportError:
    missing("the extra otel")

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


@pytest.fixture(scope="module")
def exporter():
    """What the process' provider exports to, as under ``opentelemetry-instrument``."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def simulator():
    simulator = Simulator(pace=0.0, cache_threshold=1)
    simulator.start()
    yield simulator
    simulator.stop()


@pytest.fixture
def client(tmp_path, simulator, exporter, monkeypatch):
    exporter.clear()
    for name, value in (*ENDPOINT.items(), *tracing._DEFAULTS.items()):
        monkeypatch.setenv(name, value)  # so that they are taken back
    environ = {
        **ENDPOINT,
        "GEMINI_API_KEYS": "secret-a,secret-b",
        "GEMINI_BASE_URL": simulator.base_url,
        "STATE_URL": "memory://",
        "ROTATION": "fill_first",
        "REQUEST_RETRY": "1",
        "CLIENT_API_KEYS": "secret-client",
    }
    app = create_app(load_settings(environ, root=tmp_path))
    return app.test_client()


def post(client, path="/v1/messages", text="hello", headers=None, **more):
    body = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": text}], **more}
    if path == "/v1/messages":
        body["max_tokens"] = 500
    headers = {"x-api-key": "secret-client", **(headers or {})}
    return client.post(path, json=body, headers=headers, buffered=not more.get("stream"))


def spans(exporter):
    """The request's span, and its attempts in the order of their beginnings."""
    found = exporter.get_finished_spans()
    (server,) = [span for span in found if span.kind is SpanKind.SERVER]
    attempts = sorted(
        (span for span in found if span is not server), key=lambda span: span.start_time
    )
    for span in attempts:
        assert span.parent.span_id == server.context.span_id
        assert server.start_time <= span.start_time <= span.end_time <= server.end_time
    return server, attempts


def test_a_streamed_answer_after_a_failover(client, simulator, exporter):
    simulator.script("secret-a", ["503"])
    answer = post(client, stream=True)
    pieces = answer.iter_encoded()
    text = next(pieces)
    assert exporter.get_finished_spans() == ()  # open until the stream ends
    text += b"".join(pieces)
    answer.close()
    server, (failed, served) = spans(exporter)
    request_id = answer.headers["request-id"]
    assert b"message_stop" in text

    assert server.name == "POST /v1/messages"
    assert dict(server.attributes) | {
        "http.request.method": "POST",
        "http.route": "/v1/messages",
        "http.response.status_code": 200,
        "gateway.request_id": request_id,
        "gateway.outcome": "ok",
        "gateway.requested_model": "claude-sonnet-4-5",
    } == dict(server.attributes)
    assert server.status.status_code is not StatusCode.ERROR

    about = {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "gcp.gemini",
        "gen_ai.request.model": "gemini-3.8-flash",
        "gen_ai.request.stream": True,
        "gateway.request_id": request_id,
    }
    assert failed.name == served.name == "generate_content gemini-3.8-flash"
    assert failed.kind is served.kind is SpanKind.CLIENT
    outcome = failed.attributes["gateway.attempt.outcome"]
    assert dict(failed.attributes) == {
        **about,
        "gateway.account": "key-1",
        "gateway.attempt.outcome": outcome,
        "http.response.status_code": 503,
        "error.type": "503",
    }
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.status.description == outcome
    got = dict(served.attributes)
    first = got.pop("gen_ai.response.time_to_first_chunk")
    assert 0 <= first <= (served.end_time - served.start_time) / 1e9 + 0.01
    tokens = {name: got.pop(name) for name in list(got) if name.startswith("gen_ai.usage.")}
    assert got == {
        **about,
        "gateway.account": "key-2",
        "gateway.attempt.outcome": "ok",
        "http.response.status_code": 200,
        "gen_ai.response.model": "gemini-3.8-flash",
        "gen_ai.response.finish_reasons": ("end_turn",),
    }
    assert set(tokens) == {
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.output_tokens",
    }
    assert served.status.status_code is StatusCode.UNSET
    assert "secret" not in "".join(span.to_json() for span in exporter.get_finished_spans())


def test_an_attempt_whose_milliseconds_are_rounded_up_ends_within_its_request(
    client, exporter, monkeypatch
):
    end = AttemptRecord.end

    def end_rounded(self, *args):
        end(self, *args)
        self.ms += 1000

    monkeypatch.setattr(AttemptRecord, "end", end_rounded)
    post(client)
    spans(exporter)


def test_cached_tokens_are_counted_in(client, exporter):
    post(client, text="a long text to keep " * 50)
    exporter.clear()
    usage = post(client, text="a long text to keep " * 50).json["usage"]
    _, (served,) = spans(exporter)
    assert usage["cache_read_input_tokens"] > 0
    assert (
        served.attributes["gen_ai.usage.cache_read.input_tokens"]
        == (usage["cache_read_input_tokens"])
    )
    assert served.attributes["gen_ai.usage.input_tokens"] == (
        usage["input_tokens"] + usage["cache_read_input_tokens"]
    )
    assert served.attributes["gen_ai.usage.output_tokens"] == usage["output_tokens"]
    assert "gen_ai.response.time_to_first_chunk" not in served.attributes


def test_a_failed_request(client, simulator, exporter):
    simulator.script("secret-a", ["500"])
    simulator.script("secret-b", ["reset"])
    assert post(client).status_code == 502
    server, attempts = spans(exporter)
    assert server.attributes["gateway.outcome"] == "broken"
    assert server.status.status_code is StatusCode.ERROR
    assert [span.attributes["error.type"] for span in attempts] == [
        "500", attempts[1].attributes["gateway.attempt.outcome"],
    ]  # fmt: skip


def test_an_error_behind_a_committed_status(client, simulator, exporter):
    simulator.script("secret-a", ["cut-2"])
    answer = post(client, stream=True)
    assert b"event: error" in answer.data
    answer.close()
    server, _ = spans(exporter)
    assert server.attributes["http.response.status_code"] == 200
    assert server.attributes["gateway.outcome"] == "broken"
    assert (server.status.status_code, server.status.description) == (StatusCode.ERROR, "broken")


def test_counting_tokens_and_the_callers_trace(client, exporter):
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    parent = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    assert post(client, "/v1/messages/count_tokens", headers=parent).status_code == 200
    server, (attempt,) = spans(exporter)
    assert f"{server.context.trace_id:032x}" == trace_id
    assert attempt.name == "count_tokens gemini-3.8-flash"
    assert attempt.attributes["gen_ai.operation.name"] == "count_tokens"


def test_requests_without_attempts_and_those_that_are_not_traced(client, exporter):
    headers = {"x-api-key": "secret-client"}
    assert client.get("/v1/models/nothing-like-it", headers=headers).status_code == 404
    server, attempts = spans(exporter)
    assert (server.name, attempts) == ("GET /v1/models/<path:model_id>", [])
    exporter.clear()
    for path in ("/healthz", "/readyz", "/metrics", "/admin/"):
        client.get(path)
    unsampled = {"traceparent": f"00-{1:032x}-{1:016x}-00"}
    assert post(client, headers=unsampled).status_code == 200
    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize(
    ("environ", "answer"),
    [
        ({}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
    ],
)
def test_when_traces_are_wanted(environ, answer):
    assert tracing.wanted(environ) is answer


def test_without_the_extra_it_serves_and_says_what_is_missing(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "app.ops.spans", raising=False)
    with caplog.at_level(logging.WARNING):
        assert tracing.open_tracing(ENDPOINT, dict) is None
    assert "pip install '.[otel]'" in caplog.text
    monkeypatch.undo()
    importlib.import_module("app.ops.spans")
