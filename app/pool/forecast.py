"""What is left of the limits that Google has named, by our own count."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from app.pool.cooldown import Exhausted, Window
from app.pool.cooling import ANY, next_midnight

MINUTE = 60.0
MOST_BUDGETS = 64
"""Limits remembered per account; real accounts see a handful."""
MOST_COUNTED = 20_000
"""Requests counted within a minute; a limit above it is reported without a forecast."""


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


class _Budget:
    def __init__(self, limit: int, window: Window) -> None:
        self.limit = limit
        self.window = window
        self.spent_until = 0.0
        self._times: deque[float] = deque(maxlen=min(limit, MOST_COUNTED) + 1)
        self._day_ends = 0.0
        self._today = 0

    def count(self, now: float) -> None:
        if self.window == "minute":
            self._times.append(now)
        else:
            self._turn_day(now)
            self._today += 1

    def used(self, now: float) -> int:
        if self.window == "minute":
            while self._times and self._times[0] <= now - MINUTE:
                self._times.popleft()
            return len(self._times)
        self._turn_day(now)
        return self._today

    def resets_at(self, now: float) -> float | None:
        if self.spent_until > now:
            return self.spent_until
        if not self.used(now):
            return None
        return self._times[0] + MINUTE if self.window == "minute" else self._day_ends

    def _turn_day(self, now: float) -> None:
        if now >= self._day_ends:
            self._today = 0
            self._day_ends = next_midnight(now)


class Forecasts:
    """The limits of one account. Not locked: its owner's lock guards it."""

    def __init__(self) -> None:
        self._budgets: dict[tuple[str, str, Window, str], _Budget] = {}

    def learn(
        self, exhausted: Exhausted, project: str, model: str, until: float, now: float
    ) -> None:
        """Remember the limit that ``exhausted`` names; it is used up until ``until``."""
        limit, window = exhausted.limit, exhausted.window
        if limit is None or limit <= 0 or window not in ("minute", "day"):
            return
        project = project if exhausted.per_project else ANY
        model = model if exhausted.per_model else ANY
        key = (project, model, window, exhausted.metric)
        budget = self._budgets.get(key)
        if budget is None or budget.limit != limit:
            if budget is None and len(self._budgets) >= MOST_BUDGETS:
                del self._budgets[next(iter(self._budgets))]
            budget = self._budgets[key] = _Budget(limit, window)
        budget.spent_until = max(until, now)

    def count(self, project: str, model: str, now: float) -> None:
        """Count one request against every limit that it falls under."""
        for (of_project, of_model, _, _), budget in self._budgets.items():
            if of_project in (project, ANY) and of_model in (model, ANY):
                budget.count(now)

    def report(self, now: float) -> list[Forecast]:
        """Return every limit with what is left of it."""
        return [
            Forecast(
                project,
                model,
                window,
                metric,
                budget.limit,
                _remaining(budget, metric, now),
                budget.resets_at(now),
            )
            for (project, model, window, metric), budget in self._budgets.items()
        ]

    def clear(self) -> None:
        """Forget every limit."""
        self._budgets.clear()


def _remaining(budget: _Budget, metric: str, now: float) -> int | None:
    if budget.spent_until > now:
        return 0
    if "token" in metric.lower() or budget.limit > MOST_COUNTED:
        return None
    return max(0, budget.limit - budget.used(now))
