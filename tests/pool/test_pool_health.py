"""Ejection after failures in a row, and the trial that ends it."""

import pytest

from app.pool.cooldown import Exhausted
from app.pool.pool import ClientPool, Wanted

WANTED = Wanted("m")


@pytest.fixture
def pool(clock, account):
    return ClientPool([account("good"), account("bad")], rotation="fill_first", clock=clock)


def lease_on(pool, name, model="m"):
    other = {"good": "bad", "bad": "good"}[name]
    return pool.acquire(Wanted(model, avoid=frozenset({other})), timeout=0)


def fail(pool, name, times, model="m"):
    for _ in range(times):
        with lease_on(pool, name, model) as lease:
            assert lease.account.name == name
            pool.failed(lease)


def chosen(pool, model="m", **wanted):
    with pool.acquire(Wanted(model, **wanted), timeout=0) as lease:
        return lease.account.name


def state(pool, name):
    return next(view.state for view in pool.snapshot() if view.name == name)


def test_four_failures_change_nothing_and_the_fifth_ejects_for_that_model(pool):
    fail(pool, "good", 4)
    assert chosen(pool) == "good"
    fail(pool, "good", 1)
    assert chosen(pool) == "bad"
    assert chosen(pool, "another-model") == "good"
    assert state(pool, "good") == "ejected"


def test_an_answer_in_between_starts_the_count_again(pool):
    fail(pool, "good", 4)
    with lease_on(pool, "good") as lease:
        pool.succeeded(lease)
    fail(pool, "good", 4)
    assert chosen(pool) == "good"


def test_the_ejection_doubles_from_ten_seconds_to_five_minutes(pool, clock):
    fail(pool, "good", 5)
    lengths = []
    for _ in range(7):
        began = clock.now
        while chosen(pool) == "bad":
            clock.advance(1)
        # `chosen` gave its trial back without a verdict, so there is another one.
        lengths.append(clock.now - began)
        fail(pool, "good", 1)
    assert lengths == [10, 20, 40, 80, 160, 300, 300]


def test_one_trial_at_a_time_decides(pool, clock):
    fail(pool, "good", 5)
    clock.advance(10)
    trial = pool.acquire(WANTED, timeout=0)
    assert trial.account.name == "good"
    assert chosen(pool) == "bad"
    pool.succeeded(trial)
    assert chosen(pool) == "good"
    pool.release(trial)


def test_a_trial_that_takes_long_makes_room_for_another(pool, clock):
    fail(pool, "good", 5)
    clock.advance(10)
    with pool.acquire(WANTED, timeout=0) as trial:
        assert trial.account.name == "good"
        clock.advance(29)
        assert chosen(pool) == "bad"
        clock.advance(1)
        assert chosen(pool) == "good"


def test_requests_under_way_at_the_ejection_do_not_prolong_it(pool, clock):
    leases = [lease_on(pool, "good") for _ in range(8)]
    for lease in leases:
        pool.failed(lease)
        pool.release(lease)
    clock.advance(10)
    assert chosen(pool) == "good"


def test_when_all_are_ejected_they_are_used_all_the_same(pool):
    fail(pool, "good", 5)
    fail(pool, "bad", 5)
    assert chosen(pool) == "good"
    assert chosen(pool, tried=frozenset({("good", "")})) == "bad"


def test_an_ejected_account_comes_after_one_that_failed_just_this_request(pool):
    fail(pool, "bad", 5)
    assert chosen(pool, avoid=frozenset({"good"})) == "good"


def test_a_clock_set_back_does_not_prolong_the_ejection(pool, clock):
    fail(pool, "good", 5)
    clock.advance(-86_400)
    assert chosen(pool) == "good"


def test_being_out_of_quota_is_no_failure(pool, clock):
    for _ in range(9):
        with lease_on(pool, "good") as lease:
            pool.cool_down(lease, Exhausted("capacity", retry_after=1))
        clock.advance(1)
    assert chosen(pool) == "good"
    assert state(pool, "good") == "ready"
