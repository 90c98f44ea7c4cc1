"""What the pool keeps in the state store: cooldowns and marks, shared and across restarts."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from app.pool.account import Account, Digests
from app.pool.cooling import Cooldown
from app.pool.marks import Mark
from app.pool.state import StateStore, guarded

log = logging.getLogger("gateway.pool")

COOLDOWNS = "pool/cooldown/"
MARKS = "pool/mark/"
MARK_TTL = 365 * 86_400.0
LIFTED_TTL = 86_400.0
"""Seconds that the lifting of a cooldown is remembered, for processes that sync late."""


class Ledger:
    """Writes and reads the pool's records; a failing store costs nothing but the sharing.

    Records carry the digest of what they hold for: a cooldown counts only for the credential
    that ran out, a verdict only for the definition that was judged.
    """

    def __init__(self, store: StateStore) -> None:
        self._store = guarded(store)
        self._seen: set[str] = set()

    def write(
        self,
        account: Account,
        digests: Digests,
        now: float,
        *,
        cooldowns: Iterable[Cooldown] = (),
        marks: Iterable[Mark] = (),
    ) -> None:
        """Store records of ``account``."""
        for cooldown in cooldowns:
            key = _key(COOLDOWNS, account.name, cooldown.project, cooldown.model)
            record = asdict(cooldown) | {"account": account.name, "of": digests.credential}
            ttl = cooldown.until - now if cooldown.until else LIFTED_TTL
            self._store.put_many({key: json.dumps(record)}, max(1.0, ttl))
        for mark in marks:
            record = asdict(mark) | {"account": account.name}
            key = _key(MARKS, account.name, mark.project)
            self._store.put_many({key: json.dumps(record)}, MARK_TTL)

    def restore(
        self,
        account: Account,
        digests: Digests,
        now: float,
        cooldowns: Iterable[Cooldown],
        marks: Iterable[Mark],
    ) -> None:
        """Store those records of ``account`` again that the last `read` did not find."""
        for cooldown in cooldowns:
            key = _key(COOLDOWNS, account.name, cooldown.project, cooldown.model)
            # A store that fails takes its time with every call: no more than one then.
            if key not in self._seen and not self._store.failing:
                self.write(account, digests, now, cooldowns=[cooldown])
        for mark in marks:
            key = _key(MARKS, account.name, mark.project)
            if key not in self._seen and not self._store.failing:
                self.write(account, digests, now, marks=[mark])

    def read(
        self, digests: dict[str, Digests]
    ) -> tuple[dict[str, list[Cooldown]], dict[str, list[Mark]]]:
        """Return the stored records of the accounts named in ``digests``, by account name."""
        cooldowns: dict[str, list[Cooldown]] = {}
        marks: dict[str, list[Mark]] = {}
        found = self._store.scan(COOLDOWNS) | self._store.scan(MARKS)
        self._seen = set(found)
        for key, text in found.items():
            try:
                record: dict[str, Any] = json.loads(text)
                name = record.pop("account")
                if name not in digests:
                    continue
                if key.startswith(MARKS):
                    marks.setdefault(name, []).append(Mark(**record))
                elif record.pop("of") == digests[name].credential:
                    cooldowns.setdefault(name, []).append(Cooldown(**record))
            except (ValueError, TypeError, KeyError, AttributeError):
                log.debug("the state store's record %s is of another version", key)
        return cooldowns, marks


def _key(prefix: str, *parts: str) -> str:
    return prefix + "/".join(quote(part, safe="*") for part in parts)
