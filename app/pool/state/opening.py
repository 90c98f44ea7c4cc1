"""From ``STATE_URL`` to a store."""

from __future__ import annotations

from pathlib import Path

from app.pool.state.guarded import GuardedStore
from app.pool.state.memory import MemoryStore
from app.pool.state.sqlite import SqliteStore
from app.pool.state.store import StateError

SQLITE = "sqlite:///"


def open_store(url: str, root: Path) -> GuardedStore:
    """Return the store that ``url`` names, guarded.

    ``memory://`` is of this process only; ``sqlite:///PATH`` is relative to ``root``,
    ``sqlite:////PATH`` absolute. Raises `StateError`, whose one line says what to write instead.
    """
    if url == "memory://":
        return GuardedStore(MemoryStore())
    if url.startswith(SQLITE) and len(url) > len(SQLITE):
        return GuardedStore(SqliteStore(root / url.removeprefix(SQLITE)))
    if url.startswith(("redis://", "rediss://")):
        # The address is not repeated: it may hold a password.
        raise StateError(
            "STATE_URL names a Redis server, which this version can't use: "
            "write sqlite:///PATH for the workers of one machine, or memory:// for one process"
        )
    raise StateError("STATE_URL must be memory:// or sqlite:///PATH")
