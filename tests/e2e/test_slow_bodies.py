"""Clients that send slowly, wrongly or too much: cut off in time, and nobody else's business."""

import json
import socket
import threading

import pytest
import requests

from tests.e2e.processes import GatewayProcess

BODY = json.dumps(
    {
        "model": "claude-sonnet-4-5",
        "max_tokens": 50,
        "messages": [{"role": "user", "content": "hello " * 2000}],
    }
).encode()


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A gateway that takes no more than `BODY`."""
    settings = {"GEMINI_API_KEYS": "", "MAX_REQUEST_BYTES": str(len(BODY))}
    with GatewayProcess(tmp_path_factory.mktemp("narrow"), **settings) as process:
        yield process


def begin(gateway, headers):
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=30)
    connection.sendall(
        b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        + headers
        + b"\r\n\r\n"
    )
    return connection


def answer_of(connection):
    text = b""
    while piece := connection.recv(65536):
        text += piece
    head, _, body = text.partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0], json.loads(body) if body else None


def test_a_body_that_trickles_is_cut_off(gateway):
    running = gateway(BODY_TIMEOUT="1")
    slow = begin(running, b"content-length: %d" % len(BODY))
    chunked = begin(running, b"transfer-encoding: chunked")
    stop = threading.Event()
    resets = []

    def trickle(connection, piece):
        try:
            while not stop.wait(0.02):
                connection.sendall(piece)
        except OSError as error:
            resets.append(error)

    threads = [
        threading.Thread(target=trickle, args=(slow, b"{")),
        threading.Thread(target=trickle, args=(chunked, b"1\r\n{\r\n")),
    ]
    for thread in threads:
        thread.start()
    try:
        assert requests.post(f"{running.url}/v1/messages", data=BODY, timeout=20).ok
        for connection in (slow, chunked):
            status, body = answer_of(connection)
            assert status == b"HTTP/1.1 408 REQUEST TIMEOUT"
            assert body["error"] == {
                "type": "timeout_error",
                "message": "The request body took too long to arrive.",
            }
            assert resets == []
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        slow.close()
        chunked.close()
    assert "Traceback" not in running.output


@pytest.mark.parametrize("framing", [b"content-length: 20000000", b"transfer-encoding: chunked"])
def test_who_sends_too_much_on_a_connections_last_request_gets_the_answer_and_no_reset(
    narrow, framing
):
    connection = begin(narrow, framing + b"\r\nconnection: close")
    if b"chunked" in framing:
        connection.sendall(b"%x\r\n" % 20_000_000)
    for _ in range(200):
        connection.sendall(b" " * 100_000)
    status, body = answer_of(connection)
    assert status == b"HTTP/1.1 413 REQUEST ENTITY TOO LARGE"
    assert body["error"]["type"] == "request_too_large"
    connection.close()


def test_a_body_that_is_cut_short_is_refused(plain):
    connection = begin(plain, b"content-length: %d" % len(BODY))
    connection.sendall(BODY[:1000])
    connection.shutdown(socket.SHUT_WR)
    status, body = answer_of(connection)
    assert status == b"HTTP/1.1 400 BAD REQUEST"
    assert body["error"]["message"] == "The request body is cut short."
    connection.close()
    assert "Traceback" not in plain.output


@pytest.mark.parametrize(
    "wrong", [b"zz\r\n{}\r\n", b"-5\r\n{}\r\n", b"2\r\n{}{}\r\n0\r\n\r\n", b"2;\n\r\n{}\r\n"]
)
def test_a_body_that_is_wrongly_chunked_is_the_clients_fault_and_ends_the_connection(plain, wrong):
    connection = begin(plain, b"transfer-encoding: chunked")
    connection.sendall(wrong + b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    status, body = answer_of(connection)
    assert status == b"HTTP/1.1 400 BAD REQUEST"
    assert body["error"] == {
        "type": "invalid_request_error",
        "message": "The request body is not valid chunked encoding.",
    }
    connection.close()
    assert "Traceback" not in plain.output


def test_a_chunked_body_that_is_cut_short_is_refused(plain):
    connection = begin(plain, b"transfer-encoding: chunked\r\nconnection: close")
    connection.sendall(b"ffff\r\n" + BODY[:1000])
    connection.shutdown(socket.SHUT_WR)
    status, body = answer_of(connection)
    assert status == b"HTTP/1.1 400 BAD REQUEST"
    assert body["error"]["message"] == "The request body is cut short."
    connection.close()


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 413), (50_000_000, 413)])
def test_a_chunked_body_that_is_too_large_is_not_taken_for_its_beginning(narrow, more, status):
    pieces = (b" " * min(65536, more - at) for at in range(0, more, 65536))
    answer = requests.post(
        f"{narrow.url}/v1/messages",
        data=(piece for piece in (BODY, *pieces)),
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == status, answer.text
    if status == 413:
        assert answer.json()["error"]["type"] == "request_too_large"
