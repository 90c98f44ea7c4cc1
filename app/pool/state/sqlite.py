"""The store of one machine: a SQLite file shared by every worker, surviving restarts."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from app.pool.state.bell import Bell
from app.pool.state.clock import ANCHOR_TOLERANCE, SteadyClock, boot_id
from app.pool.state.leases import LEASE_TTL
from app.pool.state.sqlite_file import SqliteFile, Writing
from app.pool.state.sqlite_leases import SqliteLeases
from app.pool.state.store import StateError

KEYS_AT_ONCE = 500
WRITES_PER_PURGE = 200
PROVEN_FOR = 2.0
"""Seconds for which a write that succeeded proves that others would."""
MOST_ROWS = 200_000
"""A week's notes of a busy machine; the oldest go first."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, expires REAL NOT NULL, written REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS entries_expires ON entries (expires);
CREATE INDEX IF NOT EXISTS entries_written ON entries (written);
CREATE TABLE IF NOT EXISTS clock (
    only INTEGER PRIMARY KEY, boot TEXT NOT NULL, anchor REAL NOT NULL
);
"""


class SqliteStore:
    """Entries in the file at ``path``, which is created with its folder; leases in one beside it.

    Raises `StateError` when a file can't be opened. ``clock`` gives epoch seconds, which all
    processes share; by default it is steady from the machine's start on, whoever sets the time.
    """

    def __init__(
        self,
        path: Path,
        *,
        most_rows: int = MOST_ROWS,
        clock: Callable[[], float] | None = None,
        lease_ttl: float = LEASE_TTL,
    ) -> None:
        self._most_rows = most_rows
        self._writes = 0
        self._proven_until = 0.0
        # NORMAL: a power cut may cost the last writes.
        self._file = SqliteFile(path, SCHEMA, pragmas=("synchronous = NORMAL",))
        self._clock = clock or self._shared_clock()
        self._bell = Bell()
        self.leases = SqliteLeases(
            path.with_name(path.name + "-leases"), self._bell, ttl=lease_ttl, clock=self._clock
        )

    def unhurried(self) -> SqliteStore:
        """Return itself."""
        return self

    def counters(self) -> Any:
        """Return counters in the file of the leases, which is never flushed to the disk."""
        from app.pool.state.sqlite_limits import SqliteLimits  # noqa: PLC0415 - see MemoryStore

        return SqliteLimits(self.leases.file, self._clock)

    def now(self) -> float:
        """Return the machine's epoch seconds, steady and the same for all its processes."""
        return self._clock()

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

        return self._file.run(read) if wanted else {}

    def put_many(self, values: Mapping[str, str], ttl: float) -> None:
        """Store ``values`` for ``ttl`` seconds, in place of what was there."""
        if not values:
            return

        def write(connection: sqlite3.Connection) -> None:
            now = self._clock()
            with Writing(connection):
                connection.executemany(
                    "INSERT OR REPLACE INTO entries (key, value, expires, written) "
                    "VALUES (?, ?, ?, ?)",
                    [(key, value, now + ttl, now) for key, value in values.items()],
                )
                self._writes += 1
                if self._writes % WRITES_PER_PURGE == 1:
                    self._purge(connection, now)

        self._write(write)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove ``keys``; those that are not there are no error."""
        unwanted = [(key,) for key in keys]

        def remove(connection: sqlite3.Connection) -> None:
            with Writing(connection):
                connection.executemany("DELETE FROM entries WHERE key = ?", unwanted)

        self._write(remove)

    def scan(self, prefix: str) -> dict[str, str]:
        """Return every entry whose key begins with ``prefix``."""
        query = "SELECT key, value FROM entries WHERE key >= ? AND key < ? AND expires > ?"
        bounds = (prefix, prefix + "\U0010ffff", self._clock())
        return self._file.run(lambda connection: dict(connection.execute(query, bounds).fetchall()))

    def ping(self) -> bool:
        """Tell whether the file can be read and written: a full disk can only be read."""
        try:
            self._file.run(lambda connection: connection.execute("SELECT 1 FROM entries LIMIT 1"))
            if time.monotonic() >= self._proven_until:
                self._write(_touch)
        except StateError:
            return False
        return True

    def announce(self) -> None:
        """Tell the other processes that there is news."""
        self.leases.announce()

    def on_news(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called when another process announced."""
        self._bell.listen("news", tell)

    def close(self) -> None:
        """Close the files."""
        self._bell.close()
        self.leases.close()
        self._file.close()

    def _shared_clock(self) -> SteadyClock:
        """Return the clock of this boot of the machine, which the first process sets."""
        mine = SteadyClock()
        boot = boot_id()

        def agree(connection: sqlite3.Connection) -> float:
            with Writing(connection):
                row = connection.execute("SELECT boot, anchor FROM clock").fetchone()
                same = row and row[0] == boot
                if same and (boot or abs(row[1] - mine.anchor) < ANCHOR_TOLERANCE):
                    return float(row[1])
                connection.execute(
                    "INSERT OR REPLACE INTO clock (only, boot, anchor) VALUES (1, ?, ?)",
                    (boot, mine.anchor),
                )
                return mine.anchor

        return SteadyClock(self._file.run(agree))

    def _write(self, work: Callable[[sqlite3.Connection], None]) -> None:
        self._proven_until = 0.0
        self._file.run(work)
        self._proven_until = time.monotonic() + PROVEN_FOR

    def _purge(self, connection: sqlite3.Connection, now: float) -> None:
        connection.execute("DELETE FROM entries WHERE expires <= ?", (now,))
        (rows,) = connection.execute("SELECT count(*) FROM entries").fetchone()
        if rows > self._most_rows:
            connection.execute(
                "DELETE FROM entries WHERE key IN "
                "(SELECT key FROM entries ORDER BY written LIMIT ?)",
                (rows - self._most_rows,),
            )


def _touch(connection: sqlite3.Connection) -> None:
    """Write one page: an entry that has expired already, and differs from the last one."""
    try:
        connection.execute(
            "INSERT INTO entries (key, value, expires, written) VALUES ('ping', ?, 0, 0) "
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (str(time.time_ns()),),
        )
    except sqlite3.OperationalError as error:
        # Another process is just writing: then it can be written.
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise
