"""The store of one machine: a SQLite file shared by every worker, surviving restarts."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from app.pool.state.store import StateError

T = TypeVar("T")

PATIENCE = 0.25
"""Seconds to wait for another process's write. While it waits, a gevent worker stands still."""
OPENING_PATIENCE = 5.0
KEYS_AT_ONCE = 500
WRITES_PER_PURGE = 200
MOST_ROWS = 200_000
"""A week's notes of a busy machine; the oldest go first."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, expires REAL NOT NULL, written REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS entries_expires ON entries (expires);
CREATE INDEX IF NOT EXISTS entries_written ON entries (written);
"""


class SqliteStore:
    """Entries in the file at ``path``, which is created with its folder.

    One connection per process, behind a lock; statements are tiny. Raises `StateError` when the
    file can't be opened. ``clock`` gives epoch seconds, which all processes share.
    """

    def __init__(
        self, path: Path, *, most_rows: int = MOST_ROWS, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._most_rows = most_rows
        self._clock = clock
        self._lock = threading.Lock()
        self._writes = 0
        self._pid = os.getpid()
        self._abandoned: list[sqlite3.Connection] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = self._connect()
        except (OSError, sqlite3.Error) as error:
            raise StateError(f"the state file {path} can't be opened: {error}") from None

    def get_many(self, keys: Iterable[str]) -> dict[str, str]:
        """Return the values of those of ``keys`` that are there."""
        wanted = list(keys)

        def read(connection: sqlite3.Connection) -> dict[str, str]:
            found: dict[str, str] = {}
            for start in range(0, len(wanted), KEYS_AT_ONCE):
                some = wanted[start : start + KEYS_AT_ONCE]
                marks = ",".join("?" * len(some))
                found.update(
                    connection.execute(
                        f"SELECT key, value FROM entries WHERE key IN ({marks}) AND expires > ?",  # noqa: S608 - question marks only
                        (*some, self._clock()),
                    )
                )
            return found

        return self._run(read) if wanted else {}

    def put_many(self, values: Mapping[str, str], ttl: float) -> None:
        """Store ``values`` for ``ttl`` seconds, in place of what was there."""
        if not values:
            return

        def write(connection: sqlite3.Connection) -> None:
            now = self._clock()
            with connection:
                connection.executemany(
                    "INSERT OR REPLACE INTO entries (key, value, expires, written) "
                    "VALUES (?, ?, ?, ?)",
                    [(key, value, now + ttl, now) for key, value in values.items()],
                )
                self._writes += 1
                if self._writes % WRITES_PER_PURGE == 1:
                    self._purge(connection, now)

        self._run(write)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove ``keys``; those that are not there are no error."""
        unwanted = [(key,) for key in keys]

        def remove(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany("DELETE FROM entries WHERE key = ?", unwanted)

        self._run(remove)

    def scan(self, prefix: str) -> dict[str, str]:
        """Return every entry whose key begins with ``prefix``."""
        query = "SELECT key, value FROM entries WHERE key >= ? AND key < ? AND expires > ?"
        bounds = (prefix, prefix + "\U0010ffff", self._clock())
        return self._run(lambda connection: dict(connection.execute(query, bounds).fetchall()))

    def ping(self) -> bool:
        """Tell whether the file can be read."""
        try:
            self._run(lambda connection: connection.execute("SELECT 1 FROM entries LIMIT 1"))
        except StateError:
            return False
        return True

    def close(self) -> None:
        """Close the file."""
        with self._lock, suppress(sqlite3.Error):
            self._connection.close()

    def _connect(self) -> sqlite3.Connection:
        """Open and prepare the file, with patience: all workers do so at the same moment."""
        deadline = time.monotonic() + OPENING_PATIENCE
        while True:
            # The lock of this store stands in for sqlite3's own check of threads.
            connection = sqlite3.connect(self._path, timeout=PATIENCE, check_same_thread=False)
            try:
                # WAL: readers never wait for a writer. NORMAL: a power cut may cost the last
                # writes. The switch to WAL does not wait for others, hence the loop.
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.executescript(SCHEMA)
            except sqlite3.Error as error:
                connection.close()
                locked = isinstance(error, sqlite3.OperationalError) and "locked" in str(error)
                if not locked or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return connection

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                if self._pid != os.getpid():
                    # A connection must not be used, nor even closed, by a forked process.
                    self._abandoned.append(self._connection)
                    self._connection = self._connect()
                    self._pid = os.getpid()
                return work(self._connection)
            except (sqlite3.Error, OSError) as error:
                raise StateError(f"the state file {self._path} does not answer: {error}") from None

    def _purge(self, connection: sqlite3.Connection, now: float) -> None:
        connection.execute("DELETE FROM entries WHERE expires <= ?", (now,))
        (rows,) = connection.execute("SELECT count(*) FROM entries").fetchone()
        if rows > self._most_rows:
            connection.execute(
                "DELETE FROM entries WHERE key IN "
                "(SELECT key FROM entries ORDER BY written LIMIT ?)",
                (rows - self._most_rows,),
            )
