"""The queue between one exchange's generator and the threads that report to it."""

from __future__ import annotations

import threading
from collections import deque
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
        self._items: deque[Report] = deque()
        self._room: threading.Event | None = None
        """What the producer waits with; there is none before it ever had to."""
        self._closed = False
        # Each is written by one side alone: no lock, and none of the bytes is ever miscounted.
        self._came = 0
        self._went = 0

    def put(self, source: Any, what: Any, chunk: Any, size: int) -> None:
        """Hand over a chunk of ``size`` bytes, waiting for room.

        Raises `Aborted` once nobody reads any more.
        """
        while not self._closed and not self._has_room(size):
            room = self._room = threading.Event()
            # The reader may have caught up before it could see that someone waits.
            if not self._closed and not self._has_room(size):
                room.wait()
        if self._closed:
            raise Aborted
        self._came += size
        self._items.append((source, what, chunk, size))
        self._bell.ring()

    def signal(self, source: Any, what: Any, value: Any = None) -> None:
        """Hand over something that must never wait."""
        if not self._closed:
            self._items.append((source, what, value, 0))
            self._bell.ring()

    @property
    def waiting(self) -> bool:
        """Tell whether a report has arrived that was not taken."""
        return bool(self._items)

    def get(self) -> Report:
        """Return the next report, waiting for it."""
        while not self._items:
            self._bell.wait(None)
        return self._take()

    def poll(self) -> Report | None:
        """Return the next report if it has arrived already, else None."""
        return self._take() if self._items else None

    def close(self) -> None:
        """Wake a producer that waits for room, and drop what waits: nobody reads any more."""
        self._closed = True
        if self._room is not None:
            self._room.set()
        # Reports name their attempt, which knows its mailbox: they would wait for the collector.
        self._items.clear()

    def _has_room(self, size: int) -> bool:
        waiting = len(self._items)
        return not waiting or (waiting < CAPACITY and self._came - self._went + size <= READ_AHEAD)

    def _take(self) -> Report:
        item = self._items.popleft()
        self._went += item[3]
        if self._room is not None and not self._room.is_set():
            waiting = len(self._items)
            # Not for each chunk: waking is what costs.
            if not waiting or (
                waiting < CAPACITY // 2 and self._came - self._went <= READ_AHEAD // 2
            ):
                self._room.set()
        return item
