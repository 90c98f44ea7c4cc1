"""Leases as the pool takes them: from the book that all processes share, or on its own view."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from app.pool.seats import Full, Pace, Plan, Spent
from app.pool.state.breaker import Breaker
from app.pool.state.leases import Held, LeaseBook
from app.pool.state.memory_leases import MemoryLeases
from app.pool.state.store import StateError


class Leasing:
    """Every lease of this process, and the shared book's word on each while the book answers.

    Without ``book`` (one process alone), and while it fails, this process' own count decides.
    No method raises `StateError`. ``clock`` gives epoch seconds.
    """

    def __init__(self, book: LeaseBook | None, clock: Callable[[], float]) -> None:
        self._book = book
        self._own = MemoryLeases(clock=clock, ttl=float("inf"))
        self._breaker = Breaker("the shared book of leases")
        self._lock = threading.Lock()
        self._held: dict[str, Held] = {}
        self._returned: list[tuple[str, str]] = []
        """Token and account of what was given back, and the book is about to be told."""
        self._waiting: set[str] = set()
        """Tokens that the book may know as waiting, and rightly so."""
        self._unsure = False
        """The book missed something: what it lacks is ours in any case, once it is back."""

    @property
    def shared(self) -> bool:
        """Whether other processes may free what this one waits for."""
        return self._book is not None

    @property
    def failing(self) -> bool:
        """Whether this process goes by its own view for now."""
        return self._breaker.failing

    def take(
        self, plan: Plan, token: str, since: float | None, *, hurry: bool = True
    ) -> str | Full:
        """Take a seat; see `app.pool.state.leases.LeaseBook.take`."""
        book = self._book
        if book is None:
            # The order of those who wait here is the waiting room's business.
            return self._own.take(plan, token, None)
        if since is not None:
            # Before the book knows of the wait: `renew` must not end one that has just begun.
            with self._lock:
                self._waiting.add(token)
        self._tell_returned(book)
        try:
            outcome = self._breaker.call(lambda: book.take(plan, token, since, hurry=hurry))
        except StateError:
            # Whatever the book wrote before it failed, `renew` puts right.
            self._unsure = True
            outcome = self._own.take(plan, token, None)
        else:
            if isinstance(outcome, str):
                self._own.note(token, outcome)
        if isinstance(outcome, str):
            concurrency = next(s.concurrency for s in plan.seats() if s.account == outcome)
            with self._lock:
                self._waiting.discard(token)
                self._held[token] = Held(token, outcome, concurrency)
        return outcome

    def give_back(self, token: str, account: str) -> None:
        """Free the seat; see `app.pool.state.leases.LeaseBook.give_back`.

        Seats that greenlets give back in one turn of the loop are told the book in one step, by
        the first of them. Whatever else here asks the book tells it before.
        """
        self._own.give_back((token, account))
        book = self._book
        if book is None:
            return
        with self._lock:
            self._held.pop(token, None)
            self._returned.append((token, account))
            first = len(self._returned) == 1
        if first:
            try:
                time.sleep(0)
            finally:
                self._tell_returned(book)

    def leave(self, token: str) -> None:
        """Wait no longer."""
        book = self._book
        if book:
            with self._lock:
                self._waiting.discard(token)
            try:
                self._breaker.call(lambda: book.leave(token), minor=True)
            except StateError:  # `renew` ends the wait
                self._unsure = True

    def renew(self) -> list[str]:
        """Show that this process lives and what it holds; returns the tokens it has lost.

        Call it every few seconds; it also takes the book up again after a failure.
        """
        book = self._book
        if book is None:
            return []
        with self._lock:
            held, waiting = list(self._held.values()), list(self._waiting)
        forced, self._unsure = self._unsure, False
        try:
            lost = self._breaker.call(lambda: book.renew(held, waiting, forced=forced), probe=True)
        except StateError:
            self._unsure = True
            return []
        # What was given back between the list and the book's answer may be in the book again.
        with self._lock:
            self._returned += [
                (lease.token, lease.account) for lease in held if lease.token not in self._held
            ]
        self._tell_returned(book)
        return lost

    def refund(self, token: str, paces: Iterable[str]) -> None:
        """Count the request no more; see `app.pool.state.leases.LeaseBook.refund`."""
        keys = list(paces)
        self._own.refund(token, keys)
        book = self._book
        if book and keys:
            with suppress(StateError):
                self._breaker.call(lambda: book.refund(token, keys), minor=True)

    def spent(self, paces: Iterable[Pace]) -> dict[str, Spent]:
        """Return what each pace counts; see `app.pool.state.leases.LeaseBook.spent`."""
        wanted = list(paces)
        book = self._book
        if book:
            try:
                return self._breaker.call(lambda: book.spent(wanted))
            except StateError:
                self._unsure = True
        return self._own.spent(wanted)

    def in_flight(self) -> dict[str, int]:
        """Return how many leases are out on each account, over all processes."""
        book = self._book
        if book:
            self._tell_returned(book)
            try:
                return self._breaker.call(book.in_flight)
            except StateError:
                self._unsure = True
        return self._own.in_flight()

    def on_freed(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called when another process may have freed a seat."""
        if self._book:
            self._book.on_freed(wake)

    def _tell_returned(self, book: LeaseBook) -> None:
        if not self._returned:
            return
        with self._lock:
            seats, self._returned = self._returned, []
        try:
            self._breaker.call(lambda: book.give_back(*seats), minor=True)
        except StateError:
            self._unsure = True
