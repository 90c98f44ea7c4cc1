"""A store whose failures cost nobody a request."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from app.pool.state.store import StateError, StateStore

T = TypeVar("T")

log = logging.getLogger("gateway.state")

QUIET = 30.0
"""Seconds between two log lines about a store that keeps failing."""


class GuardedStore:
    """Answers with nothing where ``store`` fails, and says so in the log now and then."""

    def __init__(self, store: StateStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._silent_until = 0.0
        self._failures = 0
        self.failing = False
        """Whether the last call failed."""

    def get_many(self, keys: Iterable[str]) -> dict[str, str]:
        """Return the values of those of ``keys`` that are there; {} when the store fails."""
        return self._try(lambda: self._store.get_many(keys)) or {}

    def put_many(self, values: Mapping[str, str], ttl: float) -> None:
        """Store ``values`` for ``ttl`` seconds, if the store can."""
        self._try(lambda: self._store.put_many(values, ttl))

    def delete(self, keys: Iterable[str]) -> None:
        """Remove ``keys``, if the store can."""
        self._try(lambda: self._store.delete(keys))

    def scan(self, prefix: str) -> dict[str, str]:
        """Return every entry whose key begins with ``prefix``; {} when the store fails."""
        return self._try(lambda: self._store.scan(prefix)) or {}

    def ping(self) -> bool:
        """Tell whether the store answers."""
        return self._store.ping()

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def _try(self, work: Callable[[], T]) -> T | None:
        try:
            result = work()
        except StateError as error:
            self.failing = True
            self._report(error)
            return None
        self.failing = False
        return result

    def _report(self, error: StateError) -> None:
        with self._lock:
            self._failures += 1
            now = self._clock()
            if now < self._silent_until:
                return
            self._silent_until = now + QUIET
            failures, self._failures = self._failures, 0
        log.warning("%s (%d failure(s) since the last such line)", error, failures)


def guarded(store: StateStore) -> GuardedStore:
    """Return ``store`` guarded, or as it is when it is guarded already."""
    return store if isinstance(store, GuardedStore) else GuardedStore(store)
