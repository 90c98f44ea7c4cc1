"""What the pool shows of itself to dashboards, logs and the command line: plain values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from app.pool.account import AccountKind
from app.pool.cooling import Cooldown
from app.pool.forecast import Forecast
from app.pool.records import Ejection

State = Literal["ready", "cooling", "ejected", "unusable", "disabled"]


@dataclass(frozen=True)
class AccountView:
    """One account at one moment; times are epoch seconds.

    ``state`` is the worst that holds for any project or model of it: an account that is
    ``cooling`` for one model still serves the others. ``reasons`` says why, one line each.
    ``refused`` counts the requests that Google refused for want of quota, ``failures`` those
    that it failed; they are this process' own, as are ``requests`` and ``succeeded``, while
    ``in_flight`` and the forecasts count every process on the store.
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


def in_wall_time(view: AccountView, shift: float) -> AccountView:
    """Return ``view`` with every instant ``shift`` seconds later: the store's time told by ours."""
    if abs(shift) < 1.0:  # nobody has set a clock
        return view
    return replace(
        view,
        last_used=view.last_used + shift if view.last_used else view.last_used,
        cooldowns=tuple(
            replace(one, until=one.until + shift, since=one.since + shift) for one in view.cooldowns
        ),
        ejections=tuple(
            replace(one, until=one.until + shift, at=one.at + shift) for one in view.ejections
        ),
        forecasts=tuple(
            replace(one, resets_at=one.resets_at + shift) if one.resets_at else one
            for one in view.forecasts
        ),
    )
