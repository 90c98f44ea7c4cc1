"""Clients that read slowly, or not at all."""

import json
import socket
import threading

import requests

from tests.backend.raw_servers import chunk, serving, sse, text_chunk
from tests.e2e.processes import ROOT, GatewayProcess

BODY = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 100,
    "stream": True,
    "messages": [{"role": "user", "content": "go"}],
}
END = {"candidates": [{"finishReason": "STOP"}]}
SECOND_ANSWER = sse(text_chunk("served"), END)


class Impatient(GatewayProcess):
    command = ("-c", str(ROOT / "gunicorn.conf.py"), "tests.e2e.impatient:app")


def ask_and_read_nothing(gateway):
    """Send a request over a connection that has hardly room for an answer; returns it."""
    connection = socket.socket()
    connection.settimeout(30)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    connection.connect(("127.0.0.1", gateway.port))
    body = json.dumps(BODY).encode()
    connection.sendall(
        b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % len(body) + body
    )
    return connection


def test_who_takes_nothing_at_all_does_not_hold_an_account_for_ever(tmp_path):
    begun, left = threading.Event(), threading.Event()

    def handle(visit):
        line, _, _ = visit.request()
        if "streamGenerateContent" not in line:
            visit.answer({"models": []}, extra="connection: close\r\n")
        elif begun.is_set():
            visit.chunked(SECOND_ANSWER)
        else:
            begun.set()
            visit.chunked(end=False)
            event = chunk(sse(text_chunk("x" * 50_000)))
            try:
                while True:
                    visit.send(event)
            finally:
                left.set()

    with (
        serving(handle) as upstream,
        Impatient(
            tmp_path,
            ACCOUNTS_TOML='[[account]]\nname = "a"\nkind = "api_key"\napi_key = "a"\n'
            f'concurrency = 1\nbase_url = "{upstream.url}"\n',
        ) as gateway,
        ask_and_read_nothing(gateway),
    ):
        assert begun.wait(10)
        # There is one seat: this waits for it, and gets it.
        answer = requests.post(f"{gateway.url}/v1/messages", json=BODY, timeout=20)
        assert '"text":"served"' in answer.text
        assert left.wait(10)
    assert "Traceback" not in gateway.output
    assert "client gone" in gateway.output
