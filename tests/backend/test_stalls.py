"""The watch over calls whose answer brings nothing: who is ended, and who has a turn meanwhile."""

import threading
import time

import pytest

from app.backend.connection import Call
from app.backend.stalls import AT_ONCE, StallWatch


@pytest.fixture
def watch():
    """A watch whose thread does not run: the test says when it looks."""
    made = StallWatch(60)
    made._thread = object()
    return made


def waiting(watch, number, timeout):
    calls = [Call() for _ in range(number)]
    for call in calls:
        call.waiting = True
        watch.begin(call, timeout)
    return calls


def test_only_those_that_wait_and_got_nothing_are_ended(watch):
    silent, fed, unasked, patient = waiting(watch, 4, 0)
    watch.begin(patient, 60)
    fed.received += 1
    unasked.waiting = False
    watch._look()
    assert [call.stalled for call in (silent, fed, unasked, patient)] == [True, False, False, False]
    unasked.waiting = True
    watch._look()
    assert [call.stalled for call in (silent, fed, unasked, patient)] == [True, True, True, False]


def test_others_have_their_turn_and_may_end_meanwhile(watch, monkeypatch):
    calls = waiting(watch, 2 * AT_ONCE + 1, 0)
    me, sleep = threading.get_ident(), time.sleep
    turns = []

    def turn(seconds):
        if threading.get_ident() != me:
            return sleep(seconds)
        turns.append(seconds)
        return watch.end(calls[-1])

    monkeypatch.setattr(time, "sleep", turn)
    watch._look()
    assert turns == [0, 0]
    assert [call.stalled for call in calls] == [True] * 2 * AT_ONCE + [False]
