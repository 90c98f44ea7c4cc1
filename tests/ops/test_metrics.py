"""``/metrics`` and who may read it: through the application, with one process's own counts."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app import create_app
from app.config import load_settings
from app.ops.metrics import MOST_REASONS, Metrics
from app.ops.throttle import PER_ADDRESS, TOGETHER, WINDOW


@pytest.fixture
def make(tmp_path):
    def make(**settings):
        base = {"GEMINI_API_KEYS": "k", "STATE_URL": "memory://"}
        return create_app(load_settings({**base, **settings}, root=tmp_path)).test_client()

    return make


def fields(**more):
    return {
        "path": "/v1/messages",
        "upstream_model": "m",
        "status": 200,
        "outcome": "ok",
        "ms": 1500,
        "first_event_ms": 300,
        "keepalives": 2,
        "retry_refused": False,
        "input_tokens": 10,
        "cache_read_input_tokens": 5,
        "output_tokens": 7,
        "attempts": [{"account": "a", "outcome": "per-minute requests"},
                     {"account": "b", "outcome": "ok"}],
        **more,
    }  # fmt: skip


def samples(text):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_a_request_is_counted_once_in_each_place():
    metrics = Metrics({"m"}.__contains__)
    metrics.finished(None, fields())
    metrics.finished(None, fields(upstream_model="made up", status=429, outcome="quota",
                                  first_event_ms=None, keepalives=0, retry_refused=True,
                                  input_tokens=None,
                                  cache_read_input_tokens=None, output_tokens=None,
                                  attempts=[]))  # fmt: skip
    found = samples(metrics.text())
    path = ("path", "/v1/messages")
    counts = {key: value for key, value in found.items() if "_bucket" not in key[0]}
    assert counts == {
        ("gateway_requests_total", ("model", "m"), ("outcome", "ok"), path, ("status", "200")): 1,
        ("gateway_requests_total", ("model", "other"), ("outcome", "quota"), path,
         ("status", "429")): 1,
        ("gateway_request_seconds_count", path): 2,
        ("gateway_request_seconds_sum", path): 3,
        ("gateway_first_event_seconds_count", ("model", "m")): 1,
        ("gateway_first_event_seconds_sum", ("model", "m")): 0.3,
        ("gateway_tokens_total", ("kind", "input"), ("model", "m")): 10,
        ("gateway_tokens_total", ("kind", "cache_read"), ("model", "m")): 5,
        ("gateway_tokens_total", ("kind", "output"), ("model", "m")): 7,
        ("gateway_attempts_total", ("account", "a"), ("outcome", "per-minute requests")): 1,
        ("gateway_attempts_total", ("account", "b"), ("outcome", "ok")): 1,
        ("gateway_failovers_total",): 1,
        ("gateway_keepalives_total",): 2,
        ("gateway_retries_refused_total",): 1,
    }  # fmt: skip
    assert found[("gateway_first_event_seconds_bucket", ("le", "0.2"), ("model", "m"))] == 0
    assert found[("gateway_first_event_seconds_bucket", ("le", "0.4"), ("model", "m"))] == 1


def test_reasons_that_google_invents_do_not_grow_without_end():
    metrics = Metrics(set().__contains__)
    for number in range(MOST_REASONS + 50):
        metrics.finished(None, fields(attempts=[{"account": "a", "outcome": f"R{number}"}]))
    outcomes = {key[2][1] for key in samples(metrics.text()) if "attempts_total" in key[0]}
    assert len(outcomes) == MOST_REASONS
    assert "other" in outcomes


def test_what_the_pool_is_like(make):
    client = make(GEMINI_API_KEYS="k,l")
    found = samples(client.get("/metrics").data)
    assert found["gateway_ready",] == 1
    assert found["gateway_simulator",] == 0
    assert found["gateway_state_store_up",] == 1
    assert found["gateway_leases_shared",] == 1
    assert found["gateway_draining",] == 0
    labels = (("account", "key-2"), ("kind", "api_key"))
    assert found["gateway_account_state", *labels, ("state", "ready")] == 1
    assert found["gateway_account_state", *labels, ("state", "cooling")] == 0
    assert found["gateway_account_concurrency", ("account", "key-1")] == 8
    assert found["gateway_account_in_flight", ("account", "key-1")] == 0
    pool = client.application.extensions["gateway"].pool
    from app.pool.cooldown import Exhausted
    from app.pool.pool import Wanted

    with pool.acquire(Wanted("m"), timeout=0) as lease:
        pool.cool_down(
            lease, Exhausted("minute", 30.0, reason="r", limit=10, metric="RequestsPerMinute")
        )
        found = samples(client.get("/metrics").data)
        assert found["gateway_account_in_flight", ("account", "key-1")] == 1
    where = (("account", "key-1"), ("model", "m"), ("project", ""), ("window", "minute"))
    assert 25 < found["gateway_account_cooldown_seconds", *where] <= 30
    of = (("account", "key-1"), ("limit", "10"), *where[1:])
    assert found["gateway_quota_remaining", *of] == 0


@pytest.mark.parametrize(
    ("settings", "headers", "status"),
    [
        ({}, {}, 200),
        ({}, {"host": "evil.example"}, 403),
        ({}, {"host": "[::1]:8080"}, 200),
        ({"ADMIN_API_KEY": "secret-key"}, {}, 401),
        ({"ADMIN_API_KEY": "secret-key"}, {"x-api-key": "secret-kez"}, 401),
        ({"ADMIN_API_KEY": "secret-key"}, {"x-api-key": "secret-key"}, 200),
        ({"ADMIN_API_KEY": "secret-key"}, {"authorization": "Bearer secret-key"}, 200),
        ({"ADMIN_API_KEY": "secret-key", "METRICS_OPEN": "true"}, {}, 200),
        ({"HOST": "0.0.0.0", "CLIENT_API_KEYS": "c"}, {"x-api-key": "c"}, 403),
        ({"HOST": "0.0.0.0", "CLIENT_API_KEYS": "c", "METRICS_OPEN": "true"}, {}, 200),
    ],
)
def test_who_may_read_it(make, settings, headers, status):
    answer = make(**settings).get("/metrics", headers=headers)
    assert answer.status_code == status
    if status != 200:
        assert answer.json["error"]["type"] in ("authentication_error", "permission_error")


def test_guessing_the_key_is_slowed_down_as_on_the_dashboard(make):
    client = make(ADMIN_API_KEY="secret-key")
    right, wrong = {"x-api-key": "secret-key"}, {"authorization": "Bearer guess"}

    def status(headers, path="/metrics", address="10.0.0.1"):
        return client.get(path, headers=headers, environ_base={"REMOTE_ADDR": address}).status_code

    # A scraper without a key does not guess.
    assert [status({}) for _ in range(PER_ADDRESS + 1)] == [401] * (PER_ADDRESS + 1)
    assert [status(wrong) for _ in range(100)] == [401] * PER_ADDRESS + [429] * (100 - PER_ADDRESS)
    refused = client.get("/metrics", headers=right, environ_base={"REMOTE_ADDR": "10.0.0.1"})
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= WINDOW
    # One count for both doors, and none for others' addresses.
    assert status(right, "/admin/api/accounts") == 429
    assert [status(right, address="10.0.0.2") for _ in range(20)] == [200] * 20
    # Guesses from everywhere shut out who is not known yet, but not the scraper.
    guessed = [status(wrong, address=f"10.1.0.{number}") for number in range(TOGETHER)]
    assert guessed == [401] * (TOGETHER - PER_ADDRESS) + [429] * PER_ADDRESS
    assert [status(right, address=address) for address in ("10.0.0.2", "10.0.0.3")] == [200, 429]
