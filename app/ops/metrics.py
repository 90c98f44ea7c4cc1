"""``GET /metrics``: what the gateway does, for Prometheus, added up over all workers.

Counters live in files that the workers share when ``PROMETHEUS_MULTIPROC_DIR`` is set, which
``gunicorn.conf.py`` does; what is there at a moment (accounts, leases) is asked at the scrape.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import prometheus_client
from flask import Blueprint, Response, request
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, values
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector

from app.ops.access import AdminAccess

if TYPE_CHECKING:
    from app.api.record import RequestRecord
    from app.pool.pool import ClientPool

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
MOST_SLOTS = 1000
MOST_REASONS = 100
"""Different outcomes of attempts that are told apart: Google may invent reasons at will."""
OTHER = "other"
PATHS = ("/v1/messages", "/v1/messages/count_tokens", "/v1/models")
"""Paths that are told apart where clients can ask for any."""
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)
FIRST_EVENT = (0.1, 0.2, 0.4, 0.7, 1, 1.5, 2, 3, 5, 8, 13, 20, 30, 60, 120)
_STATES = ("ready", "cooling", "ejected", "unusable", "disabled")


class Metrics:
    """Counts requests as they end; a listener of `app.api.record.Recorder`.

    ``is_model`` says which names may be told apart: clients can ask for any, and every name would
    be a series of its own. It is asked once for each.
    """

    def __init__(self, is_model: Callable[[str], bool]) -> None:
        self._is_model = is_model
        self._seen: set[str] = set()
        self._reasons: set[str] = {"ok"}
        self._children: dict[tuple[Any, ...], Any] = {}
        self.folder = _shared_folder()
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "gateway_requests",
            "Requests answered, by what became of them.",
            ("path", "model", "status", "outcome"),
            registry=registry,
        )
        self.refusals = Counter(
            "gateway_refused",
            "Requests of the API that were not let in: no key, not valid, above a client's limit.",
            ("path", "status", "outcome"),
            registry=registry,
        )
        self.seconds = Histogram(
            "gateway_request_seconds",
            "Seconds from the request to the end of its answer.",
            ("path",),
            buckets=SECONDS,
            registry=registry,
        )
        self.first_event = Histogram(
            "gateway_first_event_seconds",
            "Seconds from the request to the first event of its answer.",
            ("model",),
            buckets=FIRST_EVENT,
            registry=registry,
        )
        self.tokens = Counter(
            "gateway_tokens",
            "Tokens: input (without cached), cache_read, output.",
            ("model", "kind"),
            registry=registry,
        )
        self.attempts = Counter(
            "gateway_attempts",
            "Upstream tries, by account and what became of them.",
            ("account", "outcome"),
            registry=registry,
        )
        self.failovers = Counter(
            "gateway_failovers",
            "Requests that took more than one upstream try.",
            registry=registry,
        )
        self.retries_refused = Counter(
            "gateway_retries_refused",
            "Requests that failed because the worker had no retry left (RETRY_BUDGET).",
            registry=registry,
        )
        self.keepalives = Counter(
            "gateway_keepalives",
            "Keep-alives sent to clients that would have heard nothing (KEEPALIVE_INTERVAL).",
            registry=registry,
        )

    def started(self, record: RequestRecord) -> None:
        """Count nothing yet."""

    def finished(self, record: RequestRecord, fields: Mapping[str, Any]) -> None:
        """Count a request that has ended."""
        model = self._model(fields["upstream_model"])
        path, status = fields["path"], str(fields["status"])
        self._child(self.requests, path, model, status, fields["outcome"]).inc()
        self._child(self.seconds, path).observe(fields["ms"] / 1000)
        if fields["first_event_ms"] is not None:
            self._child(self.first_event, model).observe(fields["first_event_ms"] / 1000)
        for kind in ("input", "cache_read_input", "output"):
            count = fields[f"{kind}_tokens"]
            if count:
                self._child(self.tokens, model, kind.removesuffix("_input")).inc(count)
        attempts = fields["attempts"]
        for attempt in attempts:
            reason = self._reason(attempt["outcome"] or "open")
            self._child(self.attempts, attempt["account"], reason).inc()
        if len(attempts) > 1:
            self.failovers.inc()
        if fields["retry_refused"]:
            self.retries_refused.inc()
        if fields["keepalives"]:
            self.keepalives.inc(fields["keepalives"])

    def refused(self, fields: Mapping[str, Any]) -> None:
        """Count a request that was not let in: apart, so that guessing hides no failures."""
        path = fields["path"] if fields["path"] in PATHS else OTHER
        status, outcome = fields["status"], fields["outcome"]
        if status < 500:
            self._child(self.refusals, path, str(status), outcome).inc()
        else:  # a fault of ours is no refusal
            self._child(self.requests, path, OTHER, str(status), outcome).inc()

    def text(self, *collectors: Any) -> bytes:
        """Return the exposition: the counts of all workers, and what ``collectors`` see now."""
        registry = self.registry
        if self.folder:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, path=self.folder)  # type: ignore[no-untyped-call]
        return generate_latest(registry) + b"".join(
            generate_latest(_Alone(collector)) for collector in collectors
        )

    def _child(self, metric: Any, *labels: str) -> Any:
        key = (metric, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    def _model(self, name: str) -> str:
        if name in self._seen:
            return name
        if not self._is_model(name):
            return OTHER
        self._seen.add(name)
        return name

    def _reason(self, outcome: str) -> str:
        if outcome in self._reasons:
            return outcome
        if len(self._reasons) >= MOST_REASONS:
            return OTHER
        self._reasons.add(outcome)
        return outcome


class PoolCollector:
    """What the pool is like at the moment of the scrape; the same in every worker."""

    def __init__(self, pool: ClientPool, readiness: Callable[[], tuple[bool, Mapping[str, Any]]]):
        self._pool = pool
        self._readiness = readiness

    def collect(self) -> Iterator[Any]:
        """Yield the families."""
        now = time.time()
        ready, facts = self._readiness()
        from app import __version__  # noqa: PLC0415 - the package imports this module

        yield InfoMetricFamily("gateway", "Version.", {"version": __version__})
        yield _one("gateway_ready", "Whether requests can be served.", ready)
        yield _one("gateway_state_store_up", "Whether the store answers.", facts["state_store"])
        yield _one("gateway_leases_shared", "Whether leases go by the store, not by guess.",
                   facts["shared_leases"])  # fmt: skip
        yield _one("gateway_draining", "Whether this worker ends.", facts["draining"])
        yield _one("gateway_pool_waiting", "Requests of this worker that wait for an account.",
                   self._pool.waiting)  # fmt: skip
        yield _one("gateway_simulator", "Whether answers are made up.",
                   facts["serving"] == "simulator")  # fmt: skip
        states = GaugeMetricFamily(
            "gateway_account_state", "1 for the state that the account is in.",
            labels=("account", "kind", "state"),
        )  # fmt: skip
        in_flight = GaugeMetricFamily(
            "gateway_account_in_flight", "Requests under way, over all workers.",
            labels=("account",),
        )  # fmt: skip
        slots = GaugeMetricFamily(
            "gateway_account_concurrency", "Requests that the account may have under way.",
            labels=("account",),
        )  # fmt: skip
        cooling = GaugeMetricFamily(
            "gateway_account_cooldown_seconds", "Seconds until the model can be used again.",
            labels=("account", "project", "model", "window"),
        )  # fmt: skip
        left = GaugeMetricFamily(
            "gateway_quota_remaining", "Requests left of limits that Google has named.",
            labels=("account", "project", "model", "window", "limit"),
        )  # fmt: skip
        for view in self._pool.snapshot():
            for state in _STATES:
                states.add_metric((view.name, view.kind, state), float(view.state == state))
            in_flight.add_metric((view.name,), view.in_flight)
            slots.add_metric((view.name,), view.concurrency)
            for one in view.cooldowns:
                labels = (view.name, one.project, one.model, one.window)
                cooling.add_metric(labels, max(0.0, one.until - now))
            for forecast in view.forecasts:
                if forecast.remaining is not None:
                    of = (forecast.project, forecast.model, forecast.window, str(forecast.limit))
                    left.add_metric((view.name, *of), forecast.remaining)
        yield from (states, in_flight, slots, cooling, left)


def metrics_blueprint(
    metrics: Metrics, pool: PoolCollector, access: AdminAccess, *, everybody: bool
) -> Blueprint:
    """Return the blueprint of ``/metrics``; ``everybody``: without the admin key."""
    blueprint = Blueprint("metrics", __name__)

    @blueprint.get("/metrics")
    def exposition() -> Response:
        if not everybody:
            access.check(request)
        return Response(metrics.text(pool), content_type=prometheus_client.CONTENT_TYPE_LATEST)

    return blueprint


class _Alone:
    """One collector as a registry, which is all that the exposition needs of one."""

    def __init__(self, collector: Any) -> None:
        self._collector = collector

    def collect(self) -> Iterator[Any]:
        yield from self._collector.collect()


def _one(name: str, text: str, value: float | bool) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))


def _shared_folder() -> str:
    """Return the folder that the workers share, "" when there is none, and take a slot in it.

    Files are named after slots, not processes: a worker that takes the place of another one goes
    on counting in its files, so that there are never more than workers at once. A slot is a lock,
    which the system takes off when the process ends, however it ends.
    """
    folder = os.environ.get(FOLDER, "")
    if not folder:
        return ""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for slot in range(MOST_SLOTS):
        handle = os.open(
            Path(folder) / f"slot-{slot}", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            continue
        # The lock lives as long as the process.
        name = f"slot{slot}".format
        values.ValueClass = values.MultiProcessValue(name)  # type: ignore[no-untyped-call]
        return folder
    return ""
