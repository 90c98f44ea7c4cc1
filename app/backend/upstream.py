"""The backend's front: ask an account's upstream, get Gemini chunks or an `UpstreamError`."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from app.backend.auth import Auth, KeyAuth
from app.backend.connection import Aborted, Call
from app.backend.kinds import KINDS
from app.backend.link import Link
from app.backend.session import UpstreamSession
from app.backend.stalls import StallWatch
from app.backend.stream import garbage
from app.backend.surface import ListedModel, Surface
from app.backend.token_shelf import TokenShelf
from app.pool.account import Account

__all__ = ["Aborted", "Call", "ListedModel", "Upstream", "UpstreamSettings"]

MOST_PAGES = 50
"""Pages of one listing that are read; a page has up to 1000 models."""


@dataclass(frozen=True)
class UpstreamSettings:
    """``gemini_base_url`` replaces Google's for Gemini API accounts; timeouts in seconds."""

    gemini_base_url: str = ""
    connect_timeout: float = 10.0
    read_timeout: float = 600.0


class Upstream:
    """All upstream traffic of the process. Thread-safe; close it at the end.

    Every method raises `app.backend.errors.UpstreamError`, and `Aborted` once ``call`` was
    aborted. ``shelf`` shares tokens with other processes. What is learnt about an account
    (tokens, its Code Assist project) is kept under the account's value, so that a changed account
    starts afresh.
    """

    def __init__(self, settings: UpstreamSettings, shelf: TokenShelf | None = None) -> None:
        self._settings = settings
        self._shelf = shelf
        self._stalls = StallWatch(settings.read_timeout)
        self._lock = threading.Lock()
        self._sessions: dict[str, UpstreamSession] = {}
        self._surfaces: dict[Account, Surface] = {}

    def generate(
        self, account: Account, project: str, model: str, body: Mapping[str, Any], call: Call
    ) -> Generator[dict[str, Any] | None, None, None]:
        """Yield the chunks of ``model``'s answer, each as it arrives and unwrapped.

        Yields None where ``call`` pauses, which only one with a bell does (see `Call`). Nothing is
        sent before the first one is asked for. ``project`` is "" for the credential's own.
        Completeness is not judged: an end without ``finishReason`` just ends.
        """
        surface = self._surface(account)
        chunks = surface.link.stream(surface.generation(project, model, body, call), call)
        del body
        unwrap = surface.unwrap
        if unwrap is None:
            yield from chunks
            return
        for chunk in chunks:
            if chunk is None:
                yield None
                continue
            chunk = unwrap(chunk)  # noqa: PLW2901 - the whole must not outlive its part
            if chunk is not None:
                yield chunk

    def count_tokens(
        self, account: Account, project: str, model: str, body: Mapping[str, Any], call: Call
    ) -> int:
        """Return ``totalTokens`` for ``body``."""
        surface = self._surface(account)
        answer = surface.link.ask(surface.count(project, model, body, call), call)
        total = answer.get("totalTokens", 0)  # proto3 JSON leaves a 0 out
        if isinstance(total, str) and total.isascii() and total.isdigit() and len(total) < 16:
            total = int(total)
        if not isinstance(total, int):
            raise garbage("gave a token count that is no number")
        return total

    def list_models(self, account: Account) -> list[ListedModel]:
        """Return the models that ``account`` lists, [] where its surface has no list."""
        surface = self._surface(account)
        call = Call()
        models: list[ListedModel] = []
        token = ""
        for _ in range(MOST_PAGES):
            outgoing = surface.listing(token)
            if outgoing is None:
                break
            answer = surface.link.ask(outgoing, call)
            models += surface.listed(answer)
            before, token = token, answer.get("nextPageToken", "")
            if not isinstance(token, str) or token in ("", before):
                break
        return models

    def refresh(self, account: Account) -> None:
        """Have a new token for ``account``: one is fetched for all who ask after one refusal.

        Raises `UpstreamError`, CREDENTIAL when only an operator can help.
        """
        self._surface(account).link.auth.renew()

    def forget(self, accounts_in_use: Iterable[Account]) -> None:
        """Drop what is kept for other accounts, and for those whose credentials file changed."""
        used = set(accounts_in_use)
        with self._lock:
            self._surfaces = {
                account: surface
                for account, surface in self._surfaces.items()
                if account in used and not surface.link.auth.outdated()
            }
            proxies = {"", *(account.proxy for account in used)}
            gone = [self._sessions.pop(proxy) for proxy in self._sessions.keys() - proxies]
        for session in gone:
            session.close()

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            session.close()

    def _surface(self, account: Account) -> Surface:
        surface = self._surfaces.get(account)
        if surface is None:
            with self._lock:
                surface = self._surfaces.get(account)
                if surface is None:
                    surface = self._surfaces[account] = self._new_surface(account)
        return surface

    def _new_surface(self, account: Account) -> Surface:
        settings = self._settings
        kind = KINDS[account.kind]
        session = self._sessions.get(account.proxy)
        if session is None:
            session = self._sessions[account.proxy] = UpstreamSession(account.proxy)
        auth: Auth
        if account.kind == "api_key" or (account.api_key and not account.credentials):
            auth = KeyAuth(account)
        else:
            from app.backend.token_auth import TokenAuth  # noqa: PLC0415 - loads google-auth

            auth = TokenAuth(
                account,
                session,
                file_types=kind.file_types,
                connect_timeout=settings.connect_timeout,
                shelf=self._shelf,
            )
        link = Link(
            auth,
            session,
            connect_timeout=settings.connect_timeout,
            read_timeout=settings.read_timeout,
            stalls=self._stalls,
        )
        return kind.surface(account, link, settings.gemini_base_url)
