"""The scripted upstream: plays the fault of a cell, then an answer without one."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import threading
import zlib

from tests.backend.raw_servers import RawServer, chunk
from tests.chaos.cells import KINDS, UNREACHED, Cell
from tests.chaos.recorded import ANSWER, COUNTED, PIECES, STARTS, goes_on

GARBAGE = b"\x00\xff{{ not an answer %&\r\n\r\n"
DRIP = 7
"""Bytes at a time."""


def google_error(status: int) -> bytes:
    """Return an error body as Google writes them."""
    words = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"}
    words |= {404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED", 499: "CANCELLED"}
    words |= {408: "DEADLINE_EXCEEDED", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}
    error = {"code": status, "message": "It went wrong.", "status": words.get(status, "INTERNAL")}
    return json.dumps({"error": error}).encode()


class Body:
    """The answer's body under way: chunked for streams, of known length for counts."""

    def __init__(self, visit, *, length: int | None = None, headers: bytes = b"", pack=False):
        self._visit = visit
        self._chunked = length is None
        self._packer = zlib.compressobj(wbits=31) if pack else None
        framing = (
            b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
        )
        if b"content-type" not in headers:
            headers += b"content-type: text/event-stream\r\n"
        visit.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\n" + headers + framing + b"\r\n\r\n")

    def send(self, data: bytes, size: int = 0) -> None:
        """Send ``data``, ``size`` bytes at a time."""
        if self._packer:
            data = self._packer.compress(data) + self._packer.flush(zlib.Z_SYNC_FLUSH)
        for at in range(0, len(data), size or len(data) or 1):
            piece = data[at : at + (size or len(data))]
            self._visit.send(chunk(piece) if self._chunked else piece)

    def end(self) -> None:
        """End it in order."""
        if self._packer:
            self._visit.send(chunk(self._packer.flush()))
        if self._chunked:
            self._visit.send(b"0\r\n\r\n")


class Upstream:
    """Serves every cell at once: the model's name says which one a request belongs to."""

    def __init__(self, tls=None) -> None:
        self.cells: dict[str, Cell] = {}
        self.attempts: dict[str, int] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.server = RawServer(self._serve, tls=tls)
        self.url = self.server.url

    def close(self) -> None:
        """Stop, and let the silent go."""
        self._over.set()
        self.server.close()

    def _serve(self, visit) -> None:
        asked = visit.request()
        visit.server.requests.clear()
        if asked is None:
            return
        line, _, body = asked
        model, _, method = line.split(" ")[1].partition("?")[0].rpartition("/")[2].partition(":")
        cell = self.cells.get(model)
        if cell is None:
            visit.answer({"models": []}, extra="connection: close\r\n")
            return
        with self._lock:
            attempt = self.attempts[model] = self.attempts.get(model, 0) + 1
        counting = method == "countTokens"
        sent = "" if counting else _prefill(json.loads(body))
        answer = COUNTED if counting else goes_on(sent) if sent else ANSWER
        elsewhere = KINDS[cell.kind].accounts in UNREACHED
        if elsewhere or attempt > 2 or (attempt == 2 and cell.left):
            _whole(visit, answer, counting=counting)
        else:
            # A second attempt that goes on from text fails where nothing more of it has come.
            offset = min(cell.offset, 0) if sent else cell.offset
            Play(visit, cell.kind, offset, answer, counting=counting, over=self._over).run()


def reset(visit) -> None:
    """Have the connection end with RST."""
    visit.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(visit.sock.detach())


def _prefill(request: dict) -> str:
    """Return the text that the answer has to go on from."""
    last = request["contents"][-1]
    return (
        "".join(part.get("text", "") for part in last["parts"]) if last["role"] == "model" else ""
    )


def _whole(visit, answer: bytes, *, counting: bool) -> None:
    body = Body(visit, length=len(answer) if counting else None)
    body.send(answer)
    body.end()


class Play:
    """One fault on one connection."""

    def __init__(self, visit, kind, offset, answer, *, counting, over) -> None:
        self.visit = visit
        self.kind = kind
        self.offset = offset
        self.answer = answer
        self.counting = counting
        self.over = over

    def run(self) -> None:
        word, _, number = self.kind.partition(" ")
        if word == "status":
            self._status(int(number))
        elif word == "error":
            self._error_event(int(number.split()[0]))
        else:
            getattr(self, "_" + "_".join(re.findall(r"\w+", self.kind)).lower())()

    def _begun(self, *, length: int | None = None, **how) -> Body | None:
        """Send what comes before the fault; None when not even headers do."""
        if self.offset < 0:
            return None
        if self.counting and length is None:
            length = len(self.answer)
        body = Body(self.visit, length=length, **how)
        sent = 0
        for piece in _pieces(self.answer)[: self._whole_pieces()]:
            body.send(piece)
            sent += len(piece)
        if self.offset > sent:
            body.send(self.answer[sent : self.offset])
        return body

    def _whole_pieces(self) -> int:
        return 0 if self.answer is not ANSWER else sum(self.offset >= end for end in STARTS[1:])

    def _reset(self) -> None:
        self._begun()
        reset(self.visit)

    def _cut(self) -> None:
        self._begun()

    def _early_end(self) -> None:
        body = self._begun(length=self.offset if self.counting else None)
        body.end()

    def _half_an_event(self) -> None:
        end = next((end for end in STARTS if end > self.offset), len(self.answer))
        if self.counting:
            end = len(self.answer)
        half = self.offset + max(1, (end - self.offset) // 2)
        body = self._begun(length=half if self.counting else None)
        body.send(self.answer[self.offset : half])
        body.end()

    def _garbage(self) -> None:
        body = self._begun(length=self.offset + len(GARBAGE) if self.counting else None)
        if body is None:
            self.visit.send(GARBAGE)
        else:
            body.send(GARBAGE)
            body.end()

    def _stall(self) -> None:
        self._begun()
        self.over.wait(60)

    _stall_with_keep_alives = _stall

    def _slow_500(self) -> None:
        self.over.wait(0.5)
        self._status(500)

    def _slow_drip(self) -> None:
        if self.offset < 0:
            head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            for byte in head % len(self.answer):
                self.visit.send(bytes([byte]))
            self.visit.send(self.answer)
            return
        body = self._begun()
        body.send(self.answer[self.offset :], DRIP)
        body.end()

    def _wrong_content_type(self) -> None:
        length = len(self.answer) if self.counting else None
        body = Body(self.visit, length=length, headers=b"content-type: text/plain\r\n")
        body.send(self.answer)
        body.end()

    def _a_page(self) -> None:
        page = b"<!doctype html>\n<html><body>Sign in</body></html>\n"
        self.visit.answer(page, content_type="text/html", extra="connection: close\r\n")

    def _gzip(self) -> None:
        body = Body(self.visit, headers=b"content-encoding: gzip\r\n", pack=True)
        body.send(self.answer)
        body.end()

    def _gzip_cut(self) -> None:
        self._begun(headers=b"content-encoding: gzip\r\n", pack=True)

    def _gzip_that_is_none(self) -> None:
        length = len(self.answer) if self.counting else None
        body = Body(self.visit, length=length, headers=b"content-encoding: gzip\r\n")
        body.send(self.answer)
        body.end()

    def _no_content(self) -> None:
        self.visit.send(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")

    def _redirect(self) -> None:
        self.visit.answer(b"", status=302, extra="connection: close\r\nlocation: /elsewhere\r\n")

    def _tls_broken_record(self) -> None:
        self._begun()
        os.write(self.visit.sock.fileno(), GARBAGE)
        self.over.wait(60)

    def _status(self, status: int) -> None:
        self.visit.answer(google_error(status), status=status, extra="connection: close\r\n")

    def _error_event(self, status: int) -> None:
        error = google_error(status)
        if self.counting:
            self.visit.answer(error, extra="connection: close\r\n")
            return
        body = self._begun()
        body.send(b"data: " + error + b"\r\n\r\n")
        body.end()


def _pieces(answer: bytes) -> tuple[bytes, ...]:
    return PIECES if answer is ANSWER else ()
