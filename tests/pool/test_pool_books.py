"""One contract for the books of leases: memory, SQLite and Redis behave alike."""

import itertools
import os
import random
import sqlite3
import threading
from contextlib import closing

import pytest

from app.pool.seats import Full, Pace, Plan, Seat, Spent
from app.pool.state import StateError, sqlite_leases
from app.pool.state.bell import Bell
from app.pool.state.clock import SteadyClock
from app.pool.state.leases import Held
from app.pool.state.memory_leases import LeaseTable, MemoryLeases
from app.pool.state.redis_leases import RedisLeases
from app.pool.state.redis_link import RedisLink
from app.pool.state.sqlite_leases import SqliteLeases
from tests.redis_server import RedisServer

TTL = 0.6
"""Seconds: long enough for a slow machine's every step, short enough to wait for."""


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis"])
def new_book(request, tmp_path):
    """Return a maker of books: each call is another process on the same store."""
    opened = []
    table = LeaseTable()
    if request.param == "redis":
        server = request.getfixturevalue("redis_server")
        server.flush()

    def make(ttl=60.0):
        if request.param == "memory":
            book = MemoryLeases(table, str(len(opened)), ttl=ttl, clock=SteadyClock())
        elif request.param == "sqlite":
            book = SqliteLeases(tmp_path / "leases", Bell(), ttl=ttl, clock=SteadyClock())
            # Processes that are one and the same can't be told apart by death.
            book._holders.space = ""
        else:
            book = RedisLeases(RedisLink(server.url), ttl=ttl)
        opened.append(book)
        return book

    yield make
    for book in opened:
        if not isinstance(book, MemoryLeases):
            book.close()


def plan(*seats, manner="in_order", cursor="m"):
    return Plan((tuple(seats),), manner, cursor)


A, B, C = Seat("a", 1), Seat("b", 1), Seat("c", 1)
BUSY = Full(busy=True)


def test_a_seat_is_taken_by_one_holder_at_a_time(new_book):
    one, other = new_book(), new_book()
    assert one.take(plan(A, B), "1", None) == "a"
    assert other.take(plan(A, B), "2", None) == "b"
    assert one.take(plan(A, B), "3", None) == BUSY
    assert one.in_flight() == other.in_flight() == {"a": 1, "b": 1}
    other.give_back(("2", "b"))
    other.give_back(("2", "b"))
    assert one.in_flight() == {"a": 1}
    assert one.take(plan(A, B), "4", None) == "b"


def test_groups_come_one_after_the_other(new_book):
    book = new_book()
    groups = Plan(((C,), (A, B)), "in_turn", "m")
    assert [book.take(groups, str(n), None) for n in range(4)] == ["c", "a", "b", BUSY]


def test_turns_are_shared_and_follow_the_weights(new_book):
    books = [new_book(), new_book()]
    seats = (Seat("a", 99, 5), Seat("b", 99), Seat("c", 99))
    found = [books[n % 2].take(plan(*seats, manner="in_turn"), str(n), None) for n in range(14)]
    assert found == ["a", "a", "b", "a", "c", "a", "a"] * 2
    others = plan(*seats, manner="in_turn", cursor="n")
    assert books[0].take(others, "x", None) == "a"


def test_the_least_busy_over_all_holders(new_book):
    one, other = new_book(), new_book()
    seats = plan(Seat("a", 4), Seat("b", 2), manner="least_busy")
    assert one.take(plan(Seat("a", 4)), "1", None) == "a"
    assert other.take(seats, "2", None) == "b"
    assert [one.take(seats, str(n), None) for n in (3, 4, 5, 6)] == ["a", "a", "b", "a"]
    assert other.take(seats, "7", None) == BUSY


def test_who_waits_is_served_before_who_comes(new_book):
    one, other = new_book(), new_book()
    assert one.take(plan(A), "holder", None) == "a"
    began = one.now()
    assert other.take(plan(A), "second", began + 2) == BUSY
    assert one.take(plan(A), "first", began + 1) == BUSY
    one.give_back(("holder", "a"))
    assert one.take(plan(A), "newcomer", None) == BUSY
    assert other.take(plan(A), "second", began + 2) == BUSY
    assert one.take(plan(A), "first", began + 1) == "a"
    one.give_back(("first", "a"))
    other.leave("second")
    assert one.take(plan(A), "newcomer", None) == "a"


def test_those_who_began_to_wait_together_have_an_order_too(new_book):
    book = new_book()
    book.take(plan(A), "holder", None)
    began = book.now()
    assert book.take(plan(A), "x", began) == BUSY
    assert book.take(plan(A), "w", began) == BUSY
    book.give_back(("holder", "a"))
    assert book.take(plan(A), "x", began) == BUSY
    assert book.take(plan(A), "w", began) == "a"


def test_a_waiter_keeps_no_seat_that_it_does_not_want(new_book):
    book = new_book()
    book.take(plan(A), "holder", None)
    assert book.take(plan(A), "waiter", book.now()) == BUSY
    assert book.take(plan(A, B), "newcomer", None) == "b"


def test_a_waiter_that_took_one_seat_keeps_no_other(new_book):
    book = new_book()
    book.take(plan(A), "1", None)
    book.take(plan(B), "2", None)
    assert book.take(plan(A, B), "waiter", book.now()) == BUSY
    book.give_back(("1", "a"))
    book.give_back(("2", "b"))
    assert book.take(plan(B), "newcomer", None) == BUSY
    assert book.take(plan(A, B), "waiter", book.now()) == "a"
    assert book.take(plan(B), "newcomer", None) == "b"


def test_asking_again_gives_the_same_seat(new_book):
    book = new_book()
    assert book.take(plan(A, B), "1", None) == "a"
    assert book.take(plan(B, A), "1", None) == "a"
    assert book.in_flight() == {"a": 1}


def test_the_leases_of_the_dead_are_free(new_book):
    dead, alive = new_book(TTL), new_book()
    assert dead.take(plan(A), "1", None) == "a"
    assert dead.take(plan(B, A), "2", None) == "b"
    assert dead.take(plan(A), "waiter", dead.now()) == BUSY
    assert alive.take(plan(A), "3", None) == BUSY
    wait_for(lambda: alive.take(plan(A), "3", None) == "a")
    assert alive.in_flight() == {"a": 1}


def test_who_shows_that_it_lives_keeps_its_leases(new_book):
    book, other = new_book(TTL), new_book()
    book.take(plan(A), "1", None)
    until = book.now() + 2 * TTL
    while book.now() < until:
        assert book.renew([Held("1", "a", 1)]) == []
        assert other.take(plan(A), "2", None) == BUSY
        threading.Event().wait(TTL / 5)


def test_a_holder_that_stood_still_loses_what_others_have_taken(new_book):
    still, other = new_book(TTL), new_book()
    held = [Held("1", "a", 1), Held("2", "b", 1)]
    assert [still.take(plan(A, B), one.token, None) for one in held] == ["a", "b"]
    wait_for(lambda: other.take(plan(A), "3", None) == "a")
    assert still.renew(held) == ["1"]
    assert other.in_flight() == {"a": 1, "b": 1}
    assert still.renew([held[1]]) == []
    assert still.renew(held, forced=True) == []
    assert other.in_flight() == {"a": 2, "b": 1}


def test_what_its_holder_does_not_know_of_is_freed_in_time(new_book, monkeypatch):
    for module in ("memory", "sqlite", "redis"):
        monkeypatch.setattr(f"app.pool.state.{module}_leases.YOUNG", 0.5)
    book = new_book()
    assert book.take(plan(A), "1", None) == "a"
    assert book.renew([]) == []
    assert book.in_flight() == {"a": 1}
    wait_for(lambda: book.renew([]) == [] and book.in_flight() == {})


def test_a_wait_that_nobody_waits_any_more_ends(new_book):
    """Its `leave` was not answered: it would be before everybody while its holder lives."""
    book, other = new_book(), new_book()
    assert book.take(plan(A), "holder", None) == "a"
    long_ago = book.now() - 100
    assert book.take(plan(A, Seat("z", 0)), "waiter", long_ago) == BUSY
    book.give_back(("holder", "a"))
    book.renew([], ["waiter"])
    assert other.take(plan(A), "newcomer", None) == BUSY
    other.renew([])
    assert other.take(plan(A), "newcomer", None) == BUSY
    book.renew([], ["another"])
    assert other.take(plan(A), "newcomer", None) == "a"


def test_a_wait_that_has_just_begun_does_not_end(new_book):
    book, other = new_book(), new_book()
    assert book.take(plan(A), "holder", None) == "a"
    assert book.take(plan(A), "waiter", book.now()) == BUSY
    book.give_back(("holder", "a"))
    book.renew([])
    assert other.take(plan(A), "newcomer", None) == BUSY


def test_who_has_a_seat_without_the_book_waits_no_longer(new_book):
    book, other = new_book(), new_book()
    wider = plan(Seat("a", 2), B)
    assert [book.take(wider, token, None) for token in "123"] == ["a", "a", "b"]
    assert book.take(wider, "waiter", book.now()) == BUSY
    book.give_back(("2", "a"))
    book.give_back(("3", "b"))
    held = [Held(token, "a", 2) for token in ("1", "waiter")]
    assert book.renew(held) == []
    assert other.in_flight() == {"a": 2}
    assert other.take(plan(B), "newcomer", None) == "b"
    book.give_back(("waiter", "a"))
    assert other.take(wider, "next", None) == "a"


def test_a_seat_given_back_ends_the_wait_for_it(new_book):
    book, other = new_book(), new_book()
    assert book.take(plan(A, B), "1", None) == "a"
    assert book.take(plan(A, B), "2", None) == "b"
    assert book.take(plan(A, B), "waiter", book.now()) == BUSY
    book.give_back(("waiter", "a"))  # which it had by its process' own view
    book.give_back(("1", "a"))
    book.give_back(("2", "b"))
    assert other.take(plan(A), "3", None) == "a"
    assert other.take(plan(B), "4", None) == "b"


def test_those_behind_a_wait_that_nobody_waits_are_woken(new_book):
    one, other = new_book(), new_book()
    woken = threading.Event()
    other.on_freed(woken.set)
    assert one.take(plan(A), "1", None) == "a"
    other.renew([])
    assert other.take(plan(A), "2", other.now()) == BUSY

    def rings():
        assert one.take(plan(A), "ghost", one.now() - 100) == BUSY
        one.renew([Held("1", "a", 1)])
        return woken.wait(0.2)

    wait_for(rings)


def test_an_end_frees_everything(new_book):
    one, other = new_book(), new_book()
    one.take(plan(A), "1", None)
    one.take(plan(A), "2", one.now())
    one.end()
    assert other.in_flight() == {}
    assert other.take(plan(A), "3", None) == "a"


def test_a_pace_is_kept_over_all_holders(new_book):
    one, other = new_book(), new_book()
    pace = Pace("a/m", limit=3, window=TTL)
    seat = Seat("a", 9, paces=(pace, Pace("a/day", 0, 1000.0)))
    began = one.now()
    assert [one.take(plan(seat), "1", None), other.take(plan(seat), "2", None)] == ["a", "a"]
    assert one.take(plan(seat), "3", None) == "a"
    spent = other.spent([pace, Pace("a/day", 0, 1000.0), Pace("nothing")])
    if "a/m" in spent:  # else the machine slept through the window
        full = other.take(plan(seat), "4", None)
        if isinstance(full, Full):
            assert not full.busy
            assert began + TTL <= full.paced_until <= began + 2 * TTL + 5
    assert spent["a/day"].count == 3
    assert began <= spent["a/day"].oldest <= other.now()
    wait_for(lambda: other.take(plan(seat), "5", None) == "a")


def test_what_google_refused_does_not_count(new_book):
    book = new_book()
    pace = Pace("a/m", limit=2)
    seat = Seat("a", 9, paces=(pace,))
    for token in "12":
        book.take(plan(seat), token, None)
    assert isinstance(book.take(plan(seat), "3", None), Full)
    book.refund("2", ["a/m"])
    assert book.spent([pace])["a/m"].count == 1
    assert book.take(plan(seat), "3", None) == "a"


def test_paced_and_busy_are_told_apart(new_book):
    book = new_book()
    paced = Seat("a", 9, paces=(Pace("a/m", 1),))
    assert book.take(plan(paced), "1", None) == "a"
    assert book.take(plan(B), "2", None) == "b"
    full = book.take(plan(paced, B), "3", None)
    assert full.busy
    assert full.paced_until == pytest.approx(book.now() + 60, abs=5)
    alone = book.take(plan(paced), "3", None)
    assert not alone.busy
    assert alone.paced_until == pytest.approx(full.paced_until, abs=0.001)


def test_those_who_wait_elsewhere_are_woken(new_book):
    one, other = new_book(), new_book()
    woken = threading.Event()
    other.on_freed(woken.set)
    assert one.take(plan(A), "1", None) == "a"
    assert other.take(plan(A), "2", other.now()) == BUSY
    wait_for(lambda: rings(one, other, woken))
    assert other.take(plan(A), "2", other.now()) == "a"


def test_several_seats_are_given_back_at_once(new_book):
    one, other = new_book(), new_book()
    woken = threading.Event()
    other.on_freed(woken.set)
    assert one.take(plan(A), "1", None) == "a"
    assert one.take(plan(B), "2", None) == "b"
    assert one.take(plan(C), "3", None) == "c"
    assert other.take(plan(A), "4", other.now()) == BUSY

    def all_but_c():
        one.give_back(("1", "a"), ("2", "b"))
        return woken.wait(0.2)

    wait_for(all_but_c)
    assert other.in_flight() == {"c": 1}
    assert other.take(plan(A), "4", other.now()) == "a"


def rings(one, other, woken):
    """Give the seat back until it is heard: a subscription takes its time to begin."""
    one.give_back(("1", "a"))
    if woken.wait(0.2):
        return True
    assert one.take(plan(A), "1", None) == BUSY
    return False


def rows(book, query):
    return book.file.run(lambda connection: connection.execute(query).fetchall())


def test_sqlite_has_the_holder_of_every_lease(tmp_path):
    book = SqliteLeases(tmp_path / "leases", Bell(), clock=SteadyClock())
    holders = "SELECT pid FROM holders"
    assert book.take(plan(A, B), "1", None) == "a"
    assert rows(book, holders) == [(os.getpid(),)]
    book.end()
    assert rows(book, holders) == []
    assert book.take(plan(A, B), "2", None) == "a"
    assert rows(book, holders) == [(os.getpid(),)]
    rows(book, "DELETE FROM holders")
    assert book.renew([Held("2", "a", 1)]) == []
    assert rows(book, holders) == [(os.getpid(),)]
    book.close()


def test_sqlite_notes_the_holder_again_when_the_first_step_was_undone(tmp_path):
    """Nobody would ever free what it takes from then on, were the process killed."""
    book = SqliteLeases(tmp_path / "leases", Bell(), clock=SteadyClock())
    full = "CREATE TRIGGER full BEFORE INSERT ON leases BEGIN SELECT RAISE(ABORT, 'full'); END"
    rows(book, full)
    with pytest.raises(StateError, match="full"):
        book.take(plan(A), "1", None)
    rows(book, "DROP TRIGGER full")
    assert book.take(plan(A), "2", None) == "a"
    assert rows(book, "SELECT pid FROM holders") == [(os.getpid(),)]
    book.close()


def test_sqlite_frees_what_has_no_holder(tmp_path):
    book = SqliteLeases(tmp_path / "leases", Bell(), clock=SteadyClock())
    rows(book, "INSERT INTO leases VALUES ('1', 'a', 'nobody', 1.0)")
    rows(book, "INSERT INTO waits VALUES ('b', '2', 1.0, 'nobody')")
    assert book.take(plan(A), "3", None) == "a"
    assert book.take(plan(B), "4", None) == "b"
    book.close()


def test_sqlite_keeps_the_seats_of_a_holder_that_is_written_again(tmp_path):
    book = SqliteLeases(tmp_path / "leases", Bell(), clock=SteadyClock())
    assert book.take(plan(A), "1", None) == "a"
    rows(book, "UPDATE holders SET id = 'other'")
    assert book.renew([Held("1", "a", 1)]) == []
    assert book.in_flight() == {"a": 1}
    book.close()


def test_sqlite_forgets_all_turns_when_there_are_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite_leases, "MOST_CURSORS", 2)
    book = SqliteLeases(tmp_path / "leases", Bell(), clock=SteadyClock())
    for cursor in ("m", "n", "o"):
        assert book.take(plan(A, B, C, manner="in_turn", cursor=cursor), cursor, None) == "a"
        book.renew([])
        found = rows(book, "SELECT cursor FROM credits ORDER BY cursor")
        assert found == {"m": [("m",)], "n": [("m",), ("n",)], "o": []}[cursor]
        book.give_back((cursor, "a"))
    book.close()


def test_sqlite_goes_on_with_the_file_of_the_version_before(tmp_path):
    with closing(sqlite3.connect(tmp_path / "leases")) as before:
        before.executescript("""
            CREATE TABLE leases (
                token TEXT PRIMARY KEY, account TEXT NOT NULL, holder TEXT NOT NULL,
                at REAL NOT NULL
            );
            CREATE TABLE turns (
                cursor TEXT NOT NULL, account TEXT NOT NULL, credit INTEGER NOT NULL,
                PRIMARY KEY (cursor, account)
            );
            CREATE TABLE holders (
                id TEXT PRIMARY KEY, expires REAL NOT NULL, space TEXT NOT NULL,
                pid INTEGER NOT NULL, port INTEGER NOT NULL
            );
            INSERT INTO holders VALUES ('another', 1e12, '', 1, 0);
            INSERT INTO leases VALUES ('old', 'a', 'another', 1.0);
            INSERT INTO turns VALUES ('m', 'a', -1);
        """)
    book = SqliteLeases(tmp_path / "leases", Bell(), clock=SteadyClock())
    assert book.take(plan(A, B, manner="in_turn"), "1", None) == "b"
    assert book.in_flight() == {"a": 1, "b": 1}
    book.give_back(("1", "b"))
    assert book.in_flight() == {"a": 1}
    book.close()


def test_the_books_agree_on_any_story(tmp_path, redis_server, monkeypatch):
    """Three books, the same steps, the same answers."""
    redis_server.flush()
    draw = random.Random(11)
    table = LeaseTable()
    trios = [
        (
            MemoryLeases(table, str(n), clock=SteadyClock()),
            SqliteLeases(tmp_path / "leases", Bell(), clock=SteadyClock()),
            RedisLeases(RedisLink(redis_server.url)),
        )
        for n in range(2)
    ]
    seats = [
        Seat("a", 2, 3, (Pace("a/m", 12), Pace("a/day", 0, 9999.0))),
        Seat("b", 1, 1, (Pace("b/m", 9),)),
        Seat("c", 3, 2),
    ]
    tokens = (str(n) for n in itertools.count())
    held, waiting = [], []
    for _ in range(600):
        trio = draw.choice(trios)
        move = draw.random()
        if move < 0.5:
            some = draw.sample(seats, draw.randint(1, 3))
            cut = draw.randint(0, len(some))
            groups = tuple(group for group in (tuple(some[:cut]), tuple(some[cut:])) if group)
            order = Plan(groups, draw.choice(["in_turn", "in_order", "least_busy"]), "m")
            if waiting and draw.random() < 0.4:
                trio, token, since = draw.choice(waiting)
            else:
                token, since = next(tokens), draw.choice([None, 1e9 + draw.randint(0, 9)])
            answers = [book.take(order, token, since) for book in trio]
            shown = [
                (one.busy, bool(one.paced_until)) if isinstance(one, Full) else one
                for one in answers
            ]
            assert shown[0] == shown[1] == shown[2]
            waiting = [entry for entry in waiting if entry[1] != token]
            if not isinstance(answers[0], Full):
                held.append((trio, token, answers[0]))
            elif since is not None:
                waiting.append((trio, token, since))
        elif move < 0.85 and held:
            trio, token, account = held.pop(draw.randrange(len(held)))
            for book in trio:
                book.give_back((token, account))
        elif move < 0.93 and held:
            trio, token, account = draw.choice(held)
            for book in trio:
                book.refund(token, ["a/m", "a/day", "b/m"])
        elif waiting:
            trio, token, _ = waiting.pop(draw.randrange(len(waiting)))
            for book in trio:
                book.leave(token)
        flights = [book.in_flight() for book in trio]
        assert flights[0] == flights[1] == flights[2]
    paces = [pace for seat in seats for pace in seat.paces]
    counts = [{key: spent.count for key, spent in book.spent(paces).items()} for book in trios[0]]
    assert counts[0] == counts[1] == counts[2]
    for trio in trios:
        for book in trio[1:]:
            book.close()


def wait_for(condition, timeout=20.0):
    deadline = threading.Event()
    timer = threading.Timer(timeout, deadline.set)
    timer.start()
    try:
        while not condition():
            assert not deadline.is_set(), "it did not come true"
            threading.Event().wait(0.02)
    finally:
        timer.cancel()


def test_nothing_spent_is_nothing(new_book):
    assert new_book().spent([]) == {}
    assert new_book().spent([Pace("x")]) in ({}, {"x": Spent(0, 0.0)})
