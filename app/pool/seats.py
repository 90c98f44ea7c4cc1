"""Who sits where: the choice of a seat among accounts, pure, the same for every store.

A seat is the room for one more request on one account. The choice is made by `choose` in this
process for the stores that can run Python within their transaction, and by the same steps in Lua
for Redis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Manner = Literal["in_turn", "in_order", "least_busy"]

MINUTE = 60.0
LONGEST_WINDOW = 25 * 3600.0
"""Seconds that requests are counted at most: a day when summer time ends."""


@dataclass(frozen=True, slots=True)
class Pace:
    """A quota in requests, counted under ``key`` over the last ``window`` seconds.

    ``limit`` 0 counts without limiting.
    """

    key: str
    limit: int = 0
    window: float = MINUTE


@dataclass(frozen=True, slots=True)
class Spent:
    """How many requests a pace counts, and when the oldest of them was (epoch seconds)."""

    count: int
    oldest: float


@dataclass(frozen=True, slots=True)
class Seat:
    """An account as a candidate: at most ``concurrency`` leases at once, and its quotas."""

    account: str
    concurrency: int
    weight: int = 1
    paces: tuple[Pace, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Candidates in groups; a later group is looked at only when an earlier one has no room.

    Within a group ``manner`` decides: ``in_turn`` as the weights say (whose turn it is, is kept
    under ``cursor``), ``in_order`` as they are listed, ``least_busy`` the smallest share of slots
    in use, in turn among equals.
    """

    groups: tuple[tuple[Seat, ...], ...]
    manner: Manner
    cursor: str = ""

    def seats(self) -> list[Seat]:
        """Return every seat of every group."""
        return [seat for group in self.groups for seat in group]


@dataclass(frozen=True, slots=True)
class Full:
    """No seat was free.

    ``busy``: some are only taken. ``paced_until``: when the first of those whose quota is used up
    has some again (the store's epoch seconds), None when there are none.
    """

    busy: bool
    paced_until: float | None = None


class Taken(NamedTuple):
    """What is known of one account at the moment of choice.

    ``ahead``: waiters who came before; ``spent``: for each pace of the seat that limits, the times
    of the requests that count, oldest first; empty for the others.
    """

    busy: int = 0
    ahead: int = 0
    spent: tuple[Sequence[float], ...] = ()


NOTHING_TAKEN = Taken()


def choose(plan: Plan, taken: Mapping[str, Taken], credit: dict[str, int]) -> Seat | Full:
    """Return the seat to take, and move the turn in ``credit`` (account → credit) on."""
    busy = False
    paced: list[float] = []
    for group in plan.groups:
        free = []
        for seat in group:
            state = taken.get(seat.account, NOTHING_TAKEN)
            until = paced_until(seat, state) if seat.paces else 0.0
            if until:
                paced.append(until)
            elif state.busy + state.ahead >= seat.concurrency:
                busy = True
            else:
                free.append(seat)
        if free:
            return _pick(plan.manner, free, taken, credit)
    return Full(busy, min(paced, default=None))


def paced_until(seat: Seat, state: Taken) -> float:
    """Return when the quotas of ``seat`` have room again, 0.0 when they have."""
    latest = 0.0
    for pace, times in zip(seat.paces, state.spent, strict=False):
        if pace.limit and len(times) >= pace.limit:
            latest = max(latest, times[len(times) - pace.limit] + pace.window)
    return latest


def _pick(
    manner: Manner, free: list[Seat], taken: Mapping[str, Taken], credit: dict[str, int]
) -> Seat:
    if manner == "in_order" or len(free) == 1:
        return free[0]
    if manner == "least_busy":
        loads = [taken.get(seat.account, NOTHING_TAKEN).busy / seat.concurrency for seat in free]
        lowest = min(loads)
        free = [seat for seat, load in zip(free, loads, strict=True) if load == lowest]
        if len(free) == 1:
            return free[0]
    # Smooth weighted turns: each gains its weight, the richest is chosen and pays for all.
    total = 0
    for seat in free:
        total += seat.weight
        credit[seat.account] = credit.get(seat.account, 0) + seat.weight
    chosen = max(free, key=lambda seat: credit[seat.account])
    credit[chosen.account] -= total
    return chosen
