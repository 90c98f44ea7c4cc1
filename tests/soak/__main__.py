"""``make soak``: many requests with faults, and what of them stays behind in the worker.

``REQUESTS`` of them (100,000 if not set), as good and bad as clients and upstreams get. What the
worker holds after the first hundredth (1,000 at least) is compared with what it holds at the end;
exits non-zero when something has grown by more than `BOUNDS` allow.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.soak.run import COLUMNS, soak


def main() -> int:
    """Run and print; returns the exit status."""
    count = int(os.environ.get("REQUESTS", "100000"))
    warm = max(1000, count // 100)
    print(f"{'requests':>9} {'seconds':>8} " + " ".join(f"{name:>9}" for name in COLUMNS))

    def report(done: int, seconds: float, holdings: dict[str, float]) -> None:
        figures = " ".join(f"{holdings[name]:9.1f}" for name in COLUMNS)
        print(f"{done:9} {seconds:8.0f} {figures}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        outcome = soak(Path(folder), warm=warm, count=count, report=report)
    print("\nwhat clients saw: " + ", ".join(f"{n} {what}" for what, n in outcome.seen.items()))
    for line in outcome.grown:
        print(f"GROWN: {line}")
    if not outcome.grown:
        print("nothing has grown past its bound")
    return 1 if outcome.grown else 0


if __name__ == "__main__":
    sys.exit(main())
