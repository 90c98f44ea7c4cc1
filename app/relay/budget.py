"""Retries of the whole process, kept to a share of its requests.

A failing upstream must not be met with several times the usual load. The idea is that of
Finagle's and gRPC's retry budgets: every request earns a part of a retry.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

RESERVE = 100.0
"""Retries that a process may always make, however few requests there are."""
REFILL = 10.0
"""Retries per second that the reserve grows by."""


class RetryBudget:
    """A purse of retries: ``share`` goes in for each request, one comes out for each retry.

    It holds no more than `RESERVE`, or twice the share of the last minute's requests if that is
    more. ``clock`` gives seconds that never go back. Thread-safe.
    """

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._clock = clock
        self._lock = threading.Lock()
        self._purse = RESERVE
        self._most = RESERVE
        self._earned = 0.0
        self._at = clock()
        self._minute = self._at

    def earn(self) -> None:
        """Note that a request came in."""
        with self._lock:
            self._earned += self._share
            self._fill()
            self._purse = min(self._most, self._purse + self._share)

    def spend(self) -> bool:
        """Take a retry out; returns False when there is none."""
        with self._lock:
            self._fill()
            if self._purse < 1.0:
                return False
            self._purse -= 1.0
            return True

    def _fill(self) -> None:
        now = self._clock()
        passed, self._at = now - self._at, now
        if self._purse < RESERVE:
            self._purse = min(RESERVE, self._purse + passed * REFILL)
        if now - self._minute >= 60.0:
            self._most = max(RESERVE, 2.0 * self._earned)
            self._earned, self._minute = 0.0, now
            self._purse = min(self._purse, self._most)
