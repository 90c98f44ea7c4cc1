"""Threads that are used again: as good as new ones, and they keep nothing of what they did."""

import gc
import subprocess
import sys
import threading
import weakref

import pytest

from app.relay.runners import MOST_IDLE, Runners


class Job:
    """Tells in which thread it runs, and waits there until it is let go."""

    def __init__(self, runners):
        self.ran_in = None
        self.begun, self.let_go, self.ended = (threading.Event() for _ in range(3))
        runners.start(self.run, (1, 2))

    def run(self, *args):
        assert args == (1, 2)
        self.ran_in = threading.get_ident()
        self.begun.set()
        self.let_go.wait(10)
        self.ended.set()

    def done(self):
        """Let it end, and return its thread."""
        assert self.begun.wait(10)
        self.let_go.set()
        assert self.ended.wait(10)
        return self.ran_in


def idle(runners, many):
    """Wait until so many threads are idle."""
    pause = threading.Event()
    for _ in range(1000):
        if len(runners._idle) == many:
            return
        pause.wait(0.01)
    pytest.fail(f"{len(runners._idle)} threads are idle, not {many}")


def test_one_after_the_other_they_share_a_thread():
    runners = Runners()
    threads = set()
    for _ in range(5):
        threads.add(Job(runners).done())
        idle(runners, 1)
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_at_once_each_has_its_own_and_no_more_are_kept_than_are_needed():
    runners = Runners()
    jobs = [Job(runners) for _ in range(MOST_IDLE + 5)]
    assert len({job.done() for job in jobs}) == len(jobs)
    idle(runners, MOST_IDLE)
    more = [Job(runners) for _ in range(MOST_IDLE)]
    assert {job.done() for job in more} <= {job.ran_in for job in jobs}
    idle(runners, MOST_IDLE)


def test_an_idle_thread_keeps_nothing_of_what_it_did():
    runners = Runners()
    for _ in range(2):  # as a new thread, and as one that is used again
        job = Job(runners)
        kept = weakref.ref(job)
        job.done()
        idle(runners, 1)
        del job
        gc.collect()
        assert kept() is None


def test_one_that_fails_takes_only_its_own_thread_along(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    runners = Runners()

    def fail():
        raise ValueError("of no account")

    runners.start(fail, ())
    Job(runners).done()
    idle(runners, 1)
    assert [one.exc_type for one in told] == [ValueError]


CODE = """
from gevent import monkey; monkey.patch_all()
import gevent
from app.relay.runners import Runners

runners, ran = Runners(), []

def run(number):
    gevent.sleep(0)
    ran.append((number, gevent.getcurrent()))

for number in range(6):
    runners.start(run, (number,))
    if number % 2:
        while len(runners._idle) < 2:
            gevent.sleep(0)
print([number for number, _ in ran], len({one for _, one in ran}), len(runners._idle))
"""


def test_greenlets_are_used_again_likewise():
    out = subprocess.run(
        [sys.executable, "-c", CODE], check=False, capture_output=True, text=True, timeout=30
    )
    assert out.stdout == "[0, 1, 2, 3, 4, 5] 2 2\n", out.stderr
