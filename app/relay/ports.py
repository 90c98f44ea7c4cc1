"""What the relay needs of the translation, which it never looks inside."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Protocol

from app.backend.upstream import Call
from app.pool.pool import Lease

Event = dict[str, Any]
Chunk = Mapping[str, Any]


class AnswerTranslator(Protocol):
    """Turns one attempt's chunks into events; raises `app.translate.errors.BadAnswer`."""

    @property
    def done(self) -> bool:
        """The answer is complete although the upstream goes on: hang up."""
        ...

    notes: dict[str, str]
    """What must be stored before the events just returned leave; the relay empties it."""

    def feed(self, chunk: Chunk) -> list[Event]:
        """Return the events that ``chunk`` makes; [] while nothing is fit to show."""
        ...

    def finish(self) -> list[Event]:
        """Return the last events once the upstream has ended."""
        ...


class Job(Protocol):
    """One request as the relay sees it: where it may go, and how an attempt is made."""

    @property
    def model(self) -> str:
        """The upstream model id that accounts are chosen for."""
        ...

    @property
    def affinity_key(self) -> str:
        """The same for all requests of one conversation, "" when unknown."""
        ...

    @property
    def preferred_account(self) -> str:
        """Tag of the account that should go on if it can, "" for none."""
        ...

    @property
    def buffered(self) -> bool:
        """Nothing reaches the client before the end, so any failure may fail over."""
        ...

    @property
    def spends_quota(self) -> bool:
        """It uses the quota of answers, which its refusal then tells of."""
        ...

    def open(
        self, lease: Lease, call: Call, *, trust_foreign: bool
    ) -> Generator[Chunk | None, None, None]:
        """Make one attempt on ``lease``; raises `app.backend.errors.UpstreamError`.

        Yields None where ``call`` pauses.
        """
        ...

    def translator(self, lease: Lease) -> AnswerTranslator:
        """Return a fresh translator for one attempt on ``lease``."""
        ...

    def keep(self, notes: Mapping[str, str]) -> None:
        """Store what the next turn of the conversation will need."""
        ...

    def committed(self) -> None:
        """Let go of what only a fresh attempt would need: the client has a part of the answer."""
        ...

    def resume(self) -> Job | None:
        """Return the job of going on from what the client has, None when that is not sound."""
        ...
