"""A store whose failures cost nobody a request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from app.pool.state.breaker import Breaker
from app.pool.state.leases import LeaseBook
from app.pool.state.store import StateError, StateStore

T = TypeVar("T")

STRIKES = 3
"""Failures in a row of what a request can do without, before it does without for a while."""
MOST_UNWRITTEN = 1000
"""Entries kept for a store that fails, to be written when it is back."""


class GuardedStore:
    """Answers with nothing where ``store`` fails, and says so in the log now and then.

    What could not be written is found here meanwhile, and written when the store is back.
    """

    def __init__(self, store: StateStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._breaker = Breaker("the state store", strikes=STRIKES, clock=clock)
        self._unwritten: dict[str, tuple[str, float]] = {}
        self._recovering = ""
        """The key that `recover` writes just now."""

    @property
    def failing(self) -> bool:
        """Whether the last call failed."""
        return self._breaker.failing

    @property
    def leases(self) -> LeaseBook | None:
        """The leases of all processes on this store; not guarded."""
        return self._store.leases

    def unhurried(self) -> GuardedStore:
        """Return the same store for callers who can wait for it."""
        return GuardedStore(self._store.unhurried(), self._clock)

    def counters(self) -> Any:
        """Return the store's counters; not guarded."""
        return self._store.counters()

    def now(self) -> float:
        """Return the store's time."""
        return self._store.now()

    def get_many(self, keys: Iterable[str]) -> dict[str, str]:
        """Return the values of those of ``keys`` that are there; what is known if it fails."""
        wanted = list(keys)
        found = self._try(lambda: self._store.get_many(wanted), reading=True) or {}
        if self._unwritten:
            found.update(self._waiting(wanted))
        return found

    def put_many(self, values: Mapping[str, str], ttl: float) -> None:
        """Store ``values`` for ``ttl`` seconds, now or when the store is back."""
        ends = self._clock() + ttl
        for key in values:
            # What was kept is older, and must neither hide this nor be written after it.
            self._unwritten.pop(key, None)
        overtaken = self._recovering
        try:
            self._breaker.call(lambda: self._store.put_many(values, ttl))
        except StateError:
            self._keep(values, ends)
        else:
            if overtaken in values:
                # Nobody knows which of the two comes last: this one is written once more.
                self._keep({overtaken: values[overtaken]}, ends)

    def owes(self, keys: Iterable[str]) -> bool:
        """Tell whether one of ``keys`` is yet to be written."""
        return any(key in self._unwritten for key in keys)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove ``keys``, if the store can."""
        unwanted = list(keys)
        for key in unwanted:
            self._unwritten.pop(key, None)
        self._try(lambda: self._store.delete(unwanted))

    def scan(self, prefix: str) -> dict[str, str]:
        """Return every entry whose key begins with ``prefix``; {} when the store fails."""
        return self._try(lambda: self._store.scan(prefix), reading=True) or {}

    def announce(self) -> None:
        """Tell the other processes that there is news, if the store can."""
        self._try(self._store.announce, reading=True)

    def on_news(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called when another process announced."""
        self._store.on_news(tell)

    def recover(self) -> None:
        """Try a store that failed again, and write what could not be written; nobody waits."""
        if self._breaker.failing:
            # Reading first: a store that is away is to stay closed for those who only read, too.
            read = self._try(lambda: self._store.get_many(["ping"]), probe=True, reading=True)
            if read is not None:
                self._try(self._checked, probe=True)
        if self._unwritten and not self._breaker.failing:
            try:
                self._write_kept()
            finally:
                self._recovering = ""

    def ping(self) -> bool:
        """Tell whether the store can be read and written."""
        return self._store.ping()

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def _keep(self, values: Mapping[str, str], ends: float) -> None:
        for key, value in values.items():
            self._unwritten.pop(key, None)
            self._unwritten[key] = (value, ends)
        while len(self._unwritten) > MOST_UNWRITTEN:
            self._unwritten.pop(next(iter(self._unwritten)), None)

    def _write_kept(self) -> None:
        for key, kept in list(self._unwritten.items()):
            # First named, then looked at: a newer value took it away before, or sees the name.
            self._recovering = key
            if self._unwritten.get(key) is not kept:
                continue
            value, ends = kept
            left = ends - self._clock()
            written = left <= 0 or self._try(partial(self._written, key, value, left))
            if not written:
                return
            if self._unwritten.get(key) is kept:
                self._unwritten.pop(key, None)

    def _checked(self) -> None:
        if not self._store.ping():
            raise StateError("the state store does not answer")

    def _written(self, key: str, value: str, ttl: float) -> bool:
        self._store.put_many({key: value}, ttl)
        return True

    def _waiting(self, keys: Iterable[str]) -> dict[str, str]:
        now = self._clock()
        entries = ((key, self._unwritten.get(key)) for key in keys)
        return {key: entry[0] for key, entry in entries if entry and entry[1] > now}

    def _try(
        self, work: Callable[[], T], *, probe: bool = False, reading: bool = False
    ) -> T | None:
        try:
            return self._breaker.call(work, probe=probe, reading=reading)
        except StateError:
            return None


def guarded(store: StateStore) -> GuardedStore:
    """Return ``store`` guarded, or as it is when it is guarded already."""
    return store if isinstance(store, GuardedStore) else GuardedStore(store)
