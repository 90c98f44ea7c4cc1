"""Whom to ask first: priority, then the strategy, as a plan for `app.pool.seats.choose`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Literal

from app.pool.account import Account
from app.pool.lease import Wanted
from app.pool.seats import Manner, Plan, Seat

RotationName = Literal["round_robin", "fill_first", "least_busy", "sticky"]

MANNERS: dict[RotationName, Manner] = {
    "round_robin": "in_turn",
    "fill_first": "in_order",
    "least_busy": "least_busy",
    "sticky": "in_order",
}


class Rotation:
    """The preferred account, then priorities, then one of the strategies.

    ``round_robin``: every account in turn, as often as its weight says, evenly spread; each model
    has its own turn, since each has its own quota. ``fill_first``: the first account until it is
    out or full, then the second. ``least_busy``: the smallest share of slots in use. ``sticky``:
    a conversation stays on its account, by weighted rendezvous hashing: every (conversation,
    account) has a score of its own, so an account that comes or goes moves no conversation but
    those it wins or held.
    """

    def __init__(self, name: RotationName) -> None:
        self._name = name
        self.by_conversation = name == "sticky"
        """Whether it looks at the ``affinity_key``."""

    def plan(self, candidates: Sequence[tuple[Account, Seat]], wanted: Wanted) -> Plan:
        """Return the order to try ``candidates`` in (at least one, as configured).

        The preferred account wins whatever its priority. A lower priority is chosen only when no
        candidate of a higher one has room, so a full account of high priority spills over.
        """
        groups: dict[tuple[bool, int], list[tuple[Account, Seat]]] = {}
        for account, seat in candidates:
            later = account.tag != wanted.preferred_account
            groups.setdefault((later, -account.priority if later else 0), []).append(
                (account, seat)
            )
        manner = MANNERS[self._name]
        if self.by_conversation:
            if wanted.affinity_key:
                for group in groups.values():
                    group.sort(key=lambda one: -_score(wanted.affinity_key, one[0]))
            else:
                manner = "in_turn"
        ordered = tuple(tuple(seat for _, seat in groups[rank]) for rank in sorted(groups))
        return Plan(ordered, manner, wanted.model)


def _score(key: str, account: Account) -> float:
    digest = hashlib.blake2b(f"{account.name}\0{key}".encode(), digest_size=8).digest()
    share = (int.from_bytes(digest, "big") + 0.5) / 2.0**64
    return -account.weight / math.log(share)
