"""``make bench``, short: that it measures; what it measures says nothing on a busy machine."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys

import pytest

from bench import __main__ as bench
from bench.figures import FIGURES
from tests.e2e.processes import ROOT
from tests.services import missing


@pytest.mark.timeout(180)
def test_it_measures_compares_and_writes(tmp_path):
    if not shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
        missing("nginx")
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench", "--only", "burst,first", "--rounds", "1"),
            *("--scale", "0.02", "--json", str(figures)),
        ],
        cwd=ROOT,
        env={**os.environ, "BENCH_PEERS": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(figures.read_text())
    assert {name: set(row) for name, row in found["figures"].items()} == {
        "burst": {"gateway", "nginx", "bare Flask"},
        "first": {"gateway"},
    }
    assert found["figures"]["burst"]["gateway"] > 0
    version = re.escape(platform.python_version())
    built = "(optimized|compiled without optimizations)"
    assert re.fullmatch(f"Python {version}, {built}", found["python"])
    assert done.stdout.splitlines()[0] == found["python"]
    assert found["missing"] == {
        name: f"{name} is missing: make bench-peers" for name in ("claude-code-router", "LiteLLM")
    }
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("CPU per event, burst")]
    assert re.search(r"≤ 20: (NOT MET|met); (.* of nginx \(|nginx: too little)", row)


def test_every_figure_has_a_name_of_its_own():
    names = [figure.name for figure in FIGURES]
    assert len(set(names)) == len(names) == 14


@pytest.mark.parametrize(
    ("name", "row", "verdict"),
    [
        ("burst", {"gateway": 10.0, "nginx": 2.0, "claude-code-router": 40.0},
         "≤ 20: met; 5.0 of nginx (≤ 11: met); 1/4.0 of claude-code-router (≤ 1/2: met)"),
        ("paced", {"gateway": 61.0, "nginx": 10.0, "LiteLLM": 610.0},
         "≤ 60: NOT MET; 6.1 of nginx (≤ 4: NOT MET); 1/10.0 of LiteLLM (≤ 1/20: NOT MET)"),
        ("workers", {"gateway": 1.7}, "≥ 1.8: NOT MET"),
        ("burst", {"nginx": 2.0}, ""),
        ("burst", {"gateway": 10.0, "nginx": 0.0},
         "≤ 20: met; nginx: too little to measure, scale up"),
    ],
)  # fmt: skip
def test_verdicts(name, row, verdict):
    (figure,) = [figure for figure in FIGURES if figure.name == name]
    assert bench._verdict(figure, row) == verdict
