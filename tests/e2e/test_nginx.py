"""The shipped nginx file in front of a live gateway: nothing held back, nothing lost."""

from __future__ import annotations

import json
import os
import queue
import re
import socket
import subprocess
import threading
import time
from types import SimpleNamespace

import pytest
import requests

from app.config import Settings
from app.ops.worker import LINGER
from app.simulator.server import Simulator
from tests.backend.raw_servers import chunk, serving, sse, text_chunk
from tests.e2e.nginx_server import SHIPPED, NginxServer, program
from tests.e2e.processes import GatewayProcess

MODEL = "claude-sonnet-5"
ASK = {
    "model": MODEL,
    "max_tokens": 200,
    "stream": True,
    "messages": [{"role": "user", "content": "hello"}],
}
FINISH = {
    "candidates": [{"content": {"role": "model", "parts": []}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 5},
}


class GatedUpstream:
    """A Gemini whose every next chunk leaves only when the test says so."""

    def __init__(self):
        self.steps = queue.Queue()
        self.asked = threading.Event()
        self.gone = threading.Event()

    def __call__(self, visit):
        line, _, _ = visit.request()
        if "streamGenerateContent" not in line:
            visit.answer({"models": []}, extra="connection: close\r\n")
            return
        self.asked.set()
        visit.chunked(end=False)
        threading.Thread(target=self._watch, args=(visit,), daemon=True).start()
        while (step := self.steps.get()) is not None:
            visit.send(chunk(sse(step)))
        visit.send(b"0\r\n\r\n")

    def _watch(self, visit):
        visit.wait_for_hangup()
        self.gone.set()
        self.steps.put(None)


ACCOUNTS = """
[[account]]
name = "gated"
kind = "api_key"
api_key = "gated"
models = ["gemini-gated"]
base_url = "{gated}"

[[account]]
name = "simulated"
kind = "api_key"
api_key = "key-a"
models = ["gemini-simulated"]
base_url = "{simulated}"
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(nginx, gateway, simulator, what holds the gated upstream), shared by the tests here.

    All figures are scaled down, so that what holds a second here holds minutes as shipped.
    """
    folder = tmp_path_factory.mktemp("nginx")
    simulator = Simulator(pace=0.0)
    current = SimpleNamespace(upstream=GatedUpstream())
    with (
        serving(lambda visit: current.upstream(visit)) as gemini,  # noqa: PLW0108
        GatewayProcess(
            folder,
            ACCOUNTS_TOML=ACCOUNTS.format(gated=gemini.url, simulated=simulator.start()),
            MODEL_ALIASES="claude-gated=gemini-gated,claude-*=gemini-simulated",
            KEEPALIVE_INTERVAL="0.2",
            MAX_REQUEST_BYTES="100000",
            REQUEST_RETRY="0",
        ) as gateway,
        NginxServer(
            folder,
            [gateway.port],
            {"proxy_read_timeout 660s;": "proxy_read_timeout 1s;", "allow 127.0.0.1;": ""},
        ) as nginx,
    ):
        yield nginx, gateway, simulator, current
    simulator.stop()


@pytest.fixture
def gated(world):
    """A fresh `GatedUpstream` behind the model ``claude-gated``."""
    world[3].upstream = GatedUpstream()
    return world[3].upstream


def ask(nginx, model=MODEL, **options):
    body = {**ASK, "model": model}
    return requests.post(f"{nginx.url}/v1/messages", json=body, stream=True, **options)


def data_lines(answer):
    for line in answer.iter_lines(chunk_size=1):
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


def text_of(events):
    return "".join(
        event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta"
    )


def check(file):
    done = subprocess.run(
        [program(), "-t", "-e", str(file.parent / "check.log"), "-c", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "test is successful" in done.stderr


def test_the_shipped_file_is_valid(tmp_path):
    if os.geteuid() == 0:
        file = tmp_path / "nginx.conf"
        file.write_bytes(SHIPPED.read_bytes())
    else:  # only root may open its log and its port
        file = NginxServer(tmp_path, [8080]).file
    check(file)


def seconds(directive):
    (value,) = re.findall(rf"^\s*{directive} (\d+)s;", SHIPPED.read_text(), re.M)
    return int(value)


def test_its_figures_fit_the_gateways():
    defaults = Settings()
    assert seconds("proxy_read_timeout") > defaults.read_timeout
    assert seconds("worker_shutdown_timeout") > defaults.read_timeout
    assert seconds("proxy_read_timeout") > 60 < seconds("send_timeout")
    (idle,) = re.findall(r"upstream \w+ \{.*?keepalive_timeout (\d+)s;", SHIPPED.read_text(), re.S)
    assert int(idle) < LINGER
    (size,) = re.findall(r"client_max_body_size (\d+)m;", SHIPPED.read_text())
    assert 0 < int(size) * 2**20 - defaults.max_request_bytes <= 2**20


def test_each_event_is_through_before_the_next_is_made(world, gated):
    nginx, *_ = world
    words = [f"word-{number} " for number in range(8)]
    gated.steps.put(text_chunk(words[0]))
    # Every encoding that clients offer: none may be used, since compression holds back.
    encodings = {"accept-encoding": "gzip, deflate, br"}
    answer = ask(nginx, "claude-gated", headers=encodings, timeout=30)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "content-encoding" not in answer.headers
    assert answer.headers["request-id"].startswith("req_")
    events = data_lines(answer)
    seen = []
    for count, word in enumerate(words[1:], 1):
        while text_of(seen) != "".join(words[:count]):
            seen.append(next(events))
        gated.steps.put(text_chunk(word))
    gated.steps.put(FINISH)
    gated.steps.put(None)
    seen += events
    assert text_of(seen) == "".join(words)
    assert seen[-1] == {"type": "message_stop"}


def test_keepalives_hold_a_silence_that_would_outlast_nginx(world, gated):
    nginx, *_ = world
    began = time.monotonic()
    answer = ask(nginx, "claude-gated", timeout=30)
    lines = answer.iter_lines(chunk_size=1)
    while time.monotonic() - began < 2.5:  # nginx waits for 1 s
        assert next(lines) in (b": keep-alive", b"")
    for step in (text_chunk("at last"), FINISH, None):
        gated.steps.put(step)
    assert list(lines)[-2:] == [b'data: {"type":"message_stop"}', b""]
    assert "timed out" not in nginx.errors


@pytest.mark.timeout(150)
def test_the_shipped_figures_hold_a_minute_of_silence(tmp_path):
    gated = GatedUpstream()
    steps = (text_chunk("at last"), FINISH, None)
    with (
        serving(gated) as gemini,
        GatewayProcess(tmp_path, GEMINI_API_KEYS="a", GEMINI_BASE_URL=gemini.url) as gateway,
        NginxServer(tmp_path, [gateway.port]) as nginx,
    ):
        began = time.monotonic()
        threading.Timer(65, lambda: [gated.steps.put(step) for step in steps]).start()
        body = ask(nginx, timeout=120).content.decode()
        assert time.monotonic() - began > 64
    assert body.count(": keep-alive\n\n") >= 5
    assert body.endswith('data: {"type":"message_stop"}\n\n')


def test_a_client_that_leaves_is_gone_from_the_upstream_too(world, gated):
    nginx, gateway, *_ = world
    gated.steps.put(text_chunk("hello "))
    answer = ask(nginx, "claude-gated", timeout=30)
    assert next(data_lines(answer))["type"] == "message_start"
    left = time.monotonic()
    answer.close()
    assert gated.gone.wait(20)
    # Within a second as measured on an idle machine; the rest is for a busy one.
    assert time.monotonic() - left < 5
    gateway.wait_for_line(re.compile("client gone"))


def test_a_client_that_leaves_before_any_answer_is_gone_too(world, gated):
    nginx, gateway, *_ = world
    body = json.dumps({**ASK, "model": "claude-gated"}).encode()
    with socket.create_connection(("127.0.0.1", nginx.port)) as connection:
        head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        assert gated.asked.wait(20)
    assert gated.gone.wait(20)
    gateway.wait_for_line(re.compile("client gone"))


def test_what_is_too_large_is_refused_in_the_envelope_by_whoever_refuses_it(world):
    nginx, *_ = world
    by_gateway = requests.post(f"{nginx.url}/v1/messages", data=b"x" * 100_001)
    by_nginx = requests.post(f"{nginx.url}/v1/messages", data=b"x" * 40_000_000)
    for answer, message in (
        (by_gateway, "Request exceeds the maximum size of 100000 bytes."),
        (by_nginx, "The request is larger than this server takes."),
    ):
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == {
            "type": "error",
            "error": {"type": "request_too_large", "message": message},
            "request_id": answer.headers["request-id"],
        }


def test_the_gateways_own_errors_pass_untouched(world):
    nginx, _, simulator, _ = world
    for fault, status, kind in (("500", 502, "api_error"), ("503", 529, "overloaded_error")):
        simulator.script("key-a", [fault])
        answer = ask(nginx)
        assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)
        assert "just being restarted" not in answer.text


def test_inside_pages_are_not_there_for_others(world):
    nginx, *_ = world
    for path in ("/admin/", "/admin", "/metrics", "/admin/api/accounts"):
        answer = requests.get(f"{nginx.url}{path}", allow_redirects=False)
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")
    assert requests.get(f"{nginx.url}/readyz").status_code == 200


def test_a_gateway_that_is_not_there_is_a_clean_503(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        nobody = probe.getsockname()[1]
    with NginxServer(tmp_path, [nobody]) as nginx:
        answer = ask(nginx)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["error"]["type"] == "overloaded_error"
        assert answer.json()["request_id"] == answer.headers["request-id"]


def test_bytes_that_are_not_http_get_the_envelope_from_nginx_too(tmp_path):
    with NginxServer(tmp_path, [1]) as nginx:
        for garbage in (b"NONSENSE\r\n\r\n", b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"y" * 300_000):
            with socket.create_connection(("127.0.0.1", nginx.port)) as connection:
                connection.sendall(garbage)
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
            body = json.loads(answer.partition(b"\r\n\r\n")[2])
            assert body["error"]["type"] == "invalid_request_error"


def test_the_tls_example_works_as_uncommented(tmp_path):
    key, certificate = tmp_path / "privkey.pem", tmp_path / "fullchain.pem"
    self_signed(key, certificate)
    nginx = NginxServer(tmp_path, [8080])
    text = nginx.file.read_text().replace("#~ ", "").replace("/etc/ssl/gateway", str(tmp_path))
    nginx.file.write_text(text.replace("listen 443 ", f"listen 127.0.0.1:{nginx.port + 1} "))
    check(nginx.file)


def self_signed(key_file, certificate_file):
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
