"""One account in the pool: its slots, cooldowns, health and counters, under one lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Literal, NamedTuple

from app.pool.account import Account, Digests
from app.pool.cooldown import Exhausted
from app.pool.cooling import ANY, Cooldown, Cooldowns
from app.pool.forecast import Limit, Limits
from app.pool.health import Health
from app.pool.lease import Lease, Wanted
from app.pool.marks import Mark
from app.pool.records import Ejection, Records
from app.pool.seats import Pace, Seat, Spent
from app.pool.snapshot import AccountView, State

MOST_MODELS = 512
"""Models whose health is remembered per account: clients may name models at will."""


class Standing(NamedTuple):
    """How one account stands to one request, at one moment.

    ``ready`` has a ``project`` to use, and counts under ``paces``; ``cooling`` will at ``until``;
    ``tried`` was used up by the request itself; ``out`` can't serve, for ``reason``. A ready one
    with ``until`` is ejected until then.
    """

    member: Member
    account: Account
    verdict: Literal["ready", "cooling", "tried", "out"]
    project: str = ""
    until: float = 0.0
    paces: tuple[Pace, ...] = ()
    reason: str = ""

    @property
    def seat(self) -> Seat:
        """Return it as a candidate for a lease."""
        account = self.account
        return _seat(account.name, account.concurrency, account.weight, self.paces)


_seat = lru_cache(maxsize=4096)(Seat)
"""Each lease asks for all accounts' seats, which are the same until an account is changed."""


class Member:
    """All that is known of one account name; every method is thread-safe and never blocks long.

    It outlives changes of its account, so that leases of the old definition stay counted.
    """

    def __init__(self, account: Account, digests: Digests) -> None:
        self.lock = threading.Lock()
        self.account = account
        self.digests = digests
        self._leases: dict[str, Lease] = {}
        self._cooldowns = Cooldowns()
        self._health: dict[str, Health] = {}
        self._marks: dict[str, Mark] = {}
        self._limits = Limits()
        self._requests = self._succeeded = self._failures = self._refused = 0
        self._last_used: float | None = None

    # Choosing

    def standing(self, wanted: Wanted, now: float) -> Standing:
        """Return how the account stands to ``wanted`` at ``now`` (epoch seconds)."""
        with self.lock:
            return self._standing(wanted, now)

    def take(
        self,
        wanted: Wanted,
        token: str,
        now: float,
        give_back: Callable[[Lease], None],
        *,
        even_ejected: bool,
    ) -> Lease | None:
        """Return a lease on the seat taken, or None when things changed since it was chosen."""
        with self.lock:
            standing = self._standing(wanted, now)
            if standing.verdict != "ready" or (standing.until and not even_ejected):
                return None
            lease = Lease(self.account, standing.project, wanted.model, token, now, give_back)
            self._leases[token] = lease
            self._requests += 1
            self._last_used = now
            health = self._health.get(lease.model)
            if health:
                health.chosen(token, now)
            return lease

    def _standing(self, wanted: Wanted, now: float) -> Standing:
        account, model = self.account, wanted.model
        reason = self._barrier() or ("" if account.serves(model) else f"does not serve {model}")
        if reason:
            return Standing(self, account, "out", reason=reason)
        until = 0.0
        tried = False
        for project in account.quota_projects:
            mark = self._marks.get(project)
            if mark:
                reason = f"project {project or '(its own)'}: {mark.reason}"
                continue
            cooling = self._cooldowns.until(project, model, now)
            if cooling:
                until = min(until or cooling, cooling)
            elif (account.name, project) in wanted.tried:
                tried = True
            else:
                health = self._health.get(model)
                ejected = health.ejected_until(now) if health else 0.0
                paces = self._limits.paces(account.name, project, model, now)
                return Standing(self, account, "ready", project, ejected, paces)
        if until:
            return Standing(self, account, "cooling", until=until)
        if tried:
            return Standing(self, account, "tried")
        return Standing(self, account, "out", reason=reason)

    def _barrier(self) -> str:
        """Return why nothing can be sent on the account, "" when something can."""
        if self.account.disabled:
            return "disabled in its definition"
        mark = self._marks.get(ANY)
        return mark.reason if mark else ""

    # What became of a lease

    def release(self, lease: Lease) -> None:
        """Free the lease's slot."""
        with self.lock:
            self._leases.pop(lease.token, None)
            health = self._health.get(lease.model)
            if health:
                health.released(lease.token)

    def succeeded(self, lease: Lease, now: float) -> Ejection | None:
        """Note that the lease's request was answered: what failed in a row did so no longer.

        Returns the ejection that ends with it, None if there was none.
        """
        with self.lock:
            self._succeeded += 1
            if not self._concerns(lease):
                return None
            self._cooldowns.succeeded(lease.project, lease.model)
            health = self._health.pop(lease.model, None) if self._health else None
            ended = health and health.ejections
            return Ejection(lease.model, 0.0, 0, now) if ended else None

    def failed(self, lease: Lease, now: float) -> Ejection | None:
        """Note that the lease's request failed; returns the ejection if it causes one."""
        with self.lock:
            self._failures += 1
            if not self._concerns(lease):
                return None
            health = self._health.get(lease.model)
            if health is None:
                if len(self._health) >= MOST_MODELS:
                    del self._health[next(iter(self._health))]
                health = self._health[lease.model] = Health()
            if not health.failed(lease.token, now):
                return None
            return Ejection(lease.model, health.until, health.ejections, now)

    def cool_down(
        self, lease: Lease, exhausted: Exhausted, now: float
    ) -> tuple[Cooldown | None, Limit | None]:
        """Cool down what ran out; returns the cooldown if it is news, and the limit it names."""
        with self.lock:
            self._refused += 1
            if not self._concerns(lease):
                return None, None
            added = self._cooldowns.add(exhausted, lease.project, lease.model, lease.started, now)
            if added is None:
                return None, None
            limit = self._limits.learn(exhausted, lease.project, lease.model, added.until, now)
            return added, limit

    def confirm(self, limit: Limit, spent: int, now: float) -> Limit | None:
        """Keep to ``limit`` from now on if ``spent`` requests explain that Google refused."""
        with self.lock:
            return self._limits.confirm(limit, spent, now)

    def paces(self, now: float) -> list[Pace]:
        """Return every pace that requests on the account are counted under."""
        with self.lock:
            return self._limits.all_paces(self.account.name, now)

    def _concerns(self, lease: Lease) -> bool:
        """Tell whether what happened on ``lease`` says anything about the present credential."""
        return self.account is lease.account or self.account.same_credential(lease.account)

    # Marks

    def mark(self, mark: Mark) -> bool:
        """Put ``mark`` on the account; returns False when a mark is there already."""
        with self.lock:
            before = self._marks.get(mark.project)
            if before and before.state in ("disabled", mark.state):
                return False
            self._marks[mark.project] = mark
            return True

    def unmark(self) -> set[str]:
        """Take all marks off; returns their projects."""
        with self.lock:
            projects = set(self._marks)
            self._marks.clear()
            return projects

    def lift_cooldowns(self, now: float) -> Records:
        """End every cooldown and ejection; returns what tells the other processes."""
        with self.lock:
            cooldowns = [
                replace(ended, until=0.0, since=now) for ended in self._cooldowns.active(now)
            ]
            ejections = [
                Ejection(model, 0.0, 0, now)
                for model, health in self._health.items()
                if health.ejections
            ]
            self._cooldowns.clear()
            self._health.clear()
            return Records(cooldowns, ejections=ejections)

    # What others know, and what they should

    def merge(self, records: Records, now: float) -> None:
        """Take over what other processes learnt; a cooldown with ``until`` 0 lifts one."""
        cooldowns, marks = records.cooldowns, records.marks
        with self.lock:
            for limit in records.limits:
                self._limits.adopt(limit)
            for ejection in records.ejections:
                self._adopt(ejection, now)
            for cooldown in cooldowns:
                if cooldown.until:
                    self._cooldowns.adopt(cooldown, now)
                else:
                    self._cooldowns.lift(cooldown.project, cooldown.model, cooldown.since)
            for mark in marks:
                mine = self._marks.get(mark.project)
                if mine and mine.at > mark.at:
                    continue
                if mark.state == "usable":
                    self._marks.pop(mark.project, None)
                elif mark.state == "disabled" or mark.definition == self.digests.definition:
                    self._marks[mark.project] = mark

    def _adopt(self, ejection: Ejection, now: float) -> None:
        health = self._health.get(ejection.model)
        if not ejection.until:
            if health and health.since < ejection.at:
                del self._health[ejection.model]
        elif now < ejection.until and (health is None or health.until < ejection.until):
            health = self._health.setdefault(ejection.model, Health())
            health.ejected(ejection.until, ejection.in_a_row, ejection.at)

    def records(self, now: float) -> Records:
        """Return what outlives this process."""
        with self.lock:
            return Records(
                self._cooldowns.active(now), list(self._marks.values()), self._limits.records()
            )

    def define(self, account: Account, digests: Digests) -> None:
        """Go on under a new definition, which starts afresh as far as it is new."""
        with self.lock:
            before, self.account = self.digests, account
            self.digests = digests
            if before.credential != digests.credential:
                self._cooldowns.clear()
                self._limits.clear()
            if before.definition != digests.definition:
                self._health.clear()
                kept = [mark for mark in self._marks.values() if mark.state == "disabled"]
                self._marks = {mark.project: mark for mark in kept}

    # Showing

    @property
    def in_flight(self) -> int:
        """How many leases this process has out."""
        return len(self._leases)

    def usable(self, model: str | None, now: float) -> bool:
        """Tell whether it can serve ``model`` (None: anything), now or after a cooldown."""
        with self.lock:
            if self._barrier() or (model is not None and not self.account.serves(model)):
                return False
            return any(
                project not in self._marks
                and not (model and self._cooldowns.without_quota(project, model, now))
                for project in self.account.quota_projects
            )

    def view(self, now: float, in_flight: int, spent: Mapping[str, Spent]) -> AccountView:
        """Return all that is to be shown of it, with what only the book of leases knows."""
        with self.lock:
            account = self.account
            cooldowns = self._cooldowns.active(now)
            ejections = [
                Ejection(model, health.until, health.ejections, health.since)
                for model, health in self._health.items()
                if health.ejected_until(now)
            ]
            state, reasons = self._state(cooldowns, ejections)
            return AccountView(
                name=account.name,
                tag=account.tag,
                kind=account.kind,
                state=state,
                reasons=tuple(reasons),
                projects=account.projects,
                models=account.models,
                priority=account.priority,
                weight=account.weight,
                concurrency=account.concurrency,
                in_flight=in_flight,
                requests=self._requests,
                succeeded=self._succeeded,
                failures=self._failures,
                refused=self._refused,
                last_used=self._last_used,
                cooldowns=tuple(cooldowns),
                ejections=tuple(ejections),
                forecasts=tuple(self._limits.report(account.name, spent, now)),
            )

    def _state(
        self, cooldowns: list[Cooldown], ejections: list[Ejection]
    ) -> tuple[State, list[str]]:
        mark = self._marks.get(ANY)
        if self.account.disabled or (mark and mark.state == "disabled"):
            return "disabled", [self._barrier()]
        if mark:
            return "unusable", [mark.reason]
        reasons = [
            f"project {mark.project or '(its own)'}: {mark.reason}" for mark in self._marks.values()
        ]
        if all(project in self._marks for project in self.account.quota_projects):
            return "unusable", reasons
        reasons += [_described(cooldown) for cooldown in cooldowns]
        reasons += [f"{ejection.model}: failed too often in a row" for ejection in ejections]
        return "cooling" if cooldowns else "ejected" if ejections else "ready", reasons


def _described(cooldown: Cooldown) -> str:
    model = "all models" if cooldown.model == ANY else cooldown.model
    project = f" on {cooldown.project}" if cooldown.project not in ("", ANY) else ""
    return f"{model}{project}: {cooldown.reason}"
