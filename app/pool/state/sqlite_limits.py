"""Counters of the `limits` library in a SQLite file."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

from limits.storage import Storage
from limits.storage.base import SlidingWindowCounterSupport, TimestampedSlidingWindow

from app.pool.state.sqlite_file import SqliteFile, Writing
from app.pool.state.store import StateError

SCHEMA = """
CREATE TABLE IF NOT EXISTS counters (
    key TEXT PRIMARY KEY, count INTEGER NOT NULL, expires REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS counters_expires ON counters (expires);
"""


class SqliteLimits(Storage, SlidingWindowCounterSupport, TimestampedSlidingWindow):
    """Counts in ``file``, which all workers of a machine share."""

    STORAGE_SCHEME = None

    def __init__(self, file: SqliteFile, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._file = file
        self._clock = clock
        file.extend(SCHEMA)

    @property
    def base_exceptions(self) -> type[Exception]:
        """What a file that does not answer raises."""
        return StateError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count ``amount`` under ``key`` for ``expiry`` seconds; returns the sum."""

        def work(connection: sqlite3.Connection) -> int:
            with Writing(connection):
                now = self._clock()
                connection.execute("DELETE FROM counters WHERE expires <= ?", (now,))
                row = connection.execute(
                    "INSERT INTO counters (key, count, expires) VALUES (?, ?, ?) "
                    "ON CONFLICT (key) DO UPDATE SET count = count + excluded.count "
                    "RETURNING count",
                    (key, amount, now + expiry),
                ).fetchone()
                return int(row[0])

        return self._file.run(work)

    def get(self, key: str) -> int:
        """Return what is counted under ``key``."""
        row = self._row(key)
        return int(row[0]) if row else 0

    def get_expiry(self, key: str) -> float:
        """Return when the counter ends, in epoch seconds."""
        row = self._row(key)
        return float(row[1]) if row else self._clock()

    def check(self) -> bool:
        """Tell whether the file answers."""
        self._row("")
        return True

    def reset(self) -> int | None:
        """Forget every counter; returns how many there were."""

        def work(connection: sqlite3.Connection) -> int:
            return connection.execute("DELETE FROM counters").rowcount

        return self._file.run(work)

    def clear(self, key: str) -> None:
        """Forget the counter."""
        self._file.run(lambda connection: connection.execute("DELETE FROM counters WHERE key = ?",
                                                             (key,)))  # fmt: skip

    def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        """Count ``amount`` if the window has room for it; returns whether it had."""
        before, fades_in, current, _ = self.get_sliding_window(key, expiry)
        if int(before * fades_in / expiry + current) + amount > limit:
            return False
        _, key_now = self.sliding_window_keys(key, expiry, self._clock())
        self.incr(key_now, 2 * expiry, amount)
        return True

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return the count of the window before and how long it fades, and of this one."""
        now = self._clock()
        key_before, key_now = self.sliding_window_keys(key, expiry, now)
        left = expiry - now % expiry
        before = self.get(key_before)
        return before, left if before else 0.0, self.get(key_now), left + expiry

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forget both windows."""
        for each in self.sliding_window_keys(key, expiry, self._clock()):
            self.clear(each)

    def _row(self, key: str) -> tuple[int, float] | None:
        def work(connection: sqlite3.Connection) -> tuple[int, float] | None:
            row: tuple[int, float] | None = connection.execute(
                "SELECT count, expires FROM counters WHERE key = ? AND expires > ?",
                (key, self._clock()),
            ).fetchone()
            return row

        return self._file.run(work)
