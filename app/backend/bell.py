"""Waiting for a socket and for other threads at once.

A thread that reads an answer must also hear what others have to tell it. A second thread that reads
for it would do, but costs more than all that is done with an event, and holds a stack.
"""

from __future__ import annotations

import select
import socket
import threading
from typing import Any, Protocol

import gevent
from gevent.monkey import is_module_patched

_READABLE = 1
"""libev's ``EV_READ``."""


class Bell(Protocol):
    """One thread waits; any thread rings. A ring is not lost when nobody waits at that moment."""

    def wait(self, sock: Any, rest: float = 0.0) -> None:
        """Return once ``sock`` can be read (or is at its end), or `ring` was called.

        Without a socket (None) only the bell is waited for. With a ``rest`` the socket is left
        alone: it returns when so many seconds have passed.
        """
        ...

    def ring(self) -> None:
        """Have the one who waits, or else who waits next, return at once."""
        ...

    def close(self) -> None:
        """Let go of what the bell holds; it may ring on, unheard."""
        ...


def new_bell() -> Bell:
    """Return a bell for greenlets where gevent has taken sockets over, else one for threads."""
    return _GreenBell() if is_module_patched("socket") else _ThreadBell()


class _GreenBell:
    """All runs in one thread of the system, so nothing happens between two looks."""

    __slots__ = ("_rung", "_sleeper", "_socket", "_watcher")

    def __init__(self) -> None:
        self._rung = False
        self._socket: Any = None
        self._watcher: Any = None
        self._sleeper: Any = None
        """The greenlet that waits."""

    def wait(self, sock: Any, rest: float = 0.0) -> None:
        if sock is not self._socket and sock is not None:
            self.close()
            self._watcher = gevent.get_hub().loop.io(sock.fileno(), _READABLE)
            self._socket = sock
        if not self._rung:
            hub = gevent.get_hub()
            watcher: Any = self._watcher if sock is not None else None
            if rest:
                watcher = hub.loop.timer(rest)
            # Without gevent's `Waiter`, which costs more: `_wake` sees to it that no late ring
            # wakes the greenlet where it waits for something else.
            sleeper = self._sleeper = gevent.getcurrent()
            if watcher is not None:
                watcher.start(sleeper.switch)
            try:
                hub.switch()
            finally:
                self._sleeper = None
                if rest:
                    watcher.close()
                elif watcher is not None:
                    watcher.stop()
        self._rung = False

    def ring(self) -> None:
        if not self._rung:
            self._rung = True
            if self._sleeper is not None:
                gevent.get_hub().loop.run_callback(self._wake, self._sleeper)

    def _wake(self, sleeper: Any) -> None:
        if self._sleeper is sleeper:  # bytes may have woken it first
            sleeper.switch()

    def close(self) -> None:
        watcher, self._watcher, self._socket = self._watcher, None, None
        if watcher is not None:
            watcher.close()


class _ThreadBell:
    """Rings through a pair of sockets, which exist from the first wait on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rung = False
        self._ends: tuple[socket.socket, socket.socket] | None = None

    def wait(self, sock: Any, rest: float = 0.0) -> None:
        with self._lock:
            if self._ends is None:
                self._ends = socket.socketpair()
                if self._rung:
                    self._ends[1].send(b"!")
            heard = self._ends[0]
        poll = select.poll()
        if sock is not None and not rest:
            poll.register(sock.fileno(), select.POLLIN)
        poll.register(heard.fileno(), select.POLLIN)
        poll.poll(rest * 1000 if rest else None)
        with self._lock:
            if self._rung:
                self._rung = False
                heard.recv(1)

    def ring(self) -> None:
        with self._lock:
            if not self._rung:
                self._rung = True
                if self._ends is not None:
                    self._ends[1].send(b"!")

    def close(self) -> None:
        with self._lock:
            ends, self._ends = self._ends, None
            for end in ends or ():
                end.close()
