"""Two hundred threads at once: no account beyond its slots, no lease lost, everyone in turn."""

import threading
from collections import Counter

import pytest

from app.pool.cooldown import Exhausted
from app.pool.pool import AllCooling, ClientPool, Wanted

THREADS = 200
ROUNDS = 10


class Upstream:
    """Counts who is inside at once, and lets nobody out before somebody else has come in."""

    def __init__(self):
        self.lock = threading.Lock()
        self.inside = Counter()
        self.most = Counter()
        self.served = Counter()

    def call(self, lease):
        name = lease.account.name
        with self.lock:
            self.inside[name] += 1
            self.most[name] = max(self.most[name], self.inside[name])
            self.served[name] += 1
        # Hand the processor on while inside, as a real call does.
        threading.Event().wait(0)
        with self.lock:
            self.inside[name] -= 1


def run(work):
    errors = []
    start = threading.Barrier(THREADS)

    def thread():
        start.wait(30)
        try:
            for number in range(ROUNDS):
                work(number)
        except BaseException as error:  # noqa: BLE001 - told to the test
            errors.append(error)

    threads = [threading.Thread(target=thread, daemon=True) for _ in range(THREADS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(50)
    assert errors == []
    assert not any(each.is_alive() for each in threads)


@pytest.mark.parametrize("rotation", ["round_robin", "least_busy", "sticky", "fill_first"])
def test_concurrency_holds_under_load(account, rotation):
    accounts = [account("a", concurrency=3), account("b", concurrency=1), account("c")]
    pool = ClientPool(accounts, rotation=rotation)
    upstream = Upstream()

    def work(number):
        with pool.acquire(Wanted("m", affinity_key=str(number)), timeout=50) as lease:
            upstream.call(lease)
            pool.succeeded(lease)

    run(work)
    assert upstream.served.total() == THREADS * ROUNDS
    for one in accounts:
        assert upstream.most[one.name] <= one.concurrency
    views = pool.snapshot()
    assert [view.in_flight for view in views] == [0, 0, 0]
    assert sum(view.requests for view in views) == THREADS * ROUNDS
    assert sum(view.succeeded for view in views) == THREADS * ROUNDS
    assert (pool.waiting, pool._out) == (0, {})


def test_turns_are_fair_under_load(account):
    pool = ClientPool([account(name, concurrency=THREADS) for name in "abcd"])
    upstream = Upstream()

    def work(_):
        with pool.acquire(Wanted("m"), timeout=50) as lease:
            upstream.call(lease)

    run(work)
    assert upstream.served == dict.fromkeys("abcd", THREADS * ROUNDS // 4)


def test_nothing_is_lost_while_accounts_change_cool_and_fail(account, clock):
    accounts = [account(name, concurrency=2) for name in "abc"]
    pool = ClientPool(accounts, clock=clock)
    upstream = Upstream()
    lock = threading.Lock()
    turn = iter(range(10**9))

    def work(_):
        with lock:
            number = next(turn)
            clock.advance(0.01)
        if number % 50 == 0:
            some = accounts[: 2 + number // 50 % 2]
            pool.replace_accounts([*some, account("d", concurrency=1 + number % 3)])
        try:
            lease = pool.acquire(Wanted("m"), timeout=50)
        except AllCooling:
            return
        with lease:
            upstream.call(lease)
            if number % 7 == 0:
                pool.cool_down(lease, Exhausted(retry_after=0.05))
            elif number % 5 == 0:
                pool.failed(lease)
            else:
                pool.succeeded(lease)

    run(work)
    for name in "abc":
        assert upstream.most[name] <= 2
    assert upstream.most["d"] <= 3
    assert {view.in_flight for view in pool.snapshot()} == {0}
    assert (pool.waiting, pool._out) == (0, {})
