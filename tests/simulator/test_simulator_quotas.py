"""Quotas under a virtual clock: a rolling minute, and a Pacific day."""

from datetime import datetime

import pytest

from app.simulator.quotas import PACIFIC


class Clock:
    def __init__(self, *when):
        self.now = datetime(*when, tzinfo=PACIFIC).timestamp()

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock(2026, 11, 23, 12, 0)


def test_the_minute_rolls(simulator, ask, clock):
    quota = simulator.quota("key-a", rpm=2, clock=clock)
    assert ask.post().status_code == 200
    clock.now += 10
    assert ask.post().status_code == 200
    clock.now += 20
    refused = ask.post()
    assert refused.status_code == 429
    violation, _, retry = refused.json()["error"]["details"]
    assert retry["retryDelay"] == "30s"
    assert violation["violations"][0]["quotaId"] == (
        "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"
    )
    assert violation["violations"][0]["quotaValue"] == "2"
    clock.now += 29.9
    assert ask.post().status_code == 429
    clock.now += 0.1
    assert [ask.post().status_code for _ in range(2)] == [200, 429]
    assert (quota.granted, quota.refused) == (3, 3)


@pytest.mark.parametrize(
    "day",
    [(2026, 11, 23), (2026, 3, 8), (2026, 11, 1)],
    ids=["ordinary", "an hour shorter", "an hour longer"],
)
def test_the_day_ends_at_midnight_in_los_angeles(simulator, ask, day):
    clock = Clock(*day, 0, 30)
    simulator.quota("key-a", rpd=1, clock=clock)
    assert ask.post().status_code == 200
    clock.now = datetime(*day, 23, 59, 59, tzinfo=PACIFIC).timestamp()
    refused = ask.post().json()["error"]["details"]
    assert "PerDay" in refused[0]["violations"][0]["quotaId"]
    assert refused[2]["retryDelay"] == "47s"
    clock.now += 1
    assert ask.post().status_code == 200


def test_each_model_is_counted_apart_and_counting_is_free(simulator, ask, clock):
    simulator.quota("key-a", "gemini-3*", rpm=1, clock=clock)
    assert ask.post(model="gemini-3.8-flash").status_code == 200
    assert ask.post(model="gemini-3.6-flash").status_code == 200
    assert ask.post(model="gemini-3.8-flash").status_code == 429
    assert ask.post(model="gemini-4-neon").status_code == 200
    assert ask.post(call="countTokens").status_code == 200
    assert ask.post(key="key-b").status_code == 200


def test_a_projects_quota_is_shared_by_its_keys(simulator, ask, clock):
    simulator.quota("proj-1", rpm=1, clock=clock)

    def status(key, project):
        headers = {"x-goog-api-key": key, "x-goog-user-project": project}
        return ask.post(headers=headers).status_code

    assert [status("a", "proj-1"), status("b", "proj-1"), status("b", "proj-2")] == [200, 429, 200]


def test_no_quota_at_all(simulator, ask, clock):
    simulator.quota("key-a", rpd=0, clock=clock)
    assert "limit: 0, model: gemini-3.8-flash" in ask.refusal()[1]


def test_a_new_quota_takes_the_place_of_the_old(simulator, ask, clock):
    simulator.quota("key-a", rpm=0, clock=clock)
    assert ask.post().status_code == 429
    simulator.quota("key-a", rpm=5, clock=clock)
    assert ask.post().status_code == 200


def test_quotas_over_http(simulator, ask):
    quota = {"owner": "key-a", "rpm": 1}
    ask.session.post(f"{simulator.base_url}/_simulator/quota", json=quota)
    assert [ask.post().status_code for _ in range(2)] == [200, 429]
