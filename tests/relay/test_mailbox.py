"""How far a producer gets ahead, by number and by bytes, and that it always comes on again."""

import gc
import threading
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.backend.bell import new_bell
from app.backend.upstream import Aborted
from app.relay.mailbox import CAPACITY, READ_AHEAD, Mailbox


def produce(mailbox, sizes):
    """Put chunks of ``sizes`` from a thread; returns the thread and what it has put so far."""
    done = []

    def work():
        for number, size in enumerate(sizes):
            mailbox.put("a", "chunk", number, size)
            done.append(size)
        mailbox.signal("a", "end")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread, done


@pytest.mark.parametrize(
    ("size", "most"),
    [
        (0, CAPACITY),
        (1, CAPACITY),
        (READ_AHEAD // 10, 10),
        (READ_AHEAD // 2, 2),
        (READ_AHEAD // 2 + 1, 1),
        (READ_AHEAD, 1),
        (100 * READ_AHEAD, 1),
    ],
)
def test_a_producer_gets_so_far_ahead(size, most):
    mailbox = Mailbox(new_bell())
    for number in range(most):
        mailbox.put("a", "chunk", number, size)
    thread, done = produce(mailbox, [size])
    thread.join(0.05)
    assert done == []
    for number in range(most):
        assert mailbox.get() == ("a", "chunk", number, size)
    assert mailbox.get() == ("a", "chunk", 0, size)
    thread.join(5)
    assert done == [size]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.sampled_from([0, 1, 5000, READ_AHEAD // 3, READ_AHEAD, 3 * READ_AHEAD])),
    st.integers(0, 3),
)
def test_all_that_is_put_arrives_in_order(sizes, signals):
    mailbox = Mailbox(new_bell())
    for number in range(signals):  # they take no room
        mailbox.signal(None, "tick", number)
    thread, _ = produce(mailbox, sizes * 3)
    seen = []
    while (report := mailbox.poll() or mailbox.get())[1] != "end":
        seen.append(report)
    thread.join(5)
    assert [report for report in seen if report[1] == "tick"] == [
        (None, "tick", number, 0) for number in range(signals)
    ]
    assert [report for report in seen if report[1] == "chunk"] == [
        ("a", "chunk", number, size) for number, size in enumerate(sizes * 3)
    ]
    assert mailbox.poll() is None


def test_closing_frees_the_producer_and_what_waits():
    class Chunk:
        pass

    mailbox = Mailbox(new_bell())
    waiting = Chunk()
    watch = weakref.ref(waiting)
    mailbox.put(mailbox, "chunk", waiting, READ_AHEAD)  # an attempt knows its mailbox, too
    del waiting
    ended = threading.Event()

    def work():
        with pytest.raises(Aborted):
            mailbox.put("a", "chunk", None, 1)
        ended.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert not ended.wait(0.05)
    gc.disable()
    try:
        mailbox.close()
        assert ended.wait(5)
        assert watch() is None
    finally:
        gc.enable()
    with pytest.raises(Aborted):
        mailbox.put("a", "chunk", None, 0)
    mailbox.signal(None, "tick")
    assert mailbox.poll() is None
