"""How often a stream is looked at: at once each time, unless the process is short of CPU time.

To wake a stream, to read and to write cost more than what is done with an event in between. Where
events come faster than they can be passed on one by one, those of a stream wait for each other a
little, as packets do for a busy network card's interrupt.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LONGEST_REST = 0.1
"""Seconds; a reader does not see whether text comes ten times a second or more often."""
BUSY, FULL = 0.2, 0.4
"""Shares of one core that the process uses: where rests begin and end, and where they have grown to
their longest."""
LOOK_EACH = 0.25
"""Seconds between two looks at what the process uses."""


class Rests:
    """One for all streams of the process; any thread may ask.

    ``used`` tells the seconds of CPU time that the process has used.
    """

    def __init__(self, used: Callable[[], float] = time.process_time) -> None:
        self._used = used
        self._lock = threading.Lock()
        self._looked = time.monotonic()
        self._used_then = used()
        self._rest = 0.0

    def due(self, waited: float, now: float) -> float:
        """Return for how many seconds a stream that began to wait at ``waited`` is left alone now.

        Both are of `time.monotonic`.
        """
        if now - self._looked >= LOOK_EACH:
            self._look(now)
        return max(waited + self._rest - now, 0.0)

    def _look(self, now: float) -> None:
        with self._lock:
            passed = now - self._looked
            if passed < LOOK_EACH:  # another thread was faster
                return
            used = self._used()
            share = (used - self._used_then) / passed
            self._looked, self._used_then = now, used
            wanted = LONGEST_REST * min(max((share - BUSY) / (FULL - BUSY), 0.0), 1.0)
            if share > BUSY:  # they lower the share themselves, which is no reason to end them
                wanted = max(wanted, self._rest)
            # Half the way each time: a moment's work is not yet a busy process.
            self._rest = wanted + (self._rest - wanted) * 0.5 ** (passed / LOOK_EACH)
