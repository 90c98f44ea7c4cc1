"""Streams are looked at at once each time, less often where the process is short of CPU time."""

import threading
import time

import pytest
from raw_servers import chunk, serving, sse, text_chunk

from app.backend.bell import new_bell
from app.backend.connection import Call
from app.backend.rests import LONGEST_REST, LOOK_EACH, Rests
from app.backend.upstream import Upstream, UpstreamSettings
from app.pool.account import Account


class Process:
    """A process whose use of a core is told, and the rests that it has by then."""

    def __init__(self, *shares):
        self.used = 5.0
        self.rests = Rests(lambda: self.used)
        self.now = time.monotonic()
        self.run(0.0)  # from here on it has looked at a moment that the test knows
        for share in shares:
            self.run(share)

    def run(self, share):
        self.now += LOOK_EACH
        self.used += share * LOOK_EACH
        self.rests.due(0.0, self.now)

    def due(self, ago=0.0):
        return self.rests.due(self.now - ago, self.now)


@pytest.mark.parametrize(
    ("shares", "rest"),
    [
        ((), 0.0),
        ((0.19,) * 20, 0.0),
        ((0.3,) * 20, LONGEST_REST / 2),
        ((0.45,) * 20, LONGEST_REST),
        ((1.9,) * 20, LONGEST_REST),
        ((1.0,), LONGEST_REST / 2),
        ((1.0, 1.0), LONGEST_REST * 3 / 4),
        ((1.0, 1.0, 0.19), LONGEST_REST * 3 / 8),
        ((1.0,) * 20 + (0.19,) * 20, 0.0),
        # They lower themselves what the process uses.
        ((1.0, 1.0) + (0.21,) * 20, LONGEST_REST * 3 / 4),
        ((0.45,) * 20 + (0.3,) * 20, LONGEST_REST),
        ((0.3,) * 20 + (0.35,) * 20, LONGEST_REST * 3 / 4),
    ],
)
def test_rests_grow_with_what_the_process_uses(shares, rest):
    assert Process(*shares).due() == pytest.approx(rest, abs=1e-6)


def test_what_was_used_between_two_looks_counts_and_not_how_often_one_asks():
    process = Process()
    process.now += LOOK_EACH * 0.9
    process.used += LOOK_EACH * 0.9
    assert process.due() == 0.0
    process.now += LOOK_EACH * 9.1  # nobody has asked for long: that was no work
    assert process.due() == 0.0
    process.run(1.0)
    assert process.due() == pytest.approx(LONGEST_REST / 2)


def test_an_hour_without_work_ends_what_rests_there_were():
    process = Process(*(1.0,) * 20)
    process.now += 3600
    process.used += 100
    assert process.due() == pytest.approx(0.0, abs=1e-6)


def test_a_stream_that_has_waited_longer_than_a_rest_has_none():
    process = Process(*(1.0,) * 20)
    assert process.due(ago=LONGEST_REST / 4) == pytest.approx(LONGEST_REST * 3 / 4, abs=1e-6)
    assert process.due(ago=LONGEST_REST) == pytest.approx(0.0, abs=1e-6)
    assert process.due(ago=1.0) == 0.0


class Bell:
    """Notes for how long a stream is left alone, in whole hundredths of a second."""

    def __init__(self):
        self.rests = []

    def wait(self, sock, rest=0.0):
        self.rests.append(round(rest, 2))


def test_only_who_was_brought_something_rests():
    bell = Bell()
    call = Call(bell, Process(*(1.0,) * 20).rests)
    for received in (10, 20, 20, 20, 30):
        call.received = received
        call.wait()
    # The first one has not waited before; one that rested in vain waits for bytes.
    assert bell.rests == [0.0, LONGEST_REST, 0.0, 0.0, LONGEST_REST]


def test_a_fast_stream_of_a_busy_process_comes_whole_and_in_fewer_pieces():
    texts = [text_chunk(str(number)) for number in range(40)]

    def handler(visit):
        visit.request()
        visit.chunked(sse(texts[0]), end=False)
        for text in texts[1:]:
            time.sleep(0.005)  # the pace of this upstream
            visit.send(chunk(sse(text)))
        visit.send(b"0\r\n\r\n")

    with serving(handler) as server:
        call = Call(new_bell(), Process(*(1.0,) * 20).rests)
        account = Account("a", "api_key", api_key="k", base_url=server.url)
        chunks = Upstream(UpstreamSettings()).generate(account, "", "gemini-3.8-flash", {}, call)
        got, waits, began = [], 0, time.monotonic()
        for item in chunks:
            if item is None:
                waits += 1
                call.wait()
            else:
                got.append(item)
        took = time.monotonic() - began
    assert got == texts
    # Two for each rest (it may bring nothing), and two at the beginning.
    assert waits <= 2 * took / LONGEST_REST + 4
    assert waits < len(texts)


def test_a_bell_ends_a_rest():
    bell = new_bell()
    timer = threading.Timer(0.05, bell.ring)
    timer.start()
    began = time.monotonic()
    bell.wait(None, 20.0)
    assert time.monotonic() - began < 10
    timer.join()
    bell.close()
