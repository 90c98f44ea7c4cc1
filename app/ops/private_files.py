"""Files that hold secrets: written whole or not at all, and never open to everybody."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Put ``text`` at ``path``, atomically; its folder is made. Raises OSError.

    A file that is there keeps its owner, group and mode, but for what the mode grants to others.
    A new one has mode 0600; if root makes it in a folder that is shared with a group only, such
    as that of a service, the group may read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    user, group, mode = _access(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if not _handed_over(handle, user, group):
                mode &= stat.S_IRWXU  # it would be another group that may read it
            os.fchmod(handle, mode)
            os.fsync(handle)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _access(path: Path) -> tuple[int, int, int]:
    """Return owner, group (-1: whoever writes it) and mode for ``path``."""
    try:
        found = path.stat()
    except FileNotFoundError:
        folder = path.parent.stat()
        shared = stat.S_IMODE(folder.st_mode) & 0o057 == 0o050
        if os.geteuid() == 0 and shared:
            return -1, folder.st_gid, 0o640
        return -1, -1, 0o600
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode) & 0o770


def _handed_over(handle: int, user: int, group: int) -> bool:
    """Give the file to ``user`` if that is allowed; returns whether it is ``group``'s now."""
    for owner in (user, -1):
        with contextlib.suppress(PermissionError):
            os.fchown(handle, owner, group)
            return True
    return False
