"""Slows down who guesses at the admin key, in all workers together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

from app.pool.state import StateStore

WINDOW = 60.0
"""Seconds that a wrong key is remembered."""
PER_ADDRESS = 8
TOGETHER = 40
"""Wrong keys of all addresses within the window: who has many addresses gains nothing."""
KNOWN_FOR = 86_400.0
"""Seconds that an address is known for by the right key: others' guesses don't shut it out."""


class Throttle:
    """Counts wrong keys per address; a handful may slip by when workers count at once."""

    def __init__(self, store: StateStore, clock: Callable[[], float] | None = None) -> None:
        self._store = store
        self._clock = clock or store.now

    def wait(self, address: str) -> float:
        """Return the seconds until ``address`` may show a key again, 0.0 when it may now."""
        now = self._clock()
        key, everybody, known = _key(address), _key(""), _known(address)
        found = self._store.get_many([key, everybody, known])
        limits = {key: PER_ADDRESS} if known in found else {key: PER_ADDRESS, everybody: TOGETHER}
        waits = [0.0]
        for name, most in limits.items():
            wrong = _within(found.get(name, ""), now)
            if len(wrong) >= most:
                waits.append(wrong[-most] + WINDOW - now)
        return max(waits)

    def wrong(self, address: str) -> None:
        """Note that ``address`` has shown a wrong key."""
        now = self._clock()
        keys = [_key(address), _key("")]
        found = self._store.get_many(keys)
        noted = {
            key: json.dumps([*_within(found.get(key, ""), now), now][-TOGETHER:]) for key in keys
        }
        self._store.put_many(noted, WINDOW)

    def right(self, address: str) -> None:
        """Note that ``address`` has shown the right key."""
        now = self._clock()
        known = _known(address)
        try:
            since = now - float(self._store.get_many([known]).get(known, "-inf"))
        except ValueError:
            since = KNOWN_FOR
        if since > KNOWN_FOR / 2:  # a scraper comes every few seconds
            self._store.put_many({known: str(now)}, KNOWN_FOR)


def _key(address: str) -> str:
    return f"admin-wrong-key/{_digest(address)}"


def _known(address: str) -> str:
    return f"admin-right-key/{_digest(address)}"


def _digest(address: str) -> str:
    # Whose address it was is nobody's business later on.
    return hashlib.sha256(address.encode()).hexdigest()[:16]


def _within(text: str, now: float) -> list[float]:
    try:
        times = json.loads(text) if text else []
    except ValueError:
        return []
    return [at for at in times if now - WINDOW < at <= now]
