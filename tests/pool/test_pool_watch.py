"""Where accounts come from, and what happens when the file changes."""

import os
import threading

import pytest

from app.config import Settings
from app.pool.account import Account
from app.pool.accounts_file import AccountsError
from app.pool.pool import ClientPool, Wanted
from app.pool.sources import load_accounts, watched_file
from app.pool.watch import AccountsWatcher


def toml(*names, key="k"):
    return "".join(
        f'[[account]]\nname = "{name}"\nkind = "api_key"\napi_key = "{key}"\n' for name in names
    )


def names(accounts):
    return [account.name for account in accounts]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "accounts.toml"


@pytest.fixture
def settings(tmp_path):
    return Settings(root=tmp_path)


def test_all_sources_together(tmp_path, path):
    path.write_text(toml("file"))
    settings = Settings(
        root=tmp_path,
        accounts_toml=toml("inline", key="${KEY}"),
        gemini_api_keys=("x", "y"),
        gemini_base_url="http://up.test",
        environ={"KEY": "from-environment"},
    )
    base = {"base_url": "http://up.test"}
    assert load_accounts(settings) == [
        Account("file", "api_key", api_key="k", **base),
        Account("inline", "api_key", api_key="from-environment", **base),
        Account("key-1", "api_key", api_key="x", **base),
        Account("key-2", "api_key", api_key="y", **base),
    ]


def test_no_source_at_all(settings, path):
    assert load_accounts(settings) == []
    assert watched_file(settings) == path


def test_a_named_file_must_be_there(tmp_path):
    settings = Settings(root=tmp_path, accounts_file="conf/mine.toml")
    with pytest.raises(AccountsError) as caught:
        load_accounts(settings)
    assert str(caught.value) == (
        f"{tmp_path}/conf/mine.toml: there is no such file; write it, or change ACCOUNTS_FILE"
    )


def test_one_name_in_two_sources(tmp_path, path):
    path.write_text(toml("key-1"))
    with pytest.raises(AccountsError) as caught:
        load_accounts(Settings(root=tmp_path, gemini_api_keys=("x",)))
    assert str(caught.value) == (
        f"GEMINI_API_KEYS: account 'key-1' is in {path}, too; rename one of them"
    )


def test_a_file_that_is_no_text(settings, path):
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(AccountsError) as caught:
        load_accounts(settings)
    assert str(caught.value) == f"{path}: is not UTF-8 text; save it as UTF-8"


@pytest.fixture
def watched(settings, path):
    path.write_text(toml("a"))
    pool = ClientPool(load_accounts(settings))
    watcher = AccountsWatcher(
        watched_file(settings),
        load=lambda: load_accounts(settings),
        apply=pool.replace_accounts,
    )
    return watcher, pool


def test_accounts_come_and_leave_with_the_file(watched, path, caplog):
    watcher, pool = watched
    assert watcher.check_now() is False
    with caplog.at_level("INFO"):
        path.write_text(toml("a", "b"))
        assert watcher.check_now() is True
        assert names(pool.accounts()) == ["a", "b"]
        assert watcher.check_now() is False
        path.write_text(toml("b"))
        assert watcher.check_now() is True
    assert names(pool.accounts()) == ["b"]
    assert caplog.messages == [f"{path} changed: 2 account(s)", f"{path} changed: 1 account(s)"]


def test_a_broken_file_is_told_once_and_changes_nothing(watched, path, caplog):
    watcher, pool = watched
    lease = pool.acquire(Wanted("m"), timeout=0)
    path.write_text(toml("a", "b") + "weight = 0\n")
    assert watcher.check_now() is False
    assert watcher.check_now() is False
    assert caplog.messages == [
        f"{path} line 9: account 'b': weight must be a whole number from 1 to 1000; "
        "the accounts stay as they are"
    ]
    assert names(pool.accounts()) == ["a"]
    path.write_text(toml("a", "b"))
    assert watcher.check_now() is True
    assert names(pool.accounts()) == ["a", "b"]
    pool.release(lease)


def test_a_file_emptied_or_gone_changes_nothing(watched, path, caplog):
    watcher, pool = watched
    path.write_text("")
    assert watcher.check_now() is False
    path.unlink()
    assert watcher.check_now() is False
    assert caplog.messages == [f"{path} is gone or empty; the accounts stay as they are"] * 2
    path.write_text(toml("c"))
    assert watcher.check_now() is True
    assert names(pool.accounts()) == ["c"]


def test_a_file_that_appears(settings, path):
    applied = []
    watcher = AccountsWatcher(path, load=lambda: load_accounts(settings), apply=applied.append)
    assert watcher.check_now() is False
    path.write_text(toml("a"))
    assert watcher.check_now() is True
    assert [names(accounts) for accounts in applied] == [["a"]]


def test_touching_is_no_change(watched, path):
    watcher, _ = watched
    os.utime(path, (1, 1))
    assert watcher.check_now() is False


def test_an_atomic_replacement_of_the_same_size_and_time(watched, path, tmp_path):
    watcher, pool = watched
    new = tmp_path / "new"
    new.write_text(toml("z"))
    stat = path.stat()
    os.utime(new, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.replace(new, path)
    assert watcher.check_now() is True
    assert names(pool.accounts()) == ["z"]


def test_a_swapped_symbolic_link_as_of_a_config_map(tmp_path, settings, path):
    for version, name in (("v1", "a"), ("v2", "b")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "accounts.toml").write_text(toml(name))
    (tmp_path / "data").symlink_to("v1")
    path.symlink_to("data/accounts.toml")
    pool = ClientPool(load_accounts(settings))
    watcher = AccountsWatcher(
        path, load=lambda: load_accounts(settings), apply=pool.replace_accounts
    )
    (tmp_path / "next").symlink_to("v2")
    os.replace(tmp_path / "next", tmp_path / "data")
    assert watcher.check_now() is True
    assert names(pool.accounts()) == ["b"]


def test_a_new_log_in_revives_the_account(tmp_path, settings, path):
    path.write_text('[[account]]\nname = "a"\nkind = "oauth"\ncredentials = "a.json"\n')
    pool = ClientPool(load_accounts(settings))
    watcher = AccountsWatcher(
        path, load=lambda: load_accounts(settings), apply=pool.replace_accounts
    )
    pool.mark_unusable(pool.accounts()[0], "no credentials yet")
    (tmp_path / "a.json").write_text("{}")
    assert watcher.check_now() is True
    assert pool.any_usable()
    pool.mark_unusable(pool.accounts()[0], "revoked")
    (tmp_path / "a.json").write_text('{"refresh_token": "new"}')
    assert watcher.check_now() is True
    assert pool.any_usable()
    assert watcher.check_now() is False


def test_the_thread_looks_and_survives_errors(settings, path, caplog):
    changed, synced = threading.Event(), threading.Event()

    def sync():
        if changed.is_set():
            synced.set()
        else:
            raise RuntimeError("a passing fault")

    watcher = AccountsWatcher(
        path,
        load=lambda: load_accounts(settings),
        apply=lambda accounts: changed.set(),
        each_time=sync,
        interval=0.001,
    )
    watcher.start()
    path.write_text(toml("a"))
    assert changed.wait(5)
    assert synced.wait(5)
    watcher.stop()
