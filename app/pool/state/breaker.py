"""Keeps requests from waiting, one after the other, for a store that does not answer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from app.pool.state.store import StateError

T = TypeVar("T")

log = logging.getLogger("gateway.state")

PAUSE = 3.0
"""Seconds without calls after a failure; longer than the pool takes between two syncs, so that
it is normally the sync, and no request, that tries the store again."""
QUIET = 30.0
"""Seconds between two log lines about a store that keeps failing."""


class Breaker:
    """Lets calls through until one fails, then none for `PAUSE` seconds.

    ``strikes`` failures in a row open it. A call that takes long is none: the store has its own
    patience for each step, and a process with too much to do is slow with a swift store, too.

    Calls that only read go on where only writes fail, as on a full disk; their success does not
    mend it.
    """

    def __init__(
        self,
        what: str,
        *,
        strikes: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._strikes = strikes
        self._clock = clock
        self._lock = threading.Lock()
        self._open_until = 0.0
        self._unwritable_until = 0.0
        self._unwritable = False
        self._failures = 0
        self._silent_until = 0.0
        self._untold = 0
        self.failing = False
        """Whether the last call failed, or was not even made."""

    def call(
        self,
        work: Callable[[], T],
        *,
        probe: bool = False,
        minor: bool = False,
        reading: bool = False,
    ) -> T:
        """Return what ``work`` returns; raises `StateError` when it does, or at once when open.

        ``probe`` tries although it is open: nobody waits for the answer. A failure that is
        ``minor`` does not open it: so short is the patience for it. ``reading``: it writes nothing.
        """
        until = self._open_until if reading else max(self._open_until, self._unwritable_until)
        if self._clock() < until and not probe:
            self.failing = True
            raise StateError(f"{self._what} failed a moment ago")
        try:
            result = work()
        except StateError as error:
            if not minor:
                self._failed(error, reading=reading)
            raise
        if not (reading and self._unwritable):
            self._mend()
        return result

    def _failed(self, error: StateError, *, reading: bool) -> None:
        self.failing = True
        self._unwritable = self._unwritable or not reading
        self._failures += 1
        if self._failures >= self._strikes:
            self._open(error, reading=reading)

    def _open(self, error: StateError, *, reading: bool) -> None:
        with self._lock:
            now = self._clock()
            self._unwritable_until = now + PAUSE
            if reading:
                self._open_until = now + PAUSE
            self.failing = True
            self._untold += 1
            if now < self._silent_until:
                return
            self._silent_until = now + QUIET
            failures, self._untold = self._untold, 0
        log.warning("%s (%d failure(s) since the last such line)", error, failures)

    def _mend(self) -> None:
        self._failures = 0
        if not self.failing:
            return
        with self._lock:
            told, self._silent_until = self._silent_until, 0.0
            self._open_until = self._unwritable_until = 0.0
            self._unwritable = False
            self.failing = False
        if told:
            log.warning("%s answers again", self._what)
