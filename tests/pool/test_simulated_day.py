"""A day above quota: nearly all that the quotas allow is got, and hardly a call is refused.

True quotas (a rolling minute, a day that ends in Los Angeles) on a virtual clock. Beside it the
same day with the fixed cooldown that other gateways use, and with an oracle: somebody who knows
the quotas beforehand, and can't do better than the requests that come allow.
"""

import json
import logging
import random
from collections import deque
from datetime import datetime

import pytest

from app.backend.google_errors import classify
from app.pool.account import Account
from app.pool.cooldown import Exhausted
from app.pool.cooling import PACIFIC, next_midnight
from app.pool.pool import ClientPool, PoolError, Wanted
from app.simulator.errors import GoogleError
from app.simulator.quotas import Quotas

MODEL = "gemini-3.8-flash"
START = datetime(2026, 11, 20, tzinfo=PACIFIC).timestamp()
HOUR = 3600.0
ACCOUNTS = ("key-1", "key-2", "key-3")
SPENT = (START + 5 * HOUR, START + 23.5 * HOUR)
"""When the day's quota is gone: a request a minute is then enough to tempt the pool."""


def arrivals(hours, every, jitter):
    """Return the instants of requests, ``every`` seconds on average."""
    draw = random.Random(7)
    times, now = [], START
    while now < START + hours * HOUR:
        times.append(now)
        if SPENT[0] <= now < SPENT[1]:
            now += 60.0
        else:
            now += draw.expovariate(1 / every) if jitter else every
    return times


def simulate(times, rpm, rpd, fixed=None):
    """Return how many requests were granted, how many calls refused, and in how many windows."""
    now = START
    quotas = Quotas()
    mine = {name: quotas.add(name, "*", rpm, rpd, lambda: now) for name in ACCOUNTS}
    pool = ClientPool(
        [Account(name, "api_key", api_key=name) for name in ACCOUNTS], clock=lambda: now
    )
    windows = set()
    for moment in times:
        now = moment
        tried = set()
        while True:
            try:
                lease = pool.acquire(Wanted(MODEL, tried=frozenset(tried)), timeout=0)
            except PoolError:
                break
            with lease:
                try:
                    quotas.charge((lease.account.name,), MODEL)
                except GoogleError as refusal:
                    text = json.dumps(refusal.body()).encode()
                    error = classify(429, text, {}, keyed=True, now=now)
                    minute = error.exhausted.window == "minute"
                    windows.add((lease.account.name, now // 60 if minute else "day"))
                    pool.cool_down(
                        lease, Exhausted(retry_after=fixed) if fixed else error.exhausted
                    )
                    tried.add((lease.account.name, lease.project))
                else:
                    pool.succeeded(lease)
                    break
    granted = sum(quota.granted for quota in mine.values())
    refused = sum(quota.refused for quota in mine.values())
    return granted, refused, len(windows)


def oracle(times, rpm, rpd):
    """Return how many requests somebody who knows the quotas gets through."""
    granted = 0
    minutes = [deque() for _ in ACCOUNTS]
    days = [0 for _ in ACCOUNTS]
    ends = next_midnight(START)
    for now in times:
        if now >= ends:
            days, ends = [0 for _ in ACCOUNTS], next_midnight(now)
        for index, minute in enumerate(minutes):
            while minute and minute[0] <= now - 60:
                minute.popleft()
            if len(minute) < rpm and (rpd is None or days[index] < rpd):
                minute.append(now)
                days[index] += 1
                granted += 1
                break
    return granted


@pytest.mark.parametrize(
    ("hours", "rpm", "rpd", "every", "jitter"),
    [(26, 2, 400, 6.0, False), (2, 10, None, 1.7, False), (1, 10, None, 0.7, True)],
)
def test_a_day_above_quota_yields_what_the_quotas_allow(
    hours, rpm, rpd, every, jitter, capsys, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("gateway.pool"), "disabled", True)
    times = arrivals(hours, every, jitter)
    allowed = oracle(times, rpm, rpd)
    granted, refused, windows = simulate(times, rpm, rpd)
    fixed_granted, fixed_refused, _ = simulate(times, rpm, rpd, fixed=60.0)
    with capsys.disabled():
        print(  # noqa: T201 - the figures are the point
            f"\n{len(ACCOUNTS)} accounts, {rpm}/min {rpd}/day, {hours} h of {len(times)} requests:"
            f" the quotas allow {allowed}; granted {granted}, refused {refused} in {windows} "
            f"windows; with a fixed minute: granted {fixed_granted}, refused {fixed_refused}"
        )
    assert granted >= 0.99 * allowed
    assert refused - windows < 0.01 * (granted + refused)
    assert fixed_refused > refused
