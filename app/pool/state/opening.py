"""From ``STATE_URL`` to a store."""

from __future__ import annotations

import subprocess
import sys
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
    raise StateError("must be memory://, sqlite:///PATH, redis://HOST:PORT/DB or rediss://…")


def check_store(url: str, root: Path) -> None:
    """Raise `StateError` when what ``url`` means can't be opened; servers aren't asked.

    Nothing that gevent has yet to patch is loaded into this process.
    """
    if url.startswith(SQLITE):
        SqliteStore(root / url.removeprefix(SQLITE)).close()
    elif url.startswith(("redis://", "rediss://")):
        objection = _redis_objection(url)
        if objection:
            raise StateError(objection)


_ASK_REDIS = """
import sys
sys.path.insert(0, sys.argv[1])
from app.pool.state.redis_link import RedisLink
from app.pool.state.store import StateError
try:
    RedisLink(sys.stdin.read())
except StateError as error:
    print(error, end="")
"""


def _redis_objection(url: str) -> str:
    """Ask a process of its own; what it fails with otherwise, the workers will say better."""
    try:
        # The address goes where other users of the machine don't see it.
        asked = subprocess.run(  # noqa: S603 - our own text
            [sys.executable, "-c", _ASK_REDIS, str(Path(__file__).parents[3])],
            check=False,
            input=url,
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout
