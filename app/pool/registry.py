"""Which models the pool's usable accounts serve, learnt from the accounts themselves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.pool.account import Account
    from app.pool.pool import ClientPool

log = logging.getLogger("gateway.registry")

REFRESH = 3600.0
"""Seconds between two listings of an account's models."""
RETRY = 300.0
"""Seconds until the next try when an account's listing failed."""


@dataclass(frozen=True)
class ModelInfo:
    """One Gemini model: its id without ``models/``, and its limits in tokens (0 = unknown)."""

    id: str
    display_name: str = ""
    input_limit: int = 0
    output_limit: int = 0
    thinking: bool = False
    methods: tuple[str, ...] = ()
    """What the model can be asked for, in Google's words; empty when the listing does not say."""

    @property
    def answers(self) -> bool:
        """Tell whether the model can hold a conversation (embedding models cannot)."""
        return not self.methods or "generateContent" in self.methods


@dataclass(frozen=True)
class _Listing:
    account: Account
    models: dict[str, ModelInfo]


class ModelRegistry:
    """The union of what the usable accounts serve; reading it never waits for the network.

    ``fetch`` asks one account for its models and may raise anything; until it has succeeded for
    an account, ``fallback`` stands in for its answer. What an account's ``models`` globs exclude
    is not served by it. Call `start` once per process to have the listings kept fresh.
    """

    def __init__(
        self,
        pool: ClientPool,
        fetch: Callable[[Account], list[ModelInfo]],
        fallback: list[ModelInfo],
    ) -> None:
        self._pool = pool
        self._fetch = fetch
        self._fallback = {model.id: model for model in fallback}
        self._listings: dict[str, _Listing] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = False

    def models(self) -> list[ModelInfo]:
        """Return every model that a usable account serves, sorted by id."""
        union: dict[str, ModelInfo] = {}
        for account, models in self._known():
            for model in models.values():
                if model.id not in union and account.serves(model.id):
                    union[model.id] = model
        return sorted(union.values(), key=lambda model: model.id)

    def serves(self, model: str) -> bool:
        """Tell whether a usable account serves ``model``."""
        return any(model in models and account.serves(model) for account, models in self._known())

    def refresh(self, *, everything: bool = True) -> bool:
        """Ask every usable account (else: those without a listing) for its models, in turn.

        Blocks on the network. Returns False when an account's listing failed, which is logged;
        what was known of it stays.
        """
        complete = True
        accounts = self._pool.usable_accounts()
        for account in accounts:
            known = self._listings.get(account.name)
            if not everything and known and known.account == account:
                continue
            try:
                models = {model.id: model for model in self._fetch(account) if model.answers}
            except Exception as error:  # noqa: BLE001 - a listing is never worth a crash
                log.warning("account %s: its models could not be listed: %s", account.name, error)
                complete = False
                continue
            if models:
                with self._lock:
                    self._listings[account.name] = _Listing(account, models)
        names = {account.name for account in self._pool.accounts()}
        with self._lock:
            for name in self._listings.keys() - names:
                del self._listings[name]
        return complete

    def start(self) -> None:
        """Refresh now, hourly, and whenever asked to, in a daemon thread."""
        threading.Thread(target=self._run, name="model-registry", daemon=True).start()

    def refresh_soon(self) -> None:
        """Have the accounts without a listing asked, without waiting for it."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread after the listing under way."""
        self._stopped = True
        self._wake.set()

    def _run(self) -> None:
        complete = self.refresh()
        while not self._stopped:
            changed = self._wake.wait(REFRESH if complete else RETRY)
            self._wake.clear()
            if not self._stopped:
                complete = self.refresh(everything=complete and not changed)

    def _known(self) -> Iterator[tuple[Account, dict[str, ModelInfo]]]:
        for account in self._pool.usable_accounts():
            listing = self._listings.get(account.name)
            fresh = listing is not None and listing.account.same_credential(account)
            yield account, listing.models if listing and fresh else self._fallback
