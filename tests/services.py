"""What tests need that a machine may lack: a skip that says so, or a failure where all must run."""

from __future__ import annotations

import os

import pytest


def missing(service: str) -> None:
    """Skip the test for want of ``service``; fail it under ``REQUIRE_SERVICES=1``."""
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(f"REQUIRE_SERVICES=1, but there is no {service}", pytrace=False)
    pytest.skip(f"needs {service}")
