"""Connections to a Redis (or Valkey) server, with patience for each purpose."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.pool.state.store import StateError

T = TypeVar("T")

log = logging.getLogger("gateway.state")

PREFIX = "{gateway}:"
"""Of every key. In braces: all of them live in one slot of a cluster."""

# What one request may spend, in seconds, each for connecting and for answering: together less
# than a quarter of a second, since the first failure spares the rest.
TO_TAKE = 0.12
TO_READ = 0.06
TO_WRITE = 0.03
TO_SYNC = 1.0
"""Nobody waits for what the background does."""
CONNECTIONS = 128
"""Per purpose and process; as many as steps go on at once, and no more, are ever opened."""
HEARD_EVERY = 5.0
"""Seconds after which a silent subscription is checked."""
PAUSE = 1.0
"""Seconds between two tries to subscribe."""


class RedisLink:
    """The server at ``url``; raises `StateError` for an address that can't be right.

    Connections are made when they are needed: a server that is down stops nobody from starting.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._clients: dict[float, Any] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._listeners: dict[str, list[Callable[[], None]]] = {}
        self._offset = 0.0
        try:
            pool = self._client(TO_SYNC).connection_pool
            # Only a connection, which connects when it is used, looks at all of the options.
            pool.connection_class(**pool.connection_kwargs)
        except (TypeError, ValueError, redis.RedisError) as error:
            # The address is not repeated: it may hold a password.
            raise StateError(
                "no Redis address: write redis://HOST:PORT/DB, or rediss:// for TLS, and after a ? "
                f"only options that redis-py has ({type(error).__name__})"
            ) from None

    def run(self, patience: float, work: Callable[[Any], T]) -> T:
        """Return what ``work`` returns, given a client that waits ``patience`` s at most."""
        client = self._client(patience)
        try:
            return work(client)
        except redis.ConnectionError as error:
            # Its other idle connections are as dead.
            with suppress(redis.RedisError, OSError):
                client.connection_pool.disconnect(inuse_connections=False)
            raise self._failed(error) from None
        except (redis.RedisError, OSError) as error:
            raise self._failed(error) from None

    def now(self) -> float:
        """Return the server's epoch seconds as far as they are known."""
        return time.time() + self._offset

    def told(self, now: float) -> None:
        """Take note of the server's time, just received."""
        offset = now - time.time()
        # Answers take their time: what differs less than this is no difference.
        if abs(offset - self._offset) > 0.05:
            self._offset = offset

    def listen(self, channel: str, tell: Callable[[], None]) -> None:
        """Have ``tell`` called from a daemon thread at every message, and after every gap."""
        with self._lock:
            self._listeners.setdefault(PREFIX + channel, []).append(tell)
            if sum(map(len, self._listeners.values())) > 1:
                return
        threading.Thread(target=self._listen, name="redis-news", daemon=True).start()

    def counters(self) -> Any:
        """Return a storage of the `limits` library on the same server."""
        from limits.storage import RedisStorage  # noqa: PLC0415 - only who limits pays for it

        return RedisStorage(
            self._url,
            key_prefix=f"{PREFIX}limits",
            socket_timeout=TO_READ,
            socket_connect_timeout=TO_READ,
            protocol=2,
        )

    def close(self) -> None:
        """Close every connection."""
        self._closed.set()
        for client in self._clients.values():
            with suppress(redis.RedisError, OSError):
                client.close()

    def _client(self, patience: float) -> Any:
        client = self._clients.get(patience)
        if client is None:
            pool = redis.BlockingConnectionPool.from_url(
                self._url,
                max_connections=CONNECTIONS,
                timeout=patience,
                socket_timeout=patience,
                socket_connect_timeout=patience,
                decode_responses=True,
                protocol=2,
                # Once more for a connection that the server closed since it was used.
                retry=Retry(NoBackoff(), 1, (redis.ConnectionError,)),
            )
            client = self._clients[patience] = redis.Redis.from_pool(pool)
        return client

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                self._hear()
            except (redis.RedisError, OSError):
                self._closed.wait(PAUSE)
            except Exception:
                log.exception("listening to the state store failed")
                self._closed.wait(PAUSE)

    def _hear(self) -> None:
        client: Any = redis.Redis.from_url(
            self._url,
            socket_timeout=HEARD_EVERY,
            socket_connect_timeout=TO_SYNC,
            health_check_interval=HEARD_EVERY,
            decode_responses=True,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
        )
        with client, client.pubsub(ignore_subscribe_messages=True) as subscription:
            known: set[str] = set()
            while not self._closed.is_set():
                channels = set(self._listeners) - known
                if channels:
                    subscription.subscribe(*channels)
                    known |= channels
                    self._tell(channels)
                message = subscription.get_message(timeout=1.0)
                if message:
                    self._tell({message["channel"]})

    def _tell(self, channels: set[str]) -> None:
        for channel in channels:
            for tell in self._listeners.get(channel, ()):
                try:
                    tell()
                except Exception:
                    log.exception("looking after the pool failed")

    @staticmethod
    def _failed(error: Exception) -> StateError:
        # redis-py's texts name the host, never the password.
        return StateError(f"the Redis server does not answer: {type(error).__name__}: {error}")
