"""What a request asks of the pool, and what it gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from app.pool.account import Account


@dataclass(frozen=True)
class Wanted:
    """The account a request needs, in its own words.

    ``tried`` pairs of (account name, project) are never chosen; accounts in ``avoid`` only when
    there is no other. ``preferred_account`` is the tag of the account that goes first if it can,
    ``affinity_key`` what the ``sticky`` rotation hashes.
    """

    model: str
    affinity_key: str = ""
    preferred_account: str = ""
    tried: frozenset[tuple[str, str]] = frozenset()
    avoid: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Lease:
    """The right to send one request on one account and project, until it is released.

    ``token`` is unique; ``started`` is in epoch seconds. As a context manager it releases itself.
    """

    account: Account
    project: str
    model: str
    token: str
    started: float = 0.0
    give_back: Callable[[Lease], None] | None = field(default=None, repr=False, compare=False)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.give_back:
            self.give_back(self)
