"""Choosing among the accounts that could take a request: priority first, then the strategy."""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, Protocol, TypeVar

from app.pool.account import Account
from app.pool.lease import Wanted

RotationName = Literal["round_robin", "fill_first", "least_busy", "sticky"]

MOST_CURSORS = 256
"""Models with a cursor of their own; the one that was used longest ago starts again."""


class Candidate(Protocol):
    """An account with a free slot."""

    @property
    def account(self) -> Account: ...  # noqa: D102
    @property
    def in_flight(self) -> int: ...  # noqa: D102


C = TypeVar("C", bound=Candidate)


class Strategy(Protocol):
    """Picks among candidates of equal priority, which are in the order of the configuration."""

    def pick(self, candidates: Sequence[C], wanted: Wanted) -> C:
        """Return one of ``candidates``, of which there is at least one."""
        ...


class RoundRobin:
    """Every account in turn, as often as its weight says, evenly spread (smooth weighted).

    Each model has its own turn, since each has its own quota: two models asked for alternately
    would otherwise divide two accounts between them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._credits: OrderedDict[str, dict[str, int]] = OrderedDict()

    def pick(self, candidates: Sequence[C], wanted: Wanted) -> C:
        """Return the candidate whose turn it is."""
        if len(candidates) == 1:
            return candidates[0]
        with self._lock:
            credit = self._credits.setdefault(wanted.model, {})
            self._credits.move_to_end(wanted.model)
            if len(self._credits) > MOST_CURSORS:
                self._credits.popitem(last=False)
            total = 0
            for candidate in candidates:
                account = candidate.account
                total += account.weight
                credit[account.name] = credit.get(account.name, 0) + account.weight
            chosen = max(candidates, key=lambda candidate: credit[candidate.account.name])
            credit[chosen.account.name] -= total
            return chosen


class FillFirst:
    """The first account until it is out or full, then the second."""

    def pick(self, candidates: Sequence[C], wanted: Wanted) -> C:
        """Return the first candidate."""
        return candidates[0]


class LeastBusy:
    """The account with the smallest share of its slots in use; in turn among equals."""

    def __init__(self) -> None:
        self._among_equals = RoundRobin()

    def pick(self, candidates: Sequence[C], wanted: Wanted) -> C:
        """Return a candidate with the lowest load."""
        lowest = min(_load(candidate) for candidate in candidates)
        equals = [candidate for candidate in candidates if _load(candidate) == lowest]
        return self._among_equals.pick(equals, wanted)


class Sticky:
    """A conversation stays on its account; only its own moves when that account is out.

    Weighted rendezvous hashing: every (conversation, account) has a score of its own, so an
    account that comes or goes moves no conversation but those it wins or held.
    """

    def __init__(self) -> None:
        self._without_key = RoundRobin()

    def pick(self, candidates: Sequence[C], wanted: Wanted) -> C:
        """Return the candidate with the highest score for ``wanted.affinity_key``."""
        key = wanted.affinity_key
        if not key:
            return self._without_key.pick(candidates, wanted)
        return max(candidates, key=lambda candidate: _score(key, candidate.account))


STRATEGIES: dict[RotationName, type[RoundRobin | FillFirst | LeastBusy | Sticky]] = {
    "round_robin": RoundRobin,
    "fill_first": FillFirst,
    "least_busy": LeastBusy,
    "sticky": Sticky,
}


class Rotation:
    """What every strategy has in common: the preferred account, and priorities."""

    def __init__(self, name: RotationName) -> None:
        self._strategy: Strategy = STRATEGIES[name]()

    def choose(self, candidates: Sequence[C], wanted: Wanted) -> C:
        """Return one of ``candidates`` (at least one, all with a free slot).

        The preferred account wins whatever its priority. A lower priority is chosen only when no
        candidate of a higher one is left, so a full account of high priority spills over.
        """
        if wanted.preferred_account:
            for candidate in candidates:
                if candidate.account.tag == wanted.preferred_account:
                    return candidate
        highest = max(candidate.account.priority for candidate in candidates)
        return self._strategy.pick(
            [candidate for candidate in candidates if candidate.account.priority == highest],
            wanted,
        )


def _load(candidate: Candidate) -> float:
    return candidate.in_flight / candidate.account.concurrency


def _score(key: str, account: Account) -> float:
    digest = hashlib.blake2b(f"{account.name}\0{key}".encode(), digest_size=8).digest()
    share = (int.from_bytes(digest, "big") + 0.5) / 2.0**64
    return -account.weight / math.log(share)
