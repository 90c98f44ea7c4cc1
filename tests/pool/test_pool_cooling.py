"""Until when something cools: a table, with the days on which the clocks change."""

from datetime import UTC, datetime

import pytest

from app.pool.cooldown import Exhausted
from app.pool.cooling import ANY, Cooldown, Cooldowns, next_midnight


def at(text):
    return datetime.fromisoformat(text).timestamp()


NOON = at("2026-06-10T12:00:00-07:00")


@pytest.mark.parametrize(
    ("now", "midnight"),
    [
        ("2026-06-10T12:00:00-07:00", "2026-06-11T00:00:00-07:00"),
        ("2026-06-10T23:59:59-07:00", "2026-06-11T00:00:00-07:00"),
        ("2026-06-11T00:00:00-07:00", "2026-06-12T00:00:00-07:00"),
        ("2026-12-31T23:00:00-08:00", "2027-01-01T00:00:00-08:00"),
        # 23 hours long: the clocks go forward at 2 in the morning.
        ("2026-03-07T23:30:00-08:00", "2026-03-08T00:00:00-08:00"),
        ("2026-03-08T00:00:00-08:00", "2026-03-09T00:00:00-07:00"),
        ("2026-03-08T01:59:59-08:00", "2026-03-09T00:00:00-07:00"),
        ("2026-03-08T03:00:00-07:00", "2026-03-09T00:00:00-07:00"),
        # 25 hours long: the hour from 1 to 2 comes twice.
        ("2026-11-01T00:00:00-07:00", "2026-11-02T00:00:00-08:00"),
        ("2026-11-01T01:30:00-07:00", "2026-11-02T00:00:00-08:00"),
        ("2026-11-01T01:30:00-08:00", "2026-11-02T00:00:00-08:00"),
        ("2026-11-01T23:59:59-08:00", "2026-11-02T00:00:00-08:00"),
    ],
)
def test_midnight_in_los_angeles(now, midnight):
    assert datetime.fromtimestamp(next_midnight(at(now)), UTC) == datetime.fromisoformat(midnight)


MIDNIGHT = at("2026-06-11T00:00:00-07:00")


@pytest.mark.parametrize(
    ("exhausted", "until"),
    [
        (Exhausted("minute", retry_after=26.3), NOON + 26.3),
        (Exhausted("unknown", retry_after=0.5), NOON + 0.5),
        (Exhausted("capacity", retry_after=40), NOON + 40),
        (Exhausted("day"), MIDNIGHT),
        (Exhausted("day", retry_after=47), MIDNIGHT),
        (Exhausted("day", retry_after=90_000_000), MIDNIGHT),
        (Exhausted("unknown", until=NOON + 581_981, retry_after=3), NOON + 581_981),
        (Exhausted("day", until=NOON + 9, retry_after=3), NOON + 9),
        (Exhausted("never"), NOON + 86_400),
        (Exhausted("never", retry_after=5), NOON + 86_400),
        (Exhausted("minute"), NOON + 1),
        (Exhausted("unknown"), NOON + 1),
        (Exhausted("capacity"), NOON + 1),
        # Answers that can't be meant.
        (Exhausted("minute", retry_after=0), NOON + 1),
        (Exhausted("minute", retry_after=-3), NOON + 1),
        (Exhausted("minute", retry_after=float("nan")), NOON + 1),
        (Exhausted("minute", retry_after=float("inf")), NOON + 1),
        (Exhausted("minute", until=NOON - 5, retry_after=7), NOON + 7),
        (Exhausted("minute", until=float("nan"), retry_after=7), NOON + 7),
        (Exhausted("minute", until=NOON + 1e12), NOON + 31 * 86_400),
        (Exhausted("minute", retry_after=1e12), NOON + 31 * 86_400),
    ],
)
def test_the_instant_that_a_refusal_implies(exhausted, until):
    cooldowns = Cooldowns()
    added = cooldowns.add(exhausted, "p", "m", NOON, NOON)
    assert added is not None
    assert added.until == pytest.approx(until, abs=1e-6)
    assert cooldowns.until("p", "m", NOON) == added.until
    assert cooldowns.until("p", "m", added.until) == 0.0


def lengths(exhausted, times, *, succeed_after=()):
    cooldowns, now, found = Cooldowns(), NOON, []
    for number in range(times):
        added = cooldowns.add(exhausted, "p", "m", now, now)
        found.append(added.until - now)
        now = added.until + 0.001
        if number in succeed_after:
            cooldowns.succeeded("p", "m")
    return found


def test_unexplained_refusals_double_from_a_second_to_half_an_hour():
    assert lengths(Exhausted(), 13) == [
        1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1800, 1800,
    ]  # fmt: skip


def test_a_model_that_is_short_is_asked_again_within_a_minute():
    assert lengths(Exhausted("capacity"), 8) == [1, 2, 4, 8, 16, 32, 60, 60]


def test_an_answer_ends_the_doubling():
    assert lengths(Exhausted(), 5, succeed_after={2}) == [1, 2, 4, 1, 2]


def test_refusals_of_requests_already_under_way_are_one_refusal():
    cooldowns = Cooldowns()
    cooldowns.add(Exhausted(), "p", "m", NOON - 3, NOON)
    assert [cooldowns.add(Exhausted(), "p", "m", NOON - n, NOON + 0.2) for n in (0, 1, 2)] == [
        None,
        None,
        None,
    ]
    assert cooldowns.until("p", "m", NOON) == NOON + 1


def test_delays_named_to_requests_that_ran_at_once_are_one_cooldown():
    cooldowns = Cooldowns()
    first = cooldowns.add(Exhausted("minute", 20), "p", "m", NOON - 1, NOON)
    assert cooldowns.add(Exhausted("minute", 20), "p", "m", NOON - 1, NOON + 0.3) is None
    assert cooldowns.active(NOON) == [first]
    longer = cooldowns.add(Exhausted("day"), "p", "m", NOON - 1, NOON + 0.3)
    assert cooldowns.active(NOON) == [longer]


def test_a_shorter_cooldown_does_not_end_a_longer_one():
    cooldowns = Cooldowns()
    cooldowns.add(Exhausted("day"), "p", "m", NOON, NOON)
    assert cooldowns.add(Exhausted("minute", retry_after=20), "p", "m", NOON, NOON) is None
    assert cooldowns.until("p", "m", NOON) == MIDNIGHT


@pytest.mark.parametrize(
    ("exhausted", "cooling"),
    [
        (Exhausted(), {("p", "m")}),
        (Exhausted(per_project=False), {("p", "m"), ("q", "m")}),
        (Exhausted(per_model=False), {("p", "m"), ("p", "n")}),
        (
            Exhausted(per_project=False, per_model=False),
            {("p", "m"), ("q", "m"), ("p", "n"), ("q", "n")},
        ),
        # A model that is short says nothing about the others.
        (Exhausted("capacity", per_model=False), {("p", "m")}),
    ],
)
def test_what_cools_is_what_google_named(exhausted, cooling):
    cooldowns = Cooldowns()
    cooldowns.add(exhausted, "p", "m", NOON, NOON)
    everything = {(project, model) for project in "pq" for model in "mn"}
    assert {pair for pair in everything if cooldowns.until(*pair, NOON)} == cooling


def test_what_others_learnt_is_taken_over_if_it_lasts_longer():
    cooldowns = Cooldowns()
    told = Cooldown("p", ANY, NOON + 50, NOON - 10, "minute", "quota")
    cooldowns.adopt(told, NOON)
    cooldowns.adopt(Cooldown("p", ANY, NOON + 20, NOON, "minute", "quota"), NOON)
    cooldowns.adopt(Cooldown("q", ANY, NOON - 1, NOON - 9, "minute", "over"), NOON)
    assert cooldowns.active(NOON) == [told]


def test_absurd_instants_of_others_are_cut():
    cooldowns = Cooldowns()
    cooldowns.adopt(Cooldown("p", "m", NOON + 1e11, NOON, "day", "quota"), NOON)
    assert cooldowns.until("p", "m", NOON) == NOON + 31 * 86_400
