"""The book of leases in memory: of one process, and the model that the other books follow."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from itertools import takewhile

from app.pool.seats import Full, Pace, Plan, Seat, Spent, Taken, choose
from app.pool.state.leases import LEASE_TTL, YOUNG, Held

MOST_PACES = 10_000
MOST_CURSORS = 256
"""Models with a turn of their own; the one that was used longest ago starts again."""


@dataclass
class _Holder:
    expires: float
    leases: dict[str, str] = field(default_factory=dict)
    """Token → account."""
    waits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Token → accounts waited for."""


class LeaseTable:
    """All that a book knows. Several `MemoryLeases` on one table are several processes."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holders: dict[str, _Holder] = {}
        self.seats: dict[str, dict[str, float]] = {}
        """Account → token → taken at."""
        self.queues: dict[str, dict[str, float]] = {}
        """Account → token → waiting since."""
        self.paces: dict[str, dict[str, float]] = {}
        """Pace → token → counted at; in the order of time."""
        self.credits: OrderedDict[str, dict[str, int]] = OrderedDict()
        self.listeners: list[Callable[[], None]] = []


class MemoryLeases:
    """One holder's view of a table; ``clock`` gives the store's epoch seconds."""

    def __init__(
        self,
        table: LeaseTable | None = None,
        holder: str = "me",
        *,
        ttl: float = LEASE_TTL,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._table = table or LeaseTable()
        self._holder = holder
        self._ttl = ttl
        self._clock = clock
        self._known = False

    def now(self) -> float:
        """Return the store's time."""
        return self._clock()

    def take(
        self, plan: Plan, token: str, since: float | None, *, hurry: bool = True
    ) -> str | Full:
        """Take a seat; see `LeaseBook.take`."""
        table = self._table
        with table.lock:
            now = self._clock()
            self._bury(now)
            me = self._alive(now)
            if token in me.leases:  # asked twice: the first answer was lost
                return me.leases[token]
            seats = plan.seats()
            taken = {seat.account: self._taken(seat, token, since, now) for seat in seats}
            chosen = choose(plan, taken, self._credit(plan.cursor))
            if isinstance(chosen, Full):
                if since is not None:
                    self._unqueue(me, token)
                    me.waits[token] = tuple(seat.account for seat in seats)
                    for seat in seats:
                        table.queues.setdefault(seat.account, {})[token] = since
                return chosen
            me.leases[token] = chosen.account
            table.seats.setdefault(chosen.account, {})[token] = now
            for pace in chosen.paces:
                self._count(pace, token, now)
            rest = self._unqueue(me, token)
        if rest:
            self._ring()
        return chosen.account

    def note(self, token: str, account: str) -> None:
        """Count a lease that was taken elsewhere."""
        with self._table.lock:
            now = self._clock()
            self._alive(now).leases[token] = account
            self._table.seats.setdefault(account, {})[token] = now

    def give_back(self, *seats: tuple[str, str]) -> None:
        """Free the seats; see `LeaseBook.give_back`."""
        table = self._table
        waited_for = False
        with table.lock:
            me = table.holders.get(self._holder)
            for token, account in seats:
                if me:
                    me.leases.pop(token, None)
                    waited_for = self._unqueue(me, token) or waited_for
                _drop(table.seats, account, token)
                waited_for = waited_for or account in table.queues
        if waited_for:
            self._ring()

    def refund(self, token: str, paces: Iterable[str]) -> None:
        """Count the request no more; see `LeaseBook.refund`."""
        with self._table.lock:
            for pace in paces:
                _drop(self._table.paces, pace, token)

    def leave(self, token: str) -> None:
        """Wait no longer."""
        with self._table.lock:
            me = self._table.holders.get(self._holder)
            rest = me is not None and self._unqueue(me, token)
        if rest:
            self._ring()

    def renew(
        self, held: Iterable[Held], waiting: Iterable[str] = (), *, forced: bool = False
    ) -> list[str]:
        """Show what this holder holds; see `LeaseBook.renew`."""
        table = self._table
        lost = []
        freed = False
        with table.lock:
            now = self._clock()
            self._bury(now)
            forced = forced or (self._known and not table.holders and not table.seats)
            me = self._alive(now)
            mine = {lease.token: lease for lease in held}
            for lease in mine.values():
                if lease.token in me.leases:
                    continue
                seats = table.seats.setdefault(lease.account, {})
                if forced or len(seats) < lease.concurrency:
                    me.leases[lease.token] = lease.account
                    seats[lease.token] = now
                else:
                    lost.append(lease.token)
            for token, account in list(me.leases.items()):
                if token not in mine and table.seats[account][token] <= now - YOUNG:
                    del me.leases[token]
                    _drop(table.seats, account, token)
                    freed = freed or account in table.queues
            freed = self._end_waits(me, mine.keys(), set(waiting), now) or freed
        if freed:
            self._ring()
        return lost

    def spent(self, paces: Iterable[Pace]) -> dict[str, Spent]:
        """Return what each pace counts at present; see `LeaseBook.spent`."""
        with self._table.lock:
            now = self._clock()
            counted = {pace.key: self._times(pace, now) for pace in paces}
        return {key: Spent(len(times), times[0]) for key, times in counted.items() if times}

    def in_flight(self) -> dict[str, int]:
        """Return how many leases are out on each account."""
        with self._table.lock:
            self._bury(self._clock())
            return {account: len(seats) for account, seats in self._table.seats.items() if seats}

    def end(self) -> None:
        """Free whatever this holder has."""
        with self._table.lock:
            self._forget(self._holder)
        self._ring()

    def on_freed(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called when a seat may be free."""
        self._table.listeners.append(wake)

    def _ring(self) -> None:
        for wake in self._table.listeners:
            wake()

    def _alive(self, now: float) -> _Holder:
        me = self._table.holders.get(self._holder)
        if me is None:
            me = self._table.holders[self._holder] = _Holder(0.0)
        me.expires = now + self._ttl
        self._known = True
        return me

    def _bury(self, now: float) -> None:
        for name in [name for name, held in self._table.holders.items() if held.expires <= now]:
            self._forget(name)

    def _forget(self, name: str) -> None:
        holder = self._table.holders.pop(name, None)
        if holder:
            for token, account in holder.leases.items():
                _drop(self._table.seats, account, token)
            for token in list(holder.waits):
                self._unqueue(holder, token)

    def _taken(self, seat: Seat, token: str, since: float | None, now: float) -> Taken:
        table = self._table
        queue = table.queues.get(seat.account)
        ahead = 0
        if queue:
            mine = (since, token) if since is not None else None
            ahead = sum(
                other != token and (mine is None or (began, other) < mine)
                for other, began in queue.items()
            )
        spent = tuple(self._times(pace, now) if pace.limit else [] for pace in seat.paces)
        return Taken(len(table.seats.get(seat.account, ())), ahead, spent)

    def _times(self, pace: Pace, now: float) -> list[float]:
        """Return when the requests that count were made, and drop those that do no longer."""
        counted = self._table.paces.get(pace.key)
        if not counted:
            return []
        oldest = now - pace.window
        for token in list(takewhile(lambda token: counted[token] <= oldest, counted)):
            _drop(self._table.paces, pace.key, token)
        return list(counted.values())

    def _count(self, pace: Pace, token: str, now: float) -> None:
        paces = self._table.paces
        if pace.key not in paces and len(paces) >= MOST_PACES:
            del paces[next(iter(paces))]  # yesterday's
        paces.setdefault(pace.key, {})[token] = now
        self._times(pace, now)

    def _credit(self, cursor: str) -> dict[str, int]:
        turns = self._table.credits
        credit = turns.setdefault(cursor, {})
        turns.move_to_end(cursor)
        if len(turns) > MOST_CURSORS:
            turns.popitem(last=False)
        return credit

    def _end_waits(
        self, me: _Holder, held: Collection[str], waiting: Collection[str], now: float
    ) -> bool:
        """End the waits that nobody waits any more; returns whether others may profit."""
        others = False
        for token, accounts in list(me.waits.items()):
            since = min((self._table.queues[account][token] for account in accounts), default=0.0)
            if token in held or (token not in waiting and since <= now - YOUNG):
                others = self._unqueue(me, token) or others
        return others

    def _unqueue(self, holder: _Holder, token: str) -> bool:
        """End the wait of ``token``; returns whether others wait for the same accounts."""
        others = False
        for account in holder.waits.pop(token, ()):
            _drop(self._table.queues, account, token)
            others = others or account in self._table.queues
        return others


def _drop(tables: dict[str, dict[str, float]], key: str, token: str) -> None:
    entries = tables.get(key)
    if entries and entries.pop(token, None) is not None and not entries:
        del tables[key]
