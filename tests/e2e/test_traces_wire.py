"""A real worker sends its spans to an OTLP collector, and the last ones when it ends."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from tests.services import missing

try:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
        ExportTraceServiceResponse,
    )
except ImportError:
    missing("the extra otel")

BODY = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 500,
    "stream": True,
    "messages": [{"role": "user", "content": "hello"}],
}
SERVER, CLIENT = 2, 3
"""``Span.SpanKind`` of the protocol."""


class Collector:
    """Takes ``POST /v1/traces``, keeps what came."""

    def __init__(self):
        self.requests = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                data = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    data = gzip.decompress(data)
                outer.requests.append((self.path, dict(self.headers), data))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def resources(self):
        """(resource attributes, spans) of all that came."""
        for _, _, data in self.requests:
            for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
                spans = [span for scope in resource.scope_spans for span in scope.spans]
                yield attributes(resource.resource), spans


def attributes(thing):
    return {one.key: one.value.string_value or one.value.int_value for one in thing.attributes}


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.server.shutdown()


def test_spans_arrive_from_every_worker_and_at_its_end(gateway, simulator, collector, tmp_path):
    # As written in .env, and too late for any batch but the one at the end.
    (tmp_path / ".env").write_text(
        f"OTEL_EXPORTER_OTLP_ENDPOINT={collector.url}\n"
        "OTEL_EXPORTER_OTLP_HEADERS=x-collector-key=of-the-collector\n"
        "OTEL_BSP_SCHEDULE_DELAY=600000\n"
        "OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=test\n"
    )
    running = gateway(GEMINI_API_KEYS="secret-a,secret-b", WEB_CONCURRENCY="2", DRAIN_TIMEOUT="0.2")
    simulator.script("secret-a", ["429-minute"])
    ids = set()
    for _ in range(12):
        answer = requests.post(f"{running.url}/v1/messages", json=BODY, timeout=30)
        assert b"message_stop" in answer.content
        ids.add(answer.headers["request-id"])
    assert collector.requests == []
    running.terminate()
    assert running.wait() == 0
    assert {path for path, _, _ in collector.requests} == {"/v1/traces"}
    assert {headers["x-collector-key"] for _, headers, _ in collector.requests} == {
        "of-the-collector"
    }
    found = list(collector.resources())
    for resource, _ in found:
        assert resource["service.name"] == "claude-gateway"
        assert resource["deployment.environment.name"] == "test"
    spans = [span for _, batch in found for span in batch]
    servers = {span.span_id: span for span in spans if span.kind == SERVER}
    attempts = [span for span in spans if span.kind == CLIENT]
    assert len(servers) + len(attempts) == len(spans)
    assert {attributes(span)["gateway.request_id"] for span in servers.values()} == ids
    assert len(attempts) == 13
    for span in attempts:
        server = servers[span.parent_span_id]
        assert span.trace_id == server.trace_id
        told = attributes(span)
        assert told["gateway.request_id"] == attributes(server)["gateway.request_id"]
        assert told["gen_ai.request.model"] == "gemini-3.8-flash"
    codes = [attributes(span)["http.response.status_code"] for span in attempts]
    assert sorted(codes) == [200] * 12 + [429]
    assert not any(b"secret" in data for _, _, data in collector.requests)
    assert "of-the-collector" not in running.output


def test_no_collector_costs_no_request(gateway):
    running = gateway(
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
        OTEL_BSP_SCHEDULE_DELAY="50",
    )
    for _ in range(3):
        answer = requests.post(f"{running.url}/v1/messages", json=BODY, timeout=30)
        assert b"message_stop" in answer.content
