"""Epoch seconds that nobody who sets the clock can disturb."""

from __future__ import annotations

import time
from pathlib import Path

_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

ANCHOR_TOLERANCE = 300.0
"""Where the system does not name its boots: seconds by which another boot's anchor differs."""


def uptime() -> float:
    """Return seconds since some moment, the same for all processes, counting sleep as well."""
    return time.clock_gettime(_BOOT)


def boot_id() -> str:
    """Return what tells this boot of the machine from others, "" where it can't be told."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


class SteadyClock:
    """The wall clock as it was when ``anchor`` was taken, going on steadily from there.

    ``anchor`` is the epoch second of `uptime` 0. Processes with the same anchor agree.
    """

    def __init__(self, anchor: float | None = None) -> None:
        self.anchor = time.time() - uptime() if anchor is None else anchor

    def __call__(self) -> float:
        """Return epoch seconds."""
        return self.anchor + uptime()
