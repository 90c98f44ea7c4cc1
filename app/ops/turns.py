"""Turns for a crowd of requests, so that it holds up nothing that is under way."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any

import gevent
from gevent.hub import Waiter


class Turns:
    """Lets ``at_once`` requests begin in each round of gevent's loop, first come first served.

    For the greenlets of one loop. While there is no crowd a turn costs next to nothing.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._left = 0
        self._round = -1
        self._waiting: deque[Any] = deque()
        self._timer: Any = None

    def take(self) -> None:
        """Return when it is the caller's turn."""
        loop = gevent.get_hub().loop
        if not self._waiting and loop.iteration != self._round:
            self._left, self._round = self._at_once, loop.iteration
        if not self._waiting and self._left:
            self._left -= 1
            return
        waiter = Waiter()
        self._waiting.append(waiter)
        if self._timer is None:
            self._timer = loop.timer(0)
            self._timer.start(self._next)
        try:
            waiter.get()
        except BaseException:  # its greenlet was ended
            with suppress(ValueError):
                self._waiting.remove(waiter)
            raise

    def _next(self) -> None:
        """Begin a round; the loop calls it once in each."""
        self._timer.close()
        self._timer = None
        loop = gevent.get_hub().loop
        self._left, self._round = self._at_once, loop.iteration
        while self._waiting and self._left:
            self._left -= 1
            self._waiting.popleft().switch(None)
        if self._waiting and self._timer is None:
            self._timer = loop.timer(0)
            self._timer.start(self._next)
