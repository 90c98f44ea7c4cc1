"""What has ended is let go of at once: not by a look for cycles, nor by a thread that waits."""

from __future__ import annotations

import gc
import socket
import threading
import weakref

import pytest

from app.api.hangup import HangupWatch
from app.backend.connection import Call
from app.backend.errors import Fault, UpstreamError
from app.backend.stalls import StallWatch
from app.relay.errors import RelayError
from app.relay.keepalive import KeepAliveTimer, Silence
from tests.relay.world import World


@pytest.fixture(scope="module", autouse=True)
def _what_there_was():
    """Set aside what other tests have left, so that a look for cycles looks at these tests'."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _no_collection():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Owner:
    """Of a method that a thread is to call; ``gone`` is set once nothing holds it."""

    def __init__(self, gone: threading.Event) -> None:
        self.called = threading.Event()
        self.watch = weakref.finalize(self, gone.set)

    def call(self) -> None:
        self.called.set()


def let_go(called: threading.Event, gone: threading.Event) -> bool:
    return called.wait(5) and gone.wait(5)


def test_who_hung_up_is_not_kept_by_the_watch():
    gone = threading.Event()
    ours, theirs = socket.socketpair()
    with ours:
        owner = Owner(gone)
        called = owner.called
        HangupWatch().watch(ours, owner.call)
        del owner
        theirs.close()
        assert let_go(called, gone)


def test_who_was_ticked_is_not_kept_by_the_timer():
    gone = threading.Event()
    owner = Owner(gone)
    called, silence = owner.called, Silence(owner.call)
    del owner
    KeepAliveTimer(0.01).watch(silence)
    assert called.wait(5)
    silence.over()
    assert gone.wait(5)


def test_a_stalled_call_is_not_kept_by_the_watch():
    stalled, gone = threading.Event(), threading.Event()

    class Stalling(Call):
        def stall(self) -> None:
            super().stall()
            stalled.set()

    call = Stalling()
    weakref.finalize(call, gone.set)
    with StallWatch(0.01).watching(call):
        call.waiting = True
        assert stalled.wait(5)
    del call
    assert gone.wait(5)


def broken() -> UpstreamError:
    return UpstreamError(Fault.BROKEN, "broken", reason="connection")


@pytest.mark.parametrize("pausing", [False, True])
@pytest.mark.parametrize(
    "scripts",
    [
        {"a": [["x", "."]]},
        {"a": [[broken()]], "b": [["x", "."]]},
        {"a": [["x", broken()]], "b": []},
        {"a": [[broken()], [broken()], [broken()], [broken()]]},
    ],
    ids=["at once", "after a failover", "cut", "failed"],
)
def test_an_exchange_ends_without_a_cycle(monkeypatch, scripts, pausing):
    world = World(**scripts)
    monkeypatch.setattr(world.upstream, "pausing", pausing)
    gone = threading.Event()
    exchange = world.exchange()
    weakref.finalize(exchange, gone.set)
    texts = world.texts(exchange)
    del exchange
    try:
        for _ in texts:
            pass
    except RelayError:
        pass
    del texts
    assert gone.wait(5)
