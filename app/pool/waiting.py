"""Waiting for a slot: first come, first served, woken exactly, and abortable."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from app.pool.errors import AllBusy, PoolError
from app.pool.lease import Lease, Wanted


class Cancelled(Exception):
    """The wait was cancelled through its token."""


class CancelToken:
    """Ends one `ClientPool.acquire`, from any thread, at any time, also before it began."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wake: Callable[[], None] | None = None
        self.cancelled = False

    def cancel(self) -> None:
        """Make the wait end with `Cancelled` at once; idempotent."""
        with self._lock:
            self.cancelled = True
            wake = self._wake
        if wake:
            wake()

    def on_cancel(self, wake: Callable[[], None] | None) -> None:
        """Have ``wake`` called by `cancel`; None undoes it."""
        with self._lock:
            self._wake = wake


@dataclass(frozen=True)
class Busy:
    """There are accounts, but their slots are taken; ``changes_in`` seconds may bring more."""

    changes_in: float


LOOK = 1.0
"""Seconds after which a waiter looks for itself what other processes have freed: their bell may
fail, and one that was killed rings none."""


@dataclass
class Ask:
    """One request for a lease, which will have ``token``.

    ``since``: when its wait began, None before. ``on_lost``: see `ClientPool.acquire`.
    """

    wanted: Wanted
    token: str
    on_lost: Callable[[], None] | None = None
    since: float | None = None


@dataclass(eq=False)
class _Ticket:
    ask: Ask
    event: threading.Event = field(default_factory=threading.Event)
    changes_at: float = 0.0
    outcome: Lease | PoolError | None = None


class WaitingRoom:
    """The queue for slots.

    ``serve(ask, last)`` tries to get a lease and returns it or `Busy`, or raises `PoolError`
    when waiting is of no use; ``last`` is True on a waiter's last try, when it is not choosy.
    Whenever something changes in the waiters' favour, call `serve_all`. ``leave(token)`` tells
    those elsewhere (if the room is ``shared``) that a waiter is gone; ``clock`` is theirs too.

    A waiter joins the queue *before* its first try, and whoever frees a slot looks at the queue
    *after* freeing it: whichever comes first, one of them sees the other.
    """

    def __init__(
        self,
        serve: Callable[[Ask, bool], Lease | Busy],
        give_back: Callable[[Lease], None],
        *,
        leave: Callable[[str], None],
        clock: Callable[[], float],
        shared: bool,
    ) -> None:
        self._serve = serve
        self._give_back = give_back
        self._tell_gone = leave
        self._clock = clock
        self._shared = shared
        self._lock = threading.Lock()
        self._tickets: dict[_Ticket, None] = {}

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._tickets)

    def serve_all(self) -> None:
        """Serve whom it can, in the order of arrival."""
        with self._lock:
            # What one waiter could not get, a later one that may use the same accounts can't.
            in_vain: dict[Hashable, float] = {}
            for ticket in list(self._tickets):
                wanted = ticket.ask.wanted
                key = (wanted.model, wanted.tried, wanted.avoid)
                if key not in in_vain:
                    try:
                        outcome: Lease | Busy | PoolError = self._serve(ticket.ask, False)
                    except PoolError as error:
                        outcome = error
                    if not isinstance(outcome, Busy):
                        ticket.outcome = outcome
                        del self._tickets[ticket]
                        ticket.event.set()
                        continue
                    in_vain[key] = time.monotonic() + outcome.changes_in
                ticket.changes_at = in_vain[key]

    def wait(self, ask: Ask, timeout: float, cancel: CancelToken | None) -> Lease:
        """Return a lease within ``timeout`` seconds; raises `PoolError` or `Cancelled`."""
        began = time.monotonic()
        deadline = began + timeout
        ask.since = self._clock()
        ticket = _Ticket(ask)
        with self._lock:
            self._tickets[ticket] = None
        if cancel:
            cancel.on_cancel(ticket.event.set)
        try:
            self.serve_all()
            while not (cancel and cancel.cancelled):
                now = time.monotonic()
                if ticket.outcome or now >= deadline:
                    return self._end(ticket, now - began)
                until = min(deadline, ticket.changes_at)
                if self._shared:
                    until = min(until, now + LOOK)
                if not ticket.event.wait(until - now):
                    self.serve_all()
                ticket.event.clear()
            raise Cancelled  # noqa: TRY301 - to the clean-up, as any other end of the wait
        except BaseException:
            # Also when the thread itself is ended in its wait (a gevent timeout, say).
            self._leave(ticket)
            raise
        finally:
            if cancel:
                cancel.on_cancel(None)

    def _end(self, ticket: _Ticket, waited: float) -> Lease:
        """Return what the wait came to, after a last try if it came to nothing."""
        with self._lock:
            self._tickets.pop(ticket, None)
            outcome: Lease | Busy | PoolError = ticket.outcome or self._serve(ticket.ask, True)
        if isinstance(outcome, Lease):
            return outcome
        if isinstance(outcome, PoolError):
            raise outcome
        raise AllBusy(ticket.ask.wanted.model, waited)

    def _leave(self, ticket: _Ticket) -> None:
        with self._lock:
            self._tickets.pop(ticket, None)
        if isinstance(ticket.outcome, Lease):
            self._give_back(ticket.outcome)
        else:
            self._tell_gone(ticket.ask.token)
