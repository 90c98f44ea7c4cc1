"""Tokens that all workers share, so that one of them fetches and the others read."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from app.pool.leasing import Leasing
from app.pool.seats import Full, Plan, Seat
from app.pool.state import StateStore

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

PREFIX = "token-"
FETCH_TIME = 45.0
"""Seconds to wait for another worker's fetch, which has its own time-outs within that."""
FIRST_LOOK, LONGEST_LOOK = 0.05, 0.5
"""Seconds between two looks whether the other worker has its token."""

Fresh = tuple[str, float]
"""A token, and the seconds it is good for."""


class TokenShelf:
    """Access tokens in the state store, readable only for who has the credential itself.

    ``leasing`` says whose turn it is to fetch one.
    """

    def __init__(self, store: StateStore, leasing: Leasing) -> None:
        self._store = store.unhurried()
        self._leasing = leasing

    def get(self, secret: bytes, stale: str, fetch: Callable[[], Fresh]) -> Fresh:
        """Return a token of the credential ``secret`` other than ``stale`` (the last one known).

        It comes from the shelf, or from ``fetch``, which one worker at a time is in. Raises what
        ``fetch`` raises; a store that fails only means that this worker fetches.
        """
        if not self._leasing.shared:
            return fetch()
        from cryptography.fernet import Fernet  # noqa: PLC0415 - only who has tokens pays for it

        name = PREFIX + hmac.digest(secret, b"name", hashlib.sha256).hex()[:32]
        box = Fernet(base64.urlsafe_b64encode(hmac.digest(secret, b"key", hashlib.sha256)))
        found = self._read(name, box, stale)
        if found:
            return found
        with self._turn(name, lambda: self._read(name, box, stale)) as found:
            # Another worker may have put its token there between the look and the turn.
            fresh = found or self._read(name, box, stale)
            if fresh:
                return fresh
            token, lasts = fetch()
            text = json.dumps([token, self._store.now() + lasts])
            self._store.put_many({name: box.encrypt(text.encode()).decode()}, max(1.0, lasts))
            return token, lasts

    def _read(self, name: str, box: Fernet, stale: str) -> Fresh | None:
        from cryptography.fernet import InvalidToken  # noqa: PLC0415

        text = self._store.get_many([name]).get(name)
        if text is None:
            return None
        try:
            token, ends = json.loads(box.decrypt(text.encode()))
            lasts = float(ends) - self._store.now()
        except (InvalidToken, ValueError, TypeError):
            return None
        return (str(token), lasts) if lasts > 0 and token != stale else None

    @contextmanager
    def _turn(self, name: str, look: Callable[[], Fresh | None]) -> Iterator[Fresh | None]:
        """Hold the right to fetch; gives the token instead if another worker got it meanwhile."""
        turn = secrets.token_hex(8)
        plan = Plan(((Seat(name, 1),),), "in_order")
        deadline = time.monotonic() + FETCH_TIME
        pause = FIRST_LOOK
        found: Fresh | None = None
        mine = False
        try:
            while not found and time.monotonic() < deadline:
                mine = not isinstance(self._leasing.take(plan, turn, None, hurry=False), Full)
                if mine:
                    break
                time.sleep(pause)
                pause = min(LONGEST_LOOK, pause * 1.5)
                found = look()
            yield found
        finally:
            if mine:
                self._leasing.give_back(turn, name)
