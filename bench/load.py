"""The load: many streams at once over raw sockets in one loop, which only looks for their ends."""

from __future__ import annotations

import re
import selectors
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from bench.upstream import READ_SIZE

_STAMP = re.compile(rb"@(\d{20})@")
_END = b"\r\n0\r\n\r\n"
_FRAMING = re.compile(rb"\r\n[0-9A-Fa-f]+\r\n")
"""Between two chunks; what is looked for may begin in one and end in the next."""
LONGEST = 120.0
"""Seconds without any progress after which a run has failed."""


class Failed(Exception):
    """A run that did not give what it should."""


@dataclass
class Result:
    """What a run came to. ``wall`` in seconds, all else in nanoseconds, by the system's clock."""

    streams: int = 0
    wall: float = 0.0
    delays: list[int] = field(default_factory=list)
    """From when an event left the upstream to when the client had it."""
    left: list[int] = field(default_factory=list)
    """When each of these left the upstream."""
    first: list[int] = field(default_factory=list)
    """From the request to its first event."""
    all_open: int = 0
    """When the last stream had its first event."""
    received: int = 0
    """Events with a stamp."""


@dataclass(eq=False)
class _Stream:
    sock: socket.socket
    asked: int = 0
    got_first: bool = False
    tail: bytes = b""
    bytes_seen: int = 0


class Load:
    """``streams`` requests, ``together`` at a time, each on a connection that is used again.

    ``stamped`` looks into the events for when they left; otherwise bytes are only counted.
    ``needle`` is what a good answer ends with, before the last chunk.
    """

    def __init__(
        self, url: str, body: bytes, *, path: str = "/v1/messages", stamped: bool = False,
        headers: str = "", needle: bytes = b"message_stop",
    ) -> None:  # fmt: skip
        parts = urlsplit(url)
        self.address = (parts.hostname or "127.0.0.1", parts.port or 80)
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
            f"anthropic-version: 2023-06-01\r\nx-api-key: bench\r\n{headers}"
            f"content-length: {len(body)}\r\n\r\n"
        )
        self.request = head.encode() + body
        self.stamped = stamped
        self.needle = needle

    def run(self, streams: int, together: int) -> Result:
        """Run ``streams`` requests to their ends; raises `Failed`."""
        result = Result()
        begun = time.monotonic()
        for _ in self.running(streams, together, result):
            pass
        result.wall = time.monotonic() - begun
        return result

    def running(self, streams: int, together: int, result: Result) -> Iterator[int]:
        """Run them and yield how many have begun to answer whenever something has arrived."""
        selector = selectors.DefaultSelector()
        left = streams
        open_streams: set[_Stream] = set()
        answering = 0
        try:
            for _ in range(min(together, streams)):
                open_streams.add(self._open(selector))
                left -= 1
            while open_streams:
                ready = selector.select(LONGEST)
                if not ready:
                    raise Failed(f"{len(open_streams)} streams brought nothing for {LONGEST} s")
                for key, _ in ready:
                    stream = key.data
                    data = stream.sock.recv(READ_SIZE)
                    now = time.monotonic_ns()
                    if not data:
                        raise Failed(f"a stream was cut: {stream.tail!r}")
                    if not stream.bytes_seen and not data.startswith(b"HTTP/1.1 200"):
                        raise Failed(f"unexpected answer: {data[:500]!r}")
                    stream.bytes_seen += len(data)
                    if self.stamped:
                        answering += self._look(stream, data, now, result)
                    stream.tail = (stream.tail + data)[-400:]
                    if stream.tail.endswith(_END):
                        if self.needle not in _FRAMING.sub(b"", stream.tail):
                            raise Failed(f"an answer without its end: {stream.tail!r}")
                        result.streams += 1
                        if left:
                            left -= 1
                            self._ask(stream)
                        else:
                            open_streams.discard(stream)
                            selector.unregister(stream.sock)
                            stream.sock.close()
                yield answering
        finally:
            for stream in open_streams:
                stream.sock.close()
            selector.close()

    def _open(self, selector: selectors.BaseSelector) -> _Stream:
        sock = socket.create_connection(self.address, timeout=30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = _Stream(sock)
        self._ask(stream)
        selector.register(sock, selectors.EVENT_READ, stream)
        return stream

    def _ask(self, stream: _Stream) -> None:
        stream.got_first, stream.bytes_seen, stream.tail = False, 0, b""
        stream.asked = time.monotonic_ns()
        stream.sock.sendall(self.request)

    def _look(self, stream: _Stream, data: bytes, now: int, result: Result) -> int:
        # A stamp may be split between two reads: look again from where it may have begun.
        seen = stream.tail[-21:] + data if stream.got_first else data
        found = 0
        for stamp in _STAMP.finditer(seen):
            found += 1
            left = int(stamp[1])
            if left:
                result.delays.append(now - left)
                result.left.append(left)
        result.received += found
        if found and not stream.got_first:
            stream.got_first = True
            result.first.append(now - stream.asked)
            result.all_open = now
            return 1
        return 0
