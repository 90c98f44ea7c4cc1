"""What the pool shows of itself to dashboards, logs and the command line: plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.pool.account import AccountKind
from app.pool.cooling import Cooldown
from app.pool.forecast import Forecast

State = Literal["ready", "cooling", "ejected", "unusable", "disabled"]


@dataclass(frozen=True)
class Ejection:
    """One model for which the account failed too often; ``until`` in epoch seconds."""

    model: str
    until: float
    in_a_row: int
    """How often it was ejected since it last answered."""


@dataclass(frozen=True)
class AccountView:
    """One account at one moment; times are epoch seconds.

    ``state`` is the worst that holds for any project or model of it: an account that is
    ``cooling`` for one model still serves the others. ``reasons`` says why, one line each.
    ``refused`` counts the requests that Google refused for want of quota, ``failures`` those
    that it failed.
    """

    name: str
    tag: str
    kind: AccountKind
    state: State
    reasons: tuple[str, ...]
    projects: tuple[str, ...]
    models: tuple[str, ...]
    priority: int
    weight: int
    concurrency: int
    in_flight: int
    requests: int
    succeeded: int
    failures: int
    refused: int
    last_used: float | None
    cooldowns: tuple[Cooldown, ...]
    ejections: tuple[Ejection, ...]
    forecasts: tuple[Forecast, ...]
