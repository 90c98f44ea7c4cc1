"""One SQLite file, opened by many processes at once."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from gevent.monkey import get_original

from app.pool.state.store import StateError

T = TypeVar("T")

log = logging.getLogger("gateway.state")

_nap = get_original("time", "sleep")
"""Of the whole thread, also where ``time.sleep`` lets other greenlets go on."""

PATIENCE = 0.2
"""Seconds to wait for another process's write."""
NAP, NAPS = 0.000_05, 20
"""Seconds until the next look whether it is over, and how many such looks there are. A write takes
twice as long; SQLite's own wait takes a millisecond at least, and a gevent worker stands still."""
PAUSE = 0.002
"""Seconds between further looks. Meanwhile other greenlets go on."""
OPENING_PATIENCE = 5.0
LOOK_EVERY = 1.0
"""Seconds between two looks whether another process has put the file aside."""
DAMAGED = "not a database", "malformed"
"""What SQLite says of a file that no patience mends."""


class SqliteFile:
    """The connection of this process to the file at ``path``, created with its folder.

    One connection per process, behind a lock; statements are tiny. ``schema`` and ``pragmas``
    are applied at opening. Raises `StateError` when the file can't be opened. One that is
    ``disposable`` is put aside when it is damaged, and begun anew.
    """

    def __init__(
        self,
        path: Path,
        schema: str,
        *,
        pragmas: tuple[str, ...] = (),
        disposable: bool = False,
    ) -> None:
        self._path = path
        self._schema = schema
        self._pragmas = pragmas
        self._disposable = disposable
        self._inode = 0
        self.openings = 0
        """How often it was opened: leases that were in an older file are in no newer one."""
        self._look_at = 0.0
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._abandoned: list[sqlite3.Connection] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._create()
            self._connection = self._opened()
        except (OSError, sqlite3.Error) as error:
            raise StateError(f"the state file {path} can't be opened: {error}") from None

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what ``work`` returns; it has the connection to itself. Raises `StateError`."""
        with self._lock:
            try:
                if self._pid != os.getpid():
                    # A connection must not be used, nor even closed, by a forked process.
                    self._abandoned.append(self._connection)
                    self._connection = self._opened()
                    self._pid = os.getpid()
                elif self._disposable and time.monotonic() >= self._look_at:
                    self._follow()
                return self._patiently(work)
            except (sqlite3.Error, OSError) as error:
                self._look_at = 0.0
                if self._disposable and _is_damaged(error):
                    self._begin_anew(error)
                raise StateError(f"the state file {self._path} does not answer: {error}") from None

    def extend(self, schema: str) -> None:
        """Apply ``schema`` as well, now and whenever the file is opened. Raises `StateError`."""
        self._schema += schema
        self.run(lambda connection: connection.executescript(schema))

    def close(self) -> None:
        """Close the file."""
        with self._lock, suppress(sqlite3.Error):
            self._connection.close()

    def _patiently(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what ``work`` returns, once no other process is in its way.

        Whatever it does begins with what may be refused as busy, so that nothing is done twice.
        """
        looks, until = 0, time.monotonic() + PATIENCE
        while True:
            try:
                return work(self._connection)
            except sqlite3.OperationalError as error:
                # Errors of the module's own have no code.
                if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                if looks >= NAPS and time.monotonic() > until:
                    raise
            looks += 1
            if looks <= NAPS:
                _nap(NAP)
            else:
                time.sleep(PAUSE)

    def _opened(self) -> sqlite3.Connection:
        if not self._disposable:
            return self._connect()
        # One after the other: a file must not be opened while it is being put aside.
        with _locked(self._path.parent):
            try:
                self._create()
                connection = self._connect()
            except sqlite3.Error as error:
                if not _is_damaged(error):
                    raise
                self._put_aside(error)
                self._create()
                connection = self._connect()
            self._inode = self._path.stat().st_ino
        self.openings += 1
        self._look_at = time.monotonic() + LOOK_EVERY
        return connection

    def _follow(self) -> None:
        """Go over to the new file when another process has put the old one aside."""
        try:
            moved = self._path.stat().st_ino != self._inode
        except FileNotFoundError:
            moved = True
        if moved:
            self._connection.close()
            self._connection = self._opened()
        self._look_at = time.monotonic() + LOOK_EVERY

    def _begin_anew(self, error: Exception) -> None:
        """Put a file aside in whose midst something is damaged; the next call has a new one."""
        with suppress(sqlite3.Error, OSError):
            self._connection.close()
            inode, self._inode = self._inode, 0  # whatever fails here: `_follow` opens it again
            with _locked(self._path.parent):
                if self._path.stat().st_ino == inode:
                    self._put_aside(error)
            self._connection = self._opened()

    def _put_aside(self, error: Exception) -> None:
        for suffix in ("-wal", "-shm", ""):  # the file itself last: its side files are never alone
            found = self._path.with_name(self._path.name + suffix)
            with suppress(FileNotFoundError):
                found.replace(self._path.with_name(f"{self._path.name}.damaged{suffix}"))
        log.warning("the state file %s is damaged, put aside and begun anew: %s", self._path, error)

    def _create(self) -> None:
        # Tokens lie in it, if encrypted, and who asked what; SQLite's side files take its mode.
        # Only a new one: to close an old one would end the locks that SQLite has on it here.
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

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
                connection.execute("PRAGMA busy_timeout = 0")  # see `_patiently`
            except sqlite3.Error as error:
                connection.close()
                locked = isinstance(error, sqlite3.OperationalError) and "locked" in str(error)
                if not locked or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return connection


def _is_damaged(error: Exception) -> bool:
    return isinstance(error, sqlite3.DatabaseError) and any(word in str(error) for word in DAMAGED)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock that only one process has at a time; it ends with the process at the latest."""
    # Not on the file: to close it again would end the locks that SQLite has on it.
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class Writing:
    """A transaction that may write: committed at the end, undone by an exception."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> sqlite3.Connection:
        # IMMEDIATE: what is read within holds until the end.
        self._connection.execute("BEGIN IMMEDIATE")
        return self._connection

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        finally:
            # Some errors have undone it already; a COMMIT that failed has not ended it.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
