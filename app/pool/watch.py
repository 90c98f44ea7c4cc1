"""Re-reads the accounts when their file, or a credentials file they name, changes."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.pool.account import Account
from app.pool.accounts_file import AccountsError

log = logging.getLogger("gateway.pool")

INTERVAL = 2.0
"""Seconds between two looks at the files; a look costs a few system calls."""

_Stat = tuple[int, int, int] | None


class AccountsWatcher:
    """Calls ``apply(load())`` after a change of ``path``; a broken file changes nothing.

    Files are told apart by time, size and inode, and then by content, so that atomic
    replacements and swapped symbolic links (Kubernetes) count, and a mere ``touch`` does not.
    ``each_time`` is called at every look as well: there the pool syncs with other processes.
    What is on disk at construction counts as known.
    """

    def __init__(
        self,
        path: Path,
        *,
        load: Callable[[], list[Account]],
        apply: Callable[[list[Account]], None],
        each_time: Callable[[], None] | None = None,
        interval: float = INTERVAL,
    ) -> None:
        self._path = path
        self._load = load
        self._apply = apply
        self._each_time = each_time
        self._interval = interval
        self._stopping = threading.Event()
        self._credentials: tuple[Path, ...] = ()
        with suppress(AccountsError):  # whoever reads them to serve says so
            self._credentials = _credentials(load())
        self._stats = self._look()
        self._digests = self._content()
        self._had_file = bool(self._stats[0] and self._stats[0][1])

    def start(self) -> None:
        """Look every ``interval`` seconds, in a daemon thread."""
        threading.Thread(target=self._run, name="accounts-watcher", daemon=True).start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()

    def check_now(self) -> bool:
        """Look once; returns True when changed accounts were applied.

        A file that is broken, gone or empty (it may be half written) is told in one log line
        each time it changes, and the accounts stay as they are.
        """
        stats = self._look()
        if stats == self._stats:
            return False
        self._stats = stats
        digests, before = self._content(), self._digests
        if digests == before:
            return False
        self._digests = digests
        has_file = bool(stats[0] and stats[0][1])
        if self._had_file and not has_file:
            if digests[0] != before[0]:
                log.error("%s is gone or empty; the accounts stay as they are", self._path)
            return False
        try:
            accounts = self._load()
        except AccountsError as error:
            log.error("%s; the accounts stay as they are", error)  # noqa: TRY400 - one line
            return False
        # What changes from here on differs from what is remembered, and is seen next time.
        self._credentials = _credentials(accounts)
        self._stats = (stats[0], *self._look()[1:])
        self._digests = (digests[0], *self._content()[1:])
        self._had_file = has_file
        self._apply(accounts)
        log.info("%s changed: %d account(s)", self._path, len(accounts))
        return True

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            try:
                self.check_now()
                if self._each_time:
                    self._each_time()
            except Exception:
                log.exception("looking after the accounts failed")

    def _look(self) -> tuple[_Stat, ...]:
        return tuple(_stat(path) for path in (self._path, *self._credentials))

    def _content(self) -> tuple[str, ...]:
        return tuple(_hash(path) for path in (self._path, *self._credentials))


def _credentials(accounts: list[Account]) -> tuple[Path, ...]:
    return tuple(sorted({Path(account.credentials) for account in accounts if account.credentials}))


def _stat(path: Path) -> _Stat:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return "absent"
