"""Chunked bodies off the socket: in any pieces, with all that the framing allows or forbids."""

import http.client
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st
from raw_servers import chunk, serving
from urllib3.exceptions import ProtocolError

from app.backend.chunked import LONGEST_LINE, ChunkedBody, is_plain_chunked
from app.backend.connection import Call

ROOT = Path(__file__).parents[2]
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"


class Inner:
    """Stands in for http.client's response and its socket: gives what the test wants.

    The first piece came together with the head.
    """

    def __init__(self, pieces):
        self._pieces = list(pieces)
        self.fp = self.raw = self._sock = self
        self.closed = False
        self.timeout = 7.0

    def gettimeout(self):
        return self.timeout

    def settimeout(self, seconds):
        self.timeout = seconds

    def detach(self):
        return self

    def read1(self):
        assert self.timeout == 0.0  # it must not wait
        return self.recv(0)

    def recv(self, _size):
        return self._pieces.pop(0) if self._pieces else b""

    def close(self):
        self.closed = True


class Raw:
    def __init__(self, pieces):
        self._fp = Inner(pieces)
        self.end = ""

    def release_conn(self):
        self.end += "released"

    def close(self):
        self.end += "closed"


def read(*pieces):
    """All that the body gives, and what became of the connection."""
    raw = Raw(pieces)
    body = ChunkedBody(raw, Call())
    found = b"".join(iter(body.read, b""))
    assert body.read() == b""
    return found, raw.end


def cut_at(data, cuts):
    edges = [0, *sorted(cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]


@given(
    st.lists(st.binary(min_size=1, max_size=300), max_size=6),
    st.sampled_from([b"0\r\n\r\n", b"0;last\r\n\r\n", b"000\r\nx-one: 1\r\nx-two: 2\r\n\r\n"]),
    st.data(),
)
def test_any_chunks_in_any_pieces_give_the_body(chunks, end, data):
    wire = b"".join(map(chunk, chunks)) + end
    cuts = data.draw(st.sets(st.integers(1, len(wire) - 1), max_size=12))
    assert read(*cut_at(wire, cuts)) == (b"".join(chunks), "released")


def test_every_single_cut_gives_the_body():
    wire = b"5;a=b\r\nhello\r\n 1 \r\n!\r\nC\n world again\n0\r\nt: 1\r\n\r\n"
    for cut in range(1, len(wire)):
        assert read(wire[:cut], wire[cut:]) == (b"hello! world again", "released")


def test_all_that_one_read_brought_comes_at_once():
    raw = Raw([chunk(b"one") + chunk(b"two") + b"5\r\nth", b"ree\r\n0\r\n\r\n"])
    body = ChunkedBody(raw, Call())
    assert body.read() == b"onetwoth"
    assert body.read() == b"ree"
    assert body.read() == b""


@pytest.mark.parametrize("buffer", [1, 8192, 1 << 17])
def test_all_that_lay_in_the_buffer_behind_the_head_comes(buffer, monkeypatch):
    """Python's own buffer has had 128 KiB since 3.14, and 8 before."""
    monkeypatch.setattr("io.DEFAULT_BUFFER_SIZE", buffer)
    pieces = [bytes([number]) * 9000 for number in range(10)]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5)
        theirs.sendall(HEAD + b"\r\n" + b"".join(map(chunk, pieces)) + b"0\r\n\r\n")
        raw = Raw([])
        raw._fp = http.client.HTTPResponse(ours)
        raw._fp.begin()
        body = ChunkedBody(raw, Call())
        assert b"".join(iter(body.read, b"")) == b"".join(pieces)
        assert raw.end == "released"


@pytest.mark.parametrize("cut", range(13))
def test_a_cut_anywhere_is_an_error(cut):
    wire = chunk(b"abc") + b"0\r\n\r\n"
    assert len(wire) == 13
    with pytest.raises(ProtocolError, match="in the middle"):
        read(wire[:cut])


FAULTS = pytest.mark.parametrize(
    ("wire", "what"),
    [
        (b"xyz\r\n", "not chunked"),
        (b"-5\r\nhello", "not chunked"),
        (b"1_0\r\n", "not chunked"),
        (b"+5\r\nhello\r\n", "not chunked"),
        (b"\r\n", "not chunked"),
        (b"1" * 16 + b"\r\n", "not chunked"),
        (b"3\r\nabcdef\r\n", "longer than it says"),
        (b"3" + b" " * (LONGEST_LINE + 1), "too long"),
    ],
)


@FAULTS
def test_what_is_no_framing_is_an_error(wire, what):
    with pytest.raises(ProtocolError, match=what):
        read(wire)


@FAULTS
@pytest.mark.parametrize("before", [[], [b"one"], [b"one", b"two"]])
def test_what_came_before_a_fault_is_given_first(wire, what, before):
    inside = b"abc" if wire.startswith(b"3\r\n") else b""
    body = ChunkedBody(Raw([b"".join(map(chunk, before)) + wire, b"more"]), Call())
    if before or inside:
        assert body.read() == b"".join(before) + inside
    for _ in range(2):
        with pytest.raises(ProtocolError, match=what):
            body.read()


def test_bytes_behind_the_end_cost_the_connection():
    assert read(chunk(b"abc") + b"0\r\n\r\nHTTP/1.1 200 OK") == (b"abc", "closed")


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (b"", True),
        (b"content-encoding: identity\r\n", True),
        (b"content-encoding: gzip\r\n", False),
    ],
)
def test_which_bodies_are_read_this_way(extra, expected):
    def handler(visit):
        visit.request()
        visit.send(HEAD + extra + b"\r\n" + chunk(b"abc") + b"0\r\n\r\n")

    with serving(handler) as server, urllib3.PoolManager() as manager:
        raw = manager.request("GET", server.url, preload_content=False)
        assert is_plain_chunked(raw) is expected
        raw.close()


def test_the_connection_serves_the_next_call():
    seen = []

    def handler(visit):
        while visit.request():
            seen.append(visit.sock.getpeername())
            visit.send(HEAD + b"\r\n" + chunk(b"one ") + chunk(b"two") + b"0\r\nt: 1\r\n\r\n")

    with serving(handler) as server, urllib3.PoolManager() as manager:
        for _ in range(3):
            raw = manager.request("GET", server.url, preload_content=False)
            body = ChunkedBody(raw, Call())
            assert b"".join(iter(body.read, b"")) == b"one two"
    assert len(seen) == 3
    assert len(set(seen)) == 1


def test_a_socket_that_times_out_says_so():
    def handler(visit):
        visit.request()
        visit.send(HEAD + b"\r\n" + chunk(b"abc"))
        visit.wait_for_hangup()

    with serving(handler) as server, urllib3.PoolManager(timeout=0.2) as manager:
        raw = manager.request("GET", server.url, preload_content=False)
        body = ChunkedBody(raw, Call())
        assert body.read() == b"abc"
        with pytest.raises(socket.timeout):
            body.read()
        raw.close()


WAITING = """
from gevent import monkey; monkey.patch_all()
import http.client, socket, tracemalloc
import gevent, urllib3
from app.backend import chunked
from app.backend.connection import Call
ours, theirs = socket.socketpair()
theirs.sendall(b"HTTP/1.1 200 OK\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n5\\r\\nfirst\\r\\n")
inner = http.client.HTTPResponse(ours)
inner.begin()
raw = urllib3.HTTPResponse(inner, headers=dict(inner.headers), preload_content=False)
assert chunked.is_plain_chunked(raw)
body = chunked.ChunkedBody(raw, Call())
assert body.read() == b"first"
tracemalloc.start()
reader = gevent.spawn(body.read)
gevent.idle()
held = tracemalloc.take_snapshot().statistics("filename")
print(sum(one.size for one in held if one.traceback[0].filename == chunked.__file__))
theirs.sendall(b"6\\r\\nsecond\\r\\n")
assert reader.get() == b"second"
"""


def test_a_body_that_is_waited_for_holds_no_buffer():
    """Most streams wait most of the time, and a worker may have a thousand of them."""
    ran = subprocess.run(
        [sys.executable, "-c", WAITING], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(ran.stdout) < 4096
