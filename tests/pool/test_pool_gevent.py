"""The pool in the production worker's world: greenlets in place of threads."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
from gevent import monkey
monkey.patch_all()

import threading, time
from collections import Counter
import gevent
from app.pool.account import Account
from app.pool.pool import Cancelled, CancelToken, ClientPool, Wanted

pool = ClientPool([Account(name, "api_key", api_key="k", concurrency=3) for name in "ab"])
inside, most, served = Counter(), Counter(), Counter()

def work():
    for _ in range(5):
        with pool.acquire(Wanted("m"), timeout=30) as lease:
            name = lease.account.name
            inside[name] += 1
            most[name] = max(most[name], inside[name])
            served[name] += 1
            gevent.sleep(0)
            inside[name] -= 1

threads = [threading.Thread(target=work) for _ in range(200)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert max(most.values()) <= 3, most
assert served.total() == 1000, served
assert [view.in_flight for view in pool.snapshot()] == [0, 0]

# A greenlet that waits is cancelled by another, and one is killed in its wait.
leases = [pool.acquire(Wanted("m"), timeout=0) for _ in range(6)]
cancel, ends = CancelToken(), []

def wait():
    try:
        pool.acquire(Wanted("m"), timeout=30, cancel=cancel)
    except Cancelled:
        ends.append("cancelled")

waiter = gevent.spawn(wait)
killed = gevent.spawn(pool.acquire, Wanted("m"), timeout=30)
gevent.sleep(0)
assert pool.waiting == 2
cancel.cancel()
waiter.join(5)
killed.kill()
assert ends == ["cancelled"] and pool.waiting == 0
for lease in leases:
    pool.release(lease)
assert [view.in_flight for view in pool.snapshot()] == [0, 0]
print("fine")
"""

RETURNS = """
from gevent import monkey
monkey.patch_all()

import time
import gevent
from app.pool.leasing import Leasing
from app.pool.seats import Plan, Seat
from app.pool.state.memory_leases import MemoryLeases

told = []

class Book(MemoryLeases):
    def give_back(self, *seats):
        told.append([token for token, _ in seats])
        super().give_back(*seats)

book = Book(clock=time.time, ttl=30)
leasing = Leasing(book, time.time)

def take():
    for token in "1234":
        assert leasing.take(Plan(groups=((Seat("a", 4),),), manner="in_order"), token, None) == "a"

take()
gevent.joinall([gevent.spawn(leasing.give_back, token, "a") for token in "1234"])
assert told == [["1", "2", "3", "4"]], told
assert book.in_flight() == {}

# Whoever is to tell the book is killed before.
take()
givers = [gevent.spawn(leasing.give_back, token, "a") for token in "1234"]
gevent.sleep(0)
givers[0].kill()
assert told[1:] == [["1", "2", "3", "4"]], told
assert book.in_flight() == {}
print("fine")
"""


@pytest.mark.parametrize("script", [SCRIPT, RETURNS])
def test_greenlets(script):
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")
