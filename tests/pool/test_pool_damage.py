"""The file of leases holds nothing worth keeping: damaged, it is begun anew."""

import logging
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from app.pool.seats import Full, Plan, Seat
from app.pool.state import StateError, open_store
from app.pool.state.bell import Bell
from app.pool.state.clock import SteadyClock
from app.pool.state.leases import Held
from app.pool.state.sqlite import SqliteStore
from app.pool.state.sqlite_leases import SqliteLeases

ONE_SEAT = Plan(((Seat("a", 1),),), "in_order", "m")
GARBAGE = b"this is not a database, and long enough to tell\n" * 99


def damaged(connection):
    raise sqlite3.DatabaseError("database disk image is malformed")


def refused(*_):
    raise PermissionError("no")


@pytest.fixture
def books(tmp_path):
    """Return a maker of books on one file: each call is another process."""
    opened = []

    def make():
        book = SqliteLeases(tmp_path / "leases", Bell(), clock=SteadyClock())
        book._holders.space = ""  # processes that are one and the same can't be told apart by death
        opened.append(book)
        return book

    yield make
    for book in opened:
        book.close()


@pytest.fixture
def torn(tmp_path):
    """Return the path of a file whose head is sound and whose pages are not."""
    SqliteStore(tmp_path / "state.db").close()
    path = tmp_path / "state.db-leases"
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    return path


def test_a_damaged_file_is_put_aside_at_the_start(tmp_path, caplog):
    (tmp_path / "state.db-leases").write_bytes(GARBAGE)
    store = open_store("sqlite:///state.db", tmp_path)
    assert store.leases.take(ONE_SEAT, "1", None) == "a"
    store.close()
    assert (tmp_path / "state.db-leases.damaged").read_bytes() == GARBAGE
    assert (tmp_path / "state.db-leases").stat().st_mode & 0o777 == 0o600
    assert [(record.levelname, record.message) for record in caplog.records] == [
        (
            "WARNING",
            f"the state file {tmp_path}/state.db-leases is damaged, put aside and begun anew: "
            "file is not a database",
        )
    ]


def test_a_torn_page_costs_one_answer(torn, caplog):
    store = open_store("sqlite:///state.db", torn.parent)
    try:
        taken = store.leases.take(ONE_SEAT, "1", None)
    except StateError:
        taken = store.leases.take(ONE_SEAT, "1", None)
    assert taken == "a"
    store.close()
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1


def test_the_others_go_over_to_the_new_file_with_what_they_hold(books, caplog):
    one, other = books(), books()
    assert other.take(ONE_SEAT, "theirs", None) == "a"
    with pytest.raises(StateError, match="malformed"):
        one.file.run(damaged)
    assert one.take(ONE_SEAT, "mine", None) == "a"  # nobody has told the new file
    other.file._look_at = 0.0
    assert other.renew([Held("theirs", "a", 1)]) == []
    assert one.in_flight() == other.in_flight() == {"a": 2}
    one.give_back(("mine", "a"))
    assert isinstance(one.take(ONE_SEAT, "next", None), Full)
    assert len(caplog.records) == 1


def test_who_finds_the_damage_second_takes_the_new_file(books, caplog):
    one, other = books(), books()
    for book in (one, other):
        with pytest.raises(StateError, match="malformed"):
            book.file.run(damaged)
    assert one.take(ONE_SEAT, "1", None) == "a"
    assert isinstance(other.take(ONE_SEAT, "2", None), Full)
    assert len(caplog.records) == 1


def test_a_file_that_cannot_be_opened_anew_is_tried_again(books, monkeypatch):
    book = books()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refused)
        with pytest.raises(StateError, match="malformed"):
            book.file.run(damaged)
    assert book.take(ONE_SEAT, "1", None) == "a"


def test_clients_are_counted_in_the_new_file_too(tmp_path):
    store = SqliteStore(tmp_path / "state.db")
    counters = store.counters()
    assert counters.incr("client", 60) == 1
    with pytest.raises(StateError, match="malformed"):
        store.leases.file.run(damaged)
    assert counters.incr("client", 60) == 1
    store.close()


OPENING = """
import sys
from pathlib import Path
from app.pool.seats import Plan, Seat
from app.pool.state.sqlite import SqliteStore

sys.stdin.readline()
store = SqliteStore(Path(sys.argv[1]))
store.leases.file._look_at = 1e12
store.leases.take(Plan(((Seat("a", 99),),), "in_order", "m"), sys.argv[2], None, hurry=False)
print("taken", flush=True)
sys.stdin.readline()
"""


def test_many_workers_may_find_it_at_once(tmp_path):
    path = tmp_path / "state.db"
    SqliteStore(path).close()
    (tmp_path / "state.db-leases").write_bytes(GARBAGE)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", OPENING, str(path), str(number)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(6)
    ]
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    assert [child.stdout.readline() for child in children] == ["taken\n"] * 6
    store = SqliteStore(path)
    assert store.leases.in_flight() == {"a": 6}
    store.close()
    told = "".join(child.communicate("\n")[1] for child in children)
    assert told.count("\n") == 1
    assert "is damaged, put aside and begun anew: file is not a database" in told


def test_a_step_whose_end_fails_leaves_no_open_transaction(books):
    book = books()
    book.file.run(
        lambda connection: connection.executescript(
            "PRAGMA foreign_keys = ON; CREATE TABLE one (id INTEGER PRIMARY KEY);"
            "CREATE TABLE two (id REFERENCES one DEFERRABLE INITIALLY DEFERRED);"
            "CREATE TRIGGER late AFTER INSERT ON leases BEGIN INSERT INTO two VALUES (1); END;"
        )
    )
    with pytest.raises(StateError, match="FOREIGN KEY"):
        book.take(ONE_SEAT, "1", None)
    book.file.run(lambda connection: connection.execute("DROP TRIGGER late"))
    assert book.take(ONE_SEAT, "2", None) == "a"
