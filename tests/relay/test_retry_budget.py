"""Retries of all requests together: never a storm, never a lonely request left without."""

import pytest

from app.backend.errors import Fault
from app.relay.budget import RESERVE, RetryBudget
from app.relay.errors import Failure, RelayError
from tests.relay.world import World, error


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def spent(budget):
    count = 0
    while budget.spend():
        count += 1
    return count


def test_the_reserve_is_there_for_those_who_are_alone():
    budget = RetryBudget(0.5, Clock())
    assert spent(budget) == RESERVE


def test_every_request_earns_its_share():
    budget = RetryBudget(0.5, Clock())
    spent(budget)
    for _ in range(50):
        budget.earn()
    assert spent(budget) == 25


def test_the_reserve_comes_back_with_time():
    clock = Clock()
    budget = RetryBudget(0.0, clock)
    spent(budget)
    clock.now = 2.5
    assert spent(budget) == 25
    clock.now = 1000.0
    assert spent(budget) == RESERVE


def test_a_busy_process_saves_up_no_more_than_two_minutes():
    clock = Clock()
    budget = RetryBudget(0.5, clock)
    for minute in range(10):
        clock.now = 60.0 * minute
        for _ in range(1000):
            budget.earn()
    assert spent(budget) == 1000


def test_a_storm_ends_in_the_last_error_and_not_in_more_tries(monkeypatch):
    monkeypatch.setattr("app.relay.budget.RESERVE", 2.0)
    monkeypatch.setattr("app.relay.budget.REFILL", 0.0)
    world = World(retry=3, a=[[error(Fault.UNAVAILABLE, 503)]] * 9)
    for tries in (3, 1):
        before = len(world.asked)
        with pytest.raises(RelayError) as caught:
            world.run()
        assert caught.value.failure is Failure.OVERLOADED
        assert len(world.asked) - before == tries
