"""The pool: leases on accounts, and what their use teaches about them."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

from app.pool.account import Account, account_digests
from app.pool.cooldown import Exhausted
from app.pool.cooling import ANY, PACIFIC
from app.pool.errors import AllBusy, AllCooling, AllTried, NoneUsable, PoolError
from app.pool.lease import Lease, Wanted
from app.pool.ledger import Ledger
from app.pool.marks import Mark
from app.pool.member import Member, Standing
from app.pool.rotation import Rotation, RotationName
from app.pool.snapshot import AccountView
from app.pool.state import MemoryStore, StateStore
from app.pool.waiting import Busy, Cancelled, CancelToken, WaitingRoom

__all__ = [
    "AllBusy",
    "AllCooling",
    "AllTried",
    "CancelToken",
    "Cancelled",
    "ClientPool",
    "Lease",
    "NoneUsable",
    "PoolError",
    "Wanted",
]

log = logging.getLogger("gateway.pool")


class ClientPool:
    """The accounts, who uses them, and which of them can be used; every method is thread-safe.

    Each account has a lock of its own, held for bookkeeping only. ``store`` shares cooldowns and
    verdicts with other processes and keeps them over restarts; it is written when something runs
    out or breaks, never per request. ``clock`` gives epoch seconds.
    """

    def __init__(
        self,
        accounts: Iterable[Account] = (),
        *,
        rotation: RotationName = "round_robin",
        store: StateStore | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._rotation = Rotation(rotation)
        self._ledger = Ledger(store or MemoryStore())
        self._members: dict[str, Member] = {}
        self._left: dict[str, Member] = {}
        self._holders: dict[str, Member] = {}
        self._replacing = threading.Lock()
        self._room = WaitingRoom(self._serve, self.release)
        self.replace_accounts(accounts)

    # Leases

    def acquire(
        self, wanted: Wanted, *, timeout: float, cancel: CancelToken | None = None
    ) -> Lease:
        """Return a lease on an account for ``wanted``, to be given to `release` exactly once.

        Waits up to ``timeout`` seconds while there are accounts but no free slots, first come
        first served. Raises `AllCooling`, `AllTried` or `NoneUsable` as soon as waiting is of no
        use, `AllBusy` at the end of it, and `Cancelled` through ``cancel``.
        """
        if cancel and cancel.cancelled:
            raise Cancelled
        if not self._room.waiting:
            outcome = self._serve(wanted, False)
            if isinstance(outcome, Lease):
                return outcome
        return self._room.wait(wanted, timeout, cancel)

    def release(self, lease: Lease) -> None:
        """Give ``lease`` back; once more does nothing."""
        member = self._holders.pop(lease.token, None)
        if member is None:
            log.debug("lease %s on %s was given back before", lease.token, lease.account.name)
            return
        member.release(lease)
        self._changed()

    def succeeded(self, lease: Lease) -> None:
        """Note that the request on ``lease`` was answered; the lease stays out."""
        member = self._member_of(lease)
        if member:
            member.succeeded(lease)

    def failed(self, lease: Lease) -> None:
        """Note that the request on ``lease`` got no answer for no fault of its own.

        Five in a row eject the account for the model; one alone changes nothing.
        """
        member = self._member_of(lease)
        if member and member.failed(lease, self._clock()):
            log.warning("account %s: failing for %s, ejected", lease.account.name, lease.model)
            self._changed()

    def cool_down(self, lease: Lease, exhausted: Exhausted) -> None:
        """Leave alone what ``exhausted`` says, until the instant it implies."""
        member = self._member_of(lease)
        now = self._clock()
        added = member.cool_down(lease, exhausted, now) if member else None
        if not member or not added:
            return
        log.warning(
            "account %s: %s%s is out of quota until %s: %s",
            lease.account.name,
            "all models" if added.model == ANY else added.model,
            f" on {added.project}" if added.project not in ("", ANY) else "",
            datetime.fromtimestamp(added.until, PACIFIC).isoformat(timespec="seconds"),
            added.reason,
        )
        self._changed()
        self._ledger.write(member.account, member.digests, now, cooldowns=[added])

    # Verdicts

    def mark_unusable(self, account: Account, reason: str) -> None:
        """Use ``account`` no more, until its definition changes or `enable` is called."""
        self._mark(account, ANY, reason)

    def mark_project_unusable(self, account: Account, project: str, reason: str) -> None:
        """Use ``project`` of ``account`` no more, until the definition changes or `enable`."""
        self._mark(account, project, reason)

    def disable(self, name: str, reason: str = "disabled by an operator") -> None:
        """Use the account no more until `enable`; raises KeyError for an unknown name."""
        self._put_mark(self._members[name], Mark(ANY, "disabled", reason, self._clock(), ""))

    def enable(self, name: str) -> None:
        """Take back every verdict on the account; raises KeyError for an unknown name."""
        member = self._members[name]
        now = self._clock()
        projects = member.unmark() | {ANY}
        self._changed()
        marks = [Mark(project, "usable", "", now, "") for project in sorted(projects)]
        self._ledger.write(member.account, member.digests, now, marks=marks)

    def clear_cooldowns(self, name: str) -> None:
        """End the account's cooldowns and ejections; raises KeyError for an unknown name."""
        member = self._members[name]
        now = self._clock()
        ended = [replace(old, until=0.0, since=now) for old in member.lift_cooldowns(now)]
        self._changed()
        self._ledger.write(member.account, member.digests, now, cooldowns=ended)

    # Accounts

    def replace_accounts(self, accounts: Iterable[Account]) -> None:
        """Have exactly ``accounts`` from now on, in this order; leases under way go on.

        What is known of a name is kept as far as its definition did not change, its leases
        always count. Names must be unique. Reads credentials files (for changes).
        """
        with self._replacing:
            defined = [(account, account_digests(account)) for account in accounts]
            before, members = self._members, dict[str, Member]()
            for account, digests in defined:
                member = before.get(account.name) or self._left.get(account.name)
                if member:
                    member.define(account, digests)
                else:
                    member = Member(account, digests)
                members[account.name] = member
            gone = (self._left | before).items()
            self._left = {
                name: member for name, member in gone if name not in members and member.in_flight
            }
            self._members = members
        self.sync()

    def sync(self) -> None:
        """Learn what other processes stored, and store again what got lost there.

        Call it every few seconds where several processes share a store.
        """
        members = dict(self._members)
        now = self._clock()
        cooldowns, marks = self._ledger.read(
            {name: member.digests for name, member in members.items()}
        )
        for name, member in members.items():
            member.merge(cooldowns.get(name, []), marks.get(name, []), now)
            self._ledger.restore(member.account, member.digests, now, *member.records(now))
        self._changed()

    def accounts(self) -> list[Account]:
        """Return the accounts as configured, usable or not."""
        return [member.account for member in self._members.values()]

    def usable_accounts(self) -> list[Account]:
        """Return the accounts that can serve something, now or after a cooldown."""
        now = self._clock()
        return [member.account for member in self._members.values() if member.usable(None, now)]

    # Looking

    def any_usable(self) -> bool:
        """Tell whether an account is enabled and not marked unusable."""
        now = self._clock()
        return any(member.usable(None, now) for member in self._members.values())

    def usable_for(self, model: str) -> bool:
        """Tell whether an account can serve ``model``, now or after a cooldown."""
        now = self._clock()
        return any(member.usable(model, now) for member in self._members.values())

    def earliest_reset(self, model: str) -> float | None:
        """Return when the first account that cools for ``model`` is back, in epoch seconds.

        None when there is no need to wait for it, or no use: an account is ready, or none cools.
        """
        standings = self._standings(Wanted(model), self._clock())
        if any(standing.verdict == "ready" for standing in standings):
            return None
        resets = [standing.until for standing in standings if standing.verdict == "cooling"]
        return min(resets, default=None)

    def snapshot(self) -> list[AccountView]:
        """Return what is to be shown of every account, in the order of the configuration."""
        now = self._clock()
        return [member.view(now) for member in self._members.values()]

    @property
    def waiting(self) -> int:
        """How many requests wait for a slot."""
        return self._room.waiting

    # Choosing

    def _serve(self, wanted: Wanted, last: bool) -> Lease | Busy:
        """Return a lease if there is one to be had at once; raises `PoolError` if none will be.

        Accounts that failed too often, or failed this very request, are chosen only when there
        are no others (not when the others are merely busy), or on a waiter's last try.
        """
        now = self._clock()
        standings = self._standings(wanted, now)
        ready = [standing for standing in standings if standing.verdict == "ready"]
        if not ready:
            raise self._refusal(wanted, standings, now)
        tiers: dict[tuple[bool, bool], list[Standing]] = {}
        for standing in ready:
            tier = (standing.until > 0.0, standing.account.name in wanted.avoid)
            tiers.setdefault(tier, []).append(standing)
        for tier in sorted(tiers):
            lease = self._take(tiers[tier], wanted, now, even_ejected=tier[0])
            if lease:
                return lease
            if not last:
                break
        changes = [standing.until for standing in standings if standing.until]
        return Busy(min(changes, default=math.inf) - now)

    def _take(
        self, candidates: list[Standing], wanted: Wanted, now: float, *, even_ejected: bool
    ) -> Lease | None:
        free = [standing for standing in candidates if standing.free]
        while free:
            chosen = self._rotation.choose(free, wanted)
            lease = chosen.member.take(wanted, now, self.release, even_ejected=even_ejected)
            if lease:
                self._holders[lease.token] = chosen.member
                return lease
            free.remove(chosen)
        return None

    def _standings(self, wanted: Wanted, now: float) -> list[Standing]:
        return [member.standing(wanted, now) for member in self._members.values()]

    @staticmethod
    def _refusal(wanted: Wanted, standings: list[Standing], now: float) -> PoolError:
        resets = [standing.until for standing in standings if standing.verdict == "cooling"]
        if resets:
            return AllCooling(wanted.model, min(resets), min(resets) - now)
        if any(standing.verdict == "tried" for standing in standings):
            return AllTried(wanted.model)
        reasons = {standing.account.name: standing.reason for standing in standings}
        return NoneUsable(wanted.model, reasons)

    # Keeping

    def _mark(self, account: Account, project: str, reason: str) -> None:
        member = self._members.get(account.name)
        # A verdict on a definition that is gone says nothing about the present one.
        if member is None or member.account != account:
            return
        definition = member.digests.definition
        mark = Mark(project, "unusable", reason, self._clock(), definition)
        if self._put_mark(member, mark):
            where = f"account {account.name}"
            if project != ANY:
                where += f", project {project or '(its own)'}"
            log.error("%s: unusable until an operator acts: %s", where, reason)

    def _put_mark(self, member: Member, mark: Mark) -> bool:
        if not member.mark(mark):
            return False
        self._changed()
        self._ledger.write(member.account, member.digests, mark.at, marks=[mark])
        return True

    def _member_of(self, lease: Lease) -> Member | None:
        """Return who holds ``lease``, or held it before it was given back."""
        return self._holders.get(lease.token) or self._members.get(lease.account.name)

    def _changed(self) -> None:
        """Let the waiters profit from what changed."""
        if self._room.waiting:
            self._room.serve_all()
