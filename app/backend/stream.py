"""From the bytes of an answer to Gemini's chunks, each as soon as it has arrived.

Understood are all forms that a Gemini-shaped upstream sends: server-sent events (``alt=sse``),
the JSON array (without it), one object per line, one plain object, and the bare, indented error
object that Google puts between two events.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import msgspec
import requests
from urllib3 import HTTPResponse

from app.backend.chunked import ChunkedBody, is_plain_chunked
from app.backend.connection import Call
from app.backend.errors import Fault, UpstreamError

LONGEST_EVENT = 64 << 20
"""Bytes of one event; an inline picture has some 10 MB."""
READ_SIZE = 16_384

_decode = msgspec.json.Decoder().decode
# Strings are matched whole, so that braces inside them don't count.
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}]')
_BETWEEN_OBJECTS = b" \t\r\n[],"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# No upstream knows it, so none can send it.
_PAUSE = b": nothing more for now " + secrets.token_hex(8).encode()
_PAUSE_LINE = _PAUSE + b"\n"
_IGNORED_FIELDS = (b":", b"event:", b"id:", b"retry:", b"event", b"id", b"retry")


class WholeLines:
    r"""Stands in for ``response.raw``, so that ``iter_lines`` gets lines as they arrive.

    What ``requests`` does by itself is wrong for a stream: without chunked encoding it waits for
    a full buffer, it takes a ``\r\n`` that is split between two reads for two line ends, and a
    long line costs time quadratic in its length. Here each piece ends with a line end, and no
    line end is ever split.
    """

    def __init__(self, raw: HTTPResponse, call: Call) -> None:
        self._raw = raw
        self._call = call

    def stream(self, chunk_size: int, decode_content: bool) -> Iterator[bytes]:
        """Yield pieces of whole lines, the last one perhaps without its end.

        Where a call pauses, a comment goes through ``iter_lines`` in place of what has not come.
        """
        read: Callable[[], bytes | None]
        emptied: Callable[[], bool] = bool
        if is_plain_chunked(self._raw):  # as Google sends it
            body = ChunkedBody(self._raw, self._call)
            read, emptied = body.read, body.emptied
        else:
            read = partial(self._raw.read1, READ_SIZE, decode_content)
        kept = bytearray()
        call = self._call
        while (data := read()) != b"":
            if data is None:
                yield _PAUSE_LINE
                continue
            call.received += len(data)
            if not kept and data.endswith(b"\n"):  # nearly always: one read, one event
                yield data + _PAUSE_LINE if emptied() else data
                continue
            start = max(0, len(kept) - 1)
            kept += data
            # A final "\r" may be half a line end: it waits for the next byte.
            end = max(kept.rfind(b"\n", start), kept.rfind(b"\r", start, len(kept) - 1)) + 1
            if end:
                with memoryview(kept) as view:  # else it is copied twice
                    whole = bytes(view[:end])
                del kept[:end]  # before it leaves: a slow client may take long to come back
                yield whole
            elif len(kept) > LONGEST_EVENT:
                raise too_long()
        if kept:
            yield bytes(kept)

    def close(self) -> None:
        """Close the connection: the rest of the answer is not wanted."""
        self._raw.close()

    def release_conn(self) -> None:
        """Give the connection back, where reading to the end has not done so already."""
        self._raw.release_conn()


def read_lines(response: requests.Response, call: Call) -> Iterator[bytes]:
    """Yield the lines of a streamed ``response`` without their ends, each as it arrives.

    ``call`` is told how many bytes were read.
    """
    response.raw = WholeLines(response.raw, call)
    return response.iter_lines()


def parse_chunks(lines: Iterable[bytes]) -> Iterator[dict[str, Any] | None]:
    """Yield the JSON objects in ``lines``; raises `UpstreamError` BROKEN on anything else.

    Yields None where the call pauses (see `Call`).

    An event is complete as soon as its data is a JSON value: waiting for the blank line after it
    would only cost time, since nothing can follow a complete value within an event.
    """
    rest = _Unusual()
    for line in lines:
        if line.startswith(b"data:") and not rest.busy:
            try:
                value = _decode(line[5:])
            except (ValueError, RecursionError):
                rest.begin(line[5:])
                continue
            if type(value) is dict:
                yield value
            else:
                yield from _objects(value)
        elif line == _PAUSE:
            value = None  # what came last is not kept while nothing comes
            yield None
        elif line or rest.busy:
            yield from rest.feed(line)
    yield from rest.end()


class _Unusual:
    """Takes the lines that are not a whole event each; ``busy`` while a value is incomplete."""

    def __init__(self) -> None:
        self._data = _Collected()
        self._bare = _BareObjects()
        self.busy = False

    def begin(self, data: bytes) -> None:
        """Take the first line of an event's data, unless it says nothing."""
        if data.strip() not in (b"", b"[DONE]"):
            self._data.add(data)
            self.busy = True

    def feed(self, line: bytes) -> Iterator[dict[str, Any]]:
        """Take another line, and yield the objects that are complete with it."""
        if self._bare.inside:
            yield from self._bare.feed(line)
        elif line.startswith(b"data:"):
            self._data.add(line[5:])
        elif not line:
            yield from self._data.take()
        elif not line.startswith(_IGNORED_FIELDS):
            yield from self._data.take()
            line = line.removeprefix(_BYTE_ORDER_MARK)
            if line.startswith(b"data:"):
                self._data.add(line[5:])
            else:
                yield from self._bare.feed(line)
        self.busy = self._bare.inside or bool(self._data)

    def end(self) -> Iterator[dict[str, Any]]:
        """Yield what the end of the lines completes; raises `UpstreamError` for half an object."""
        if self._bare.inside:
            raise garbage("ended in the middle of an object")
        yield from self._data.take()


class _Collected:
    """Pieces of one JSON value, bounded."""

    def __init__(self) -> None:
        self._text = bytearray()

    def __bool__(self) -> bool:
        return bool(self._text)

    def add(self, piece: bytes) -> None:
        """Add a line; raises `UpstreamError` when it becomes too much."""
        self._text += piece
        self._text += b"\n"
        if len(self._text) > LONGEST_EVENT:
            raise too_long()

    def take(self) -> Iterator[dict[str, Any]]:
        """Yield what the pieces make together, and start anew."""
        if not self._text:
            return
        text, self._text = self._text, bytearray()
        try:
            # Slower, but it also reads half a surrogate pair, which Gemini's JSON can hold.
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise garbage("sent an event that is not JSON") from None
        yield from _objects(value)


class _BareObjects:
    """Finds JSON objects that come without SSE framing, over any number of lines."""

    def __init__(self) -> None:
        self._depth = 0
        self._object = _Collected()
        self.inside = False
        """Whether an object has begun that has not ended."""

    def feed(self, line: bytes) -> Iterator[dict[str, Any]]:
        """Yield the objects that end in ``line``."""
        start = 0
        for token in _TOKENS.finditer(line):
            brace = token[0]
            if brace == b"{":
                if not self._depth:
                    self._check_between(line[start : token.start()])
                    start = token.start()
                self._depth += 1
            elif brace == b"}":
                self._depth -= 1
                if self._depth < 0:
                    raise garbage("sent something that is not JSON")
                if not self._depth:
                    self._object.add(line[start : token.end()])
                    start = token.end()
                    yield from self._object.take()
        self.inside = self._depth > 0
        if self.inside:
            self._object.add(line[start:])
        else:
            self._check_between(line[start:])

    @staticmethod
    def _check_between(text: bytes) -> None:
        if text.strip(_BETWEEN_OBJECTS):
            raise garbage("sent something that is not JSON")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    for item in value if isinstance(value, list) else (value,):
        if not isinstance(item, dict):
            raise garbage("sent a JSON value that is not an object")
        yield item


def garbage(what: str) -> UpstreamError:
    """Return the error of an upstream whose bytes make no answer."""
    return UpstreamError(Fault.BROKEN, f"The upstream {what}.", reason="garbage")


def too_long() -> UpstreamError:
    """Return the error of an event without end."""
    return garbage(f"sent an event of more than {LONGEST_EVENT >> 20} MiB")
