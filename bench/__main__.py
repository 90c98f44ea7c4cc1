"""``make bench``: every figure of docs/performance.md, beside what else does the same work.

CPU time of all processes of a server is the measure, since machines are shared; figures of one run
are compared with each other, since machines differ.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from pathlib import Path
from typing import Any

from app.ops.interpreter import unoptimized
from bench.figures import FIGURES, Figure, Size, dumped
from bench.load import Failed
from bench.servers import OTHERS, Gateway, Missing, Server

SERVERS: dict[str, type[Server]] = {kind.name: kind for kind in (Gateway, *OTHERS)}
COMPARED = ("burst", "paced", "request", "agent")
"""Figures that the others are measured for, too."""


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", help="names of figures, with commas: " + ",".join(
        figure.name for figure in FIGURES))  # fmt: skip
    parser.add_argument("--servers", help="of " + ", ".join(SERVERS) + "; all that are installed")
    parser.add_argument("--scale", type=float, default=1.0, help="less work with less than 1")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is taken")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else [figure.name for figure in FIGURES]
    servers = options.servers.split(",") if options.servers else list(SERVERS)
    unknown = {*wanted} - {figure.name for figure in FIGURES} | {*servers} - {*SERVERS}
    if unknown:
        parser.error("unknown: " + ", ".join(sorted(unknown)))
    size = Size(options.scale)
    print(interpreter() + "\n")
    measured: dict[str, dict[str, list[float]]] = {}
    missing: dict[str, str] = {}
    for number in range(options.rounds):  # in turns: a noisy minute meets all of them
        for figure in (figure for figure in FIGURES if figure.name in wanted):
            for name in servers:
                if (name != Gateway.name and figure.name not in COMPARED) or name in missing:
                    continue
                if figure.name == "p99_ms" and "lost" in wanted:
                    continue  # measured together
                _measure(figure, name, size, measured, missing, number)
    results = {
        figure: {name: statistics.median(values) for name, values in by_server.items()}
        for figure, by_server in measured.items()
    }
    _print(results, missing, servers)
    if options.json:
        options.json.write_text(
            dumped({"python": interpreter(), "figures": results, "missing": missing})
        )
        print(f"\nwritten to {options.json}")


def interpreter() -> str:
    """Return which Python all of Python's servers are measured on, as figures go with it."""
    build = "compiled without optimizations" if unoptimized() else "optimized"
    return f"Python {platform.python_version()}, {build}"


def _measure(
    figure: Figure,
    name: str,
    size: Size,
    measured: dict[str, dict[str, list[float]]],
    missing: dict[str, str],
    number: int,
) -> None:
    begun = time.monotonic()
    try:
        value = figure.measure(SERVERS[name], size)
    except (Missing, Failed) as error:
        if name == Gateway.name:
            raise
        missing[name] = str(error)
        return
    values = value if isinstance(value, dict) else {figure.name: value}
    for key, one in values.items():
        measured.setdefault(key, {}).setdefault(name, []).append(one)
    shown = ", ".join(f"{key} {one:.3g}" for key, one in values.items())
    took = time.monotonic() - begun
    print(f"  round {number + 1}: {name}: {shown} {figure.unit}  ({took:.0f} s)", flush=True)


def _print(results: dict[str, Any], missing: dict[str, str], servers: list[str]) -> None:
    names = [name for name in servers if name not in missing]
    print("\n" + f"{'':38}" + "".join(f"{name:>20}" for name in names) + "   target")
    for figure in FIGURES:
        row = results.get(figure.name)
        if not row:
            continue
        cells = "".join(f"{_cell(row.get(name), figure.unit):>20}" for name in names)
        print(f"{figure.title:38}{cells}   {_verdict(figure, row)}")
    for name, why in missing.items():
        print(f"{name}: not measured: {why}")


def _cell(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.3g} {unit}".strip()


def _verdict(figure: Figure, row: dict[str, float]) -> str:
    own = row.get(Gateway.name)
    if own is None:
        return ""
    sign = "≥" if figure.at_least else "≤"
    met = own >= figure.target if figure.at_least else own <= figure.target
    said = [f"{sign} {figure.target:g}: {'met' if met else 'NOT MET'}"]
    for name, most in (figure.times or {}).items():
        if name in row:
            if not row[name]:  # a clock tick is too long for so little
                said.append(f"{name}: too little to measure, scale up")
                continue
            ratio = own / row[name]
            limit = f"{most:g}" if most >= 1 else f"1/{1 / most:g}"
            shown = f"{ratio:.1f}" if ratio >= 1 else f"1/{1 / ratio:.1f}"
            verdict = "met" if ratio <= most else "NOT MET"
            said.append(f"{shown} of {name} (≤ {limit}: {verdict})")
    return "; ".join(said)


if __name__ == "__main__":
    main()
