"""The book of leases on a Redis server: each step is one script, by the server's clock.

It follows `app.pool.state.memory_leases` and `app.pool.seats.choose` step by step.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.resources import files
from itertools import chain
from typing import Any

import redis

from app.pool.seats import Full, Pace, Plan, Spent
from app.pool.state.leases import LEASE_TTL, YOUNG, Held
from app.pool.state.redis_link import PREFIX, TO_SYNC, TO_TAKE, TO_WRITE, RedisLink
from app.pool.state.store import StateError

FREED = "freed"


class RedisLeases:
    """This process's view of the book on the server behind ``link``."""

    def __init__(self, link: RedisLink, *, ttl: float = LEASE_TTL) -> None:
        self._link = link
        self._ttl = ttl
        self._pid = 0
        self._holder = ""
        self._generation = ""
        text = files(__package__).joinpath("redis_leases.lua").read_text("utf-8")
        # One text, named by its digest: the server keeps it, and each call only names it.
        self._script: Any = redis.Redis().register_script(text)

    def now(self) -> float:
        """Return the server's epoch seconds."""
        return self._link.now()

    def take(
        self, plan: Plan, token: str, since: float | None, *, hurry: bool = True
    ) -> str | Full:
        """Take a seat; see `app.pool.state.leases.LeaseBook.take`."""
        groups = [
            [
                [seat.account, seat.concurrency, seat.weight, [_listed(p) for p in seat.paces]]
                for seat in group
            ]
            for group in plan.groups
        ]
        answer = self._run(
            TO_TAKE if hurry else TO_SYNC,
            "take",
            token,
            "" if since is None else repr(since),
            json.dumps(groups),
            plan.manner,
            plan.cursor,
        )
        if answer[0] == "taken":
            return str(answer[1])
        paced = float(answer[2])
        return Full(answer[1] == "1", paced or None)

    def give_back(self, *seats: tuple[str, str]) -> None:
        """Free the seats; see `app.pool.state.leases.LeaseBook.give_back`."""
        self._run(TO_WRITE, "give_back", *chain.from_iterable(seats))

    def refund(self, token: str, paces: Iterable[str]) -> None:
        """Count the request no more; see `app.pool.state.leases.LeaseBook.refund`."""
        self._run(TO_WRITE, "refund", token, *paces)

    def leave(self, token: str) -> None:
        """Wait no longer."""
        self._run(TO_WRITE, "leave", token)

    def renew(
        self, held: Iterable[Held], waiting: Iterable[str] = (), *, forced: bool = False
    ) -> list[str]:
        """Show what this holder holds; see `app.pool.state.leases.LeaseBook.renew`."""
        listed = [[lease.token, lease.account, lease.concurrency] for lease in held]
        generation, *lost = self._run(
            TO_SYNC,
            "renew",
            json.dumps(listed),
            json.dumps(list(waiting)),
            "1" if forced else "",
            self._generation,
            secrets.token_hex(8),
            repr(YOUNG),
        )
        self._generation = generation
        return lost

    def spent(self, paces: Iterable[Pace]) -> dict[str, Spent]:
        """Return what each pace counts; see `app.pool.state.leases.LeaseBook.spent`."""
        wanted = list(paces)
        if not wanted:
            return {}
        answer = self._run(TO_SYNC, "spent", json.dumps([_listed(pace) for pace in wanted]))
        pairs = zip(wanted, answer[::2], answer[1::2], strict=True)
        return {pace.key: Spent(int(n), float(oldest)) for pace, n, oldest in pairs if int(n)}

    def in_flight(self) -> dict[str, int]:
        """Return how many leases are out on each account."""
        answer = self._run(TO_SYNC, "in_flight")
        return dict(zip(answer[::2], map(int, answer[1::2]), strict=True))

    def end(self) -> None:
        """Free whatever this holder has."""
        self._run(TO_SYNC, "end")

    def on_freed(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called when a seat may be free."""
        self._link.listen(FREED, wake)

    def close(self) -> None:
        """Free whatever this holder has, if the server answers."""
        with suppress(StateError):
            self.end()

    def _run(self, patience: float, step: str, *args: str) -> list[Any]:
        """Return the script's answer without the server's time, which comes first."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._holder = f"{socket.gethostname()}-{self._pid}-{secrets.token_hex(6)}"
        given = [step, self._holder, repr(self._ttl), *args]
        answer: list[Any] = self._link.run(
            patience, lambda client: self._script(keys=[PREFIX], args=given, client=client)
        )
        self._link.told(float(answer.pop(0)))
        return answer


def _listed(pace: Pace) -> list[str | int | float]:
    return [pace.key, pace.limit, pace.window]
