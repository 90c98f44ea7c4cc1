"""Reads the history that all processes wrote, merged."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from app.ops.admin import keys
from app.ops.admin.history import History
from app.ops.admin.keys import MINUTES, TENS, Span
from app.ops.admin.series import Bucket
from app.pool.state import StateStore

Record = dict[str, Any]
T = TypeVar("T")

FRESH = 0.8
"""Seconds for which all who look at one process share what was read."""
RANGES: dict[str, tuple[Span, int]] = {"1h": (MINUTES, 60), "24h": (TENS, 144)}
"""Name → resolution and number of its buckets."""


class Reader:
    """What the dashboard shows of requests; ``mine`` is this process' part, fresher than stored."""

    def __init__(
        self, store: StateStore, mine: History, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._mine = mine
        self._clock = clock
        self._lock = threading.Lock()
        self._cache: dict[str, tuple[float, Any]] = {}
        self._watched = 0.0

    def recent(self, most: int) -> list[Record]:
        """Return the ``most`` latest requests that have ended, the latest first."""
        return self._cached(f"recent {most}", lambda: self._recent(most))

    def search(
        self, *, text: str = "", account: str = "", failed: bool = False, most: int = 100
    ) -> list[Record]:
        """Return ended requests, the latest first.

        ``text`` is found anywhere in the request id, in the model's names or in the outcome;
        ``account`` was tried; ``failed``: not answered well.
        """
        text = text.strip().lower()
        found = [
            record
            for record in self._all_with(text)
            if (not text or text in _searched(record))
            and (not account or any(one["account"] == account for one in record["attempts"]))
            and (not failed or record["outcome"] != "ok")
        ]
        return _latest(found, most)

    def find(self, request_id: str) -> Record | None:
        """Return the request of that id, under way or ended; None when it is not known."""
        for record in self.live():
            if record["request_id"] == request_id:
                return record
        for record in self._all_with(request_id.lower()):
            if record["request_id"] == request_id:
                return record
        return None

    def live(self) -> list[Record]:
        """Return the requests under way in all processes, the oldest first.

        Those of other processes come a second or two late, and the first time not at all: they
        are published only while somebody looks.
        """
        self._watch()
        records = self._cached("live", self._others) + self._mine.live()
        return sorted(records, key=lambda record: float(record["at"]))

    def series(self, name: str) -> list[tuple[int, Bucket]]:
        """Return the buckets of the range ``name`` by their starts, gaps filled, oldest first.

        Raises KeyError for an unknown range.
        """
        span, number = RANGES[name]
        return self._cached(f"series {name}", lambda: self._series(span, number))

    def total(self, name: str) -> Bucket:
        """Return the sum over the range ``name``."""

        def add_up() -> Bucket:
            total = Bucket()
            for _, bucket in self.series(name):
                total.merge(bucket)
            return total

        return self._cached(f"total {name}", add_up)

    def _recent(self, most: int) -> list[Record]:
        wanted = []
        for key, text in self._store.scan(keys.HEADS).items():
            head = int(text) if text.isdigit() else 0
            back = min(head, most // keys.PAGE + 1, keys.PAGES_KEPT - 1)
            worker = key.removeprefix(keys.HEADS)
            wanted += [
                f"{keys.PAGES}{worker}/{number % keys.PAGES_KEPT}"
                for number in range(head - back, head + 1)
            ]
        pages = self._store.get_many(wanted).values()
        return _latest([record for page in pages for record in _records(page)], most)

    def _all_with(self, text: str) -> Iterator[Record]:
        for page in self._store.scan(keys.PAGES).values():
            if text in page.lower():
                yield from _records(page)

    def _others(self) -> list[Record]:
        own = keys.LIVE + self._mine.worker
        found = self._store.scan(keys.LIVE)
        return [rec for key, text in found.items() if key != own for rec in _records(text)]

    def _watch(self) -> None:
        now = self._clock()
        if now - self._watched > keys.WATCHED_TTL / 3 or now < self._watched:
            self._watched = now
            self._store.put_many({keys.WATCHED: "1"}, keys.WATCHED_TTL)

    def _series(self, span: Span, number: int) -> list[tuple[int, Bucket]]:
        last = span.start(self._clock())
        buckets = {last - span.width * back: Bucket() for back in reversed(range(number))}
        for key, text in self._store.scan(span.prefix).items():
            start = key.removeprefix(span.prefix).partition("/")[0]
            bucket = buckets.get(int(start)) if start.isdigit() else None
            if bucket is not None:
                bucket.merge(Bucket.load(text))
        return list(buckets.items())

    def _cached(self, name: str, read: Callable[[], T]) -> T:
        with self._lock:
            at, value = self._cache.get(name, (0.0, None))
        now = time.monotonic()
        if not at or now - at > FRESH:
            value = read()
            with self._lock:
                if len(self._cache) > 50:
                    self._cache.clear()
                self._cache[name] = (now, value)
        known: T = value
        return known


def _records(text: str) -> list[Record]:
    try:
        records = json.loads(text)
    except ValueError:
        return []
    if not isinstance(records, list):
        return []
    return [record for record in records if isinstance(record, dict) and "attempts" in record]


def _latest(records: list[Record], most: int) -> list[Record]:
    return sorted(records, key=lambda record: float(record["at"]), reverse=True)[:most]


def _searched(record: Record) -> str:
    names = ("request_id", "model", "upstream_model", "served_model", "outcome")
    return " ".join(str(record.get(name) or "") for name in names).lower()
