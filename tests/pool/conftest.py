"""What the pool's tests share: a clock that stands still, and accounts without ceremony."""

import threading
import time
from concurrent.futures import Future

import pytest

from app.pool.account import Account


class Clock:
    """Epoch seconds that move only when told to."""

    def __init__(self, now=1_790_000_000.0):
        self.now = now

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


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
