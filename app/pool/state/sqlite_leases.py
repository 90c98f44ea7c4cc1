"""The book of leases of one machine, in a SQLite file of its own.

It follows `app.pool.state.memory_leases`. Nothing in it outlives the machine, so the file is
never flushed to the disk, and begun anew when it is damaged.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from app.pool.seats import LONGEST_WINDOW, Full, Pace, Plan, Seat, Spent, Taken, choose
from app.pool.state.bell import Bell
from app.pool.state.leases import LEASE_TTL, YOUNG, Held
from app.pool.state.sqlite_file import SqliteFile, Writing
from app.pool.state.sqlite_holders import SqliteHolders

SCHEMA = """
CREATE TABLE IF NOT EXISTS holders (
    id TEXT PRIMARY KEY, expires REAL NOT NULL, space TEXT NOT NULL, pid INTEGER NOT NULL,
    port INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS leases (
    token TEXT PRIMARY KEY, account TEXT NOT NULL, holder TEXT NOT NULL, at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS leases_account ON leases (account);
CREATE TABLE IF NOT EXISTS waits (
    account TEXT NOT NULL, token TEXT NOT NULL, since REAL NOT NULL, holder TEXT NOT NULL,
    PRIMARY KEY (account, token)
);
CREATE INDEX IF NOT EXISTS waits_token ON waits (token);
CREATE TABLE IF NOT EXISTS paces (
    pace TEXT NOT NULL, token TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (pace, token)
);
CREATE INDEX IF NOT EXISTS paces_pace ON paces (pace, at);
CREATE INDEX IF NOT EXISTS paces_at ON paces (at);
CREATE TABLE IF NOT EXISTS credits (cursor TEXT PRIMARY KEY, credits TEXT NOT NULL) WITHOUT ROWID;
"""

MOST_CURSORS = 2_000
"""Clients may name models at will: beyond it, all turns start again."""


class SqliteLeases:
    """This process's view of the book at ``path``; ``clock`` gives the machine's epoch seconds.

    A holder on the same machine that is dead is noticed soon, not only after ``ttl`` seconds.
    """

    def __init__(
        self,
        path: Path,
        bell: Bell,
        *,
        ttl: float = LEASE_TTL,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.file = SqliteFile(
            path,
            SCHEMA,
            pragmas=("synchronous = OFF", "temp_store = MEMORY"),
            disposable=True,
        )
        self._openings = self.file.openings
        self._bell = bell
        self._clock = clock
        self._holders = SqliteHolders(ttl)

    def now(self) -> float:
        """Return the machine's epoch seconds."""
        return self._clock()

    def take(
        self, plan: Plan, token: str, since: float | None, *, hurry: bool = True
    ) -> str | Full:
        """Take a seat; see `app.pool.state.leases.LeaseBook.take`."""
        seats = plan.seats()

        def work(connection: sqlite3.Connection) -> tuple[str | Full, list[int]]:
            with Writing(connection):
                now = self._clock()
                self._holders.bury(connection, now, anyway=False)
                me = self._holders.alive(connection, now, self._bell.port, anyway=False)
                mine = connection.execute(
                    "SELECT account FROM leases WHERE token = ?", (token,)
                ).fetchone()
                if mine:  # asked twice: the first answer was lost
                    return mine[0], []
                taken = self._taken(connection, seats, token, since, now)
                credit = self._credit(connection, plan)
                before = dict(credit)
                chosen = choose(plan, taken, credit)
                if (
                    isinstance(chosen, Full)
                    and chosen.busy
                    and self._holders.bury(connection, now, anyway=True)
                ):
                    taken = self._taken(connection, seats, token, since, now)
                    chosen = choose(plan, taken, credit)
                if isinstance(chosen, Full):
                    if since is not None:
                        connection.execute("DELETE FROM waits WHERE token = ?", (token,))
                        connection.executemany(
                            "INSERT OR REPLACE INTO waits (account, token, since, holder) "
                            "VALUES (?, ?, ?, ?)",
                            [(seat.account, token, since, me) for seat in seats],
                        )
                    return chosen, []
                connection.execute(
                    "INSERT INTO leases (token, account, holder, at) VALUES (?, ?, ?, ?)",
                    (token, chosen.account, me, now),
                )
                for pace in chosen.paces:
                    connection.execute(
                        "INSERT OR REPLACE INTO paces (pace, token, at) VALUES (?, ?, ?)",
                        (pace.key, token, now),
                    )
                    connection.execute(
                        "DELETE FROM paces WHERE pace = ? AND at <= ?",
                        (pace.key, now - pace.window),
                    )
                if credit != before:
                    connection.execute(
                        "INSERT OR REPLACE INTO credits (cursor, credits) VALUES (?, ?)",
                        (plan.cursor, json.dumps(credit)),
                    )
                ports = [] if since is None else self._leave(connection, token)
                return chosen.account, ports

        outcome, ports = self.file.run(work)
        self._bell.ring("freed", ports)
        return outcome

    def give_back(self, *seats: tuple[str, str]) -> None:
        """Free the seats; see `app.pool.state.leases.LeaseBook.give_back`."""

        def work(connection: sqlite3.Connection) -> list[int]:
            ports: set[int] = set()
            with Writing(connection):
                for token, account in seats:
                    connection.execute("DELETE FROM leases WHERE token = ?", (token,))
                    found = connection.execute(
                        "SELECT DISTINCT port, token = ? FROM waits LEFT JOIN holders "
                        "ON holders.id = waits.holder WHERE account = ?",
                        (token, account),
                    ).fetchall()
                    ports.update(port for port, _ in found if port)
                    if any(mine for _, mine in found):
                        # A wait is left when the file did not answer as the seat was taken.
                        ports.update(self._leave(connection, token))
            return sorted(ports)

        self._bell.ring("freed", self.file.run(work))

    def refund(self, token: str, paces: Iterable[str]) -> None:
        """Count the request no more; see `app.pool.state.leases.LeaseBook.refund`."""
        rows = [(pace, token) for pace in paces]

        def work(connection: sqlite3.Connection) -> None:
            with Writing(connection):
                connection.executemany("DELETE FROM paces WHERE pace = ? AND token = ?", rows)

        self.file.run(work)

    def leave(self, token: str) -> None:
        """Wait no longer."""

        def work(connection: sqlite3.Connection) -> list[int]:
            with Writing(connection):
                return self._leave(connection, token)

        self._bell.ring("freed", self.file.run(work))

    def renew(
        self, held: Iterable[Held], waiting: Iterable[str] = (), *, forced: bool = False
    ) -> list[str]:
        """Show what this holder holds; see `app.pool.state.leases.LeaseBook.renew`."""
        mine = {lease.token: lease for lease in held}
        waits = set(waiting)

        def work(connection: sqlite3.Connection) -> tuple[list[str], list[int]]:
            lost = []
            with Writing(connection):
                now = self._clock()
                self._holders.bury(connection, now, anyway=True)
                fresh = (
                    self.file.openings != self._openings
                    or not connection.execute("SELECT 1 FROM holders LIMIT 1").fetchone()
                )
                me = self._holders.alive(connection, now, self._bell.port, anyway=True)
                if forced:  # something failed: only a write tells whether a full disk has room
                    self._holders.extend(connection, now)
                known = dict(
                    connection.execute("SELECT token, account FROM leases WHERE holder = ?", (me,))
                )
                counts = dict(
                    connection.execute("SELECT account, count(*) FROM leases GROUP BY account")
                )
                for lease in mine.values():
                    if known.get(lease.token) == lease.account:
                        continue
                    if forced or fresh or counts.get(lease.account, 0) < lease.concurrency:
                        counts[lease.account] = counts.get(lease.account, 0) + 1
                        connection.execute(
                            "INSERT OR REPLACE INTO leases (token, account, holder, at) "
                            "VALUES (?, ?, ?, ?)",
                            (lease.token, lease.account, me, now),
                        )
                    else:
                        lost.append(lease.token)
                ports = self._drop(connection, me, mine.keys(), waits, now - YOUNG)
                connection.execute("DELETE FROM paces WHERE at <= ?", (now - LONGEST_WINDOW,))
                (cursors,) = connection.execute("SELECT count(*) FROM credits").fetchone()
                if cursors > MOST_CURSORS:
                    connection.execute("DELETE FROM credits")
            self._openings = self.file.openings
            return lost, ports

        lost, ports = self.file.run(work)
        self._bell.ring("freed", ports)
        return lost

    def spent(self, paces: Iterable[Pace]) -> dict[str, Spent]:
        """Return what each pace counts; see `app.pool.state.leases.LeaseBook.spent`."""
        wanted = list(paces)

        def work(connection: sqlite3.Connection) -> dict[str, Spent]:
            now = self._clock()
            found = {
                pace.key: connection.execute(
                    "SELECT count(*), min(at) FROM paces WHERE pace = ? AND at > ?",
                    (pace.key, now - pace.window),
                ).fetchone()
                for pace in wanted
            }
            return {key: Spent(count, oldest) for key, (count, oldest) in found.items() if count}

        return self.file.run(work)

    def in_flight(self) -> dict[str, int]:
        """Return how many leases are out on each account."""

        def work(connection: sqlite3.Connection) -> dict[str, int]:
            with Writing(connection):
                self._holders.bury(connection, self._clock(), anyway=True)
                return dict(
                    connection.execute("SELECT account, count(*) FROM leases GROUP BY account")
                )

        return self.file.run(work)

    def end(self) -> None:
        """Free whatever this holder has."""

        def work(connection: sqlite3.Connection) -> list[int]:
            with Writing(connection):
                self._holders.leave(connection)
                return [port for (port,) in connection.execute("SELECT port FROM holders")]

        self._bell.ring("freed", self.file.run(work))

    def on_freed(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called when a seat may be free."""
        self._bell.listen("freed", wake)

    def announce(self) -> None:
        """Tell the other holders that there is news in the store."""

        def work(connection: sqlite3.Connection) -> list[int]:
            me = self._holders.me()
            found = connection.execute("SELECT port FROM holders WHERE id != ?", (me,))
            return [port for (port,) in found]

        self._bell.ring("news", self.file.run(work))

    def close(self) -> None:
        """Free whatever this holder has, and close the file."""
        with suppress(Exception):
            self.end()
        self.file.close()

    def _drop(
        self,
        connection: sqlite3.Connection,
        me: str,
        held: Collection[str],
        waiting: Collection[str],
        young: float,
    ) -> list[int]:
        """Drop what this holder has in the book and knows nothing of; returns whom to wake."""
        freed = [
            (token, account)
            for token, account in connection.execute(
                "SELECT token, account FROM leases WHERE holder = ? AND at <= ?", (me, young)
            )
            if token not in held
        ]
        connection.executemany(
            "DELETE FROM leases WHERE token = ?", [(token,) for token, _ in freed]
        )
        ended = [
            token
            for token, since in connection.execute(
                "SELECT DISTINCT token, since FROM waits WHERE holder = ?", (me,)
            )
            if token in held or (token not in waiting and since <= young)
        ]
        ports = set(self._ports(connection, [account for _, account in freed]))
        for token in ended:
            ports.update(self._leave(connection, token))
        return sorted(ports)

    def _taken(
        self,
        connection: sqlite3.Connection,
        seats: list[Seat],
        token: str,
        since: float | None,
        now: float,
    ) -> dict[str, Taken]:
        """Return what is known of those of ``seats`` of which anything is."""
        busy = dict(connection.execute("SELECT account, count(*) FROM leases GROUP BY account"))
        ahead: dict[str, int] = {}
        for account, other, began in connection.execute("SELECT account, token, since FROM waits"):
            if other != token and (since is None or (began, other) < (since, token)):
                ahead[account] = ahead.get(account, 0) + 1
        return {
            seat.account: Taken(
                busy.get(seat.account, 0),
                ahead.get(seat.account, 0),
                tuple(_times(connection, pace, now) for pace in seat.paces) if seat.paces else (),
            )
            for seat in seats
            if seat.paces or seat.account in busy or seat.account in ahead
        }

    @staticmethod
    def _credit(connection: sqlite3.Connection, plan: Plan) -> dict[str, int]:
        if plan.manner == "in_order":
            return {}
        row = connection.execute(
            "SELECT credits FROM credits WHERE cursor = ?", (plan.cursor,)
        ).fetchone()
        credit: dict[str, int] = json.loads(row[0]) if row else {}
        return credit

    def _leave(self, connection: sqlite3.Connection, token: str) -> list[int]:
        accounts = [
            account
            for (account,) in connection.execute(
                "SELECT account FROM waits WHERE token = ?", (token,)
            )
        ]
        if not accounts:
            return []
        connection.execute("DELETE FROM waits WHERE token = ?", (token,))
        return self._ports(connection, accounts)

    @staticmethod
    def _ports(connection: sqlite3.Connection, accounts: Sequence[str]) -> list[int]:
        """Return where those listen who wait for one of ``accounts``."""
        found: list[tuple[int]] = []
        for account in accounts:
            found += connection.execute(
                "SELECT DISTINCT port FROM holders JOIN waits ON holders.id = waits.holder "
                "WHERE port != 0 AND account = ?",
                (account,),
            )
        return sorted({port for (port,) in found})


def _times(connection: sqlite3.Connection, pace: Pace, now: float) -> list[float]:
    if not pace.limit:
        return []
    found = connection.execute(
        "SELECT at FROM paces WHERE pace = ? AND at > ? ORDER BY at",
        (pace.key, now - pace.window),
    )
    return [at for (at,) in found]
