"""True quotas: a rolling minute, and a day that ends at midnight in Los Angeles."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from fnmatch import fnmatchcase
from zoneinfo import ZoneInfo

from app.simulator.errors import GoogleError, quota_exhausted
from app.simulator.faults import PER_DAY, PER_MINUTE

PACIFIC = ZoneInfo("America/Los_Angeles")
_MINUTE = 60.0
_MISLEADING_RETRY = 47.2
"""Seconds that Google names for a day's quota, although it takes until midnight."""


@dataclass
class _Bucket:
    minute: deque[float] = field(default_factory=deque)
    day: date = date.min
    today: int = 0


@dataclass
class Quota:
    """What one owner (an API key or a project) may ask of the models that a glob names.

    Each model has its own count, as with Google. ``clock`` gives seconds since the epoch.
    ``granted`` and ``refused`` count requests; a refused one uses up nothing.
    """

    owner: str
    models: str
    rpm: int | None
    rpd: int | None
    clock: Callable[[], float]
    granted: int = 0
    refused: int = 0
    _buckets: dict[str, _Bucket] = field(default_factory=lambda: defaultdict(_Bucket))

    def refusal(self, model: str) -> GoogleError | None:
        """Return the 429 that a request would get now, None if it may pass."""
        now = self.clock()
        bucket = self._bucket(model, now)
        if self.rpd is not None and bucket.today >= self.rpd:
            return quota_exhausted(model, PER_DAY, self.rpd, _MISLEADING_RETRY)
        if self.rpm is not None and len(bucket.minute) >= self.rpm:
            wait = bucket.minute[-self.rpm] + _MINUTE - now if self.rpm else _MINUTE
            return quota_exhausted(model, PER_MINUTE, self.rpm, wait)
        return None

    def take(self, model: str) -> None:
        """Count one request."""
        now = self.clock()
        bucket = self._bucket(model, now)
        bucket.minute.append(now)
        bucket.today += 1
        self.granted += 1

    def _bucket(self, model: str, now: float) -> _Bucket:
        bucket = self._buckets[model]
        while bucket.minute and bucket.minute[0] <= now - _MINUTE:
            bucket.minute.popleft()
        today = datetime.fromtimestamp(now, PACIFIC).date()
        if bucket.day != today:
            bucket.day, bucket.today = today, 0
        return bucket


class Quotas:
    """All quotas of one simulator. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._quotas: list[Quota] = []

    def add(
        self,
        owner: str,
        models: str,
        rpm: int | None,
        rpd: int | None,
        clock: Callable[[], float] | None,
    ) -> Quota:
        """Set a quota; it takes the place of an earlier one for the same owner and models."""
        quota = Quota(owner, models, rpm, rpd, clock or time.time)
        with self._lock:
            self._quotas = [q for q in self._quotas if (q.owner, q.models) != (owner, models)]
            self._quotas.append(quota)
        return quota

    def charge(self, owners: tuple[str, ...], model: str) -> None:
        """Count a request against every quota that it falls under; raises `GoogleError` (429)."""
        with self._lock:
            mine = [q for q in self._quotas if q.owner in owners and fnmatchcase(model, q.models)]
            for quota in mine:
                refusal = quota.refusal(model)
                if refusal is not None:
                    quota.refused += 1
                    raise refusal
            for quota in mine:
                quota.take(model)
