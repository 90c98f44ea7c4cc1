"""What a state store can do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from app.pool.state.leases import LeaseBook


class StateError(Exception):
    """The store can't be opened or does not answer; the message is one line for people."""


class StateStore(Protocol):
    """Small texts under keys, each for a time; thread-safe.

    Every method may raise `StateError`, unless the store is a `GuardedStore`. Entries may vanish
    before their time when the store is full.
    """

    @property
    def leases(self) -> LeaseBook | None:
        """The leases of all processes on this store; None for the store of one process."""
        ...

    def unhurried(self) -> StateStore:
        """Return the same store for callers who can wait for it, a second at most."""
        ...

    def counters(self) -> Any:
        """Return a storage of the `limits` library (sliding windows), shared as the store is.

        It may raise what its ``base_exceptions`` names.
        """
        ...

    def now(self) -> float:
        """Return the store's time in epoch seconds; it never waits, and nobody can set it back."""
        ...

    def get_many(self, keys: Iterable[str]) -> dict[str, str]:
        """Return the values of those of ``keys`` that are there."""
        ...

    def put_many(self, values: Mapping[str, str], ttl: float) -> None:
        """Store ``values`` for ``ttl`` seconds, in place of what was there."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Remove ``keys``; those that are not there are no error."""
        ...

    def scan(self, prefix: str) -> dict[str, str]:
        """Return every entry whose key begins with ``prefix``, which ends with a ``/``.

        Only keys of at least two parts with a ``/`` between them can be found so.
        """
        ...

    def announce(self) -> None:
        """Tell the other processes that there is news for them to read."""
        ...

    def on_news(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called, from a thread of the store's, when another process announced."""
        ...

    def ping(self) -> bool:
        """Tell whether the store can be read and written; never raises."""
        ...

    def close(self) -> None:
        """Let go of files and connections; nothing may be called afterwards."""
        ...
