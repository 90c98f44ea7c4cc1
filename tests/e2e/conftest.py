"""A live gateway over a live upstream."""

import itertools

import pytest

from app.simulator.app import create_simulator_app
from app.simulator.server import Simulator
from app.simulator.state import SimulatorState
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
        process.kill()


class _Stage(Simulator):
    """A simulator whose memory can be had anew, while it goes on to listen."""

    def __init__(self):
        super().__init__(pace=0.0)
        self._app = lambda *call: self._play(*call)  # noqa: PLW0108 - it changes
        self.clear()

    def clear(self):
        """Begin anew; returns what is remembered from here on, and takes scripts."""
        state = SimulatorState(pace=0.0)
        self._play = create_simulator_app(state)
        return state


@pytest.fixture(scope="session")
def _plain(tmp_path_factory):
    stage = _Stage()
    settings = {"GEMINI_API_KEYS": "key-a", "GEMINI_BASE_URL": stage.start()}
    with GatewayProcess(tmp_path_factory.mktemp("plain"), **settings) as process:
        yield process, stage
        process.kill()
    stage.stop()


@pytest.fixture
def plain(_plain):
    """A gateway as it is without settings, with one account, for all tests that leave it whole.

    Its ``output`` and ``upstream.requests`` begin with the test. A test may script faults that are
    the request's own (``upstream.script("key-a", ...)``), but none that the account suffers from.
    """
    process, stage = _plain
    process.upstream = stage.clear()
    process.forget()
    return process


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
        process.kill()
    simulator.stop()
