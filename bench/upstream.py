"""An upstream that costs next to nothing: ``python -m bench.upstream --events 100 --pace 0.02``.

One process, one loop, answers made of bytes that were put together at the start. Every POST gets
the same stream, each event in a write of its own, as a model's words come, and streams don't keep
step with each other. With ``--at-once`` an answer is one write, which leaves the cores to who reads
it. With ``--stamps`` each event tells when it left (`time.monotonic_ns`, the same clock in every
process of a machine), so that a client can tell what it was delayed by.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import selectors
import socket
import sys
import time
from dataclasses import dataclass, field

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
STAMP = b"@%020d@"
_NO_STAMP = STAMP % 0
END = b"0\r\n\r\n"
GOLDEN = 0.618034
"""Multiples of it are spread evenly over the fractions, however many there are."""
READ_SIZE = 1 << 16
"""Bytes of a read; for much more Python gets its buffer from the system each time."""
NOTHING = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


def event(number: int, events: int, size: int) -> bytes:
    """Return event ``number`` of a Gemini stream, ``size`` bytes of text in it, as a chunk."""
    text = (_NO_STAMP.decode() + f" word {number} ").ljust(size, "x")
    candidate = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    if number == events - 1:
        candidate["finishReason"] = "STOP"
    usage = {
        "promptTokenCount": 7,
        "candidatesTokenCount": number,
        "totalTokenCount": number + 7,
    }
    chunk = {
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": "gemini-3.8-flash",
        "responseId": "bench",
    }
    data = b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\r\n\r\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass(eq=False)
class Connection:
    """One client's connection: what it has sent, and what it is still to get."""

    sock: socket.socket
    received: bytearray = field(default_factory=bytearray)
    unsent: bytes = b""
    next_event: int = -1


class Upstream:
    """Serves on a free port until the process ends."""

    def __init__(self, events: int, pace: float, size: int, *, stamps: bool, at_once: bool) -> None:
        self.pieces = [event(number, events, size) for number in range(events)]
        self.whole = b"".join([HEAD, *self.pieces, END]) if at_once else b""
        self.pace = pace
        self.stamps = stamps
        self.selector = selectors.DefaultSelector()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ, None)
        self.due: list[tuple[float, int, Connection]] = []
        self.order = 0
        self.begun = 0
        self.known = b""  # a whole request, as most are the same

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        """Serve for ever."""
        while True:
            wait = None
            if self.due:
                wait = max(0.0, self.due[0][0] - time.monotonic())
            for key, mask in self.selector.select(wait):
                if key.data is None:
                    self._accept()
                elif mask & selectors.EVENT_WRITE:
                    self._send(key.data, b"")
                else:
                    self._read(key.data)
            now = time.monotonic()
            while self.due and self.due[0][0] <= now:
                at, _, connection = heapq.heappop(self.due)
                self._next(connection, at)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self.listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.selector.register(sock, selectors.EVENT_READ, Connection(sock))

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        if data == self.known and not connection.received:
            self._begin(connection)
            return
        connection.received += data
        head, blank, body = connection.received.partition(b"\r\n\r\n")
        if not blank:
            return
        length = 0
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if len(body) < length:
            return
        if head.startswith(b"GET"):
            self._send(connection, NOTHING)
        else:
            self.known = bytes(connection.received)
            self._begin(connection)
        connection.received.clear()

    def _begin(self, connection: Connection) -> None:
        if self.whole:
            self._send(connection, self.whole)
            return
        self._send(connection, HEAD)
        connection.next_event = 0
        if not self.pace:
            while connection.next_event >= 0:
                self._next(connection, 0.0)
            return
        self.begun += 1
        self._later(connection, time.monotonic() + self.pace * (self.begun * GOLDEN % 1))

    def _later(self, connection: Connection, at: float) -> None:
        self.order += 1
        heapq.heappush(self.due, (at, self.order, connection))

    def _next(self, connection: Connection, at: float) -> None:
        number = connection.next_event
        if number < 0:
            return
        piece = self.pieces[number]
        if self.stamps:
            piece = piece.replace(_NO_STAMP, STAMP % time.monotonic_ns(), 1)
        connection.next_event += 1
        if connection.next_event == len(self.pieces):
            connection.next_event = -1
            piece += END
        self._send(connection, piece)
        if self.pace and connection.next_event > 0:
            self._later(connection, at + self.pace)

    def _send(self, connection: Connection, data: bytes) -> None:
        waiting = bool(connection.unsent)
        data = connection.unsent + data
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(connection)
            return
        connection.unsent = data[sent:]
        if bool(connection.unsent) != waiting:
            mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.unsent else 0)
            self.selector.modify(connection.sock, mask, connection)

    def _close(self, connection: Connection) -> None:
        connection.next_event = -1
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(connection.sock)
        connection.sock.close()


def main() -> None:
    """Serve, after printing the address."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument("--pace", type=float, default=0.0, help="seconds between two events")
    parser.add_argument("--size", type=int, default=40, help="bytes of text in an event")
    parser.add_argument("--stamps", action="store_true")
    parser.add_argument("--at-once", action="store_true", help="an answer in one write")
    options = parser.parse_args()
    upstream = Upstream(
        options.events,
        options.pace,
        options.size,
        stamps=options.stamps,
        at_once=options.at_once,
    )
    sys.stdout.write(f"{upstream.url}\n")
    sys.stdout.flush()
    upstream.serve()


if __name__ == "__main__":
    main()
