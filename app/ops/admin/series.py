"""Counts per minute, account and model: how they are added up, written and merged."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

BOUNDS = (
    *(50, 75, 100, 150, 200, 300, 400, 500, 650, 800, 1000, 1300, 1700, 2200, 3000, 4000),
    *(5500, 7500, 10_000, 14_000, 20_000, 30_000, 45_000, 60_000, 120_000, 300_000, 600_000),
)
"""Upper ends, in milliseconds, of the bins that times to the first event are counted in."""

TOTAL = ""
"""The account under which whole requests are counted, rather than the attempts on one account."""
OTHERS = "(others)"
MOST_MODELS = 50
"""Models counted under their own names at a time: clients may invent any number of them."""

_NOT_OURS = frozenset({400, 402, 404, 405, 409, 413, 422, 499})
"""Statuses that say something of the request or of the client, and nothing of the account."""


@dataclass
class Counts:
    """What happened: ``requests`` = ok + refused (429) + failed + other (the client's doing)."""

    requests: int = 0
    ok: int = 0
    refused: int = 0
    failed: int = 0
    other: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    bins: dict[int, int] = field(default_factory=dict)
    """Index of a bin of `BOUNDS` → how many first events came in it."""

    def add(self, more: Counts) -> None:
        """Add ``more`` to these."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(more, name))
        for index, count in more.bins.items():
            self.bins[index] = self.bins.get(index, 0) + count

    def count(self, outcome: str, status: int) -> None:
        """Count one try that ended with ``outcome`` and HTTP ``status`` (0 for none)."""
        self.requests += 1
        if outcome == "ok":
            self.ok += 1
        elif status == 429:
            self.refused += 1
        elif outcome.startswith("API_KEY"):  # a 400 that speaks of the account after all
            self.failed += 1
        elif status in _NOT_OURS or outcome in ("hung up", "client gone"):
            self.other += 1
        else:
            self.failed += 1

    def first_event(self, ms: int) -> None:
        """Count a first event that came after ``ms`` milliseconds."""
        index = min(bisect_left(BOUNDS, ms), len(BOUNDS) - 1)
        self.bins[index] = self.bins.get(index, 0) + 1

    @property
    def success(self) -> float | None:
        """Share of the tries that the account was to answer for and answered; None without any."""
        judged = self.ok + self.refused + self.failed
        return self.ok / judged if judged else None

    @property
    def cached_share(self) -> float | None:
        """Share of the prompt tokens that came from a cache; None without any."""
        prompt = self.input_tokens + self.cached_tokens
        return self.cached_tokens / prompt if prompt else None

    def percentile(self, share: float) -> int | None:
        """Return the milliseconds within which ``share`` of the first events came, about."""
        total = sum(self.bins.values())
        if not total:
            return None
        left = share * total
        for index in sorted(self.bins):
            count = self.bins[index]
            if left <= count:
                low = BOUNDS[index - 1] if index else 0
                return round(low + (BOUNDS[index] - low) * left / count)
            left -= count
        return BOUNDS[max(self.bins)]

    def as_dict(self) -> dict[str, Any]:
        """Return the counts and what follows from them, for JSON."""
        return {name: getattr(self, name) for name in _NUMBERS} | {
            "success": self.success,
            "cached_share": self.cached_share,
            "first_event_ms": {
                name: self.percentile(share)
                for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
            },
        }


_NUMBERS = (
    *("requests", "ok", "refused", "failed", "other"),
    *("input_tokens", "cached_tokens", "output_tokens"),
)

Row = tuple[str, str]
"""An account (or `TOTAL`) and a Gemini model."""


class Bucket:
    """The counts of one span of time."""

    def __init__(self) -> None:
        self.rows: dict[Row, Counts] = {}
        self._models: set[str] = set()

    def count(self, fields: Mapping[str, Any]) -> None:
        """Count a request that has ended, by its record's fields."""
        model = self._model(str(fields["upstream_model"]))
        total = self._row(TOTAL, model)
        total.count(fields["outcome"], fields["status"])
        attempts = fields["attempts"]
        for attempt in attempts:
            self._row(attempt["account"], model).count(attempt["outcome"], attempt["status"])
        last = self._row(attempts[-1]["account"], model) if attempts else None
        for row in (total, last):
            if row:
                row.input_tokens += fields["input_tokens"] or 0
                row.cached_tokens += fields["cache_read_input_tokens"] or 0
                row.output_tokens += fields["output_tokens"] or 0
        waited = fields["first_event_ms"]
        if waited is None or fields["path"].endswith("/count_tokens"):
            return
        total.first_event(waited)
        # What the attempts before took is not this account's slowness.
        own = waited - sum(attempt["ms"] for attempt in attempts[:-1])
        if last and own >= 0:
            last.first_event(own)

    def merge(self, more: Bucket) -> None:
        """Add the counts of ``more``."""
        for (account, model), counts in more.rows.items():
            self._row(account, self._model(model)).add(counts)

    def of(self, account: str) -> Counts:
        """Return the counts of ``account`` (or `TOTAL`) over all models."""
        return summed(counts for (name, _), counts in self.rows.items() if name == account)

    def by_account(self) -> dict[str, Counts]:
        """Return the counts of every account and of `TOTAL`."""
        return {name: self.of(name) for name in {account for account, _ in self.rows}}

    def by_model(self) -> dict[str, Counts]:
        """Return the counts of whole requests by model."""
        return {model: counts for (name, model), counts in self.rows.items() if name == TOTAL}

    def dump(self) -> str:
        """Return it as text for the store."""
        rows = [
            [*row, *(getattr(counts, name) for name in _NUMBERS), list(counts.bins.items())]
            for row, counts in self.rows.items()
        ]
        return json.dumps(rows, separators=(",", ":"))

    @classmethod
    def load(cls, text: str) -> Bucket:
        """Return what `dump` wrote; an empty bucket for what another version did."""
        bucket = cls()
        try:
            for account, model, *numbers, bins in json.loads(text):
                known = {int(i): int(n) for i, n in bins if 0 <= int(i) < len(BOUNDS)}
                counts = Counts(bins=known)
                for name, number in zip(_NUMBERS, numbers, strict=True):
                    setattr(counts, name, int(number))
                bucket._row(str(account), str(model)).add(counts)
        except (ValueError, TypeError):
            return cls()
        return bucket

    def _model(self, model: str) -> str:
        known = self._models
        return model if model in known or len(known) < MOST_MODELS else OTHERS

    def _row(self, account: str, model: str) -> Counts:
        row = self.rows.get((account, model))
        if row is None:
            row = self.rows[account, model] = Counts()
            self._models.add(model)
        return row


def summed(many: Iterable[Counts]) -> Counts:
    """Return the sum of ``many``."""
    total = Counts()
    for counts in many:
        total.add(counts)
    return total
