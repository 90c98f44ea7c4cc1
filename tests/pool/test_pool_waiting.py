"""Waiting for a slot: order, waking, cancelling, and what ends a wait."""

import re
import threading

import pytest

from app.pool.cooldown import Exhausted
from app.pool.pool import (
    AllBusy,
    AllCooling,
    AllTried,
    Cancelled,
    CancelToken,
    ClientPool,
    NoneUsable,
    Wanted,
)

WANTED = Wanted("m")


@pytest.fixture
def full(account, clock):
    """A pool of one account with one slot, and the lease that holds it."""
    pool = ClientPool([account("a", concurrency=1)], clock=clock)
    return pool, pool.acquire(WANTED, timeout=0)


def in_flight(pool):
    return sum(view.in_flight for view in pool.snapshot())


def test_first_come_first_served(full, in_thread, until):
    pool, lease = full
    order, waits = [], []

    def wait(number):
        with pool.acquire(WANTED, timeout=30):
            order.append(number)

    for number in range(20):
        waits.append(in_thread(wait, number))
        until(lambda: pool.waiting == len(waits))
    pool.release(lease)
    for future in waits:
        future.result(5)
    assert order == list(range(20))
    assert (in_flight(pool), pool.waiting) == (0, 0)


def test_a_newcomer_does_not_overtake(full, in_thread, until, clock):
    pool, lease = full
    first = in_thread(pool.acquire, WANTED, timeout=30)
    until(lambda: pool.waiting == 1)
    pool.release(lease)
    with pytest.raises(AllBusy):
        pool.acquire(WANTED, timeout=0)
    pool.release(first.result(5))


def test_a_waiter_for_another_account_does_not_hold_up_the_queue(account, in_thread, until):
    pool = ClientPool(
        [account("a", concurrency=1, models=("m",)), account("b", concurrency=1, models=("n",))]
    )
    on_a, on_b = pool.acquire(Wanted("m"), timeout=0), pool.acquire(Wanted("n"), timeout=0)
    for_a = in_thread(pool.acquire, Wanted("m"), timeout=30)
    until(lambda: pool.waiting == 1)
    for_b = in_thread(pool.acquire, Wanted("n"), timeout=30)
    until(lambda: pool.waiting == 2)
    pool.release(on_b)
    assert for_b.result(5).account.name == "b"
    assert not for_a.done()
    pool.release(on_a)
    assert for_a.result(5).account.name == "a"


def test_the_wait_is_bounded(full):
    pool, _ = full
    with pytest.raises(AllBusy) as caught:
        pool.acquire(WANTED, timeout=0.02)
    assert re.fullmatch(r"every account for m stayed busy for \d\.\d s", str(caught.value))
    assert pool.waiting == 0


def test_cancelling_wakes_at_once(full, in_thread, until):
    pool, lease = full
    cancel = CancelToken()
    waiter = in_thread(pool.acquire, WANTED, timeout=3600, cancel=cancel)
    until(lambda: pool.waiting == 1)
    cancel.cancel()
    assert isinstance(waiter.exception(5), Cancelled)
    assert pool.waiting == 0
    pool.release(lease)
    assert in_flight(pool) == 0


def test_a_token_cancelled_before_gives_nothing(account):
    pool = ClientPool([account()])
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        pool.acquire(WANTED, timeout=1, cancel=cancel)
    assert in_flight(pool) == 0


def test_a_slot_given_to_a_waiter_who_is_cancelled_goes_to_the_next(full, in_thread, until):
    pool, lease = full
    cancel = CancelToken()
    first = in_thread(pool.acquire, WANTED, timeout=30, cancel=cancel)
    until(lambda: pool.waiting == 1)
    second = in_thread(pool.acquire, WANTED, timeout=30)
    until(lambda: pool.waiting == 2)
    # Both before the first waiter can look: it holds a slot and is cancelled.
    with cancel._lock:
        cancel.cancelled = True
        pool.release(lease)
    assert isinstance(first.exception(5), Cancelled)
    pool.release(second.result(5))
    assert (in_flight(pool), pool.waiting) == (0, 0)


def test_a_thread_ended_in_its_wait_leaves_nothing_behind(full, monkeypatch):
    pool, lease = full

    class Ended(BaseException):
        pass

    def end(event, timeout=None):
        pool.release(lease)
        raise Ended

    with monkeypatch.context() as patched:
        patched.setattr(threading.Event, "wait", end)
        with pytest.raises(Ended):
            pool.acquire(WANTED, timeout=30)
    assert (in_flight(pool), pool.waiting) == (0, 0)


def test_a_new_account_serves_those_who_wait(full, in_thread, until, account):
    pool, _ = full
    waiter = in_thread(pool.acquire, WANTED, timeout=30)
    until(lambda: pool.waiting == 1)
    pool.replace_accounts([*pool.accounts(), account("b")])
    assert waiter.result(5).account.name == "b"


def test_more_slots_serve_those_who_wait(full, in_thread, until, account):
    pool, _ = full
    waiter = in_thread(pool.acquire, WANTED, timeout=30)
    until(lambda: pool.waiting == 1)
    pool.replace_accounts([account("a", concurrency=2)])
    assert waiter.result(5).account.concurrency == 2


def test_no_account_left_ends_the_wait(full, in_thread, until):
    pool, _ = full
    waiter = in_thread(pool.acquire, WANTED, timeout=30)
    until(lambda: pool.waiting == 1)
    pool.replace_accounts([])
    assert isinstance(waiter.exception(5), NoneUsable)


def test_a_cooldown_ends_the_wait_for_that_account(full, in_thread, until):
    pool, lease = full
    waiter = in_thread(pool.acquire, WANTED, timeout=30)
    until(lambda: pool.waiting == 1)
    pool.cool_down(lease, Exhausted(retry_after=17))
    error = waiter.exception(5)
    assert isinstance(error, AllCooling)
    assert error.retry_after == 17


def test_a_verdict_ends_the_wait_for_that_account(full, in_thread, until):
    pool, lease = full
    waiter = in_thread(pool.acquire, WANTED, timeout=30)
    until(lambda: pool.waiting == 1)
    pool.mark_unusable(lease.account, "revoked")
    assert isinstance(waiter.exception(5), NoneUsable)


def test_an_account_that_was_tried_is_not_waited_for(full):
    pool, _ = full
    with pytest.raises(AllTried):
        pool.acquire(Wanted("m", tried=frozenset({("a", "")})), timeout=30)


def test_the_end_of_a_cooldown_wakes_those_who_wait(account, clock, in_thread, until):
    pool = ClientPool([account("a", concurrency=1), account("b")], clock=clock)
    wanted_b = Wanted("m", tried=frozenset({("a", "")}))
    with pool.acquire(wanted_b, timeout=0) as lease:
        pool.cool_down(lease, Exhausted(retry_after=0.05))
    held = pool.acquire(WANTED, timeout=0)
    assert held.account.name == "a"
    waiter = in_thread(pool.acquire, WANTED, timeout=30)
    until(lambda: pool.waiting == 1)
    clock.advance(1)
    assert waiter.result(5).account.name == "b"


def test_a_busy_pool_is_not_polled(full, in_thread, until, monkeypatch):
    pool, lease = full
    looks = []
    serve = pool._room._serve
    monkeypatch.setattr(pool._room, "_serve", lambda *args: looks.append(args) or serve(*args))
    waiters = [in_thread(pool.acquire, WANTED, timeout=30)]
    until(lambda: pool.waiting == 1)
    for _ in range(9):
        waiters.append(in_thread(pool.acquire, WANTED, timeout=30))
        until(lambda: pool.waiting == len(waiters))
    until(lambda: len(looks) == 10)
    pool.release(lease)
    for waiter in waiters:
        pool.release(waiter.result(5))
    # Ten arrivals; each of ten releases serves one and finds in vain for the next, once.
    assert len(looks) == 10 + 10 + 9
