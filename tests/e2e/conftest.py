"""A live gateway over a live upstream."""

import itertools

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


@pytest.fixture(scope="module")
def lone_accounts(tmp_path_factory):
    """One gateway with many accounts, each alone with a model ``gemini-NAME`` of its own.

    Calling it gives (gateway, simulator, name) with an account that no test has used yet.
    """
    simulator = Simulator(pace=0.0)
    simulator.start()
    names = [f"lone-{number}" for number in range(60)]
    accounts = "\n".join(
        f'[[account]]\nname = "{name}"\nkind = "api_key"\napi_key = "{name}"\n'
        f'models = ["gemini-{name}"]\n'
        for name in names
    )
    fresh = itertools.chain(names)
    folder = tmp_path_factory.mktemp("lone")
    with GatewayProcess(
        folder,
        ACCOUNTS_TOML=accounts,
        GEMINI_BASE_URL=simulator.base_url,
        REQUEST_RETRY="2",
        READ_TIMEOUT="0.3",
    ) as process:
        yield lambda: (process, simulator, next(fresh))
    simulator.stop()
