"""What a store that fails now and then does to the leases."""

import logging

import pytest

from app.pool.leasing import Leasing
from app.pool.seats import Full, Plan, Seat
from app.pool.state import StateError
from app.pool.state.memory_leases import MemoryLeases

ONE_SEAT = Plan(groups=((Seat("a", concurrency=1),),), manner="in_order")


class Shaky(MemoryLeases):
    """A book whose next ``steps`` of some name fail; the step itself is done."""

    def __init__(self, clock):
        super().__init__(clock=clock, ttl=30)
        self.fail = set()
        self.asked = 0
        self.during_renew = lambda: None

    def take(self, *args, **options):
        self.asked += 1
        if "take" in self.fail:
            raise StateError("no answer to take")
        return super().take(*args, **options)

    def leave(self, token):
        if "leave" in self.fail:
            raise StateError("no answer to leave")
        super().leave(token)

    def renew(self, *args, **options):
        self.during_renew()
        return super().renew(*args, **options)

    def give_back(self, *args):
        super().give_back(*args)
        if "give_back" in self.fail:
            raise StateError("no answer to give_back")


@pytest.fixture
def book(clock):
    return Shaky(clock)


@pytest.fixture
def leasing(book, clock):
    return Leasing(book, clock)


def test_the_book_is_asked_with_what_was_just_given_back(monkeypatch, book, leasing):
    """Whoever gave a seat back, and has yet to tell the book, must not find it taken."""
    assert leasing.take(ONE_SEAT, "mine", None) == "a"
    seen = []

    def meanwhile(_):
        seen.append(leasing.in_flight())
        seen.append(leasing.take(ONE_SEAT, "next", None))

    monkeypatch.setattr("app.pool.leasing.time.sleep", meanwhile)
    leasing.give_back("mine", "a")
    assert seen == [{}, "a"]
    assert book.in_flight() == {"a": 1}


def test_an_unanswered_return_leaves_nobody_on_their_own_view(book, leasing, caplog):
    """Its patience is short: a hiccup there must not let everyone exceed what is theirs."""
    assert leasing.take(ONE_SEAT, "mine", None) == "a"
    book.fail = {"give_back"}
    leasing.give_back("mine", "a")
    assert not leasing.failing
    # Another process has the seat now; who goes by its own view would not know.
    assert book.take(ONE_SEAT, "theirs", None) == "a"
    assert isinstance(leasing.take(ONE_SEAT, "second", None), Full)
    assert caplog.records == []


def test_an_unanswered_take_spares_the_next_ones_the_wait(book, leasing, caplog):
    book.fail = {"take"}
    with caplog.at_level(logging.WARNING):
        assert leasing.take(ONE_SEAT, "first", None) == "a"
    assert leasing.failing
    assert isinstance(leasing.take(ONE_SEAT, "second", None), Full)  # its own count still holds
    assert book.asked == 1
    assert [record.message for record in caplog.records] == [
        "no answer to take (1 failure(s) since the last such line)"
    ]
    book.fail = set()
    assert leasing.renew() == []
    assert not leasing.failing
    assert book.in_flight() == {"a": 1}


def test_an_unanswered_farewell_keeps_no_seat_from_others(book, leasing, clock):
    other = MemoryLeases(book._table, "other", clock=clock)
    assert other.take(ONE_SEAT, "theirs", None) == "a"
    assert isinstance(leasing.take(ONE_SEAT, "mine", clock()), Full)
    other.give_back(("theirs", "a"))
    leasing.renew()
    assert isinstance(other.take(ONE_SEAT, "theirs", None), Full)  # it does wait
    clock.advance(6)
    leasing.renew()
    assert isinstance(other.take(ONE_SEAT, "theirs", None), Full)
    book.fail = {"leave"}
    leasing.leave("mine")
    leasing.renew()
    assert other.take(ONE_SEAT, "theirs", None) == "a"


def test_a_seat_by_ones_own_view_ends_the_wait(book, leasing, clock):
    other = MemoryLeases(book._table, "other", clock=clock)
    assert other.take(ONE_SEAT, "theirs", None) == "a"
    assert isinstance(leasing.take(ONE_SEAT, "mine", clock()), Full)
    other.give_back(("theirs", "a"))
    book.fail = {"take"}
    assert leasing.take(ONE_SEAT, "mine", clock()) == "a"
    leasing.give_back("mine", "a")
    clock.advance(6)
    leasing.renew()
    assert other.take(ONE_SEAT, "theirs", None) == "a"


def test_a_wait_that_begins_during_a_renewal_stays(book, leasing, clock):
    other = MemoryLeases(book._table, "other", clock=clock)
    assert other.take(ONE_SEAT, "theirs", None) == "a"
    book.during_renew = lambda: leasing.take(ONE_SEAT, "mine", clock())
    leasing.renew()
    other.give_back(("theirs", "a"))
    assert isinstance(other.take(ONE_SEAT, "theirs", None), Full)


def test_a_renewal_does_not_bring_back_what_is_given_back_meanwhile(book, leasing):
    assert leasing.take(ONE_SEAT, "mine", None) == "a"
    book.during_renew = lambda: leasing.give_back("mine", "a")
    assert leasing.renew() == []
    assert book.in_flight() == {}
