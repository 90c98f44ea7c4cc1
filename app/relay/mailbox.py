"""The queue between one exchange's generator and the threads that report to it."""

from __future__ import annotations

import queue
import threading
from typing import Any

from app.backend.upstream import Aborted

CAPACITY = 64
"""Chunks read ahead of a slow client; the upstream is not read further until it catches up."""


class Mailbox:
    """Bounded for chunks, unbounded for signals (ticks, ends), read by one generator."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._room = threading.Semaphore(CAPACITY)
        self._closed = False

    def put(self, item: Any) -> None:
        """Hand over a chunk, waiting for room; raises `Aborted` once nobody reads any more."""
        self._room.acquire()
        if self._closed:
            raise Aborted
        self._items.put((True, item))

    def signal(self, item: Any) -> None:
        """Hand over something that must never wait."""
        self._items.put((False, item))

    def get(self) -> Any:
        """Return the next item, waiting for it."""
        counted, item = self._items.get()
        if counted:
            self._room.release()
        return item

    def close(self) -> None:
        """Wake a producer that waits for room: nobody reads any more."""
        self._closed = True
        self._room.release()
