"""What the pool keeps in the state store: its records, shared and across restarts."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote

from app.pool.account import Account, Digests
from app.pool.cooling import Cooldown
from app.pool.forecast import Limit
from app.pool.marks import Mark
from app.pool.records import Ejection, Records
from app.pool.state import StateStore, guarded

log = logging.getLogger("gateway.pool")

ALL = "pool/"
COOLDOWNS = "pool/cooldown/"
MARKS = "pool/mark/"
LIMITS = "pool/limit/"
EJECTIONS = "pool/ejection/"
MARK_TTL = 365 * 86_400.0
LIMIT_TTL = 7 * 86_400.0
LIFTED_TTL = 86_400.0
"""Seconds that the lifting of a cooldown is remembered, for processes that sync late."""

Entry = tuple[str, dict[str, Any], float]


@dataclass
class _Found:
    cooldowns: list[Cooldown] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)
    ejections: list[Ejection] = field(default_factory=list)

    def records(self) -> Records:
        return Records(self.cooldowns, self.marks, self.limits, self.ejections)


class Ledger:
    """Writes and reads the pool's records; a failing store costs nothing but the sharing.

    Records carry the digest of what they hold for: a cooldown counts only for the credential
    that ran out, a verdict only for the definition that was judged.
    """

    def __init__(self, store: StateStore) -> None:
        self._store = guarded(store)
        self._seen: set[str] = set()

    @property
    def failing(self) -> bool:
        """Whether the store did not answer when it was last asked."""
        return self._store.failing

    def write(self, account: Account, digests: Digests, now: float, records: Records) -> bool:
        """Store ``records`` of ``account``, and tell the other processes.

        Returns whether they are in the store; if not, they will be once it is back.
        """
        keys = []
        for key, record, ttl in _entries(account.name, digests, now, records):
            self._store.put_many({key: json.dumps(record)}, ttl)
            keys.append(key)
        # With nothing to write, it is what could not be read that may be missing.
        stored = not (self._store.owes(keys) if keys else self._store.failing)
        self._store.announce()
        return stored

    def restore(self, account: Account, digests: Digests, now: float, records: Records) -> None:
        """Store those of ``records`` again that the last `read` did not find."""
        for key, record, ttl in _entries(account.name, digests, now, records):
            # A store that fails takes its time with every call: no more than one then.
            if key not in self._seen and not self._store.failing:
                self._store.put_many({key: json.dumps(record)}, ttl)

    def read(self, digests: dict[str, Digests]) -> dict[str, Records]:
        """Return the stored records of the accounts named in ``digests``, by account name."""
        self._store.recover()
        texts = self._store.scan(ALL)
        self._seen = set(texts)
        found: dict[str, _Found] = {}
        for key, text in texts.items():
            try:
                record: dict[str, Any] = json.loads(text)
                name = record.pop("account")
                if name not in digests:
                    continue
                of = record.pop("of", None)
                into = found.setdefault(name, _Found())
                if key.startswith(MARKS):
                    into.marks.append(Mark(**record))
                elif of != digests[name].credential:
                    continue
                elif key.startswith(COOLDOWNS):
                    into.cooldowns.append(Cooldown(**record))
                elif key.startswith(LIMITS):
                    into.limits.append(Limit(**record))
                elif key.startswith(EJECTIONS):
                    into.ejections.append(Ejection(**record))
            except (ValueError, TypeError, KeyError, AttributeError):
                log.debug("the state store's record %s is of another version", key)
        return {name: records.records() for name, records in found.items()}


def _entries(name: str, digests: Digests, now: float, records: Records) -> Iterator[Entry]:
    """Yield key, record and seconds to keep it."""
    of = {"account": name, "of": digests.credential}
    for cooldown in records.cooldowns:
        ttl = cooldown.until - now if cooldown.until else LIFTED_TTL
        key = _key(COOLDOWNS, name, cooldown.project, cooldown.model)
        yield key, asdict(cooldown) | of, max(1.0, ttl)
    for mark in records.marks:
        yield _key(MARKS, name, mark.project), asdict(mark) | {"account": name}, MARK_TTL
    for limit in records.limits:
        key = _key(LIMITS, name, limit.project, limit.model, limit.window, limit.metric)
        yield key, asdict(limit) | of, LIMIT_TTL
    for ejection in records.ejections:
        ttl = ejection.until - now if ejection.until else LIFTED_TTL
        yield _key(EJECTIONS, name, ejection.model), asdict(ejection) | of, max(1.0, ttl)


def _key(prefix: str, *parts: str) -> str:
    return prefix + "/".join(quote(part, safe="*") for part in parts)
