"""What a book of leases can do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from app.pool.seats import Full, Pace, Plan, Spent

LEASE_TTL = 15.0
"""Seconds after which the leases of a holder that was not heard of are free again."""
YOUNG = 5.0
"""Seconds that a lease may be unknown to its holder: the book's answer is under way."""


@dataclass(frozen=True, slots=True)
class Held:
    """A lease as its holder knows it."""

    token: str
    account: str
    concurrency: int


class LeaseBook(Protocol):
    """Who holds which lease, over all processes on one store; every step is atomic.

    A holder is one process. Its leases count while it is alive, which it shows by `take` and
    `renew`; `LEASE_TTL` seconds after the last sign they are free. Instants are epoch seconds by
    the store's own clock, `now`, which no holder's clock can disturb. Every method but `now` and
    `on_freed` may raise `app.pool.state.StateError`.
    """

    def now(self) -> float:
        """Return the store's time; never waits."""
        ...

    def take(
        self, plan: Plan, token: str, since: float | None, *, hurry: bool = True
    ) -> str | Full:
        """Take a seat of ``plan`` under ``token``; returns its account.

        With ``since``, the instant its wait began, a request that finds no seat waits in the
        book from then on, under ``token`` and for every account of the plan: seats that come
        free are kept for those who came before. It ends with a seat, or with `leave`. A token
        that has a seat gets the same one again. Without ``hurry`` the caller has a second.
        """
        ...

    def give_back(self, *seats: tuple[str, str]) -> None:
        """Free the seats of (token, account); a token's wait ends, too. Twice is once.

        There is one when the book was away as the seat was taken.
        """
        ...

    def refund(self, token: str, paces: Iterable[str]) -> None:
        """Count the request of ``token`` no more: Google refused it, and does not either."""
        ...

    def leave(self, token: str) -> None:
        """Wait no longer."""
        ...

    def renew(
        self, held: Iterable[Held], waiting: Iterable[str] = (), *, forced: bool = False
    ) -> list[str]:
        """Show that this holder is alive, and what it holds; returns the tokens it has lost.

        A lease that the book does not know any more is written again while its account has room
        and else is lost; with ``forced``, or when the book itself was lost, it is written in any
        case. What the book has beyond ``held`` is freed, unless it is younger than `YOUNG`; so end
        the waits of tokens that are not ``waiting``, and at once those of tokens that are held.
        """
        ...

    def spent(self, paces: Iterable[Pace]) -> dict[str, Spent]:
        """Return what each pace counts at present, by its key; those of nothing may be absent."""
        ...

    def in_flight(self) -> dict[str, int]:
        """Return how many leases are out on each account, over all holders."""
        ...

    def end(self) -> None:
        """Free whatever this holder has: the process ends."""
        ...

    def on_freed(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called, from any thread, when a seat may be free for those who wait."""
        ...
