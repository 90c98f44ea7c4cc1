"""One timer thread per process that tells silent exchanges to show a sign of life."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable


class Silence:
    """How long one exchange has been silent. ``broken()`` is all that an event costs."""

    __slots__ = ("on_tick", "since")

    def __init__(self, on_tick: Callable[[], None]) -> None:
        self.on_tick: Callable[[], None] | None = on_tick
        self.since = time.monotonic()

    def broken(self) -> None:
        """Something was sent just now."""
        self.since = time.monotonic()

    def over(self) -> None:
        """The exchange has ended; the timer forgets it at its next look."""
        self.on_tick = None


class KeepAliveTimer:
    """Calls ``on_tick`` of every watched silence each ``interval`` seconds that it lasts.

    The thread starts with the first exchange, so that it lives in the worker and not in the
    process that forked it, and sleeps without a wake-up while there is none.
    """

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._due: list[tuple[float, int, Silence]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def watch(self, silence: Silence) -> None:
        """Tick ``silence`` until it is over."""
        with self._changed:
            was_idle = not self._due
            heapq.heappush(self._due, (silence.since + self.interval, next(self._order), silence))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="keep-alive", daemon=True)
                self._thread.start()
            elif was_idle:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            self._step()

    def _step(self) -> None:
        """Wait for the next silence that is due, and tick it if it has lasted."""
        with self._changed:
            while not self._due:
                self._changed.wait()
            wait = self._due[0][0] - time.monotonic()
            if wait > 0:
                self._changed.wait(wait)
                return
            _, order, silence = heapq.heappop(self._due)
            tick = silence.on_tick
            if tick is None:
                return
            now = time.monotonic()
            silent = now - silence.since >= self.interval
            if silent:
                silence.since = now
            heapq.heappush(self._due, (silence.since + self.interval, order, silence))
        if silent:
            tick()
