"""What one process has learnt of an account, and others should know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.pool.cooling import Cooldown
from app.pool.forecast import Limit
from app.pool.marks import Mark


@dataclass(frozen=True)
class Ejection:
    """One model for which the account failed too often; ``until`` in epoch seconds.

    ``until`` 0 takes back what was said before ``at``: it answers again.
    """

    model: str
    until: float
    in_a_row: int
    """How often it was ejected since it last answered."""
    at: float


@dataclass(frozen=True)
class Records:
    """The records of one account."""

    cooldowns: Sequence[Cooldown] = ()
    marks: Sequence[Mark] = ()
    limits: Sequence[Limit] = ()
    ejections: Sequence[Ejection] = ()
