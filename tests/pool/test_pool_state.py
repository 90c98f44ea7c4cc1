"""The stores: one contract for both, then what each promises of its own."""

import logging
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import redis

from app.pool.leasing import Leasing
from app.pool.seats import Plan, Seat
from app.pool.state import GuardedStore, MemoryStore, StateError, guarded, open_store
from app.pool.state.opening import check_store
from app.pool.state.redis_store import RedisStore
from app.pool.state.sqlite import SqliteStore
from tests.redis_server import RedisServer


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


class RealTime:
    """A clock that moves by itself: what the others call a second lasts a twentieth of one."""

    def advance(self, seconds):
        # Redis counts whole milliseconds, and a time to live ends after the last of them.
        threading.Event().wait(seconds * SCALE + 0.005)


SCALE = 0.05
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request, tmp_path, clock):
    """Return a store whose clock is ``store.clock``, and whose second lasts ``store.second``."""
    if request.param == "memory":
        opened = MemoryStore(clock=clock)
    elif request.param == "sqlite":
        opened = SqliteStore(tmp_path / "state.db", clock=clock)
    else:
        server = request.getfixturevalue("redis_server")
        server.flush()
        opened = RedisStore(server.url)
        clock = RealTime()
    opened.clock, opened.second = clock, SCALE if request.param == "redis" else 1
    yield opened
    opened.close()


def test_what_is_put_is_got(store):
    store.put_many({"a": "1", "b": "zwei\n\0\U0001f600"}, 10)
    store.put_many({"a": "3"}, 10)
    assert store.get_many(["a", "b", "c"]) == {"a": "3", "b": "zwei\n\0\U0001f600"}
    assert store.get_many([]) == {}


def test_entries_end_with_their_time(store):
    store.put_many({"p/short": "1"}, 10 * store.second)
    store.put_many({"p/long": "2"}, 1000 * store.second)
    store.clock.advance(10)
    assert store.get_many(["p/short", "p/long"]) == {"p/long": "2"}
    assert store.scan("p/") == {"p/long": "2"}
    store.put_many({"p/short": "again"}, 100 * store.second)
    assert store.get_many(["p/short"]) == {"p/short": "again"}


def test_scan_goes_by_prefix(store):
    store.put_many({"p/a": "1", "p/b%_": "2", "p": "3", "q/a": "4", "P/a": "5", "p/ü": "6"}, 10)
    assert store.scan("p/") == {"p/a": "1", "p/b%_": "2", "p/ü": "6"}
    assert store.scan("nothing/") == {}


def test_delete_removes_what_is_there(store):
    store.put_many({"a": "1", "b": "2"}, 10)
    store.delete(["a", "never"])
    assert store.get_many(["a", "b"]) == {"b": "2"}


def test_many_keys_at_once(store):
    values = {f"k{number}": str(number) for number in range(2000)}
    store.put_many(values, 10)
    assert store.get_many(values) == values


def test_it_answers(store):
    assert store.ping() is True


def test_threads_share_it(store):
    def work(number):
        for turn in range(20):
            store.put_many({f"p/{number}/{turn}": "x"}, 60)
            store.get_many([f"p/{number}/{turn}"])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.scan("p/")) == 320


def test_memory_drops_what_was_used_longest_ago(clock):
    store = MemoryStore(most_entries=2, clock=clock)
    store.put_many({"a": "1", "b": "2"}, 10)
    store.get_many(["a"])
    store.put_many({"c": "3"}, 10)
    assert store.scan("") == {"a": "1", "c": "3"}


def test_memory_is_bounded_in_bytes(clock):
    store = MemoryStore(most_bytes=10_000, clock=clock)
    for number in range(20):
        store.put_many({str(number): "x" * 1700}, 10)
    assert list(store.scan("")) == ["15", "16", "17", "18", "19"]
    store.put_many({"huge": "x" * 20_000}, 10)
    assert store.scan("") == {}


def test_sqlite_survives_and_is_shared(tmp_path):
    path = tmp_path / "new" / "folder" / "state.db"
    first = SqliteStore(path)
    second = SqliteStore(path)
    first.put_many({"a": "1"}, 60)
    assert second.get_many(["a"]) == {"a": "1"}
    first.close()
    second.close()
    third = SqliteStore(path)
    assert third.get_many(["a"]) == {"a": "1"}
    third.close()


def test_sqlite_is_bounded_and_purged(tmp_path, clock, monkeypatch):
    monkeypatch.setattr("app.pool.state.sqlite.WRITES_PER_PURGE", 2)
    path = tmp_path / "state.db"
    store = SqliteStore(path, most_rows=3, clock=clock)
    for number in range(9):
        store.put_many({str(number): "x"}, 60)
        clock.advance(1)
    assert store.scan("") == {"6": "x", "7": "x", "8": "x"}
    clock.advance(100)
    store.put_many({"a": "x"}, 60)
    store.put_many({"b": "x"}, 60)
    assert sqlite3.connect(path).execute("SELECT key FROM entries").fetchall() == [("a",), ("b",)]
    store.close()


def test_sqlite_opens_its_own_connection_after_a_fork(tmp_path, monkeypatch):
    store = SqliteStore(tmp_path / "state.db")
    before = store._file._connection
    monkeypatch.setattr(os, "getpid", lambda: -1)
    store.put_many({"a": "1"}, 60)
    assert store._file._connection is not before
    assert store.get_many(["a"]) == {"a": "1"}
    store.close()
    before.close()


def test_sqlite_gives_up_soon_on_a_locked_file(tmp_path):
    path = tmp_path / "state.db"
    store = SqliteStore(path)
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(StateError) as caught:
        store.put_many({"a": "1"}, 60)
    assert str(caught.value) == f"the state file {path} does not answer: database is locked"
    assert store.get_many(["a"]) == {}
    blocker.execute("ROLLBACK")
    blocker.close()
    store.put_many({"a": "1"}, 60)
    assert store.get_many(["a"]) == {"a": "1"}
    store.close()


WAITING = """
from gevent import monkey; monkey.patch_all()
import sqlite3, sys
from pathlib import Path
import gevent
from app.pool.state.sqlite import SqliteStore

store = SqliteStore(Path(sys.argv[1]))
blocker = sqlite3.connect(sys.argv[1], isolation_level=None)
blocker.execute("BEGIN IMMEDIATE")

def others():
    for _ in range(5):
        gevent.sleep(0)
    blocker.execute("ROLLBACK")

gevent.spawn(others)
store.put_many({"a": "1"}, 60)
print(store.get_many(["a"]))
"""


def test_a_greenlet_that_waits_for_the_file_lets_others_go_on(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", WAITING, str(tmp_path / "state.db")],
        check=False, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert ran.stdout == "{'a': '1'}\n", ran.stderr


OPENING = """
import sys
from pathlib import Path
from app.pool.state.sqlite import SqliteStore

sys.stdin.readline()
store = SqliteStore(Path(sys.argv[1]))
store.put_many({sys.argv[2]: "here"}, 60)
"""


def test_many_workers_may_open_a_new_file_at_once(tmp_path):
    path = tmp_path / "state.db"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", OPENING, str(path), str(number)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    assert [child.communicate()[1] for child in children] == [""] * 8
    store = SqliteStore(path)
    assert store.scan("") == {str(number): "here" for number in range(8)}
    store.close()


def test_news_reach_the_other_processes(store, tmp_path):
    if isinstance(store, MemoryStore):
        store.on_news(pytest.fail)
        store.announce()
        return
    if isinstance(store, SqliteStore):
        other = SqliteStore(tmp_path / "state.db", clock=store.clock)
        # A process is known by its leases.
        store.leases.renew([])
    else:
        other = RedisStore(store._link._url)
    heard = threading.Event()
    other.on_news(heard.set)
    other.leases.renew([])
    try:
        for _ in range(100):  # a subscription takes its time to begin
            store.announce()
            if heard.wait(0.1):
                return
        pytest.fail("no news")
    finally:
        other.close()


def test_urls(tmp_path):
    relative = open_store("sqlite:///var/state.db", tmp_path)
    assert (tmp_path / "var" / "state.db").is_file()
    absolute = open_store(f"sqlite:///{tmp_path}/abs/state.db", tmp_path / "elsewhere")
    assert (tmp_path / "abs" / "state.db").is_file()
    memory = open_store("memory://", tmp_path)
    for store in (relative, absolute, memory):
        assert store.ping()
        store.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "redis://:password@host:port/0",
            "no Redis address: write redis://HOST:PORT/DB, or rediss:// for TLS, and after a ? "
            "only options that redis-py has (ValueError)",
        ),
        (
            "sqlite:///",
            "must be memory://, sqlite:///PATH, redis://HOST:PORT/DB or rediss://…",
        ),
        (
            "postgres://host",
            "must be memory://, sqlite:///PATH, redis://HOST:PORT/DB or rediss://…",
        ),
    ],
)
def test_urls_that_name_no_store(url, message, tmp_path):
    with pytest.raises(StateError) as caught:
        open_store(url, tmp_path)
    assert str(caught.value) == message


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "state.db").write_text("this is not a database, and long enough to tell\n" * 9)
    with pytest.raises(StateError) as caught:
        open_store("sqlite:///state.db", tmp_path)
    assert str(caught.value) == (
        f"the state file {tmp_path}/state.db can't be opened: file is not a database"
    )


def test_a_file_is_checked_without_a_store(tmp_path):
    check_store("memory://", tmp_path)
    check_store("redis://nobody.example:1/0", tmp_path)
    check_store("sqlite:///state.db", tmp_path)
    (tmp_path / "state.db").write_text("this is not a database, and long enough to tell\n" * 9)
    with pytest.raises(StateError, match=r"state\.db can't be opened: file is not a database"):
        check_store("sqlite:///state.db", tmp_path)


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("foo=1", "TypeError"),
        ("socket_timeout=abc", "ValueError"),
        ("ssl_ca_certs=file", "TypeError"),
        ("db=one", "ValueError"),
    ],
)
def test_options_that_redis_has_not(query, kind, tmp_path):
    url = f"redis://:secret@127.0.0.1:1/0?{query}"
    for refusing in (open_store, check_store):
        with pytest.raises(StateError) as caught:
            refusing(url, tmp_path)
        assert str(caught.value) == (
            "no Redis address: write redis://HOST:PORT/DB, or rediss:// for TLS, and after a ? "
            f"only options that redis-py has ({kind})"
        )
    check_store(
        "rediss://:secret@127.0.0.1:1/0?ssl_cert_reqs=none&health_check_interval=9", tmp_path
    )


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "var").write_text("a file")
    with pytest.raises(StateError, match="can't be opened"):
        open_store("sqlite:///var/state.db", tmp_path)


class Failing:
    def fail(self, *args):
        raise StateError("the store is down")

    get_many = put_many = delete = scan = fail

    def ping(self):
        return False

    def close(self):
        pass


def test_a_failing_store_costs_nothing_but_a_line_now_and_then(clock, caplog):
    store = GuardedStore(Failing(), clock=clock)
    with caplog.at_level(logging.WARNING):
        assert store.get_many(["a"]) == {}
        store.delete(["a"])
        assert store.scan("") == {}
        assert store.ping() is False
        clock.advance(30)
        store.scan("")
    assert caplog.messages == [
        "the store is down (1 failure(s) since the last such line)",
        "the store is down (1 failure(s) since the last such line)",
    ]
    assert guarded(store) is store


class Interrupted(MemoryStore):
    """Fails while it is ``down``; ``before_put`` is called once, before the next entry is put."""

    def __init__(self, clock):
        super().__init__(clock=clock)
        self.down = False
        self.before_put = None

    def put_many(self, values, ttl):
        act, self.before_put = self.before_put, None
        if act:
            act()
        if self.down:
            raise StateError("the store is down")
        super().put_many(values, ttl)


@pytest.fixture
def interrupted(clock):
    return Interrupted(clock)


@pytest.fixture
def kept(interrupted, clock):
    """Return a guarded store that keeps the value "old" for a store that is back."""
    store = GuardedStore(interrupted, clock=clock)
    interrupted.down = True
    store.put_many({"key": "old"}, 60)
    assert store.get_many(["key"]) == {"key": "old"}
    interrupted.down = False
    clock.advance(10)
    return store


def test_what_could_not_be_written_gives_way_to_what_came_later(kept, interrupted):
    kept.put_many({"key": "new"}, 60)
    assert kept.get_many(["key"]) == {"key": "new"}
    kept.recover()
    assert interrupted.get_many(["key"]) == {"key": "new"}


def test_a_value_that_overtakes_a_recovery_stays_the_last(kept, interrupted):
    interrupted.before_put = lambda: kept.put_many({"key": "new"}, 60)
    kept.recover()
    assert kept.get_many(["key"]) == {"key": "new"}
    kept.recover()
    assert interrupted.get_many(["key"]) == {"key": "new"}


class Fickle(MemoryStore):
    """Takes no writes while ``full``."""

    full = True

    def put_many(self, values, ttl):
        if self.full:
            raise StateError("database or disk is full")
        super().put_many(values, ttl)

    def ping(self):
        return not self.full


def test_what_could_not_be_written_is_owed_until_it_is(clock):
    inner = Fickle(clock=clock)
    store = GuardedStore(inner, clock=clock)
    store.put_many({"a": "old", "b": "1"}, 60)
    assert (store.owes(["a"]), store.owes(["b", "c"]), store.owes(["c"])) == (True, True, False)
    inner.full = False
    store.put_many({"a": "new"}, 60)
    assert store.owes(["a"]) is False
    store.put_many({"c": "2"}, 60)
    store.recover()
    assert inner.get_many(["a", "b", "c"]) == {"a": "new", "b": "1", "c": "2"}


def test_what_can_only_be_read_is_read_and_not_well_again(clock, caplog):
    inner = Fickle(clock=clock)
    inner.full = False
    inner.put_many({"p/a": "1"}, 600)
    inner.full = True
    store = GuardedStore(inner, clock=clock)
    with caplog.at_level(logging.WARNING):
        for turn in range(10):
            store.recover()
            store.put_many({f"b{turn}": "2"}, 600)
            assert store.get_many(["p/a"]) == store.scan("p/") == {"p/a": "1"}
            assert store.failing
            clock.advance(1)
        inner.full = False
        store.recover()
    assert not store.failing
    assert inner.get_many(["b0", "b9"]) == {"b0": "2", "b9": "2"}
    assert [message.partition(" (")[0] for message in caplog.messages] == [
        "database or disk is full",
        "the state store answers again",
    ]


NO_ROOM = """
import logging, resource, sys, time
from pathlib import Path
from app.pool.state import open_store
logging.basicConfig(format="%(message)s", stream=sys.stdout)
store = open_store("sqlite:///state.db", Path.cwd())
store.put_many({"p/a": "1"}, 600)
size = max(path.stat().st_size for path in Path.cwd().iterdir())
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
print(store.ping())
resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
for turn in range(200):  # until the write-ahead log would have to grow
    store.put_many({"p/a": "2" * 4000}, 600)
    if store.failing:
        break
print(store.ping(), store.scan("p/") != {})
for turn in range(5):
    store.recover()
    store.put_many({"p/b": "2"}, 600)
print(store.ping(), store.failing)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
store.recover()
print(store.ping(), store.failing, store.get_many(["p/b"]))
"""


def test_a_disk_without_room(tmp_path):
    """A limit on the size of files is what comes closest to a full disk."""
    result = subprocess.run(
        [sys.executable, "-c", NO_ROOM], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip
    lines = result.stdout.splitlines()
    assert lines[:2] == ["True", "False True"], result.stderr
    assert [line for line in lines if "failure(s)" not in line][2:] == [
        "False True",
        "the state store answers again",
        "True False {'p/b': '2'}",
    ]
    assert len(lines) == 6


def test_a_ping_writes_now_and_then_only(tmp_path, monkeypatch):
    store = SqliteStore(tmp_path / "state.db")
    turns = []
    monkeypatch.setattr("app.pool.state.sqlite._touch", turns.append)
    assert (store.ping(), store.ping(), store.ping(), len(turns)) == (True, True, True, 1)
    store.put_many({"a": "1"}, 10)
    assert (store.ping(), len(turns)) == (True, 1)
    store.close()


def test_a_ping_does_not_fail_for_another_process_that_writes(tmp_path):
    store = SqliteStore(tmp_path / "state.db")
    other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert store.ping() is True
    other.close()
    store.close()


def test_a_full_redis_is_not_well(redis_server):
    store = RedisStore(redis_server.url)
    client = redis.Redis.from_url(redis_server.url)
    try:
        assert store.ping() is True
        client.config_set("maxmemory", 1)
        assert store.ping() is False
    finally:
        client.config_set("maxmemory", 0)
        client.close()
    assert store.ping() is True
    store.close()


def test_a_book_on_a_full_disk_is_not_taken_up_again(tmp_path):
    """What writes no row does not notice the disk: `renew`, mostly."""
    store = SqliteStore(tmp_path / "state.db")
    leasing = Leasing(store.leases, store.now)
    leasing.renew()
    assert not leasing.failing
    rows = [("INSERT", "leases"), ("UPDATE", "holders"), ("INSERT", "holders")]
    fill = "".join(
        f"CREATE TEMP TRIGGER {what}_{table} BEFORE {what} ON {table} "
        "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END;"
        for what, table in rows
    )
    store.leases.file.run(lambda connection: connection.executescript(fill))
    leasing.take(Plan(((Seat("a", 1),),), "in_order"), "token", None)
    leasing.give_back("token", "a")
    for _ in range(3):
        leasing.renew()
        assert leasing.failing
    empty = "".join(f"DROP TRIGGER {what}_{table};" for what, table in rows)
    store.leases.file.run(lambda connection: connection.executescript(empty))
    leasing.renew()
    assert not leasing.failing
    store.close()
