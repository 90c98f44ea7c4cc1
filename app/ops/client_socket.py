"""A client's connection on which what belongs together leaves in one piece.

Most of what a small answer costs is system calls: gunicorn makes one for the head, one for the body
and one for the end, and gevent asks the socket for its buffer's size before each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gevent.socket import socket as GeventSocket  # noqa: N812 - it is a class


class ClientSocket:
    """Stands in for a gevent socket while one request is answered; `flush` it at the end.

    The head waits for what follows it, and so does what is sent after `hold_next`. To call
    ``close_behind`` has the connection closed behind the answer, which says so.
    """

    def __init__(self, sock: Any, close_behind: Callable[[], None] | None = None) -> None:
        self._inner = sock
        self.close_behind = close_behind
        # A subclass may encrypt, which the socket below it knows nothing of.
        self._raw = sock._sock if type(sock) is GeventSocket else None
        self._held = b""
        self._hold_next = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def hold_next(self) -> None:
        """Keep what is sent next until more is: it is known that more follows at once."""
        self._hold_next = True

    def sendall(self, data: bytes) -> None:
        """Send ``data``, or keep it; raises OSError."""
        if self._held:
            data, self._held = self._held + data, b""
        elif data.startswith(b"HTTP/1."):
            self._held = data
            return
        if self._hold_next:
            self._hold_next = False
            self._held = data
            return
        self._send(data)

    def flush(self) -> None:
        """Send what is kept, if the client is still there."""
        with suppress(OSError):
            self._flush()

    def send(self, data: bytes, *rest: Any) -> int:
        """Send some of ``data`` behind what is kept; raises OSError."""
        self._flush()
        sent: int = self._inner.send(data, *rest)
        return sent

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """Send a part of ``file`` behind what is kept; raises OSError."""
        self._flush()
        sent: int = self._inner.sendfile(file, offset, count)
        return sent

    def _flush(self) -> None:
        held, self._held = self._held, b""
        if held:
            self._send(held)

    def _send(self, data: bytes) -> None:
        sent = 0
        if self._raw is not None:
            with suppress(BlockingIOError):
                sent = self._raw.send(data)
        if sent < len(data):
            self._inner.sendall(memoryview(data)[sent:])
