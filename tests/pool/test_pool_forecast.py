"""What is left of the limits that Google named."""

import pytest

from app.pool.cooldown import Exhausted
from app.pool.cooling import next_midnight
from app.pool.pool import ClientPool, Wanted


@pytest.fixture
def pool(account, clock):
    return ClientPool([account(projects=("p",))], clock=clock)


def use(pool, times=1, model="m", exhausted=None):
    for _ in range(times):
        with pool.acquire(Wanted(model), timeout=0) as lease:
            if exhausted:
                pool.cool_down(lease, exhausted)


def left(pool):
    return [
        (each.model, each.window, each.limit, each.remaining)
        for each in pool.snapshot()[0].forecasts
    ]


def test_a_minute_rolls(pool, clock):
    use(pool, exhausted=Exhausted("minute", 26.0, limit=10, metric="RequestsPerMinute"))
    assert left(pool) == [("m", "minute", 10, 0)]
    clock.advance(26)
    use(pool, 3)
    assert left(pool) == [("m", "minute", 10, 7)]
    clock.advance(59)
    use(pool, 2)
    assert left(pool) == [("m", "minute", 10, 5)]
    assert pool.snapshot()[0].forecasts[0].resets_at == clock.now + 1
    clock.advance(1)
    assert left(pool) == [("m", "minute", 10, 8)]


def test_a_day_ends_at_midnight(pool, clock):
    use(pool, exhausted=Exhausted("day", limit=250, metric="RequestsPerDay"))
    clock.now = next_midnight(clock.now)
    assert left(pool) == [("m", "day", 250, 250)]
    use(pool, 6)
    use(pool, 4, model="n")
    assert left(pool) == [("m", "day", 250, 244)]
    assert pool.snapshot()[0].forecasts[0].resets_at == next_midnight(clock.now)
    clock.now = next_midnight(clock.now)
    assert left(pool) == [("m", "day", 250, 250)]


def test_limits_of_tokens_are_shown_without_a_guess(pool, clock):
    use(pool, exhausted=Exhausted("minute", 5, limit=250_000, metric="InputTokensPerMinute"))
    assert left(pool) == [("m", "minute", 250_000, 0)]
    clock.advance(5)
    assert left(pool) == [("m", "minute", 250_000, None)]


def test_limits_of_the_whole_account_count_every_model(pool, clock):
    use(pool, exhausted=Exhausted("minute", 5, limit=10, per_project=False, per_model=False))
    clock.advance(5)
    use(pool, 2)
    use(pool, 3, model="n")
    assert left(pool) == [("*", "minute", 10, 5)]


@pytest.mark.parametrize(
    "exhausted",
    [
        Exhausted("minute", 5),
        Exhausted("never", limit=0),
        Exhausted("capacity", 5, limit=7),
        Exhausted("unknown", 5, limit=7),
    ],
)
def test_what_names_no_limit_gives_no_forecast(pool, exhausted):
    use(pool, exhausted=exhausted)
    assert left(pool) == []


def test_a_raised_limit_takes_the_old_one_s_place(pool, clock):
    use(pool, exhausted=Exhausted("minute", 5, limit=10, metric="RequestsPerMinute"))
    clock.advance(5)
    use(pool, exhausted=Exhausted("minute", 5, limit=30, metric="RequestsPerMinute"))
    clock.advance(5)
    use(pool, 4)
    assert left(pool) == [("m", "minute", 30, 26)]
