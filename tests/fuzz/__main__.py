"""``python -m tests.fuzz TARGET [SECONDS]``: guided by coverage, until it is over or breaks."""

from __future__ import annotations

import sys
import tempfile

import atheris

with atheris.instrument_imports(include=["app.translate", "app.backend.stream"]):
    from tests.fuzz.targets import ALL


def main() -> None:
    """Fuzz one target; a crash's input is printed and kept."""
    name = sys.argv[1]
    seconds = sys.argv[2] if len(sys.argv) > 2 else "60"
    corpus = tempfile.mkdtemp(prefix=f"fuzz-{name}-")
    options = [f"-max_total_time={seconds}", "-max_len=400", "-timeout=20", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], corpus, f"-artifact_prefix={corpus}/", *options], ALL[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
