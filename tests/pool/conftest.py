"""What the pool's tests share: a clock that stands still, and accounts without ceremony."""

import threading
import time
from concurrent.futures import Future

import pytest

from app.pool.account import Account
from app.pool.state import redis_leases, redis_store


class Clock:
    """Epoch seconds that move only when told to."""

    def __init__(self, now=1_790_000_000.0):
        self.now = now

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


@pytest.fixture(scope="session", autouse=True)
def patience():
    """A machine that runs many tests is slow: no verdict on the store may come of that."""
    with pytest.MonkeyPatch.context() as patch:
        for module, names in (
            (redis_leases, ("TO_TAKE", "TO_WRITE", "TO_SYNC")),
            (redis_store, ("TO_READ", "TO_WRITE", "TO_SYNC")),
        ):
            for name in names:
                patch.setattr(module, name, 10.0)
        yield


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def account():
    def make(name="a", **settings):
        return Account(name, "api_key", **{"api_key": f"secret-of-{name}", **settings})

    return make


@pytest.fixture
def in_thread():
    """Run a call in a thread of its own; its future carries what it returns or raises."""
    threads = []

    def run(call, *args, **kwargs):
        future = Future()

        def work():
            try:
                future.set_result(call(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - told to the test
                future.set_exception(error)

        thread = threading.Thread(target=work, daemon=True)
        threads.append(thread)
        thread.start()
        return future

    yield run
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


@pytest.fixture
def until():
    """Wait for a condition for which there is no event, such as a thread having queued up."""

    def wait(condition):
        deadline = time.monotonic() + 5
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            time.sleep(0.001)

    return wait
