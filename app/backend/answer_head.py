"""The head of an answer, read at one go when it is one that a stream has.

``http.client`` reads it line by line and has the ``email`` package parse it, which takes three
times as long. Framing: RFC 9112.
"""

from __future__ import annotations

import http.client
import re

_END = b"\r\n\r\n"
_STATUS = b"HTTP/1.1 200 "
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
MOST_FIELDS = 100
"""As ``http.client``'s own."""
MOST_INTERIM = 100
"""Interim answers (1xx) that are no longer waited for: the final one will never come."""


class AnswerHead(http.client.HTTPResponse):
    """Has a short way for the success that comes in chunks; all others take ``http.client``'s."""

    def begin(self) -> None:
        """Read the head; raises what ``http.client`` does."""
        begun: object = self.headers
        if begun is not None:
            return
        arrived = self.fp.peek()
        end = arrived.find(_END)
        fields = _fields(arrived[:end]) if end > 0 and arrived.startswith(_STATUS) else None
        if fields is None or not fields.of_a_stream or getattr(self, "_method", "") == "HEAD":
            super().begin()
            if self.status < http.client.OK:
                self.will_close = True  # should one get through: the real answer is yet to come
            return
        self.fp.read(end + len(_END))
        self.code = self.status = http.client.OK
        self.reason = arrived[len(_STATUS) : arrived.find(b"\r\n")].decode("latin-1").strip()
        self.version = 11
        self.headers = self.msg = fields
        self.chunked = True
        self.chunk_left = self.length = None
        self.will_close = False

    def _read_status(self) -> tuple[str, int, str]:
        """Read the final answer's status line, and drop what interim answers come before it.

        ``http.client`` does so with "100 Continue" only. Any other it takes for an answer without
        a body, and the real one would then go to whoever gets the connection next.
        """
        for dropped in range(MOST_INTERIM):
            if dropped and not self.fp.peek():
                # Not RemoteDisconnected, which says that the request may not have been seen.
                raise http.client.HTTPException("nothing came behind an interim answer")
            line: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            status = line[1]
            if status >= http.client.OK:
                return line
            if status == http.client.SWITCHING_PROTOCOLS:
                raise http.client.HTTPException("another protocol was taken up unasked")
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException(f"got {MOST_INTERIM} interim answers")


class _Fields(http.client.HTTPMessage):
    """Fields that are put in and taken out as they are, without the ``email`` package's policy."""

    of_a_stream = False
    """Whether the body comes in chunks, and the connection stays."""

    def is_multipart(self) -> bool:
        """Return False; urllib3 asks whether all of the head was understood."""
        return False

    def get_payload(self, *_: object, **__: object) -> None:
        """Return None, as there is nothing but fields."""

    def items(self) -> list[tuple[str, str]]:
        """Return them in order."""
        return list(self.raw_items())


def _fields(head: bytes) -> _Fields | None:
    """Return the fields of ``head``, None for one that needs a closer look."""
    lines = head.decode("latin-1").split("\r\n")
    if len(lines) > MOST_FIELDS:
        return None
    fields = _Fields()
    values: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or "\n" in value or "\r" in value or not _NAME.fullmatch(name):
            return None
        value = value.lstrip(" \t")
        fields.set_raw(name, value)
        values.setdefault(name.lower(), value)
    encoding = values.get("transfer-encoding", "")
    fields.of_a_stream = encoding.lower() == "chunked" and "connection" not in values
    return fields
