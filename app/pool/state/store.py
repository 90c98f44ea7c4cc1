"""What a state store can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol


class StateError(Exception):
    """The store can't be opened or does not answer; the message is one line for people."""


class StateStore(Protocol):
    """Small texts under keys, each for a time; thread-safe.

    Every method may raise `StateError`, unless the store is a `GuardedStore`. Entries may vanish
    before their time when the store is full.
    """

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
        """Return every entry whose key begins with ``prefix``."""
        ...

    def ping(self) -> bool:
        """Tell whether the store answers; never raises."""
        ...

    def close(self) -> None:
        """Let go of files and connections; nothing may be called afterwards."""
        ...
