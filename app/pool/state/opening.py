"""From ``STATE_URL`` to a store."""

from __future__ import annotations

from pathlib import Path

from app.pool.state.guarded import GuardedStore
from app.pool.state.leases import LEASE_TTL
from app.pool.state.memory import MemoryStore
from app.pool.state.sqlite import SqliteStore
from app.pool.state.store import StateError

SQLITE = "sqlite:///"


def open_store(url: str, root: Path, *, lease_ttl: float = LEASE_TTL) -> GuardedStore:
    """Return the store that ``url`` names, guarded.

    ``memory://`` is of this process only; ``sqlite:///PATH`` is relative to ``root``,
    ``sqlite:////PATH`` absolute; ``redis://`` and ``rediss://`` name a server, which need not
    answer yet. ``lease_ttl``: seconds that leases outlive a holder that is not heard of. Raises
    `StateError`, whose one line says what to write instead.
    """
    if url == "memory://":
        return GuardedStore(MemoryStore())
    if url.startswith(SQLITE) and len(url) > len(SQLITE):
        return GuardedStore(SqliteStore(root / url.removeprefix(SQLITE), lease_ttl=lease_ttl))
    if url.startswith(("redis://", "rediss://")):
        # Only who uses it pays for loading it.
        from app.pool.state.redis_store import RedisStore  # noqa: PLC0415

        return GuardedStore(RedisStore(url, lease_ttl=lease_ttl))
    raise StateError(
        "STATE_URL must be memory://, sqlite:///PATH, redis://HOST:PORT/DB or rediss://…"
    )


def check_store(url: str, root: Path) -> None:
    """Raise `StateError` when a file that ``url`` means can't be opened; servers aren't asked."""
    if url.startswith(SQLITE):
        SqliteStore(root / url.removeprefix(SQLITE)).close()
