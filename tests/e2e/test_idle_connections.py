"""Connections on which nothing comes, or never enough: they hold up nobody, and not for long."""

import contextlib
import json
import re
import resource
import socket
import threading
import time
from operator import itemgetter
from pathlib import Path

import pytest
import requests

from tests.e2e.processes import ROOT, GatewayProcess

HALF_A_HEAD = b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-ty"
BODY = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "hello"}],
}
HEAD_OF_A_BODY = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{"


class Hasty(GatewayProcess):
    """The gateway with a second in place of a quarter of a minute for the next request."""

    command = (
        *("-c", str(ROOT / "gunicorn.conf.py"), "--keep-alive", "1"),
        "wsgi:app",
    )


@pytest.fixture
def hasty(tmp_path, simulator):
    settings = {"GEMINI_API_KEYS": "key-a", "GEMINI_BASE_URL": simulator.base_url}
    with Hasty(tmp_path, **settings) as process:
        yield process


def connect(gateway, data=b""):
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=30)
    connection.sendall(data)
    return connection


def accepted(gateway):
    """How many clients' connections the worker has accepted and not closed.

    Not its descriptors: they come and go for reasons of its own, such as what it asks upstream.
    """
    master = gateway.process.pid
    (worker,) = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    port, count = f":{gateway.port:04X}", 0
    sockets = set()
    for one in Path(f"/proc/{worker}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            sockets.add(str(one.readlink()))
    for line in Path(f"/proc/{worker}/net/tcp").read_text().splitlines()[1:]:
        local, remote, inode = itemgetter(1, 2, 9)(line.split())
        listening = remote.endswith(":0000")
        count += local.endswith(port) and not listening and f"socket:[{inode}]" in sockets
    return count


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_thousand_idle_connections_hold_up_nobody(gateway):
    running = gateway()
    # Both processes have the limit, and need some for other things.
    count = min(1000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200)
    with contextlib.ExitStack() as stack:
        for number in range(count):
            data = (b"", HALF_A_HEAD, HEAD_OF_A_BODY % b"/v1/messages")[number % 3]
            stack.enter_context(connect(running, data))
        wait_until(lambda: accepted(running) >= count)
        began = time.monotonic()
        for stream in (False, True) * 5:
            answer = requests.post(
                f"{running.url}/v1/messages", json={**BODY, "stream": stream}, timeout=10
            )
            assert answer.ok
            assert ("message_stop" in answer.text) == stream
        assert requests.get(f"{running.url}/readyz", timeout=10).ok
        # Had they to wait for others to be given up, it would be a quarter of a minute.
        assert time.monotonic() - began < 10
        # They are all there still, and one more that takes its time is served, too.
        assert accepted(running) >= count
        late = stack.enter_context(connect(running, HALF_A_HEAD))
        body = json.dumps(BODY).encode()
        late.sendall(b"pe: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        assert late.recv(15) == b"HTTP/1.1 200 OK"
    wait_until(lambda: not accepted(running))
    assert "Traceback" not in running.output


def test_a_connection_without_a_request_is_given_up(hasty):
    """Whether nothing comes, or half a head, or a head that never ends."""
    stop = threading.Event()
    trickling = connect(hasty, HALF_A_HEAD)

    def trickle():
        with contextlib.suppress(OSError):
            while not stop.wait(0.1):
                trickling.sendall(b"x")

    thread = threading.Thread(target=trickle)
    thread.start()
    # Nobody reads this body: what is answered says so without it, and does not wait for it.
    unread = connect(hasty, HEAD_OF_A_BODY % b"/nowhere")
    try:
        for connection in (connect(hasty), connect(hasty, HALF_A_HEAD), trickling):
            with connection, contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""
        assert unread.recv(12) == b"HTTP/1.1 404"
        while unread.recv(65_536):
            pass
    finally:
        stop.set()
        thread.join()
        unread.close()
    assert "Traceback" not in hasty.output
    seconds = re.search(r"^keepalive = (\d+)$", (ROOT / "gunicorn.conf.py").read_text(), re.M)[1]
    assert f" {seconds} s | the connection is closed" in (ROOT / "docs" / "limits.md").read_text()
