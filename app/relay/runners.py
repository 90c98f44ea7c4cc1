"""Threads that are used again: a new one costs as much as several events.

Under gevent that is a greenlet, and above all the memory for its frames, which Python gets from the
system for each of them and gives back at its end.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from typing import Any

MOST_IDLE = 16
"""Threads that are kept. Few requests are being opened at once: an open stream needs none."""

Task = tuple[Callable[..., None], tuple[Any, ...]]


class Runners:
    """Starts functions in threads of their own. Thread-safe."""

    def __init__(self) -> None:
        self._idle: list[_Runner] = []

    def start(self, function: Callable[..., None], args: tuple[Any, ...]) -> None:
        """Call ``function`` in another thread soon, as `_thread.start_new_thread` does."""
        task = (function, args)
        try:
            runner = self._idle.pop()
        except IndexError:
            # Without arguments of its own, which it would keep to its end.
            _thread.start_new_thread(_Runner(self._idle, task).work, ())
        else:
            runner.wake(task)


class _Runner:
    """One of the threads. It comes back to ``idle`` unless there are enough."""

    def __init__(self, idle: list[_Runner], task: Task) -> None:
        self._idle = idle
        self._task: Task | None = task
        self._go = threading.Lock()
        self._go.acquire()

    def wake(self, task: Task) -> None:
        """Do ``task``, now that it is not idle any more."""
        self._task = task
        self._go.release()

    def work(self) -> None:
        """Do the task there is, and what comes after it."""
        while self._task:
            function, args = self._task
            function(*args)
            self._task = None
            del function, args
            if len(self._idle) >= MOST_IDLE:
                return
            self._idle.append(self)
            self._go.acquire()
