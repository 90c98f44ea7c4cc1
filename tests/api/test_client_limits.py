"""Clients' own limits: what is let in, what the headers say, and every store's counting."""

import re
import threading
import time
from datetime import datetime

import pytest
from limits.storage import MemoryStorage

from app import create_app
from app.api.limits import ClientLimits, LimitReached
from app.config import load_settings
from app.pool.state import open_store
from app.simulator.server import Simulator
from tests.redis_server import RedisServer

BODY = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "hello"}],
}


@pytest.fixture
def frozen(monkeypatch):
    """Stop the clock that windows go by, ten seconds into a minute."""

    class Frozen:
        now = 1_790_000_040.0 // 60 * 60 + 10

        def __call__(self):
            return self.now

    clock = Frozen()
    monkeypatch.setattr("limits.storage.memory.time.time", clock)
    return clock


class Ended:
    request_id = "r"
    client = "c"


def used(**tokens):
    return {"input_tokens": None, "cache_read_input_tokens": None, "output_tokens": None, **tokens}


def test_requests_are_counted_and_refused(frozen):
    limits = ClientLimits(MemoryStorage(), requests=2, clock=frozen)
    prefix = "anthropic-ratelimit-requests-"
    first = limits.admit("c", "1", lambda: 0)
    assert first[prefix + "limit"] == "2"
    assert first[prefix + "remaining"] == "1"
    assert limits.admit("c", "2", lambda: 0)[prefix + "remaining"] == "0"
    with pytest.raises(LimitReached) as caught:
        limits.admit("c", "3", lambda: 0)
    error = caught.value
    # Both were in this minute; half of them have faded thirty seconds into the next one.
    assert (error.status, error.retry_after) == (429, 80)
    assert error.message == (
        "This request would exceed your rate limit of 2 requests per minute. "
        "Try again in 80 seconds."
    )
    reset = datetime.fromisoformat(error.headers[prefix + "reset"]).timestamp()
    assert reset == frozen.now + 50 + 60
    assert limits.admit("another", "4", lambda: 0)[prefix + "remaining"] == "1"
    frozen.now += 80
    assert limits.admit("c", "5", lambda: 0)[prefix + "remaining"] == "0"


def test_input_is_estimated_before_and_known_after(frozen):
    limits = ClientLimits(MemoryStorage(), input_tokens=1000, clock=frozen)
    left = "anthropic-ratelimit-input-tokens-remaining"
    assert limits.admit("c", "r", lambda: 600)[left] == "400"
    with pytest.raises(LimitReached, match="1,000 input tokens per minute"):
        limits.admit("c", "2", lambda: 600)
    limits.finished(Ended(), used(input_tokens=100, cache_read_input_tokens=150, output_tokens=9))
    assert limits.admit("c", "3", lambda: 600)[left] == "150"


def test_more_than_a_minute_s_tokens_wait_for_a_whole_minute(frozen):
    limits = ClientLimits(MemoryStorage(), input_tokens=1000, clock=frozen)
    assert limits.admit("c", "1", lambda: 50_000)["anthropic-ratelimit-tokens-remaining"] == "0"


def test_output_is_counted_when_it_is_known(frozen):
    limits = ClientLimits(MemoryStorage(), output_tokens=100, clock=frozen)
    assert limits.admit("c", "r", lambda: 0)["anthropic-ratelimit-output-tokens-remaining"] == "100"
    limits.finished(Ended(), used(output_tokens=130))
    with pytest.raises(LimitReached, match="100 output tokens") as caught:
        limits.admit("c", "2", lambda: 0)
    assert caught.value.headers["anthropic-ratelimit-tokens-limit"] == "100"
    assert caught.value.headers["anthropic-ratelimit-tokens-remaining"] == "0"


class Broken(MemoryStorage):
    base_exceptions = OSError

    def get_sliding_window(self, *_):
        raise OSError("gone")


def test_a_store_that_fails_refuses_nobody(frozen, caplog):
    # An application that another test has made may have set the level of all our logs.
    caplog.set_level("WARNING", logger="gateway.limits")
    limits = ClientLimits(Broken(), requests=2, clock=frozen)
    for number in range(2):
        limits.admit("c", str(number), lambda: 0)
    with pytest.raises(LimitReached):
        limits.admit("c", "3", lambda: 0)
    # Only these: a thread that another test has left may have something to say, too.
    told = [message for message in caplog.messages if message.startswith("clients' limits")]
    assert told == ["clients' limits are counted by this worker alone: OSError"]


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
def test_every_store_counts_alike(kind, tmp_path):
    if kind == "redis":
        with RedisServer(tmp_path) as server:
            count_together(server.url, tmp_path)
    else:
        count_together({"memory": "memory://", "sqlite": "sqlite:///s.db"}[kind], tmp_path)


def count_together(url, folder):
    stores = [open_store(url, folder)]
    stores += [] if url == "memory://" else [open_store(url, folder)]
    counters = [store.counters() for store in stores]
    while time.time() % 60 > 50:  # all of it within one window
        threading.Event().wait(0.5)
    limits = [ClientLimits(each, requests=5, input_tokens=100) for each in counters]
    for number in range(4):
        limits[number % len(limits)].admit("c", "r", lambda: 20)
    headers = limits[-1].admit("c", "r", lambda: 10)
    assert headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert headers["anthropic-ratelimit-input-tokens-remaining"] == "10"
    with pytest.raises(LimitReached, match="5 requests"):
        limits[0].admit("c", "r", lambda: 1)
    for store in stores:
        store.close()


def test_clients_are_told_by_header_and_status(tmp_path):
    simulator = Simulator(pace=0.0)
    simulator.start()
    settings = load_settings(
        {
            "GEMINI_API_KEYS": "k",
            "GEMINI_BASE_URL": simulator.base_url,
            "STATE_URL": "memory://",
            "CLIENT_API_KEYS": "one,two",
            "CLIENT_REQUESTS_PER_MINUTE": "1",
            "CLIENT_OUTPUT_TOKENS_PER_MINUTE": "1000",
        },
        root=tmp_path,
    )
    client = create_app(settings).test_client()
    try:
        answer = client.post("/v1/messages", json=BODY, headers={"x-api-key": "one"})
        assert answer.status_code == 200
        assert answer.headers["anthropic-ratelimit-requests-remaining"] == "0"
        assert answer.headers["anthropic-ratelimit-tokens-limit"] == "1000"
        refused = client.post("/v1/messages", json=BODY, headers={"x-api-key": "one"})
        assert refused.status_code == 429
        assert refused.json["error"]["type"] == "rate_limit_error"
        assert 1 <= int(refused.headers["retry-after"]) <= 120
        stamp = refused.headers["anthropic-ratelimit-requests-reset"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", stamp)
        streamed = client.post(
            "/v1/messages", json={**BODY, "stream": True}, headers={"x-api-key": "two"}
        )
        assert streamed.status_code == 200
        assert streamed.headers["anthropic-ratelimit-requests-limit"] == "1"
    finally:
        simulator.stop()
