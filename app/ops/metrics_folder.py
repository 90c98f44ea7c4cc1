"""The folder in which the workers of one master add up their metrics."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

PREFIX = "claude-gateway-metrics-"
YOUNG = 60.0
"""Seconds for which a folder may be without its lock: another master may be about to take it."""


def open_folder() -> str:
    """Return a new folder, locked for as long as this process or one it has forked lives.

    By the lock `systemd-tmpfiles`, which takes old files out of ``/tmp``, knows that it is in use
    (tmpfiles.d(5), "Age"): it would take what a worker counted that has ended since. And by it
    this clears away what masters have left behind that were killed.
    """
    _clear(Path(tempfile.gettempdir()))
    path = tempfile.mkdtemp(prefix=PREFIX)
    # Never closed: the lock ends with the last process that has it.
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with suppress(OSError):  # a file system without locks
        fcntl.flock(handle, fcntl.LOCK_EX)
    return path


def _clear(parent: Path) -> None:
    """Remove what nobody holds any more; what can't be removed is left."""
    with suppress(OSError):
        for path in parent.glob(f"{PREFIX}*"):
            with suppress(OSError):
                _remove_if_left(path)


def _remove_if_left(path: Path) -> None:
    found = path.lstat()
    old = time.time() - found.st_mtime > YOUNG
    if not (stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and old):
        return
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(handle)
