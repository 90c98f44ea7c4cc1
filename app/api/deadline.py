"""Cutting off request bodies that trickle in: a connection must not be held for nothing."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from gevent.socket import cancel_wait

SLOWEST = 16 * 1024
"""Bytes per second that a body must come with, once its time is over."""
UNKNOWN = 4
LOOK = 0.5
"""Seconds between two looks at the bodies under way."""


class BodyDeadline:
    """One thread per process that ends the reading side of connections whose time is over.

    A body has ``timeout`` seconds, and one more for every `SLOWEST` bytes that it announces; one
    that does not say how long it is has `UNKNOWN` times as long.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._lock = threading.Lock()
        self._reading: dict[Reading, tuple[float, Any]] = {}
        self._busy = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def reading(self, connection: Any, length: int | None) -> Iterator[Reading]:
        """Watch ``connection`` (a socket, or None) while ``length`` bytes are read from it."""
        reading = Reading()
        if connection is None:
            yield reading
            return
        lasts = self._timeout * UNKNOWN if length is None else self._timeout + length / SLOWEST
        ends, timeout = time.monotonic() + lasts, connection.gettimeout()
        with self._lock:
            self._reading[reading] = (ends, connection)
            if not self._busy.is_set():
                self._busy.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="bodies", daemon=True)
                self._thread.start()
        try:
            yield reading
        finally:
            with self._lock:
                self._reading.pop(reading, None)
            if reading.over:
                connection.settimeout(timeout)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self._busy.wait()
            pause.wait(LOOK)
            self._look()

    def _look(self) -> None:
        # Not in `_run`: what its variables name would be kept while it waits.
        now = time.monotonic()
        with self._lock:
            if not self._reading:
                self._busy.clear()
            for reading, (ends, connection) in list(self._reading.items()):
                if now >= ends:
                    del self._reading[reading]
                    reading.over = True
                    _end(connection)


class Reading:
    """A body that is being read; ``over`` once its time was."""

    over = False


def _end(connection: Any) -> None:
    """Have the reader fail, whether it waits now or is about to.

    Not by shutting the reading side down, where it can be helped: the system resets a connection on
    which bytes come after that and after the answer's end, and the reset can take the answer along.
    """
    waiting = getattr(connection, "_read_event", None)  # gevent's
    if waiting is None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RD)
        return
    connection.settimeout(0.0)
    cancel_wait(waiting, TimeoutError("the body's time is over"))
