"""Closing a connection on which its client still sends, so that it gets its last answer.

Closing with bytes unread resets the connection, and the reset can take the answer along (RFC 9112,
section 9.6).
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import gevent
from gunicorn.http.body import ChunkedReader, LengthReader

HEARING = 10.0
"""Seconds to go on reading from who still sends when its answer is out, so that it gets that."""

SILENCE = 1.0
"""Seconds without a byte from there after which it is left."""


def is_read(reader: Any) -> bool:
    """Return whether gunicorn's reader of a body has come to the body's end."""
    if isinstance(reader, LengthReader):
        return not reader.length
    return isinstance(reader, ChunkedReader) and reader.parser is None


def hear_out(client: Any) -> None:
    """End the answer, and read on until the other side closes, is silent, or has had its time."""
    with contextlib.suppress(OSError), gevent.Timeout(HEARING, False):
        client.shutdown(socket.SHUT_WR)
        client.settimeout(SILENCE)
        while client.recv(65_536):
            gevent.sleep(0)
