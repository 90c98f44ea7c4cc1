"""One SQLite file, opened by many processes at once."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from app.pool.state.store import StateError

T = TypeVar("T")

PATIENCE = 0.2
"""Seconds to wait for another process's write. While it waits, a gevent worker stands still."""
OPENING_PATIENCE = 5.0


class SqliteFile:
    """The connection of this process to the file at ``path``, created with its folder.

    One connection per process, behind a lock; statements are tiny. ``schema`` and ``pragmas``
    are applied at opening. Raises `StateError` when the file can't be opened.
    """

    def __init__(self, path: Path, schema: str, *, pragmas: tuple[str, ...] = ()) -> None:
        self._path = path
        self._schema = schema
        self._pragmas = pragmas
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._abandoned: list[sqlite3.Connection] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Tokens lie in it, if encrypted, and who asked what; SQLite's side files take its mode.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            self._connection = self._connect()
        except (OSError, sqlite3.Error) as error:
            raise StateError(f"the state file {path} can't be opened: {error}") from None

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what ``work`` returns; it has the connection to itself. Raises `StateError`."""
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

    def close(self) -> None:
        """Close the file."""
        with self._lock, suppress(sqlite3.Error):
            self._connection.close()

    def _connect(self) -> sqlite3.Connection:
        """Open and prepare the file, with patience: all workers do so at the same moment."""
        deadline = time.monotonic() + OPENING_PATIENCE
        while True:
            # The lock of this object stands in for sqlite3's own check of threads.
            connection = sqlite3.connect(
                self._path, timeout=PATIENCE, check_same_thread=False, isolation_level=None
            )
            try:
                # WAL: readers never wait for a writer. The switch to it does not wait for
                # others, hence the loop.
                connection.execute("PRAGMA journal_mode = WAL")
                for pragma in self._pragmas:
                    connection.execute(f"PRAGMA {pragma}")
                connection.executescript(self._schema)
            except sqlite3.Error as error:
                connection.close()
                locked = isinstance(error, sqlite3.OperationalError) and "locked" in str(error)
                if not locked or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return connection


class Writing:
    """A transaction that may write: committed at the end, undone by an exception."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> sqlite3.Connection:
        # IMMEDIATE: what is read within holds until the end.
        self._connection.execute("BEGIN IMMEDIATE")
        return self._connection

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._connection.execute("ROLLBACK" if kind else "COMMIT")
