"""Clients' own limits: requests and tokens per minute for each client key.

The counting is the `limits` library's, by a sliding window; its storage is the state store's.
Headers: https://docs.anthropic.com/en/api/rate-limits#response-headers
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from limits.storage import MemoryStorage

from app.api.errors import ApiError

if TYPE_CHECKING:
    from app.api.record import RequestRecord

T = TypeVar("T")

log = logging.getLogger("gateway.limits")

MINUTE = 60
NO_LIMIT = 2**62
PAUSE = 3.0
"""Seconds for which this process counts by itself after its store has failed."""
QUIET = 30.0
KINDS = ("requests", "input-tokens", "output-tokens")
_WORDS = {
    "requests": "requests",
    "input-tokens": "input tokens",
    "output-tokens": "output tokens",
}


@dataclass(frozen=True)
class Standing:
    """How one limit stands; ``reset`` in epoch seconds: when all of it is there again."""

    limit: int
    remaining: int
    reset: float


class ClientLimits:
    """Counts what each client key uses; limits of 0 are none.

    ``storage`` has the sliding window of the `limits` library. While it fails, this process
    counts by itself: no request fails for want of a counter. A listener of
    `app.api.record.Recorder`: what a request really took is known at its end.
    """

    def __init__(
        self,
        storage: Any,
        *,
        requests: int = 0,
        input_tokens: int = 0,
        output_tokens: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._storage = storage
        self._own = MemoryStorage()
        self._clock = clock
        self._limits = {
            kind: limit
            for kind, limit in zip(KINDS, (requests, input_tokens, output_tokens), strict=True)
            if limit
        }
        self._lock = threading.Lock()
        self._estimates: dict[str, int] = {}
        self._own_until = 0.0
        self._silent_until = 0.0

    @property
    def active(self) -> bool:
        """Whether there is any limit."""
        return bool(self._limits)

    def admit(self, client: str, request_id: str, estimate: Callable[[], int]) -> dict[str, str]:
        """Count a request of ``client`` and return the headers that say what is left.

        ``estimate`` returns its input tokens, as far as they can be known before. Raises
        `ApiError` 429 when a limit is used up.
        """
        costs = {"requests": 1, "input-tokens": 0, "output-tokens": 0}
        if "input-tokens" in self._limits:
            # More than a whole minute's tokens would never be let in.
            costs["input-tokens"] = min(estimate(), self._limits["input-tokens"])
        standings: dict[str, Standing] = {}
        for kind, limit in self._limits.items():
            needed = max(1, costs[kind])
            wait, standings[kind] = self._standing(client, kind, limit, needed)
            if wait > 0:
                seconds = math.ceil(wait)
                raise LimitReached(
                    f"This request would exceed your rate limit of {limit:,} {_WORDS[kind]} per "
                    f"minute. Try again in {seconds} seconds.",
                    seconds,
                    _headers({**self._standings(client), kind: standings[kind]}),
                )
        for kind in self._limits:
            if costs[kind]:
                self._add(client, kind, costs[kind])
                before = standings[kind]
                left = max(0, before.remaining - costs[kind])
                standings[kind] = Standing(before.limit, left, before.reset)
        if "input-tokens" in self._limits:
            with self._lock:
                self._estimates[request_id] = costs["input-tokens"]
        return _headers(standings)

    def started(self, record: RequestRecord) -> None:
        """Do nothing: `admit` has counted it."""

    def finished(self, record: RequestRecord, fields: Mapping[str, Any]) -> None:
        """Count the tokens that the request really took."""
        if not self._limits:
            return
        with self._lock:
            estimate = self._estimates.pop(record.request_id, None)
        if estimate is not None:
            took = (fields["input_tokens"] or 0) + (fields["cache_read_input_tokens"] or 0)
            if took != estimate:
                self._add(record.client, "input-tokens", took - estimate)
        if "output-tokens" in self._limits and fields["output_tokens"]:
            self._add(record.client, "output-tokens", fields["output_tokens"])

    def _standings(self, client: str) -> dict[str, Standing]:
        return {
            kind: self._standing(client, kind, limit, 1)[1] for kind, limit in self._limits.items()
        }

    def _standing(self, client: str, kind: str, limit: int, cost: int) -> tuple[float, Standing]:
        """Return the seconds until ``cost`` is there, and how the limit stands."""
        key = f"{kind}/{client}"
        before, fades_in, current, ends_in = self._try(
            lambda storage: storage.get_sliding_window(key, MINUTE)
        )
        # What counts of the minute before fades away until this one ends.
        left_of_minute = (fades_in if before else ends_in - MINUTE) or MINUTE
        used = before * fades_in / MINUTE + current
        now = self._clock()
        full_again = left_of_minute + MINUTE if current > 0 else fades_in if before > 0 else 0.0
        standing = Standing(limit, max(0, math.floor(limit - used)), now + full_again)
        room = limit - cost
        if used <= room:
            return 0.0, standing
        if current <= room:
            return fades_in - (room - current) * MINUTE / before, standing
        return left_of_minute + MINUTE * (1 - room / current), standing

    def _add(self, client: str, kind: str, amount: int) -> None:
        key = f"{kind}/{client}"
        self._try(
            lambda storage: storage.acquire_sliding_window_entry(key, NO_LIMIT, MINUTE, amount)
        )

    def _try(self, work: Callable[[Any], T]) -> T:
        now = time.monotonic()
        if now >= self._own_until:
            try:
                return work(self._storage)
            except self._storage.base_exceptions as error:
                self._own_until = now + PAUSE
                if now >= self._silent_until:
                    self._silent_until = now + QUIET
                    log.warning(
                        "clients' limits are counted by this worker alone: %s", type(error).__name__
                    )
        return work(self._own)


class LimitReached(ApiError):
    """A client has used up what it may in a minute."""

    def __init__(self, message: str, seconds: int, headers: Mapping[str, str]) -> None:
        super().__init__(429, message, retry_after=float(seconds))
        self.headers = headers


def _headers(standings: Mapping[str, Standing]) -> dict[str, str]:
    headers: dict[str, str] = {}
    tokens = [one for kind, one in standings.items() if kind.endswith("-tokens")]
    named = dict(standings)
    if tokens:
        # The one of the token limits that ends first.
        named["tokens"] = min(tokens, key=lambda one: one.remaining / one.limit)
    for kind, one in named.items():
        reset = datetime.fromtimestamp(math.ceil(one.reset), UTC)
        prefix = f"anthropic-ratelimit-{kind}-"
        headers[prefix + "limit"] = str(one.limit)
        headers[prefix + "remaining"] = str(one.remaining)
        headers[prefix + "reset"] = reset.isoformat().replace("+00:00", "Z")
    return headers
