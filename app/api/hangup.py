"""Noticing that a client hung up, also while nothing is being sent to it."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from typing import Any

from gevent.monkey import get_original

POLL_INTERVAL = 0.25
"""Seconds between looks at all open connections; each look is one system call for all of them."""

_poll: Callable[[], Any] = get_original("select", "poll")
_RDHUP = getattr(select, "POLLRDHUP", 0)
_MASK = _RDHUP or select.POLLIN


class HangupWatch:
    """One thread per process that calls back when a watched connection is closed by its peer.

    A half-closed connection counts as closed, as it does for nginx. The thread starts with the
    first request and sleeps without a wake-up while none is under way.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._poll = _poll()
        self._watched: dict[int, tuple[Any, Callable[[], None]]] = {}
        self._busy = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, connection: Any, on_hangup: Callable[[], None]) -> Callable[[], None]:
        """Call ``on_hangup`` once when ``connection`` (a socket or None) is closed by its peer.

        Returns the function that ends the watch; it must be called before the socket is closed.
        """
        fileno = connection.fileno() if connection is not None else -1
        if fileno < 0:
            return lambda: None
        entry = (connection, on_hangup)
        with self._lock:
            self._watched[fileno] = entry
            self._poll.register(fileno, _MASK)
            if not self._busy.is_set():
                self._busy.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="hang-up", daemon=True)
                self._thread.start()

        def forget() -> None:
            with self._lock:
                if self._watched.get(fileno) is entry:
                    self._drop(fileno)

        return forget

    def _drop(self, fileno: int) -> None:
        del self._watched[fileno]
        self._poll.unregister(fileno)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self._busy.wait()
            pause.wait(POLL_INTERVAL)
            self._look()

    def _look(self) -> None:
        # Not in `_run`: what its variables name would be kept while it waits.
        for on_hangup in self._closed():
            on_hangup()

    def _closed(self) -> list[Callable[[], None]]:
        gone = []
        with self._lock:
            if not self._watched:
                self._busy.clear()
            for fileno, _ in self._poll.poll(0):
                connection, on_hangup = self._watched[fileno]
                if _RDHUP or _at_end(connection):
                    self._drop(fileno)
                    gone.append(on_hangup)
        return gone


def _at_end(connection: socket.socket) -> bool:
    """Tell an end of file from a pipelined request, where the system has no RDHUP."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
