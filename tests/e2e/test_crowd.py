"""A crowd of new requests and the streams that are open already: each gets its turn."""

import re
import socket
from itertools import pairwise

from processes import GatewayProcess

from app.ops.worker import AT_ONCE

CROWD = 60
APP = """
import time, gevent
begun = 0
def app(environ, start_response):
    global begun
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/stream":
        return stream()
    if environ["PATH_INFO"] == "/busy":
        return busy()
    begun += 1
    return [b"ok"]
def busy():
    yield b"busy\\n"
    gevent.sleep(0)  # the line leaves
    end = time.monotonic() + 1
    while time.monotonic() < end:
        pass
def stream():
    while begun < CROWD:
        yield b"%d\\n" % begun
        gevent.sleep(0)
    yield b"%d\\n" % begun
""".replace("CROWD", str(CROWD))


class _Worker(GatewayProcess):
    """The production worker around another application."""

    command = ("-k", "app.ops.worker.GatewayWorker", "-b", "127.0.0.1:0", "crowd:app")

    def __enter__(self):
        (self.folder / "crowd.py").write_text(APP)
        self.start()
        line = self.wait_for_line(re.compile("Listening at"))
        self.port = int(re.search(r"127\.0\.0\.1:(\d+)", line)[1])
        return self


def sent(port, path):
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    return connection


def test_open_streams_have_their_turn_between_new_requests(tmp_path):
    with _Worker(tmp_path) as worker:
        stream = sent(worker.port, "/stream").makefile("rb")
        while stream.readline() != b"0\n":
            pass
        busy = sent(worker.port, "/busy")
        heard = b""
        while b"busy" not in heard:
            heard += busy.recv(1000)
        # It does nothing else for a second, in which all of them connect and ask.
        crowd = [sent(worker.port, "/") for _ in range(CROWD)]
        seen = [int(line) for line in stream]
        assert all(connection.recv(1000) for connection in crowd)
    assert seen[-1] == CROWD
    assert max(later - earlier for earlier, later in pairwise([0, *seen])) <= AT_ONCE
