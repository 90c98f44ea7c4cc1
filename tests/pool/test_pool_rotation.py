"""The strategies: their distribution, and who comes first whatever the strategy."""

from collections import Counter

import pytest

from app.pool.account import account_tag
from app.pool.cooldown import Exhausted
from app.pool.pool import ClientPool, Wanted


def names(pool, times, model="m", **wanted):
    found = []
    for _ in range(times):
        with pool.acquire(Wanted(model, **wanted), timeout=0) as lease:
            found.append(lease.account.name)
    return found


def test_round_robin_takes_turns(account):
    pool = ClientPool([account("a"), account("b"), account("c")])
    assert names(pool, 7) == ["a", "b", "c", "a", "b", "c", "a"]


def test_round_robin_spreads_the_weights_evenly(account):
    pool = ClientPool([account("a", weight=5), account("b"), account("c")])
    assert names(pool, 14) == ["a", "a", "b", "a", "c", "a", "a"] * 2


def test_models_asked_for_in_turn_do_not_divide_the_accounts(account):
    pool = ClientPool([account("a"), account("b")])
    found = [names(pool, 1, model)[0] for model in "mnmnmnmn"]
    assert Counter(found[::2]) == Counter(found[1::2]) == {"a": 2, "b": 2}


def test_an_account_that_was_out_gets_no_burst_when_it_is_back(account, clock):
    pool = ClientPool([account("a"), account("b"), account("c")], clock=clock)
    with pool.acquire(Wanted("m"), timeout=0) as lease:
        pool.cool_down(lease, Exhausted(retry_after=60))
    assert Counter(names(pool, 100)) == {"b": 50, "c": 50}
    clock.advance(60)
    assert Counter(names(pool, 9)) == {"a": 3, "b": 3, "c": 3}


def test_fill_first_stays_until_the_account_is_full_or_out(account, clock):
    pool = ClientPool(
        [account("a", concurrency=2), account("b")], rotation="fill_first", clock=clock
    )
    assert names(pool, 3) == ["a", "a", "a"]
    with pool.acquire(Wanted("m"), timeout=0), pool.acquire(Wanted("m"), timeout=0):
        assert names(pool, 2) == ["b", "b"]
    with pool.acquire(Wanted("m"), timeout=0) as lease:
        pool.cool_down(lease, Exhausted(retry_after=5))
    assert names(pool, 2) == ["b", "b"]
    clock.advance(5)
    assert names(pool, 2) == ["a", "a"]


def test_least_busy_fills_every_account_in_proportion(account):
    pool = ClientPool(
        [account("a", concurrency=8), account("b", concurrency=4)], rotation="least_busy"
    )
    leases = [pool.acquire(Wanted("m"), timeout=0) for _ in range(6)]
    assert Counter(lease.account.name for lease in leases) == {"a": 4, "b": 2}
    for lease in leases:
        if lease.account.name == "b":
            pool.release(lease)
    assert names(pool, 3) == ["b", "b", "b"]


def test_least_busy_takes_turns_among_equals(account):
    pool = ClientPool([account("a"), account("b")], rotation="least_busy")
    assert names(pool, 4) == ["a", "b", "a", "b"]


def homes(pool, keys):
    return {key: names(pool, 1, affinity_key=key)[0] for key in keys}


KEYS = [f"conversation-{number}" for number in range(1000)]


def test_sticky_keeps_a_conversation_on_its_account_and_moves_only_who_must(account, clock):
    accounts = [account(name) for name in "abcd"]
    pool = ClientPool(accounts, rotation="sticky", clock=clock)
    before = homes(pool, KEYS)
    assert homes(pool, KEYS) == before
    assert all(200 <= count <= 300 for count in Counter(before.values()).values())
    with pool.acquire(Wanted("m", preferred_account=account_tag("c")), timeout=0) as lease:
        pool.cool_down(lease, Exhausted(retry_after=9))
    during = homes(pool, KEYS)
    assert {key for key in KEYS if during[key] != before[key]} == {
        key for key in KEYS if before[key] == "c"
    }
    assert Counter(during.values()).keys() == {"a", "b", "d"}
    clock.advance(9)
    assert homes(pool, KEYS) == before


def test_sticky_minds_the_weights(account):
    pool = ClientPool([account("a", weight=3), account("b")], rotation="sticky")
    assert Counter(homes(pool, KEYS).values())["a"] == pytest.approx(750, abs=50)


def test_sticky_without_a_conversation_takes_turns(account):
    pool = ClientPool([account("a"), account("b")], rotation="sticky")
    assert names(pool, 4) == ["a", "b", "a", "b"]


@pytest.mark.parametrize("rotation", ["round_robin", "fill_first", "least_busy", "sticky"])
def test_priority_comes_first_and_spills_over_when_full_or_out(account, clock, rotation):
    pool = ClientPool(
        [account("low"), account("high", priority=1, concurrency=1)],
        rotation=rotation,
        clock=clock,
    )
    assert names(pool, 3, affinity_key="k") == ["high"] * 3
    with pool.acquire(Wanted("m"), timeout=0) as lease:
        assert names(pool, 2, affinity_key="k") == ["low"] * 2
        pool.cool_down(lease, Exhausted(retry_after=5))
    assert names(pool, 2, affinity_key="k") == ["low"] * 2
    clock.advance(5)
    assert names(pool, 1, affinity_key="k") == ["high"]


@pytest.mark.parametrize("rotation", ["round_robin", "fill_first", "least_busy", "sticky"])
def test_the_preferred_account_goes_first_if_it_can(account, rotation):
    pool = ClientPool([account("a", priority=9), account("b", concurrency=1)], rotation=rotation)
    tag = account_tag("b")
    assert names(pool, 3, preferred_account=tag) == ["b"] * 3
    with pool.acquire(Wanted("m", preferred_account=tag), timeout=0):
        assert names(pool, 1, preferred_account=tag) == ["a"]
    assert names(pool, 1, preferred_account=tag, tried=frozenset({("b", "")})) == ["a"]
    assert names(pool, 1, preferred_account=tag, avoid=frozenset({"b"})) == ["a"]
    assert names(pool, 1, preferred_account="00000000") == ["a"]
