"""SECURITY.md names tests that exist."""

import re

from tests.e2e.processes import ROOT


def test_every_test_that_is_named_exists():
    named = set(re.findall(r"`(tests/\S+\.py)`", (ROOT / "SECURITY.md").read_text()))
    assert len(named) > 12
    assert [path for path in sorted(named) if not (ROOT / path).is_file()] == []
