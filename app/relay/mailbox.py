"""The queue between one exchange's generator and the threads that report to it."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import Any

from app.backend.bell import Bell
from app.backend.upstream import Aborted

CAPACITY = 64
"""Chunks read ahead of a slow client; the upstream is not read further until it catches up."""
READ_AHEAD = 128 << 10
"""Bytes read ahead of a slow client, where that is less; a chunk that is larger waits alone."""

Report = tuple[Any, Any, Any, int]
"""Who reports, what, a value, and how many bytes of an answer's body that took."""


class Mailbox:
    """Bounded for chunks, unbounded for signals (ticks, ends), read by one generator.

    ``bell`` is rung for each signal: its reader may be waiting for something else. One producer of
    chunks at a time. While there is room, a chunk costs no more than the queue.
    """

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._items: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._room = threading.Event()
        self._room.set()
        self._closed = False
        # Each is written by one side alone: no lock, and none of the bytes is ever miscounted.
        self._came = 0
        self._went = 0

    def put(self, source: Any, what: Any, chunk: Any, size: int) -> None:
        """Hand over a chunk of ``size`` bytes, waiting for room.

        Raises `Aborted` once nobody reads any more.
        """
        while not self._closed and not self._has_room(size):
            self._room.clear()
            # The reader may have caught up before it could see that someone waits.
            if not self._closed and not self._has_room(size):
                self._room.wait()
        if self._closed:
            raise Aborted
        self._came += size
        self._items.put((source, what, chunk, size))

    def signal(self, source: Any, what: Any, value: Any = None) -> None:
        """Hand over something that must never wait."""
        if not self._closed:
            self._items.put((source, what, value, 0))
            self._bell.ring()

    @property
    def waiting(self) -> bool:
        """Tell whether a report has arrived that was not taken."""
        return not self._items.empty()

    def get(self) -> Report:
        """Return the next report, waiting for it."""
        item = self._items.get()
        self._taken(item)
        return item

    def poll(self) -> Report | None:
        """Return the next report if it has arrived already, else None."""
        try:
            item = self._items.get_nowait()
        except queue.Empty:
            return None
        self._taken(item)
        return item

    def close(self) -> None:
        """Wake a producer that waits for room, and drop what waits: nobody reads any more."""
        self._closed = True
        self._room.set()
        # Reports name their attempt, which knows its mailbox: they would wait for the collector.
        with suppress(queue.Empty):
            while True:
                self._items.get_nowait()

    def _has_room(self, size: int) -> bool:
        waiting = self._items.qsize()
        return not waiting or (waiting < CAPACITY and self._came - self._went + size <= READ_AHEAD)

    def _taken(self, item: Report) -> None:
        self._went += item[3]
        if not self._room.is_set():
            waiting = self._items.qsize()
            # Not for each chunk: waking is what costs.
            if not waiting or (
                waiting < CAPACITY // 2 and self._came - self._went <= READ_AHEAD // 2
            ):
                self._room.set()
