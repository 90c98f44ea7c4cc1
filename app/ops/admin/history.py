"""Writes what requests came to into the state store: in batches, never on a request's way."""

from __future__ import annotations

import atexit
import json
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from app.ops.admin import keys
from app.ops.admin.keys import MINUTES, SPANS, Span
from app.ops.admin.series import Bucket

if TYPE_CHECKING:
    from app.api.record import RequestRecord
    from app.pool.state import StateStore

log = logging.getLogger("gateway.admin")

INTERVAL = 1.0
"""Seconds between two writes, at least; nothing is written while nothing happens."""
MOST_PENDING = 10_000
"""Ended requests that wait to be written, at most; beyond, the oldest are not kept."""
MOST_LIVE = 200
"""Requests under way that one process shows."""


class History:
    """A listener of the recorder. Its thread starts with the first request.

    ``store`` should be guarded: what it can't write is lost, and no request suffers.
    """

    def __init__(self, store: StateStore, *, clock: Callable[[], float] = time.time) -> None:
        self.worker = secrets.token_hex(4)
        self._store = store
        self._clock = clock
        self._pending: deque[Mapping[str, Any]] = deque(maxlen=MOST_PENDING)
        self._live: dict[RequestRecord, None] = {}
        self._news = threading.Event()
        self._starting = threading.Lock()
        self._flushing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._page: list[Mapping[str, Any]] = []
        self._number = 0
        self._buckets: dict[tuple[Span, int], Bucket] = {}
        self._shown = False

    def started(self, record: RequestRecord) -> None:
        """Remember that it is under way."""
        self._live[record] = None
        if self._thread is None:
            self._start()
        self._news.set()

    def finished(self, record: RequestRecord, fields: Mapping[str, Any]) -> None:
        """Keep what it came to."""
        self._live.pop(record, None)
        self._pending.append(fields)
        self._news.set()

    def live(self) -> list[dict[str, Any]]:
        """Return the requests under way in this process, the oldest first."""
        return [live_fields(record) for record in list(self._live)[:MOST_LIVE]]

    def flush(self) -> None:
        """Write what has happened since the last time; open streams have their turns meanwhile."""
        with self._flushing:
            values: dict[str, str] = {}
            minutes: dict[int, Bucket] = {}
            while self._pending:
                fields = self._pending.popleft()
                minute = MINUTES.start(fields["at"] + fields["ms"] / 1000)
                minutes.setdefault(minute, Bucket()).count(fields)
                if len(self._page) == keys.PAGE:
                    self._page = []
                    self._number += 1
                self._page.append(fields)
                if len(self._page) == keys.PAGE:
                    values[self._page_key()] = _text(self._page)
                    time.sleep(0)
            if minutes:
                values[self._page_key()] = _text(self._page)
                values[keys.HEADS + self.worker] = str(self._number)
                self._store.put_many(values, keys.KEPT)
                self._count(minutes)
            self._forget_old()
            self._show_live()

    def _count(self, minutes: Mapping[int, Bucket]) -> None:
        changed: set[tuple[Span, int]] = set()
        for minute, counts in minutes.items():
            for span in SPANS:
                slot = (span, span.start(minute))
                self._buckets.setdefault(slot, Bucket()).merge(counts)
                changed.add(slot)
        for span, start in changed:
            key = f"{span.prefix}{start}/{self.worker}"
            self._store.put_many({key: self._buckets[span, start].dump()}, span.kept)

    def _page_key(self) -> str:
        return f"{keys.PAGES}{self.worker}/{self._number % keys.PAGES_KEPT}"

    def _forget_old(self) -> None:
        now = self._clock()
        for span, start in list(self._buckets):
            if start + 2 * span.width < now:
                del self._buckets[span, start]

    def _show_live(self) -> None:
        if not self._live and not self._shown:
            return
        watched = bool(self._store.get_many([keys.WATCHED]))
        if self._live and not watched:
            self._shown = False
            return
        live = self.live()
        self._store.put_many({keys.LIVE + self.worker: _text(live)}, keys.LIVE_TTL)
        self._shown = bool(live)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="history", daemon=True)
                self._thread.start()
                atexit.register(self._last_words)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self._news.wait()
            self._news.clear()
            self._flush_safely()
            pause.wait(INTERVAL)
            if self._live or self._shown:
                self._news.set()

    def _last_words(self) -> None:
        if self._pending:
            self._flush_safely()

    def _flush_safely(self) -> None:
        try:
            self.flush()
        except Exception:
            log.exception("writing the history of requests failed")


def live_fields(record: RequestRecord) -> dict[str, Any]:
    """Return the fields of a request under way, with the time that an open attempt has taken."""
    fields = record.fields()
    now = time.monotonic()
    for shown, attempt in zip(fields["attempts"], list(record.trace.attempts), strict=False):
        if not attempt.outcome:
            shown["ms"] = round((now - attempt.started) * 1000)
    return fields


def _text(records: object) -> str:
    try:
        return msgspec.json.encode(records, enc_hook=str).decode()
    except UnicodeEncodeError:  # half a character, which Gemini's JSON can hold
        return json.dumps(records, separators=(",", ":"), default=str)
