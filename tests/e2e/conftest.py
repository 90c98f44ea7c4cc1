"""A live gateway over a live upstream."""

import pytest

from app.simulator.server import Simulator
from tests.e2e.processes import GatewayProcess


@pytest.fixture
def simulator():
    """A fake Gemini in this process, without pauses between its chunks."""
    simulator = Simulator(pace=0.0)
    simulator.start()
    yield simulator
    simulator.stop()


@pytest.fixture
def gateway(tmp_path, simulator):
    """Start gateways with given settings; all are ended with the test."""
    running = []

    def start(**settings):
        settings.setdefault("GEMINI_API_KEYS", "key-a")
        settings.setdefault("GEMINI_BASE_URL", simulator.base_url)
        process = GatewayProcess(tmp_path, **settings)
        running.append(process)
        return process.__enter__()

    yield start
    for process in running:
        process.__exit__()
