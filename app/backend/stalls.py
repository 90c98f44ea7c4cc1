"""Ending answers whose upstream has fallen silent, without a timer for each read."""

from __future__ import annotations

import threading
import time

from app.backend.connection import Call

LOOKS = 20
"""Looks per timeout: a stall is found that much of the timeout late."""
SOONEST, LATEST = 0.02, 1.0
"""Bounds for the seconds between two looks."""
AT_ONCE = 100
"""Calls looked at before others have their turn: of a thousand, most lie in no cache, and all of
them at once held up events for 2 to 9 ms."""


class StallWatch:
    """One thread per process that ends calls whose answer brings nothing for ``timeout`` seconds.

    Only the time that a call waits counts: one whose client is slow asks for nothing. The thread
    starts with the first answer and sleeps without a wake-up while there is none.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._pause = min(max(timeout / LOOKS, SOONEST), LATEST)
        self._lock = threading.Lock()
        self._calls: dict[Call, tuple[int, float, float]] = {}
        self._busy = threading.Event()
        self._thread: threading.Thread | None = None

    def watching(self, call: Call, timeout: float | None = None) -> _Watching:
        """Watch ``call`` inside the block; its own ``timeout`` may end it `LATEST` too late."""
        return _Watching(self, call, self._timeout if timeout is None else timeout)

    def begin(self, call: Call, timeout: float) -> None:
        """Watch ``call`` from here on."""
        with self._lock:
            self._calls[call] = (call.received, time.monotonic(), timeout)
            if not self._busy.is_set():
                self._busy.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="stalls", daemon=True)
                self._thread.start()

    def end(self, call: Call) -> None:
        """Watch it no more."""
        with self._lock:
            self._calls.pop(call, None)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self._busy.wait()
            pause.wait(self._pause)
            self._look()

    def _look(self) -> None:
        # Not in `_run`: what its variables name would be kept while it waits.
        with self._lock:
            calls = list(self._calls)
            if not calls:
                self._busy.clear()
        for first in range(0, len(calls), AT_ONCE):
            if first:
                time.sleep(0)
            self._look_at(calls[first : first + AT_ONCE])

    def _look_at(self, calls: list[Call]) -> None:
        now = time.monotonic()
        with self._lock:
            for call in calls:
                if call not in self._calls:  # it has ended meanwhile
                    continue
                received, since, timeout = self._calls[call]
                if not call.waiting or call.received != received:
                    self._calls[call] = (call.received, now, timeout)
                elif now - since >= timeout:
                    del self._calls[call]
                    call.stall()


class _Watching:
    __slots__ = ("_call", "_timeout", "_watch")

    def __init__(self, watch: StallWatch, call: Call, timeout: float) -> None:
        self._watch = watch
        self._call = call
        self._timeout = timeout

    def __enter__(self) -> None:
        self._watch.begin(self._call, self._timeout)

    def __exit__(self, *_: object) -> None:
        self._watch.end(self._call)
