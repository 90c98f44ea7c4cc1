"""The store of one process, gone with it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from app.pool.state.clock import SteadyClock

MOST_ENTRIES = 100_000
MOST_BYTES = 64 * 1024 * 1024


class MemoryStore:
    """Keeps entries in memory, at most ``most_entries`` of at most ``most_bytes`` together.

    When full, what was read or written longest ago goes first. ``clock`` gives seconds that
    never go back.
    """

    def __init__(
        self,
        most_entries: int = MOST_ENTRIES,
        most_bytes: int = MOST_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most_entries = most_entries
        self._most_bytes = most_bytes
        self._clock = clock
        self._steady = SteadyClock()
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._bytes = 0

    leases = None
    """Its one process keeps its own."""

    def unhurried(self) -> MemoryStore:
        """Return itself."""
        return self

    def counters(self) -> Any:
        """Return counters in memory."""
        from limits.storage import MemoryStorage  # noqa: PLC0415 - only who limits pays for it

        return MemoryStorage()

    def now(self) -> float:
        """Return epoch seconds."""
        return self._steady()

    def get_many(self, keys: Iterable[str]) -> dict[str, str]:
        """Return the values of those of ``keys`` that are there."""
        found = {}
        with self._lock:
            now = self._clock()
            for key in keys:
                value, expires = self._entries.get(key, ("", 0.0))
                if expires > now:
                    self._entries.move_to_end(key)
                    found[key] = value
        return found

    def put_many(self, values: Mapping[str, str], ttl: float) -> None:
        """Store ``values`` for ``ttl`` seconds, in place of what was there."""
        with self._lock:
            expires = self._clock() + ttl
            for key, value in values.items():
                self._drop(key)
                self._entries[key] = (value, expires)
                self._bytes += _size(key, value)
            while len(self._entries) > self._most_entries or self._bytes > self._most_bytes:
                self._drop(next(iter(self._entries)))

    def delete(self, keys: Iterable[str]) -> None:
        """Remove ``keys``; those that are not there are no error."""
        with self._lock:
            for key in keys:
                self._drop(key)

    def scan(self, prefix: str) -> dict[str, str]:
        """Return every entry whose key begins with ``prefix``; drops what has expired."""
        with self._lock:
            now = self._clock()
            for key in [key for key, entry in self._entries.items() if entry[1] <= now]:
                self._drop(key)
            return {
                key: value for key, (value, _) in self._entries.items() if key.startswith(prefix)
            }

    def announce(self) -> None:
        """Do nothing: there is no other process."""

    def on_news(self, tell: Callable[[], None]) -> None:
        """Do nothing: nobody else has news."""

    def ping(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry:
            self._bytes -= _size(key, entry[0])


def _size(key: str, value: str) -> int:
    # Close enough: Python keeps such texts as one byte a character, plus the objects around them.
    return len(key) + len(value) + 200
