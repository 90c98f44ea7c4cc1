"""The store of many machines: a Redis or Valkey server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from typing import Any

from app.pool.state.leases import LEASE_TTL
from app.pool.state.redis_leases import RedisLeases
from app.pool.state.redis_link import PREFIX, TO_READ, TO_SYNC, TO_WRITE, RedisLink
from app.pool.state.store import StateError

ENTRIES = PREFIX + "entry:"
INDEX = PREFIX + "index:"
NEWS = "news"


class RedisStore:
    """Entries and leases on the server at ``url``; raises `StateError` for a wrong address.

    Keys with a ``/`` are listed in an index of their first part, so that `scan` need not look at
    everything there is.
    """

    def __init__(self, url: str, *, lease_ttl: float = LEASE_TTL) -> None:
        self._link = RedisLink(url)
        self._to_read, self._to_write = TO_READ, TO_WRITE
        self.leases = RedisLeases(self._link, ttl=lease_ttl)

    def unhurried(self) -> RedisStore:
        """Return the same store with more patience; it shares the connections."""
        other = copy(self)
        other._to_read = other._to_write = TO_SYNC
        return other

    def counters(self) -> Any:
        """Return counters on the server."""
        return self._link.counters()

    def now(self) -> float:
        """Return the server's epoch seconds."""
        return self._link.now()

    def get_many(self, keys: Iterable[str]) -> dict[str, str]:
        """Return the values of those of ``keys`` that are there."""
        wanted = list(keys)
        if not wanted:
            return {}
        names = [ENTRIES + key for key in wanted]
        values = self._link.run(self._to_read, lambda client: client.mget(names))
        return {key: value for key, value in zip(wanted, values, strict=True) if value is not None}

    def put_many(self, values: Mapping[str, str], ttl: float) -> None:
        """Store ``values`` for ``ttl`` seconds, in place of what was there."""
        if not values:
            return
        ends = self.now() + ttl

        def write(client: Any) -> None:
            with client.pipeline(transaction=True) as pipeline:
                for key, value in values.items():
                    pipeline.set(ENTRIES + key, value, px=max(1, round(ttl * 1000)))
                    part, slash, _ = key.partition("/")
                    if slash:
                        pipeline.zadd(INDEX + part, {key: ends})
                pipeline.execute()

        self._link.run(self._to_write, write)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove ``keys``; those that are not there are no error."""
        unwanted = list(keys)
        if not unwanted:
            return

        def remove(client: Any) -> None:
            with client.pipeline(transaction=True) as pipeline:
                pipeline.delete(*(ENTRIES + key for key in unwanted))
                for key in unwanted:
                    part, slash, _ = key.partition("/")
                    if slash:
                        pipeline.zrem(INDEX + part, key)
                pipeline.execute()

        self._link.run(self._to_write, remove)

    def scan(self, prefix: str) -> dict[str, str]:
        """Return every entry whose key begins with ``prefix``, which contains a ``/``."""
        index = INDEX + prefix.partition("/")[0]
        # A little later than it says: an entry must not leave the index before its end.
        over = self.now() - 60.0

        def read(client: Any) -> dict[str, str]:
            client.zremrangebyscore(index, "-inf", over)
            keys = [key for key in client.zrange(index, 0, -1) if key.startswith(prefix)]
            if not keys:
                return {}
            values = client.mget([ENTRIES + key for key in keys])
            found = zip(keys, values, strict=True)
            return {key: value for key, value in found if value is not None}

        return self._link.run(TO_SYNC, read)

    def announce(self) -> None:
        """Tell the other processes that there is news."""
        self._link.run(self._to_write, lambda client: client.publish(PREFIX + NEWS, ""))

    def on_news(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called when a process announced."""
        self._link.listen(NEWS, tell)

    def ping(self) -> bool:
        """Tell whether the server answers and takes writes: a full one only answers."""
        try:
            self._link.run(TO_SYNC, lambda client: client.set(PREFIX + "ping", "", px=1000))
        except StateError:
            return False
        return True

    def close(self) -> None:
        """Free this process' leases, and close every connection."""
        self.leases.close()
        self._link.close()
