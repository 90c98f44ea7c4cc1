"""Starts exchanges, and ends them all when the process does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.backend.rests import Rests
from app.backend.upstream import Upstream
from app.pool.pool import ClientPool
from app.pool.state import StateStore
from app.relay.budget import RetryBudget
from app.relay.exchange import Exchange
from app.relay.jobs import AnswerJob, CountJob, Translation
from app.relay.keepalive import KeepAliveTimer
from app.relay.ports import Job
from app.relay.runners import Runners
from app.translate.resume import Translator
from app.translate.target import Target


@dataclass(frozen=True)
class RelaySettings:
    """How hard a request is tried; durations in seconds."""

    request_retry: int
    quota_switch_project: bool
    pool_wait_timeout: float
    keepalive_interval: float
    stream_resume: bool = False
    retry_budget: float = 0.5
    """Retries per request, over all requests of the process."""


class Relay:
    """The way from a job to its events, over as many accounts as it takes."""

    def __init__(
        self, pool: ClientPool, upstream: Upstream, store: StateStore, settings: RelaySettings
    ) -> None:
        self._pool = pool
        self._upstream = upstream
        self._store = store
        self._settings = settings
        self._budget = RetryBudget(settings.retry_budget)
        self._rests = Rests()
        self._runners = Runners()
        self._timer = KeepAliveTimer(settings.keepalive_interval)
        self._lock = threading.Lock()
        self._live: set[Exchange] = set()

    def answer_job(
        self, translation: Translation, new_translator: Callable[[Any, Target], Translator]
    ) -> AnswerJob:
        """Return the job of answering ``translation``."""
        return AnswerJob(
            translation,
            self._upstream,
            self._store,
            new_translator,
            resume=self._settings.stream_resume,
        )

    def count_job(self, translation: Translation) -> CountJob:
        """Return the job of counting the tokens of ``translation``."""
        return CountJob(translation, self._upstream, self._store)

    def exchange(self, job: Job) -> Exchange:
        """Return the exchange that will run ``job``; nothing happens before it is iterated."""
        exchange = Exchange(
            job,
            pool=self._pool,
            upstream=self._upstream,
            timer=self._timer,
            request_retry=self._settings.request_retry,
            quota_switch_project=self._settings.quota_switch_project,
            pool_wait_timeout=self._settings.pool_wait_timeout,
            budget=self._budget,
            runners=self._runners,
            rests=self._rests,
        )
        self._budget.earn()
        with self._lock:
            self._live.add(exchange)
        return exchange

    def done(self, exchange: Exchange) -> None:
        """Close ``exchange`` and forget it."""
        exchange.close()
        with self._lock:
            self._live.discard(exchange)

    @property
    def live(self) -> int:
        """How many exchanges are under way."""
        return len(self._live)

    def stop(self) -> None:
        """End every exchange under way with `Failure.STOPPING`."""
        with self._lock:
            live = list(self._live)
        for exchange in live:
            exchange.stop()
