"""What one process learns, another knows, and a restart does not forget."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.pool.account import Account
from app.pool.cooldown import Exhausted
from app.pool.cooling import next_midnight
from app.pool.pool import AllCooling, ClientPool, NoneUsable, Wanted
from app.pool.state import MemoryStore, StateError
from app.pool.state.sqlite import SqliteStore

WANTED = Wanted("m")


@pytest.fixture
def store(tmp_path, clock):
    opened = SqliteStore(tmp_path / "state.db", clock=clock)
    yield opened
    opened.close()


def refusal(pool):
    """Return why the pool refuses, None when it does not."""
    try:
        with pool.acquire(WANTED, timeout=0):
            return None
    except (AllCooling, NoneUsable) as error:
        return error


def cool(pool, exhausted, model="m"):
    with pool.acquire(Wanted(model), timeout=0) as lease:
        pool.cool_down(lease, exhausted)


def test_a_restart_forgets_neither_cooldown_nor_verdict(store, clock, account):
    accounts = [account("a", projects=("p", "q")), account("b")]
    before = ClientPool(accounts, store=store, clock=clock)
    cool(before, Exhausted("day", reason="per-day requests"))
    before.mark_project_unusable(accounts[0], "q", "billing is off")
    before.mark_unusable(accounts[1], "revoked")
    after = ClientPool(accounts, store=store, clock=clock)
    first, second = after.snapshot()
    assert (first.state, first.reasons) == (
        "cooling",
        ("project q: billing is off", "m on p: per-day requests"),
    )
    assert first.cooldowns == before.snapshot()[0].cooldowns
    assert first.cooldowns[0].until == next_midnight(clock.now)
    assert (second.state, second.reasons) == ("unusable", ("revoked",))


def test_the_doubling_goes_on_after_a_restart(store, clock, account):
    cool(ClientPool([account()], store=store, clock=clock), Exhausted())
    after = ClientPool([account()], store=store, clock=clock)
    clock.advance(1)
    cool(after, Exhausted())
    assert refusal(after).retry_after == 2


def test_another_worker_learns_it_at_its_next_sync(store, clock, account):
    one = ClientPool([account()], store=store, clock=clock)
    other = ClientPool([account()], store=store, clock=clock)
    cool(one, Exhausted(retry_after=50))
    assert refusal(other) is None
    other.sync()
    assert refusal(other).retry_after == 50


def test_what_an_operator_says_elsewhere_counts_here(store, clock, account):
    worker = ClientPool([account()], store=store, clock=clock)
    command_line = ClientPool([account()], store=store, clock=clock)
    cool(worker, Exhausted("day"))
    clock.advance(1)
    command_line.sync()
    command_line.clear_cooldowns("a")
    worker.sync()
    assert refusal(worker) is None
    clock.advance(1)
    command_line.disable("a")
    worker.sync()
    assert str(refusal(worker)) == ("no account is usable for m (a: disabled by an operator)")
    clock.advance(1)
    command_line.enable("a")
    worker.sync()
    assert refusal(worker) is None
    restarted = ClientPool([account()], store=store, clock=clock)
    assert refusal(restarted) is None


def test_a_verdict_passed_after_enabling_holds(store, clock, account):
    worker = ClientPool([account()], store=store, clock=clock)
    worker.mark_unusable(worker.accounts()[0], "revoked")
    clock.advance(1)
    worker.enable("a")
    clock.advance(1)
    worker.mark_unusable(worker.accounts()[0], "revoked again")
    worker.sync()
    assert worker.snapshot()[0].reasons == ("revoked again",)


def test_another_key_under_the_name_starts_afresh(store, clock, account):
    before = ClientPool([account()], store=store, clock=clock)
    cool(before, Exhausted("day"))
    before.mark_unusable(account(), "revoked")
    assert refusal(ClientPool([account(api_key="new")], store=store, clock=clock)) is None
    assert refusal(ClientPool([account()], store=store, clock=clock)) is not None


def test_another_weight_revives_the_account_but_not_its_quota(store, clock, account):
    before = ClientPool([account()], store=store, clock=clock)
    cool(before, Exhausted("day"))
    before.mark_unusable(account(), "revoked")
    after = ClientPool([account(weight=2)], store=store, clock=clock)
    assert isinstance(refusal(after), AllCooling)


def test_what_the_store_lost_is_stored_again(store, clock, account):
    pool = ClientPool([account("a"), account("b")], store=store, clock=clock)
    cool(pool, Exhausted("day"))
    pool.mark_unusable(account("b"), "revoked")
    stored = store.scan("pool/")
    assert len(stored) == 2
    store.delete(stored)
    pool.sync()
    assert store.scan("pool/") == stored


def test_records_hold_no_secret_and_foreign_ones_do_no_harm(store, clock, account):
    pool = ClientPool([account()], store=store, clock=clock)
    cool(pool, Exhausted("day"))
    pool.mark_unusable(account(), "revoked")
    assert "secret" not in str(store.scan(""))
    keys = list(store.scan("pool/"))
    for text in ("", "[]", "{}", "no json", '{"account": "a"}', '{"account": "a", "of": 1}'):
        store.put_many(dict.fromkeys(keys, text), 60)
        assert refusal(ClientPool([account()], store=store, clock=clock)) is None


def test_a_request_writes_nothing(clock, account):
    class Watched(MemoryStore):
        writes = 0

        def put_many(self, values, ttl):
            self.writes += 1
            super().put_many(values, ttl)

    store = Watched()
    pool = ClientPool([account()], store=store, clock=clock)
    for _ in range(20):
        with pool.acquire(WANTED, timeout=0) as lease:
            pool.failed(lease)
            pool.succeeded(lease)
    assert store.writes == 0


def test_a_store_that_fails_does_not_stop_the_pool(clock, account):
    calls = []

    class Broken(MemoryStore):
        def put_many(self, values, ttl):
            calls.append("put")
            raise StateError("full")

        def scan(self, prefix):
            calls.append("scan")
            raise StateError("gone")

    pool = ClientPool([account("a"), account("b")], store=Broken(), clock=clock)
    cool(pool, Exhausted("day"))
    pool.mark_unusable(account("b"), "revoked")
    assert [view.state for view in pool.snapshot()] == ["cooling", "unusable"]
    calls.clear()
    pool.sync()
    assert calls == ["put", "scan"]


CHILD = """
import sys
from pathlib import Path
from app.pool.account import Account
from app.pool.cooldown import Exhausted
from app.pool.pool import ClientPool, Wanted
from app.pool.state import open_store

store = open_store("sqlite:///" + sys.argv[1], Path.cwd())
pool = ClientPool([Account("a", "api_key", api_key="k"), Account("b", "api_key", api_key="l")],
                  rotation="fill_first", store=store)
lease = pool.acquire(Wanted("m"), timeout=0)
pool.cool_down(lease, Exhausted("day", reason="per-day requests"))
pool.mark_unusable(pool.accounts()[1], "revoked")
print("done", flush=True)
sys.stdin.read()
"""


def test_two_processes_on_one_file(tmp_path):
    path = tmp_path / "state.db"
    accounts = [Account("a", "api_key", api_key="k"), Account("b", "api_key", api_key="l")]
    store = SqliteStore(path)
    pool = ClientPool(accounts, store=store)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "done\n"
    assert refusal(pool) is None
    pool.sync()
    error = refusal(pool)
    child.kill()
    child.communicate()
    assert isinstance(error, AllCooling)
    assert error.retry_at == next_midnight(time.time())
    assert [view.state for view in pool.snapshot()] == ["cooling", "unusable"]
    store.close()


def test_who_begins_to_listen_is_told_from_then_on(store, tmp_path, clock, account):
    others = SqliteStore(tmp_path / "state.db", clock=clock)
    try:
        here = ClientPool([account()], store=store, clock=clock)
        there = ClientPool([account()], store=others, clock=clock)
        there.listen()
        here.mark_unusable(account(), "revoked")
        until = time.monotonic() + 5
        while not isinstance(refusal(there), NoneUsable) and time.monotonic() < until:
            time.sleep(0.01)
        assert isinstance(refusal(there), NoneUsable)
    finally:
        others.close()
