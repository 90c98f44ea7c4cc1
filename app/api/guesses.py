"""Tells the log who shows wrong keys, without becoming a flood itself."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger("gateway.api")

WINDOW = 60.0
MOST = 100
"""Addresses that are told apart within a window; all further ones are counted together."""
OTHERS = "other addresses"
_TOLD = frozenset(8**power for power in range(10))
"""Counts that are worth a line: the first guess, and how much becomes of it."""


class Guesses:
    """Counts wrong keys per address and minute, in this process; thread-safe.

    ``kind`` is the kind of key. Good requests never come here.
    """

    def __init__(self, kind: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._kind = kind
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._ends = 0.0

    def wrong(self, address: str) -> None:
        """Note that ``address`` has shown a wrong key; never which one."""
        with self._lock:
            now = self._clock()
            if now >= self._ends:
                self._counts.clear()
                self._ends = now + WINDOW
            if len(self._counts) >= MOST and address not in self._counts:
                address = OTHERS
            count = self._counts[address] = self._counts.get(address, 0) + 1
        if count in _TOLD:
            log.warning("a wrong %s key from %s, %d in the last minute", self._kind, address, count)
