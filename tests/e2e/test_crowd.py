"""A crowd of new requests and the streams that are open already: each gets its turn."""

import re
import socket
from itertools import pairwise

import pytest
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
    if environ["PATH_INFO"] == "/hello":
        return [b"hello\\n"]
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


class Visitor:
    """A client's connection."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.file = self.socket.makefile("rb")

    def ask(self, path):
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

    def lines(self):
        """Yield the answer's lines, each of which is a chunk."""
        while self.file.readline() != b"\r\n":  # its head
            pass
        while (size := int(self.file.readline(), 16)) > 0:
            yield self.file.read(size)
            self.file.readline()
        self.file.readline()


@pytest.mark.parametrize("known", [False, True], ids=["new connections", "kept connections"])
def test_open_streams_have_their_turn_between_new_requests(tmp_path, known):
    with _Worker(tmp_path) as worker:
        kept = [Visitor(worker.port) for _ in range(CROWD if known else 0)]
        for visitor in kept:
            visitor.ask("/hello")
            assert list(visitor.lines()) == [b"hello\n"]
        stream, busy = Visitor(worker.port), Visitor(worker.port)
        stream.ask("/stream")
        lines = stream.lines()
        assert next(lines) == b"0\n"
        busy.ask("/busy")
        assert next(busy.lines()) == b"busy\n"
        # It does nothing else for a second, in which all of them ask.
        crowd = kept or [Visitor(worker.port) for _ in range(CROWD)]
        for visitor in crowd:
            visitor.ask("/")
        seen = [int(line) for line in lines]
        assert all(list(visitor.lines()) == [b"ok"] for visitor in crowd)
    assert seen[-1] == CROWD
    assert max(later - earlier for earlier, later in pairwise([0, *seen])) <= AT_ONCE
