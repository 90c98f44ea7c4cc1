"""The two things that are asked of an account: an answer, and a count of tokens."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Protocol

from app.backend.upstream import Call, Upstream
from app.pool.account import Account
from app.pool.pool import Lease
from app.pool.state import StateStore
from app.relay.ports import AnswerTranslator, Chunk, Event
from app.translate.errors import BadAnswer
from app.translate.resume import Sent, Translator, splicer
from app.translate.target import Target

NOTE_TTL = 7 * 86_400
"""Seconds that notes on a conversation (signatures too long for an id) are kept."""


class Translation(Protocol):
    """One validated request that can be written for any target (`app.translate.conversation`)."""

    @property
    def model(self) -> str: ...  # noqa: D102
    @property
    def stream(self) -> bool: ...  # noqa: D102
    @property
    def affinity_key(self) -> str: ...  # noqa: D102
    @property
    def preferred_account(self) -> str: ...  # noqa: D102
    @property
    def store_keys(self) -> list[str]: ...  # noqa: D102
    def render(self, target: Target, notes: Mapping[str, str]) -> dict[str, Any]: ...  # noqa: D102
    def render_count(self, target: Target, notes: Mapping[str, str]) -> dict[str, Any]: ...  # noqa: D102
    def resumed(self, text: str) -> Translation: ...  # noqa: D102


def target_of(account: Account, model: str, *, trust_foreign: bool = True) -> Target:
    """Return where a request for ``model`` on ``account`` goes, in the translation's words."""
    return Target(account.flavour, model, account.tag, trust_foreign)


class _ConversationJob:
    """What both jobs share: whose conversation it is, and its notes."""

    spends_quota = True

    def __init__(self, translation: Translation, upstream: Upstream, store: StateStore) -> None:
        self.translation = translation
        self.model = translation.model
        self.preferred_account = translation.preferred_account
        self._upstream = upstream
        self._store = store

    @property
    def affinity_key(self) -> str:
        """The same for all turns of the conversation; finding it takes a while."""
        return self.translation.affinity_key

    @cached_property
    def _notes(self) -> Mapping[str, str]:
        keys = self.translation.store_keys
        return self._store.get_many(keys) if keys else {}

    def keep(self, notes: Mapping[str, str]) -> None:
        """Store what the next turn of the conversation will need."""
        self._store.put_many(dict(notes), NOTE_TTL)

    def committed(self) -> None:
        """Let go of the request, which may be large: no attempt follows."""
        del self.translation


class AnswerJob(_ConversationJob):
    """Ask for an answer. ``new_translator`` makes a fresh one for a translation and a target.

    With ``resume`` what leaves for the client is remembered, so that another attempt can go on
    from there; ``sent`` is what had left before this job, ``asked`` the client's own request.
    """

    def __init__(
        self,
        translation: Translation,
        upstream: Upstream,
        store: StateStore,
        new_translator: Callable[[Any, Target], Translator],
        *,
        resume: bool = False,
        sent: Sent | None = None,
        asked: Translation | None = None,
    ) -> None:
        super().__init__(translation, upstream, store)
        self._asked = asked or translation
        self.buffered = not translation.stream
        self._new_translator = new_translator
        self._resumed = sent is not None
        self._sent = sent or (Sent() if resume and translation.stream else None)
        self.answer: Translator | None = None
        """The translator of the newest attempt, for the log's figures."""

    def open(
        self, lease: Lease, call: Call, *, trust_foreign: bool
    ) -> Generator[Chunk | None, None, None]:
        """Yield the answer's chunks as they arrive."""
        target = target_of(lease.account, lease.model, trust_foreign=trust_foreign)
        body = self.translation.render(target, self._notes)
        if not trust_foreign:
            refused = self.translation.render(replace(target, trust_foreign=True), self._notes)
            if body == refused:  # it's one of its own, as when the account's key was replaced
                body = self.translation.render(replace(target, trust_own=False), self._notes)
        return self._upstream.generate(lease.account, lease.project, lease.model, body, call)

    def translator(self, lease: Lease) -> AnswerTranslator:
        """Return a fresh translator whose signatures come from ``lease``'s account."""
        fresh = partial(
            self._new_translator, self.translation, target_of(lease.account, lease.model)
        )
        self.answer = splicer(fresh, self._sent, resumed=self._resumed)
        return self.answer

    def committed(self) -> None:
        """Let go of the request, unless the answer may have to go on elsewhere."""
        if self._sent is None:
            del self.translation, self._asked

    def resume(self) -> AnswerJob | None:
        """Return the job of going on from what was sent, None when that would not be sound."""
        sent, cut = self._sent, self.answer
        if sent is None or not sent.resumable:
            return None
        if cut is not None:  # else this attempt was refused before it brought anything
            sent.cut(cut.usage)
        return AnswerJob(
            self._asked.resumed(sent.text),
            self._upstream,
            self._store,
            self._new_translator,
            sent=sent,
            asked=self._asked,
        )


class CountJob(_ConversationJob):
    """Ask for the number of tokens; its one event is ``{"input_tokens": n}``."""

    buffered = True
    spends_quota = False  # counting has limits of its own

    def open(
        self, lease: Lease, call: Call, *, trust_foreign: bool
    ) -> Generator[Chunk, None, None]:
        """Yield the count as the only chunk."""
        target = target_of(lease.account, lease.model, trust_foreign=trust_foreign)
        body = self.translation.render_count(target, self._notes)
        count = self._upstream.count_tokens(lease.account, lease.project, lease.model, body, call)
        yield {"input_tokens": count}

    def translator(self, lease: Lease) -> AnswerTranslator:
        """Return the translator that passes the count on."""
        return _CountTranslator()

    def resume(self) -> None:
        """Return None: a count has no beginning to go on from."""
        return


class _CountTranslator:
    """A count needs no translation, only the shape of an answer."""

    done = False

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}
        self._counted = False

    def feed(self, chunk: Chunk) -> list[Event]:
        self._counted = True
        return [dict(chunk)]

    def finish(self) -> list[Event]:
        if not self._counted:
            raise BadAnswer("The upstream gave no token count.")
        return []
