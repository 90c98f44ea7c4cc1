"""``make chaos``: the whole fault matrix against gunicorn gateways, as a table.

Each row says what the client must see, by the kind of request; a cross marks cells where that is
not so on every store. Exits non-zero if there is one.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import nullcontext
from pathlib import Path

from tests.chaos.cells import COUNT_PLACES, KINDS, MODES, STORES, Cell, cells, expected
from tests.chaos.gateways import in_gunicorn
from tests.chaos.matrix import Matrix, disagreement
from tests.redis_server import RedisServer

WIDTHS = (30, 24, 6, *(40,) * len(MODES))
BATCH = 2000
"""Cells that are played on one set of gateways."""


def table(wrong: dict[Cell, str], played: list[Cell]) -> list[str]:
    """Return the lines of the table."""
    rows: dict[tuple[str, str, bool], dict[str, list[Cell]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for cell in played:
        place = "each byte" if cell.place.startswith("byte") else cell.place
        rows[cell.kind, place, cell.left][cell.mode].append(cell)
    lines = [_line("fault", "where", "retry", *MODES)]
    for (kind, place, left), by_mode in rows.items():
        verdicts = [_verdict(by_mode.get(mode, []), wrong) for mode in MODES]
        lines.append(_line(kind, place, "left" if left else "none", *verdicts))
    return lines


def _verdict(group: list[Cell], wrong: dict[Cell, str]) -> str:
    if not group:
        return "-"
    bad = sum(cell in wrong for cell in group)
    if len({cell.place for cell in group}) > 1:
        return f"{len(group) - bad} agree" + (f", {bad} DO NOT ✗" if bad else "")
    return f"{expected(group[0])}{' ✗' if bad else ''}"


def _line(*texts: str) -> str:
    return " ".join(text.ljust(width) for text, width in zip(texts, WIDTHS, strict=True)).rstrip()


def main() -> int:
    """Play all cells and print the table; returns the exit status."""
    has_redis = bool(shutil.which("redis-server") or shutil.which("valkey-server"))
    stores = STORES if has_redis else STORES[:2]
    every = list(cells(full=True, stores=stores))
    began = time.monotonic()
    wrong: dict[Cell, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with RedisServer(folder) if has_redis else nullcontext() as redis:
            for number, at in enumerate(range(0, len(every), BATCH)):
                batch = folder / str(number)
                batch.mkdir()
                url = redis.url if redis else ""
                if redis:
                    redis.flush()
                with Matrix(every[at : at + BATCH], batch, in_gunicorn, url) as matrix:
                    for cell, seen in matrix.run().items():
                        if text := disagreement(cell, seen):
                            wrong[cell] = text
                            print(text, flush=True)
                print(f"{at + len(matrix.cells)} of {len(every)} cells", file=sys.stderr)
    print("\n".join(table(wrong, every)))
    print("\nCells that do not exist:")
    for name, kind in KINDS.items():
        if kind.why and not name.startswith(("status", "error")):
            print(f"  {name}: only {', '.join(kind.places)}: {kind.why}")
    print("  status N: only before headers; error N as an event: only in the body of a stream")
    print(f"  count_tokens: an answer of one number has only {', '.join(COUNT_PLACES)}")
    print(f"  each byte: with {STORES[0]} alone, since a store takes no part in a stream")
    if not has_redis:
        print("  redis: there is no redis-server on this machine")
    took = time.monotonic() - began
    print(f"\n{len(every)} cells in {took:.0f} s: {len(wrong) or 'none'} disagree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
