"""The queue between one exchange's generator and the threads that report to it."""

from __future__ import annotations

import queue
import threading
from typing import Any

from app.backend.upstream import Aborted

CAPACITY = 64
"""Chunks read ahead of a slow client; the upstream is not read further until it catches up."""


class Mailbox:
    """Bounded for chunks, unbounded for signals (ticks, ends), read by one generator.

    One producer of chunks at a time. While there is room, a chunk costs no more than the queue.
    """

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._room = threading.Event()
        self._room.set()
        self._closed = False

    def put(self, item: Any) -> None:
        """Hand over a chunk, waiting for room; raises `Aborted` once nobody reads any more."""
        if self._items.qsize() >= CAPACITY:
            self._room.clear()
            # The reader may have caught up before it could see that someone waits.
            if self._items.qsize() >= CAPACITY and not self._closed:
                self._room.wait()
        if self._closed:
            raise Aborted
        self._items.put(item)

    def signal(self, item: Any) -> None:
        """Hand over something that must never wait."""
        self._items.put(item)

    def get(self) -> Any:
        """Return the next item, waiting for it."""
        item = self._items.get()
        self._make_room()
        return item

    def poll(self) -> Any:
        """Return the next item if it has arrived already, else None."""
        try:
            item = self._items.get_nowait()
        except queue.Empty:
            return None
        self._make_room()
        return item

    def close(self) -> None:
        """Wake a producer that waits for room: nobody reads any more."""
        self._closed = True
        self._room.set()

    def _make_room(self) -> None:
        if not self._room.is_set() and self._items.qsize() < CAPACITY // 2:
            self._room.set()
