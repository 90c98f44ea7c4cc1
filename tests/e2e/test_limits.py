"""docs/limits.md at its edges: what is allowed passes, one more is refused in the page's words."""

import gzip
import json
import re
import socket

import pytest

from app import create_app
from app.config import load_settings
from tests.e2e.processes import ROOT

PAGE = (ROOT / "docs" / "limits.md").read_text()
MIB = 1 << 20
USER = {"role": "user", "content": "hello"}
TEXT = {"type": "text", "text": "a"}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A gateway on its own simulator, asked in this process."""
    settings = load_settings({"STATE_URL": "memory://"}, root=tmp_path_factory.mktemp("limits"))
    return create_app(settings).test_client()


def count(client, **body):
    """The status and the message of a count of ``body``; counting says the same as answering."""
    request = {"model": "gemini-3.8-flash", "messages": [USER], **body}
    answer = client.post("/v1/messages/count_tokens", json=request)
    assert answer.headers["request-id"].startswith("req_")
    return answer.status_code, answer.json.get("error", {}).get("message", "")


def tool(number=0, **schema):
    return {"name": f"tool_{number}", "input_schema": {"type": "object", **schema}}


def nested(levels):
    value = []
    for _ in range(levels - 1):
        value = [value]
    return value


def sized(size):
    """A tool whose schema has ``size`` bytes of JSON."""
    empty = len(json.dumps(tool(title="")["input_schema"], separators=(",", ":")))
    return tool(title="x" * (size - empty))


CASES = {
    "nesting": (
        {"metadata": {"x": nested(198)}},
        {"metadata": {"x": nested(199)}},
        "The request body is nested more than 200 levels deep",
    ),
    "messages": (
        {"messages": [USER] * 100_000},
        {"messages": [USER] * 100_001},
        "messages: at most 100000 messages are allowed",
    ),
    "blocks": (
        {"messages": [{"role": "user", "content": [TEXT] * 100_000}]},
        {"messages": [{"role": "user", "content": [TEXT] * 100_001}]},
        "messages.0.content: at most 100000 content blocks are allowed",
    ),
    "tools": (
        {"tools": [{**tool(number), "defer_loading": True} for number in range(10_000)]},
        {"tools": [{**tool(number), "defer_loading": True} for number in range(10_001)]},
        "tools: at most 10000 tools are allowed",
    ),
    "declared": (
        {"tools": [tool(number) for number in range(512)]},
        {"tools": [tool(number) for number in range(513)]},
        "tools: Gemini takes at most 512 tools at a time; defer some of them",
    ),
    "schema": (
        {"tools": [sized(MIB)]},
        {"tools": [sized(MIB + 1)]},
        "tools.0.input_schema: at most 1048576 bytes of JSON are allowed",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_most_passes_and_one_more_is_refused(client, name):
    most, more, message = CASES[name]
    assert count(client, **most) == (200, "")
    assert count(client, **more) == (400, message)
    assert f"400 `{message}`" in PAGE


@pytest.mark.parametrize("zipped", [False, True])
def test_the_size_of_a_body(client, zipped):
    def post(size):
        start = json.dumps({"model": "gemini-3.8-flash", "messages": [USER], "x": ""})[:-2].encode()
        body = start + b"a" * (size - len(start) - 2) + b'"}'
        headers = {"content-type": "application/json"}
        if zipped:
            body, headers["content-encoding"] = gzip.compress(body, 1), "gzip"
        return client.post("/v1/messages/count_tokens", data=body, headers=headers)

    assert post(32 * MIB).status_code == 200
    refused = post(32 * MIB + 1)
    message = "Request exceeds the maximum size of 33554432 bytes."
    assert (refused.status_code, refused.json["error"]) == (
        413,
        {"type": "request_too_large", "message": message},
    )
    assert f"413 `{message}`" in PAGE


def ask(gateway, data):
    """The status and the message of what the gateway says to ``data`` on a connection."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        connection.sendall(data)
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    body = json.loads(body)
    if status != 200:
        assert re.fullmatch("req_[0-9a-f]{24}", body["request_id"])
        assert f"request-id: {body['request_id']}".encode() in head
    return status, body.get("error", {}).get("message", "")


def head(*lines, path="/healthz"):
    return "\r\n".join([f"GET {path} HTTP/1.1", "host: x", "connection: close", *lines, "", ""])


@pytest.mark.parametrize(
    ("most", "more", "status", "phrase"),
    [
        (
            head(path="/healthz?" + "a" * (8190 - len("GET /healthz? HTTP/1.1"))),
            head(path="/healthz?" + "a" * (8191 - len("GET /healthz? HTTP/1.1"))),
            414,
            "URI Too Long",
        ),
        (
            head(*(f"x-{number}: y" for number in range(198))),
            head(*(f"x-{number}: y" for number in range(199))),
            431,
            "Request Header Fields Too Large",
        ),
        (
            head("x: " + "y" * (65_536 - 5)),
            head("x: " + "y" * (65_536 - 4)),
            431,
            "Request Header Fields Too Large",
        ),
    ],
)
def test_the_size_of_heads(plain, most, more, status, phrase):
    assert ask(plain, most.encode()) == (200, "")
    message = f"{phrase}: what was sent is not an HTTP request that can be served."
    assert ask(plain, more.encode()) == (status, message)
    assert f"{status} `{message}`" in PAGE


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
        b"\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nhost: x\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ntransfer-encoding: nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n: empty\r\n\r\n",
        b"\x00" * 1000 + b"\r\n\r\n",
        bytes(range(256)) * 50 + b"\r\n\r\n",
    ],
)
def test_any_bytes_get_an_answer_and_harm_nobody(plain, data):
    with socket.create_connection(("127.0.0.1", plain.port), timeout=20) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
    if answer:  # an empty line is no request
        start, _, body = answer.partition(b"\r\n\r\n")
        assert 400 <= int(start.split()[1]) < 600, start
        assert json.loads(body)["type"] == "error"
    assert ask(plain, head().encode()) == (200, "")
