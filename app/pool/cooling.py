"""Cooldowns of one account: which (project, model) is out, until when, and why."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from app.pool.cooldown import Exhausted, Window

ANY = "*"
"""Stands for every project, or every model, of the account."""

PACIFIC = ZoneInfo("America/Los_Angeles")
"""Google's per-day quotas reset at midnight here
(https://ai.google.dev/gemini-api/docs/rate-limits)."""

FIRST_BACKOFF = 1.0
LONGEST_BACKOFF = 1800.0
LONGEST_CAPACITY_BACKOFF = 60.0
"""A model that is short comes back sooner than a quota does."""
NO_QUOTA = 86_400.0
"""How long a (project, model) without any quota is left alone; a plan may change by then."""
LONGEST = 31 * 86_400.0
"""Google's longest window is a month: whatever exceeds it is a clock gone wrong."""
SAME_MOMENT = 1.0
"""Seconds by which the instants named to requests that ran at once may differ."""
MEMORY = 3600.0
"""Seconds that an ended cooldown still counts as the one before, for the doubling."""


@dataclass(frozen=True)
class Cooldown:
    """One (project, model) that is not chosen before ``until``; `ANY` widens either.

    ``since`` and ``until`` are epoch seconds; ``strikes`` counts the refusals in a row for which
    Google named no instant.
    """

    project: str
    model: str
    until: float
    since: float
    window: Window
    reason: str
    strikes: int = 0


def next_midnight(now: float) -> float:
    """Return the first midnight in America/Los_Angeles after ``now``, both in epoch seconds."""
    tomorrow = datetime.fromtimestamp(now, PACIFIC).date() + timedelta(days=1)
    return datetime.combine(tomorrow, time.min, PACIFIC).timestamp()


def named_reset(exhausted: Exhausted, now: float) -> float | None:
    """Return the instant that Google's answer implies, None when it implies none.

    An instant that it named beats the day's end, and a per-day quota beats any delay. Instants
    in the past and delays of nothing imply none.
    """
    until = exhausted.until
    if until is not None and math.isfinite(until) and until > now:
        return min(until, now + LONGEST)
    if exhausted.window == "day":
        return next_midnight(now)
    if exhausted.window == "never":
        return now + NO_QUOTA
    delay = exhausted.retry_after
    if delay is not None and math.isfinite(delay) and delay > 0:
        return now + min(delay, LONGEST)
    return None


def backoff(exhausted: Exhausted, strikes: int) -> float:
    """Return the seconds to leave it alone after ``strikes`` (>= 1) unexplained refusals."""
    capacity = exhausted.window == "capacity"
    ceiling = LONGEST_CAPACITY_BACKOFF if capacity else LONGEST_BACKOFF
    return float(min(ceiling, FIRST_BACKOFF * 2.0 ** min(strikes - 1, 32)))


class Cooldowns:
    """The cooldowns of one account. Not locked: its owner's lock guards it."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], Cooldown] = {}

    def add(
        self, exhausted: Exhausted, project: str, model: str, started: float, now: float
    ) -> Cooldown | None:
        """Cool down what ``exhausted`` says; returns the new cooldown, None if nothing changed.

        ``started`` is when the refused request began: a refusal of one that was under way when
        the cooldown came is the same refusal, and does not double it. A cooldown is never
        shortened by a later one.
        """
        capacity = exhausted.window == "capacity"
        wide_model = not exhausted.per_model and not capacity
        key = (project if exhausted.per_project else ANY, ANY if wide_model else model)
        before = self._entries.get(key)
        strikes = before.strikes if before else 0
        until = named_reset(exhausted, now)
        if until is None:
            if before and strikes and started <= before.since:
                return None
            strikes += 1
            until = now + backoff(exhausted, strikes)
        # Refusals of requests that ran at once each name a slightly later instant: no news.
        tolerance = SAME_MOMENT if before and started <= before.since else 0.0
        if before and before.until > now and before.until + tolerance >= until:
            return None
        cooldown = Cooldown(*key, until, now, exhausted.window, exhausted.reason, strikes)
        self._entries[key] = cooldown
        return cooldown

    def until(self, project: str, model: str, now: float) -> float:
        """Return when (project, model) may be chosen again; 0.0 when it may now."""
        if not self._entries:
            return 0.0
        found = (self._entries.get(key) for key in _keys(project, model))
        latest = max((entry.until for entry in found if entry), default=0.0)
        return latest if latest > now else 0.0

    def without_quota(self, project: str, model: str, now: float) -> bool:
        """Tell whether Google said that (project, model) has no quota at all."""
        found = (self._entries.get(key) for key in _keys(project, model))
        return any(entry.window == "never" and entry.until > now for entry in found if entry)

    def succeeded(self, project: str, model: str) -> None:
        """Forget the refusals in a row: the next one starts at the first backoff again."""
        if not self._entries:
            return
        for key in _keys(project, model):
            entry = self._entries.get(key)
            if entry and entry.strikes:
                self._entries[key] = replace(entry, strikes=0)

    def active(self, now: float) -> list[Cooldown]:
        """Return the cooldowns that have not ended; those long over are dropped."""
        for key in [key for key, entry in self._entries.items() if entry.until + MEMORY < now]:
            del self._entries[key]
        return [entry for entry in self._entries.values() if entry.until > now]

    def adopt(self, cooldown: Cooldown, now: float) -> None:
        """Take over what another process (or an earlier one) learnt, if it lasts longer."""
        latest = now + LONGEST
        if cooldown.until > latest:
            cooldown = replace(cooldown, until=latest)
        key = (cooldown.project, cooldown.model)
        mine = self._entries.get(key)
        if cooldown.until > now and (mine is None or mine.until < cooldown.until):
            self._entries[key] = cooldown

    def lift(self, project: str, model: str, at: float) -> None:
        """Drop the cooldown of exactly this key if it began no later than ``at``."""
        entry = self._entries.get((project, model))
        if entry and entry.since <= at:
            del self._entries[project, model]

    def clear(self) -> None:
        """Drop everything."""
        self._entries.clear()


def _keys(project: str, model: str) -> Iterator[tuple[str, str]]:
    yield project, model
    yield ANY, model
    yield project, ANY
    yield ANY, ANY
