"""Token counts without a burst of upstream calls.

Claude Code's ``/context`` asks for some 25 counts at once, one per tool. Counts that were asked
before come from a cache; of the others only a few at a time go upstream, and the rest are
estimated at once, rather over than under.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

CACHE_SIZE = 1024
UPSTREAM_AT_ONCE = 4


class CountGate:
    """Bounds the counts that are asked of the upstream at once, and remembers their answers."""

    def __init__(self, at_once: int = UPSTREAM_AT_ONCE, cache_size: int = CACHE_SIZE) -> None:
        self._slots = threading.Semaphore(at_once)
        self._lock = threading.Lock()
        self._cache: OrderedDict[Hashable, int] = OrderedDict()
        self._cache_size = cache_size

    def known(self, key: Hashable) -> int | None:
        """Return the count remembered for ``key``, None when there is none."""
        with self._lock:
            if key not in self._cache:
                return None
            self._cache.move_to_end(key)
            return self._cache[key]

    def enter(self) -> bool:
        """Take the right to ask upstream; False when enough others are asking already."""
        return self._slots.acquire(blocking=False)

    def leave(self, key: Hashable, count: int | None) -> None:
        """Give the right back, with the answer if there was one."""
        self._slots.release()
        if count is None:
            return
        with self._lock:
            self._cache[key] = count
            self._cache.move_to_end(key)
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
