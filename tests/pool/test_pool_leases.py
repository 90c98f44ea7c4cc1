"""What `acquire` gives and refuses, and what becomes of accounts in between."""

import logging

import pytest

from app.pool.account import Account, account_tag
from app.pool.cooldown import Exhausted
from app.pool.cooling import Cooldown
from app.pool.forecast import Forecast
from app.pool.pool import AllBusy, AllCooling, AllTried, ClientPool, Lease, NoneUsable, Wanted
from app.pool.snapshot import AccountView

WANTED = Wanted("m")


def in_flight(pool):
    return {view.name: view.in_flight for view in pool.snapshot()}


def test_a_lease_says_where_to_go_and_comes_back_once(account, clock, caplog):
    only = account(projects=("p", "q"))
    pool = ClientPool([only], clock=clock)
    lease = pool.acquire(WANTED, timeout=0)
    assert lease == Lease(only, "p", "m", lease.token, clock.now)
    assert "secret" not in repr(lease)
    other = pool.acquire(WANTED, timeout=0)
    assert other.token != lease.token
    assert in_flight(pool) == {"a": 2}
    with caplog.at_level(logging.DEBUG, "gateway.pool"):
        pool.release(lease)
        pool.release(lease)
    assert in_flight(pool) == {"a": 1}
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("DEBUG", f"lease {lease.token} on a was given back before")
    ]


def test_a_lease_in_a_with_block_comes_back_from_an_error_too(account):
    pool = ClientPool([account()])
    with pytest.raises(RuntimeError), pool.acquire(WANTED, timeout=0):
        raise RuntimeError
    assert in_flight(pool) == {"a": 0}


def test_projects_are_walked_in_order_before_the_account_is_left(account, clock):
    pool = ClientPool(
        [account("a", projects=("p", "q")), account("b")], rotation="fill_first", clock=clock
    )
    walked, tried = [], set()
    for _ in range(3):
        with pool.acquire(Wanted("m", tried=frozenset(tried)), timeout=0) as lease:
            pair = (lease.account.name, lease.project)
            walked.append(pair)
            tried.add(pair)
            pool.cool_down(lease, Exhausted(retry_after=30))
    assert walked == [("a", "p"), ("a", "q"), ("b", "")]
    with pytest.raises(AllCooling):
        pool.acquire(WANTED, timeout=0)


def test_all_cooling_names_the_earliest_reset(account, clock):
    pool = ClientPool([account("a"), account("b"), account("c", models=("n",))], clock=clock)
    for seconds in (50, 20):
        with pool.acquire(WANTED, timeout=0) as lease:
            pool.cool_down(lease, Exhausted(retry_after=seconds))
        clock.advance(1)
    with pytest.raises(AllCooling) as caught:
        pool.acquire(WANTED, timeout=9)
    assert caught.value.retry_at == clock.now + 19
    assert caught.value.retry_after == 19
    assert pool.earliest_reset("m") == clock.now + 19
    assert pool.resets_in("m") == 19
    assert pool.earliest_reset("n") is None
    assert pool.resets_in("n") is None


def test_tried_pairs_are_never_chosen_and_do_not_count_as_cooling(account, clock):
    pool = ClientPool([account("a"), account("b")], clock=clock)
    a, b = ("a", ""), ("b", "")
    assert pool.acquire(Wanted("m", tried=frozenset({a})), timeout=0).account.name == "b"
    with pytest.raises(AllTried) as caught:
        pool.acquire(Wanted("m", tried=frozenset({a, b})), timeout=9)
    assert str(caught.value) == "every account for m was tried by this request"
    with pool.acquire(Wanted("m", tried=frozenset({b})), timeout=0) as lease:
        pool.cool_down(lease, Exhausted(retry_after=5))
    with pytest.raises(AllCooling) as cooling:
        pool.acquire(Wanted("m", tried=frozenset({a, b})), timeout=9)
    assert cooling.value.retry_after == 5


def test_avoided_accounts_come_only_when_there_is_no_other(account):
    pool = ClientPool([account("a"), account("b", concurrency=1)], rotation="fill_first")
    avoiding = Wanted("m", avoid=frozenset({"a"}))
    with pool.acquire(avoiding, timeout=0) as lease:
        assert lease.account.name == "b"
        # There is another, which is merely busy: only a wait that was in vain goes back.
        with pool.acquire(avoiding, timeout=0) as back:
            assert back.account.name == "a"
    both = Wanted("m", avoid=frozenset({"a", "b"}))
    assert pool.acquire(both, timeout=0).account.name == "a"


def test_none_usable_says_why_each_of_them(account):
    pool = ClientPool(
        [
            account("off", disabled=True),
            account("dead"),
            account("narrow", models=("n-*",)),
            account("poor", projects=("p",)),
        ]
    )
    dead, poor = pool.accounts()[1], pool.accounts()[3]
    pool.mark_unusable(dead, "API key not valid")
    pool.mark_project_unusable(poor, "p", "the API is not enabled")
    with pytest.raises(NoneUsable) as caught:
        pool.acquire(WANTED, timeout=9)
    assert caught.value.reasons == {
        "off": "disabled in its definition",
        "dead": "API key not valid",
        "narrow": "does not serve m",
        "poor": "project p: the API is not enabled",
    }
    assert str(caught.value) == (
        "no account is usable for m (off: disabled in its definition; dead: API key not valid; "
        "narrow: does not serve m; poor: project p: the API is not enabled)"
    )


def test_an_empty_pool_says_so():
    with pytest.raises(NoneUsable) as caught:
        ClientPool().acquire(WANTED, timeout=9)
    assert str(caught.value) == "no account is usable for m (none is configured)"


def test_a_full_pool_is_busy(account):
    pool = ClientPool([account(concurrency=1)])
    with pool.acquire(WANTED, timeout=0), pytest.raises(AllBusy):
        pool.acquire(WANTED, timeout=0)


def test_a_project_that_is_unusable_leaves_the_others(account):
    pool = ClientPool([account(projects=("p", "q"))])
    pool.mark_project_unusable(pool.accounts()[0], "p", "billing is off")
    assert pool.acquire(WANTED, timeout=0).project == "q"
    (view,) = pool.snapshot()
    assert (view.state, view.reasons) == ("ready", ("project p: billing is off",))


def test_an_unusable_account_is_used_again_when_its_definition_changes(account):
    old = account("a")
    pool = ClientPool([old])
    pool.mark_unusable(old, "revoked")
    pool.replace_accounts([old])
    assert not pool.any_usable()
    new = account("a", api_key="another")
    pool.replace_accounts([new])
    assert pool.any_usable()
    pool.mark_unusable(old, "revoked, said late")
    assert pool.acquire(WANTED, timeout=0).account == new


def test_an_unusable_account_is_used_again_when_its_credentials_file_changes(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    only = Account("a", "oauth", credentials=str(path))
    pool = ClientPool([only])
    pool.mark_unusable(only, "revoked")
    pool.replace_accounts([only])
    assert not pool.any_usable()
    path.write_text("new")
    pool.replace_accounts([only])
    assert pool.any_usable()


def test_operators_disable_and_enable(account):
    pool = ClientPool([account("a")])
    pool.disable("a")
    pool.mark_unusable(pool.accounts()[0], "revoked")
    (view,) = pool.snapshot()
    assert (view.state, view.reasons) == ("disabled", ("disabled by an operator",))
    pool.replace_accounts([account("a", weight=2)])
    assert not pool.any_usable()
    pool.enable("a")
    assert pool.any_usable()
    with pytest.raises(KeyError):
        pool.enable("nobody")


def test_operators_end_cooldowns(account, clock):
    pool = ClientPool([account("a")], clock=clock)
    with pool.acquire(WANTED, timeout=0) as lease:
        pool.cool_down(lease, Exhausted("day"))
    pool.clear_cooldowns("a")
    pool.acquire(WANTED, timeout=0)


def test_accounts_come_change_and_leave_without_touching_leases(account):
    pool = ClientPool([account("a", concurrency=2), account("b")])
    old = pool.acquire(Wanted("m", tried=frozenset({("b", "")})), timeout=0)
    pool.replace_accounts([account("c"), account("a", concurrency=1, api_key="new")])
    assert in_flight(pool) == {"c": 0, "a": 1}
    with pytest.raises(AllBusy):
        pool.acquire(Wanted("m", tried=frozenset({("c", "")})), timeout=0)
    pool.replace_accounts([account("c")])
    pool.replace_accounts([account("a", concurrency=1)])
    assert in_flight(pool) == {"a": 1}
    pool.succeeded(old)
    pool.release(old)
    assert in_flight(pool) == {"a": 0}
    assert old.account.api_key == "secret-of-a"


def test_what_an_old_key_meets_says_nothing_about_the_new_one(account, clock):
    pool = ClientPool([account("a")], clock=clock)
    old = pool.acquire(WANTED, timeout=0)
    with pool.acquire(WANTED, timeout=0) as lease:
        pool.cool_down(lease, Exhausted(retry_after=99))
    pool.replace_accounts([account("a", api_key="new")])
    pool.cool_down(old, Exhausted("day"))
    for _ in range(9):
        pool.failed(old)
    assert pool.snapshot()[0].state == "ready"


def test_another_weight_does_not_bring_quota_back(account, clock):
    pool = ClientPool([account("a")], clock=clock)
    with pool.acquire(WANTED, timeout=0) as lease:
        pool.cool_down(lease, Exhausted(retry_after=99))
    pool.replace_accounts([account("a", weight=7)])
    with pytest.raises(AllCooling):
        pool.acquire(WANTED, timeout=0)


def test_usable_for_looks_past_cooldowns_but_not_past_missing_quota(account, clock):
    pool = ClientPool([account("a", models=("m", "n"))], clock=clock)
    with pool.acquire(WANTED, timeout=0) as lease:
        pool.cool_down(lease, Exhausted("day"))
    with pool.acquire(Wanted("n"), timeout=0) as lease:
        pool.cool_down(lease, Exhausted("never"))
    assert [pool.usable_for(model) for model in "mno"] == [True, False, False]


def test_the_snapshot_shows_everything(account, clock):
    pool = ClientPool([account("a", projects=("p",), weight=2, priority=3)], clock=clock)
    with pool.acquire(WANTED, timeout=0) as lease:
        pool.succeeded(lease)
    with pool.acquire(WANTED, timeout=0) as lease:
        pool.failed(lease)
    lease = pool.acquire(WANTED, timeout=0)
    pool.cool_down(
        lease,
        Exhausted("minute", 30.0, reason="per-minute requests", limit=10, metric="PerMinute"),
    )
    now = clock.now
    assert pool.snapshot() == [
        AccountView(
            name="a",
            tag=account_tag("a"),
            kind="api_key",
            state="cooling",
            reasons=("m on p: per-minute requests",),
            projects=("p",),
            models=("*",),
            priority=3,
            weight=2,
            concurrency=8,
            in_flight=1,
            requests=3,
            succeeded=1,
            failures=1,
            refused=1,
            last_used=now,
            cooldowns=(Cooldown("p", "m", now + 30, now, "minute", "per-minute requests"),),
            ejections=(),
            forecasts=(Forecast("p", "m", "minute", "PerMinute", 10, 0, now + 30),),
        )
    ]


def test_a_cooldown_is_told_in_one_line(account, clock, caplog):
    clock.now = 1_780_000_000.0
    pool = ClientPool([account("a", projects=("p",))], clock=clock)
    with pool.acquire(WANTED, timeout=0) as lease:
        pool.cool_down(lease, Exhausted("day", 40, reason="per-day requests"))
        pool.cool_down(lease, Exhausted("day", 40, reason="per-day requests"))
    assert caplog.messages == [
        "account a: m on p is out of quota until 2026-05-29T00:00:00-07:00: per-day requests"
    ]
