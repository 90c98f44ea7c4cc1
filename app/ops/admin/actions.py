"""What an operator can do to an account from the dashboard; it holds in all workers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from app.backend.errors import UpstreamError
from app.backend.upstream import Upstream
from app.ops.checking import check_account
from app.pool.account import Account
from app.pool.pool import ClientPool

log = logging.getLogger("gateway.admin")


@dataclass(frozen=True)
class Done:
    """What an action came to; ``message`` is one sentence for people."""

    ok: bool
    message: str


class UnknownAction(LookupError):
    """There is no such account or no such action; the message says which."""


class Actions:
    """The actions by name: ``disable``, ``enable``, ``clear``, ``refresh``, ``check``."""

    def __init__(self, pool: ClientPool, upstream: Upstream) -> None:
        self._pool = pool
        self._upstream = upstream
        self._by_name: dict[str, Callable[[Account], Done]] = {
            "disable": self._disable,
            "enable": self._enable,
            "clear": self._clear,
            "refresh": self._refresh,
            "check": self._check,
        }

    def run(self, action: str, name: str) -> Done:
        """Do ``action`` to the account called ``name``; raises `UnknownAction`.

        ``refresh`` and ``check`` ask Google and may take as long as `CONNECT_TIMEOUT` allows.
        """
        work = self._by_name.get(action)
        if work is None:
            raise UnknownAction(f"there is no action {action!r}; known: {', '.join(self._by_name)}")
        for account in self._pool.accounts():
            if account.name == name:
                done = work(account)
                log.info("account %s: %s from the dashboard: %s", name, action, done.message)
                return done
        raise UnknownAction(f"there is no account {name!r}")

    def _disable(self, account: Account) -> Done:
        stored = self._pool.disable(account.name)
        return _done(stored, f"{account.name} is disabled: it gets no new requests.")

    def _enable(self, account: Account) -> Done:
        if account.disabled:
            return Done(False, f"{account.name} is disabled in the accounts file; change it there.")
        stored = self._pool.enable(account.name)
        return _done(stored, f"{account.name} is in use again.")

    def _clear(self, account: Account) -> Done:
        stored = self._pool.clear_cooldowns(account.name)
        return _done(stored, f"{account.name} has no cooldown any more.")

    def _refresh(self, account: Account) -> Done:
        if not has_token(account):
            return Done(False, f"{account.name} uses an API key, which has no token to refresh.")
        try:
            self._upstream.refresh(account)
        except UpstreamError as error:
            return Done(False, f"{account.name} got no new token: {error.message}")
        return Done(True, f"{account.name} has a new token.")

    def _check(self, account: Account) -> Done:
        fault, note = check_account(self._upstream, account)
        if fault:
            return Done(False, f"{account.name} does not work: {fault}")
        return Done(True, f"{account.name} works: {note}.")


def _done(stored: bool, message: str) -> Done:
    """Return ``message``, and what is missing when it could not be ``stored``."""
    if stored:
        return Done(True, message)
    return Done(
        False,
        f"{message} But this holds in one worker only: the state store can't be written, and the "
        "others learn of it when it can be again. Look at STATE_URL and the disk's free space.",
    )


def has_token(account: Account) -> bool:
    """Tell whether ``account`` uses tokens, rather than a key."""
    return account.kind != "api_key" and not (account.api_key and not account.credentials)
