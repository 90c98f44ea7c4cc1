"""The pool: leases on accounts, and what their use teaches about them."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from app.pool.account import Account, account_digests
from app.pool.cooldown import Exhausted
from app.pool.cooling import ANY, PACIFIC, next_midnight
from app.pool.errors import AllBusy, AllCooling, AllTried, NoneUsable, PoolError
from app.pool.forecast import Limit
from app.pool.lease import Lease, Wanted
from app.pool.leasing import Leasing
from app.pool.ledger import Ledger
from app.pool.marks import Mark
from app.pool.member import Member, Standing
from app.pool.records import Records
from app.pool.rotation import Rotation, RotationName
from app.pool.seats import Full, Pace
from app.pool.snapshot import AccountView, in_wall_time
from app.pool.state import MemoryStore, StateStore
from app.pool.waiting import Ask, Busy, Cancelled, CancelToken, WaitingRoom

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


@dataclass(frozen=True, slots=True)
class _Out:
    """A lease that is out."""

    member: Member
    paces: tuple[Pace, ...]
    on_lost: Callable[[], None] | None


class ClientPool:
    """The accounts, who uses them, and which of them can be used; every method is thread-safe.

    Each account has a lock of its own, held for bookkeeping only. ``store`` shares leases,
    cooldowns and verdicts with other processes: it is asked once when a lease is taken and once
    when it is given back, and written when something runs out or breaks. ``clock`` gives epoch
    seconds, by default the store's; ``wall`` those by which days begin.
    """

    def __init__(
        self,
        accounts: Iterable[Account] = (),
        *,
        rotation: RotationName = "round_robin",
        store: StateStore | None = None,
        clock: Callable[[], float] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        store = store or MemoryStore()
        self._clock = clock or store.now
        self._wall = clock or wall
        self._store = store
        self._rotation = Rotation(rotation)
        self._ledger = Ledger(store)
        self.leasing = Leasing(store.leases, self._clock)
        self._members: dict[str, Member] = {}
        self._left: dict[str, Member] = {}
        self._out: dict[str, _Out] = {}
        self._replacing = threading.Lock()
        self._syncing = threading.Lock()
        self._room = WaitingRoom(
            self._serve,
            self.release,
            leave=self.leasing.leave,
            clock=self._clock,
            shared=self.leasing.shared,
        )
        self.replace_accounts(accounts)

    def listen(self) -> None:
        """From now on profit at once from what other processes free, and learn what they learn.

        For processes that serve; without it, `sync` does the same every time it is called.
        """
        self.leasing.on_freed(self._changed)
        self._store.on_news(self.sync)
        self.sync()  # it is by this that the others know whom to tell

    # Leases

    def acquire(
        self,
        wanted: Wanted,
        *,
        timeout: float,
        cancel: CancelToken | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> Lease:
        """Return a lease on an account for ``wanted``, to be given to `release` exactly once.

        Waits up to ``timeout`` seconds while there are accounts but no free slots, first come
        first served. Raises `AllCooling`, `AllTried` or `NoneUsable` as soon as waiting is of no
        use, `AllBusy` at the end of it, and `Cancelled` through ``cancel``. ``on_lost`` is called
        from another thread should the lease be lost: this process stood still for so long that
        another one has its seat.
        """
        if cancel and cancel.cancelled:
            raise Cancelled
        # No secret: it only has to be another one each time, in other processes, too.
        ask = Ask(wanted, f"{random.getrandbits(64):016x}", on_lost)
        # Whoever waits elsewhere is seen by the book of leases.
        if not self._room.waiting:
            outcome = self._serve(ask, False)
            if isinstance(outcome, Lease):
                return outcome
        return self._room.wait(ask, timeout, cancel)

    def hand_over(self, lease: Lease, on_lost: Callable[[], None]) -> None:
        """Have ``on_lost`` called from now on, should ``lease`` be lost: another one uses it."""
        out = self._out.get(lease.token)
        if out:
            self._out[lease.token] = replace(out, on_lost=on_lost)

    def release(self, lease: Lease) -> None:
        """Give ``lease`` back; once more does nothing."""
        out = self._out.pop(lease.token, None)
        if out is None:
            log.debug("lease %s on %s was given back before", lease.token, lease.account.name)
            return
        out.member.release(lease)
        self.leasing.give_back(lease.token, lease.account.name)
        self._changed()

    def succeeded(self, lease: Lease) -> None:
        """Note that the request on ``lease`` was answered; the lease stays out."""
        member = self._member_of(lease)
        ended = member.succeeded(lease, self._clock()) if member else None
        if member and ended:
            self._write(member, Records(ejections=[ended]))

    def failed(self, lease: Lease) -> None:
        """Note that the request on ``lease`` got no answer for no fault of its own.

        Five in a row eject the account for the model; one alone changes nothing.
        """
        member = self._member_of(lease)
        ejection = member.failed(lease, self._clock()) if member else None
        if member and ejection:
            log.warning("account %s: failing for %s, ejected", lease.account.name, lease.model)
            self._changed()
            self._write(member, Records(ejections=[ejection]))

    def cool_down(self, lease: Lease, exhausted: Exhausted) -> None:
        """Leave alone what ``exhausted`` says, until the instant it implies."""
        member = self._member_of(lease)
        if member is None:
            return
        now, wall = self._clock(), self._wall()
        out = self._out.get(lease.token)
        if out and out.paces:
            self.leasing.refund(lease.token, [pace.key for pace in out.paces])
        added, limit = member.cool_down(lease, _in_time_of(exhausted, now, wall), now)
        if not added:
            return
        log.warning(
            "account %s: %s%s is out of quota until %s: %s",
            lease.account.name,
            "all models" if added.model == ANY else added.model,
            f" on {added.project}" if added.project not in ("", ANY) else "",
            datetime.fromtimestamp(added.until + wall - now, PACIFIC).isoformat(timespec="seconds"),
            added.reason,
        )
        self._changed()
        if limit:
            limit = self._confirmed(member, limit, now)
        self._write(member, Records(cooldowns=[added], limits=[limit] if limit else []))

    # Verdicts

    def mark_unusable(self, account: Account, reason: str) -> None:
        """Use ``account`` no more, until its definition changes or `enable` is called."""
        self._mark(account, ANY, reason)

    def mark_project_unusable(self, account: Account, project: str, reason: str) -> None:
        """Use ``project`` of ``account`` no more, until the definition changes or `enable`."""
        self._mark(account, project, reason)

    # What an operator says counts here at once. Each returns whether the store has it, too; if
    # not, it is stored when the store is back, unless this process ends before.

    def disable(self, name: str, reason: str = "disabled by an operator") -> bool:
        """Use the account no more until `enable`; raises KeyError for an unknown name."""
        member = self._members[name]
        mark = Mark(ANY, "disabled", reason, self._clock(), "")
        if member.mark(mark):
            self._changed()
        # Also when it is here already: the store may have missed it.
        return self._write(member, Records(marks=[mark]))

    def enable(self, name: str) -> bool:
        """Take back every verdict on the account; raises KeyError for an unknown name."""
        member = self._members[name]
        now = self._clock()
        projects = member.unmark() | {ANY}
        self._changed()
        marks = [Mark(project, "usable", "", now, "") for project in sorted(projects)]
        return self._write(member, Records(marks=marks))

    def clear_cooldowns(self, name: str) -> bool:
        """End the account's cooldowns and ejections; raises KeyError for an unknown name."""
        member = self._members[name]
        now = self._clock()
        lifted = member.lift_cooldowns(now)
        self._changed()
        return self._write(member, lifted)

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
        """Learn what other processes stored, and show them what this one has and holds.

        Call it every few seconds: leases count only while their holder is heard of.
        """
        with self._syncing:
            for token in self.leasing.renew():
                self._lost(token)
            members = dict(self._members)
            now = self._clock()
            found = self._ledger.read({name: member.digests for name, member in members.items()})
            for name, member in members.items():
                member.merge(found.get(name, Records()), now)
                self._ledger.restore(member.account, member.digests, now, member.records(now))
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

    def resets_in(self, model: str) -> float | None:
        """Return the same in seconds from now: the pool's clock need not be anybody else's."""
        reset = self.earliest_reset(model)
        return None if reset is None else max(0.0, reset - self._clock())

    def snapshot(self) -> list[AccountView]:
        """Return what is to be shown of every account, in the order of the configuration."""
        now = self._clock()
        members = dict(self._members)
        in_flight = self.leasing.in_flight()
        spent = self.leasing.spent(
            [pace for member in members.values() for pace in member.paces(now)]
        )
        views = [
            member.view(now, in_flight.get(name, 0), spent) for name, member in members.items()
        ]
        return [in_wall_time(view, self._wall() - now) for view in views]

    @property
    def by_conversation(self) -> bool:
        """Whether the ``affinity_key`` of what is wanted matters."""
        return self._rotation.by_conversation

    @property
    def alone(self) -> bool:
        """Whether leases go by this process' own view, since the shared one does not answer."""
        return self.leasing.failing

    @property
    def uninformed(self) -> bool:
        """Whether the store, and so what other processes learn, could not be asked last time."""
        return self._ledger.failing

    @property
    def waiting(self) -> int:
        """How many requests wait for a slot."""
        return self._room.waiting

    # Choosing

    def _serve(self, ask: Ask, last: bool) -> Lease | Busy:
        """Return a lease if there is one to be had at once; raises `PoolError` if none will be.

        Accounts that failed too often, or failed this very request, are chosen only when there
        are no others (not when the others are merely busy), or on a waiter's last try.
        """
        wanted = ask.wanted
        now = self._clock()
        standings = self._standings(wanted, now)
        ready = [standing for standing in standings if standing.verdict == "ready"]
        if not ready:
            raise self._refusal(wanted, standings, now)
        tiers: dict[tuple[bool, bool], list[Standing]] = {}
        for standing in ready:
            tier = (standing.until > 0.0, standing.account.name in wanted.avoid)
            tiers.setdefault(tier, []).append(standing)
        changes = [standing.until for standing in standings if standing.until]
        busy = False
        for tier in sorted(tiers):
            outcome = self._take(tiers[tier], ask, now, even_ejected=tier[0])
            if isinstance(outcome, Lease):
                return outcome
            if outcome.paced_until is not None:
                changes.append(outcome.paced_until)
            busy = busy or outcome.busy
            if busy and not last:
                break
        if not busy:
            # Every one of them has used up a quota that Google has been found to keep to.
            raise AllCooling(wanted.model, min(changes), min(changes) - now)
        return Busy(min(changes, default=math.inf) - now)

    def _take(
        self, candidates: list[Standing], ask: Ask, now: float, *, even_ejected: bool
    ) -> Lease | Full:
        while candidates:
            pairs = [(standing.account, standing.seat) for standing in candidates]
            plan = self._rotation.plan(pairs, ask.wanted)
            name = self.leasing.take(plan, ask.token, ask.since)
            if isinstance(name, Full):
                return name
            chosen = next(one for one in candidates if one.account.name == name)
            lease = chosen.member.take(
                ask.wanted, ask.token, now, self.release, even_ejected=even_ejected
            )
            if lease:
                self._out[ask.token] = _Out(chosen.member, chosen.paces, ask.on_lost)
                return lease
            self.leasing.give_back(ask.token, name)
            candidates = [one for one in candidates if one is not chosen]
        return Full(busy=True)

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
        self._write(member, Records(marks=[mark]))
        return True

    def _write(self, member: Member, records: Records) -> bool:
        return self._ledger.write(member.account, member.digests, self._clock(), records)

    def _confirmed(self, member: Member, limit: Limit, now: float) -> Limit:
        """Return ``limit``, trusted if our own count explains the refusal."""
        pace = limit.pace(member.account.name, now)
        spent = self.leasing.spent([pace]).get(pace.key)
        return member.confirm(limit, spent.count if spent else 0, now) or limit

    def _lost(self, token: str) -> None:
        """End the use of a seat that another process has by now."""
        out = self._out.get(token)
        if out:
            log.warning(
                "account %s: a lease was lost, since this process stood still too long",
                out.member.account.name,
            )
            if out.on_lost:
                out.on_lost()

    def _member_of(self, lease: Lease) -> Member | None:
        """Return who holds ``lease``, or held it before it was given back."""
        out = self._out.get(lease.token)
        return out.member if out else self._members.get(lease.account.name)

    def _changed(self) -> None:
        """Let the waiters profit from what changed."""
        if self._room.waiting:
            self._room.serve_all()


def _in_time_of(exhausted: Exhausted, now: float, wall: float) -> Exhausted:
    """Return ``exhausted`` with the instants that calendars know in the pool's own time."""
    if exhausted.window == "day" and exhausted.until is None:
        exhausted = replace(exhausted, until=next_midnight(wall))
    if exhausted.until is None or abs(now - wall) < 1.0:  # nobody has set a clock
        return exhausted
    return replace(exhausted, until=exhausted.until + now - wall)
