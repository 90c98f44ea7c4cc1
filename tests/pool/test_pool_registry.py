"""Which models are served: by whom, and as far as is known."""

import threading

import pytest

from app.pool.pool import ClientPool
from app.pool.registry import ModelInfo, ModelRegistry

OLD = ModelInfo("gemini-old")
PRO = ModelInfo("gemini-pro", "Pro", 1_000_000, 65_536, thinking=True)
LITE = ModelInfo("gemini-lite", methods=("generateContent", "countTokens"))
EMBED = ModelInfo("gemini-embed", methods=("embedContent",))


class Google:
    def __init__(self, **listings):
        self.listings = listings
        self.asked = []

    def __call__(self, account):
        self.asked.append(account.name)
        listing = self.listings[account.name]
        if isinstance(listing, Exception):
            raise listing
        return listing


def test_until_asked_the_built_in_table_stands_in(account):
    pool = ClientPool([account("a", models=("*-pro",))])
    registry = ModelRegistry(pool, Google(), [OLD, PRO])
    assert registry.models() == [PRO]
    assert registry.serves("gemini-pro")
    assert not registry.serves("gemini-old")


def test_the_union_of_what_the_usable_accounts_serve(account):
    pool = ClientPool(
        [account("a"), account("b", models=("gemini-*",)), account("c", disabled=True)]
    )
    google = Google(a=[PRO, EMBED], b=[LITE, ModelInfo("other")], c=[ModelInfo("hidden")])
    registry = ModelRegistry(pool, google, [OLD])
    assert registry.refresh() is True
    assert registry.models() == [LITE, PRO]
    assert google.asked == ["a", "b"]
    names = ("gemini-pro", "gemini-lite", "gemini-embed", "other", "gemini-old")
    assert [registry.serves(name) for name in names] == [True, True, False, False, False]


def test_an_account_that_fails_keeps_what_was_known_of_it(account, caplog):
    pool = ClientPool([account("a"), account("b")])
    google = Google(a=RuntimeError("no route"), b=[PRO])
    registry = ModelRegistry(pool, google, [OLD])
    assert registry.refresh() is False
    assert caplog.messages == ["account a: its models could not be listed: no route"]
    assert registry.models() == [OLD, PRO]
    google.listings = {"a": [LITE], "b": RuntimeError("no route")}
    registry.refresh()
    assert registry.models() == [LITE, PRO]


def test_a_model_of_an_unusable_account_is_not_listed(account):
    pool = ClientPool([account("a"), account("b")])
    registry = ModelRegistry(pool, Google(a=[PRO], b=[LITE]), [])
    registry.refresh()
    pool.mark_unusable(pool.accounts()[0], "revoked")
    assert registry.models() == [LITE]
    pool.enable("a")
    assert registry.models() == [LITE, PRO]


def test_only_the_new_ones_are_asked_when_accounts_come(account):
    pool = ClientPool([account("a"), account("b")])
    google = Google(a=[PRO], b=[LITE], c=[OLD])
    registry = ModelRegistry(pool, google, [])
    registry.refresh()
    pool.replace_accounts([account("a"), account("b", api_key="new"), account("c")])
    assert registry.models() == [PRO]
    google.asked.clear()
    registry.refresh(everything=False)
    assert google.asked == ["b", "c"]
    assert registry.models() == [LITE, OLD, PRO]


@pytest.mark.parametrize("listing", [[], [EMBED]])
def test_an_empty_listing_is_no_listing(account, listing):
    registry = ModelRegistry(ClientPool([account("a")]), Google(a=listing), [OLD])
    registry.refresh()
    assert registry.models() == [OLD]


def test_the_thread_asks_at_start_and_when_told(account):
    asked = threading.Semaphore(0)
    done = threading.Event()

    def fetch(account):
        if account.name == "z":
            done.set()
        asked.release()
        return [PRO]

    pool = ClientPool([account("a")])
    registry = ModelRegistry(pool, fetch, [])
    registry.start()
    assert asked.acquire(timeout=5)
    pool.replace_accounts([account("a"), account("z")])
    registry.refresh_soon()
    assert done.wait(5)
    registry.stop()
