"""The limits that Google has named for one account: what is left of them, and when to hold back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, time

from app.pool.cooldown import Exhausted, Window
from app.pool.cooling import ANY, PACIFIC, next_midnight
from app.pool.seats import LONGEST_WINDOW, MINUTE, Pace, Spent

MOST_LIMITS = 64
"""Limits remembered per account; real accounts see a handful."""
MOST_COUNTED = 20_000
"""A limit above it is reported without a forecast: counting it would cost more than it tells."""
TRUST = 3600.0
"""Seconds that a limit is kept to after Google refused where our own count said it would."""
SHARE = 0.9
"""The share of the limit that our own count must have reached then: some requests end unseen."""
SLACK_STEP = 0.1
MOST_SLACK = 1.0
"""Seconds that a minute is counted longer, learnt from refusals that the count did not foresee:
requests do not all take equally long on their way."""


@dataclass(frozen=True)
class Limit:
    """One limit that Google named; instants in epoch seconds.

    ``spent_until``: the end of the cooldown that named it. ``trusted_until``: until when no
    request is sent that would exceed it. ``at``: when it was last heard of.
    """

    project: str
    model: str
    window: Window
    metric: str
    limit: int
    spent_until: float
    trusted_until: float
    at: float
    slack: float = 0.0

    @property
    def counted(self) -> bool:
        """Tell whether our own count of requests says what is left: tokens only Google counts."""
        return "token" not in self.metric.lower() and self.limit <= MOST_COUNTED

    def pace(self, account: str, now: float) -> Pace:
        """Return how the book counts it: a minute that rolls, or a day that ends in California."""
        key = f"{account}/{self.project}/{self.model}/{self.metric}"
        if self.window == "minute":
            return Pace(key, self.limit if now < self.trusted_until else 0, MINUTE + self.slack)
        return Pace(f"{key}/{last_midnight(now):.0f}", 0, LONGEST_WINDOW)


@dataclass(frozen=True)
class Forecast:
    """One limit that Google named. ``remaining`` is in requests, None when nobody can tell.

    ``resets_at``: epoch seconds of the end of the day or of the cooldown, None when nothing of
    the window is used up. Limits in tokens have no forecast: only Google knows what it counts.
    """

    project: str
    model: str
    window: Window
    metric: str
    limit: int
    remaining: int | None
    resets_at: float | None


class Limits:
    """The limits of one account. Not locked: its owner's lock guards it."""

    def __init__(self) -> None:
        self._limits: dict[tuple[str, str, Window, str], Limit] = {}

    def learn(
        self, exhausted: Exhausted, project: str, model: str, until: float, now: float
    ) -> Limit | None:
        """Remember the limit that ``exhausted`` names, used up until ``until``; None if none."""
        named, window = exhausted.limit, exhausted.window
        if named is None or named <= 0 or window not in ("minute", "day"):
            return None
        project = project if exhausted.per_project else ANY
        model = model if exhausted.per_model else ANY
        key = (project, model, window, exhausted.metric)
        before = self._limits.get(key)
        limit = Limit(*key, named, max(until, now), 0.0, now)
        if before and before.limit == named:
            limit = replace(limit, trusted_until=before.trusted_until, slack=before.slack)
        self._put(limit)
        return limit

    def confirm(self, limit: Limit, spent: int, now: float) -> Limit | None:
        """Trust ``limit`` if ``spent``, the requests granted in its window, explains the refusal.

        Returns it as trusted, None when it is not.
        """
        if limit.window != "minute" or not limit.counted:
            return None
        if now < limit.trusted_until:
            slack = min(MOST_SLACK, limit.slack + SLACK_STEP)
        elif spent >= SHARE * limit.limit:
            slack = limit.slack
        else:
            return None
        trusted = replace(limit, trusted_until=now + TRUST, at=now, slack=slack)
        self._put(trusted)
        return trusted

    def adopt(self, limit: Limit) -> None:
        """Take over what another process learnt, if it is newer."""
        mine = self._limits.get(_key(limit))
        if mine is None or mine.at < limit.at:
            self._put(limit)

    def records(self) -> list[Limit]:
        """Return what outlives this process."""
        return list(self._limits.values())

    def paces(self, account: str, project: str, model: str, now: float) -> tuple[Pace, ...]:
        """Return the paces that a request for (project, model) falls under."""
        if not self._limits:
            return ()
        return tuple(
            limit.pace(account, now)
            for limit in self._limits.values()
            if limit.counted and limit.project in (project, ANY) and limit.model in (model, ANY)
        )

    def all_paces(self, account: str, now: float) -> list[Pace]:
        """Return every pace that is counted."""
        return [limit.pace(account, now) for limit in self._limits.values() if limit.counted]

    def report(self, account: str, spent: Mapping[str, Spent], now: float) -> list[Forecast]:
        """Return every limit with what is left of it by the counts in ``spent`` (pace → count)."""
        return [_forecast(limit, spent, account, now) for limit in self._limits.values()]

    def clear(self) -> None:
        """Forget every limit."""
        self._limits.clear()

    def _put(self, limit: Limit) -> None:
        key = _key(limit)
        if key not in self._limits and len(self._limits) >= MOST_LIMITS:
            del self._limits[next(iter(self._limits))]
        self._limits[key] = limit


def last_midnight(now: float) -> float:
    """Return the last midnight in America/Los_Angeles at or before ``now``, in epoch seconds."""
    today = datetime.fromtimestamp(now, PACIFIC).date()
    return datetime.combine(today, time.min, PACIFIC).timestamp()


def _key(limit: Limit) -> tuple[str, str, Window, str]:
    return limit.project, limit.model, limit.window, limit.metric


def _forecast(limit: Limit, spent: Mapping[str, Spent], account: str, now: float) -> Forecast:
    remaining: int | None = None
    resets_at: float | None = None
    used = spent.get(limit.pace(account, now).key, Spent(0, 0.0)) if limit.counted else None
    if limit.spent_until > now:
        remaining, resets_at = 0, limit.spent_until
    elif used is not None:
        remaining = max(0, limit.limit - used.count)
        if used.count:
            minute = limit.window == "minute"
            resets_at = used.oldest + MINUTE if minute else next_midnight(now)
    return Forecast(
        limit.project, limit.model, limit.window, limit.metric, limit.limit, remaining, resets_at
    )
