"""A chunked body read as it lies in the socket's buffer, many chunks at once.

urllib3 gives one chunk per read through six layers, which costs more than all that is done with an
event afterwards. Framing: RFC 9112, section 7.1.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
from contextlib import suppress
from typing import Any

from urllib3 import HTTPResponse
from urllib3.exceptions import ProtocolError
from urllib3.util.ssltransport import SSLTransport

from app.backend.connection import Call

READ_SIZE = 32_768
LONGEST_LINE = 16_384
"""Bytes of a chunk's size line with its extensions, or of a trailer."""

_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;|\r?\n|\r?$)")

_known_sizes: dict[bytes, int] = {}
"""Size lines met before, by the regular expression's word: a stream's are much alike."""
MOST_KNOWN = 4096


def is_plain_chunked(raw: HTTPResponse) -> bool:
    """Tell whether the body of ``raw`` is chunked, not compressed, and wholly unread."""
    inner = getattr(raw, "_fp", None)
    return (
        isinstance(inner, http.client.HTTPResponse)
        and bool(inner.chunked)
        and inner.chunk_left is None
        and inner.fp is not None
        and isinstance(getattr(inner.fp, "raw", None), socket.SocketIO)
        and raw.headers.get("content-encoding", "identity").lower() in ("", "identity")
    )


_WRAPPERS = (ssl.SSLSocket, SSLTransport)


class ChunkedBody:
    """Reads the body of ``raw``, for which `is_plain_chunked` holds."""

    def __init__(self, raw: HTTPResponse, call: Call) -> None:
        self._raw = raw
        inner: Any = raw._fp
        self._inner = inner
        # Not the file: it holds a buffer of the full size while it waits, as most streams do.
        self._socket: Any = inner.fp.raw._sock
        # Flags, as a method kept here would make a cycle, and the collector comes seldom.
        self._begun = False
        self._fault = ""
        self._pauses = call.pause(self._socket)
        # What is encrypted comes in records, and a short read need not have been the last one.
        self._plain = self._pauses and not isinstance(self._socket, _WRAPPERS)
        self._emptied = False
        """The latest read took all that the system had: the next one would have to wait."""
        self._kept = b""
        self._left = 0
        """Bytes of the current chunk that are still to come."""
        self._behind_chunk = False
        """The line end behind a chunk is still to come."""
        self._trailers = False
        self._over = False

    def emptied(self) -> bool:
        """Tell, once for each time, that nothing more has arrived: the next read would say None."""
        emptied, self._emptied = self._emptied, False
        return emptied

    def read(self) -> bytes | None:
        """Return what has arrived, waiting for it; b"" at the end of the body.

        For a call that pauses, return None instead of waiting. Raises `ProtocolError` for a body
        that is cut or is not chunked, OSError as sockets do.
        """
        while not self._over:
            if self._emptied:
                self._emptied = False
                return None
            try:
                data = self._receive()
            except (BlockingIOError, ssl.SSLWantReadError):
                if self._pauses:
                    return None
                raise
            if not data:
                raise ProtocolError("the connection ended in the middle of the body")
            if body := self._decoded(data):
                return body
        return b""

    def _receive(self) -> bytes:
        """Return what comes; first what came together with the head and lies in the file's buffer.

        What lies there says nothing of the socket, which may well have brought more.
        """
        if self._fault:
            raise ProtocolError(self._fault)
        if not self._begun:
            self._begun = True
            if held := self._in_buffer():
                return held
        data: bytes = self._socket.recv(READ_SIZE)
        self._emptied = self._plain and len(data) < READ_SIZE
        return data

    def _in_buffer(self) -> bytes:
        timeout = self._socket.gettimeout()
        self._socket.settimeout(0.0)
        try:
            with suppress(ssl.SSLWantReadError):
                data: bytes = self._inner.fp.read1()  # all of it, however large the buffer
                return data
        finally:
            self._socket.settimeout(timeout)
            self._inner.fp = self._inner.fp.detach()  # with it goes the buffer
        return b""

    def _decoded(self, data: bytes) -> bytes:
        if self._kept:
            data, self._kept = self._kept + data, b""
        pieces: list[bytes] = []
        at, end = 0, len(data)
        while at < end:
            if self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self._behind_chunk = not self._left
                continue
            stop = data.find(b"\n", at)
            if stop < 0:
                if end - at > LONGEST_LINE:
                    return self._broken(pieces, "a line of the chunked framing is too long")
                break
            line, at = data[at : stop + 1], stop + 1
            if self._behind_chunk:
                if line not in (b"\r\n", b"\n"):
                    return self._broken(pieces, "a chunk is longer than it says")
                self._behind_chunk = False
            elif not self._trailers:
                left = _known_sizes.get(line, -1)
                if left < 0 and (left := _size(line)) < 0:
                    return self._broken(pieces, "the body is not chunked")
                stop = at + left
                if left and data[stop : stop + 2] == b"\r\n":  # it is all there, as usually
                    pieces.append(data[at:stop])
                    at = stop + 2
                    continue
                self._left = left
                self._trailers = not left
            elif line in (b"\r\n", b"\n"):
                self._give_back(clean=at == end)
                break
        self._kept = data[at:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _broken(self, pieces: list[bytes], what: str) -> bytes:
        """Return what came before the fault, which every read from now on raises."""
        self._fault = what
        self._emptied = False  # there is nothing to wait for
        return b"".join(pieces)

    def _give_back(self, *, clean: bool) -> None:
        """End it; a ``clean`` connection, with no bytes that nobody asked for, serves others."""
        self._over = True
        self._emptied = False  # what is next is the end
        if clean:
            self._inner.close()
            self._raw.release_conn()
        else:
            self._raw.close()


def _size(line: bytes) -> int:
    """Return the bytes that a chunk has by its size line, -1 if it is none."""
    match = _SIZE.match(line)
    if match is None:
        return -1
    size = int(match[1], 16)
    if len(line) < 8 and len(_known_sizes) < MOST_KNOWN:
        _known_sizes[line] = size
    return size
