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


@dataclass(eq=False)
class _Ticket:
    wanted: Wanted
    event: threading.Event = field(default_factory=threading.Event)
    changes_at: float = 0.0
    outcome: Lease | PoolError | None = None


class WaitingRoom:
    """The queue for slots.

    ``serve(wanted, last)`` tries to get a lease and returns it or `Busy`, or raises `PoolError`
    when waiting is of no use; ``last`` is True on a waiter's last try, when it is not choosy.
    Whenever something changes in the waiters' favour, call `serve_all`.

    A waiter joins the queue *before* its first try, and whoever frees a slot looks at the queue
    *after* freeing it: whichever comes first, one of them sees the other.
    """

    def __init__(
        self, serve: Callable[[Wanted, bool], Lease | Busy], give_back: Callable[[Lease], None]
    ) -> None:
        self._serve = serve
        self._give_back = give_back
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
                wanted = ticket.wanted
                key = (wanted.model, wanted.tried, wanted.avoid)
                if key not in in_vain:
                    try:
                        outcome: Lease | Busy | PoolError = self._serve(wanted, False)
                    except PoolError as error:
                        outcome = error
                    if not isinstance(outcome, Busy):
                        ticket.outcome = outcome
                        del self._tickets[ticket]
                        ticket.event.set()
                        continue
                    in_vain[key] = time.monotonic() + outcome.changes_in
                ticket.changes_at = in_vain[key]

    def wait(self, wanted: Wanted, timeout: float, cancel: CancelToken | None) -> Lease:
        """Return a lease within ``timeout`` seconds; raises `PoolError` or `Cancelled`."""
        began = time.monotonic()
        deadline = began + timeout
        ticket = _Ticket(wanted)
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
                if not ticket.event.wait(min(deadline, ticket.changes_at) - now):
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
            outcome: Lease | Busy | PoolError = ticket.outcome or self._serve(ticket.wanted, True)
        if isinstance(outcome, Lease):
            return outcome
        if isinstance(outcome, PoolError):
            raise outcome
        raise AllBusy(ticket.wanted.model, waited)

    def _leave(self, ticket: _Ticket) -> None:
        with self._lock:
            self._tickets.pop(ticket, None)
        if isinstance(ticket.outcome, Lease):
            self._give_back(ticket.outcome)
