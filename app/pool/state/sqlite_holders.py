"""Who holds leases and waits in a machine's book: the living, and what the dead leave behind."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Sequence

from app.pool.state.pids import is_dead, pid_space

MOURNING = 2.0
"""Seconds until the leases of a process seen dead are free: Google must notice the end as well."""
BURY_EVERY = 1.0
"""Seconds between two looks for holders that died, and between two that we are among the living."""


class SqliteHolders:
    """The holders of the book that is `app.pool.state.sqlite_leases`; this process is one.

    A holder is forgotten with all it has once it has not shown itself for ``ttl`` seconds, or soon
    after its process has died on this machine. What takes a ``connection`` belongs into a
    transaction of the caller's; ``now`` is the machine's epoch seconds.
    """

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._pid = 0
        self._me = ""
        self._buried_at = 0.0
        self._seen_alive: tuple[str, int] | None = None
        self._seen_until = 0.0
        self.space = pid_space()
        """Where a process id means the same process, "" when that can't be told."""

    def me(self) -> str:
        """Return the name of this process, a new one after a fork."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._me = f"{self._pid}-{secrets.token_hex(6)}"
        return self._me

    def alive(self, connection: sqlite3.Connection, now: float, port: int, *, anyway: bool) -> str:
        """See to it that this process is in the book, heard at ``port``; returns its name.

        Unless ``anyway``, what a look has just shown is believed.
        """
        me = self.me()
        if not anyway and self._seen_alive == (me, port) and now < self._seen_until:
            return me
        row = connection.execute("SELECT expires, port FROM holders WHERE id = ?", (me,)).fetchone()
        # Written when it is worth it: `renew` comes much more often than that.
        if row is None or row[0] < now + self._ttl / 2 or row[1] != port:
            connection.execute(
                "INSERT OR REPLACE INTO holders (id, expires, space, pid, port) "
                "VALUES (?, ?, ?, ?, ?)",
                (me, now + self._ttl, self.space, self._pid, port),
            )
        else:
            # Only what was found: what is written here may be undone with the rest of the step.
            self._seen_alive = (me, port)
            self._seen_until = now + min(BURY_EVERY, self._ttl / 2)
        return me

    def extend(self, connection: sqlite3.Connection, now: float) -> None:
        """Write down that this process lives, whether it is worth it or not."""
        connection.execute(
            "UPDATE holders SET expires = ? WHERE id = ?", (now + self._ttl, self.me())
        )

    def leave(self, connection: sqlite3.Connection) -> None:
        """Take this process and all it has out of the book."""
        self._seen_alive = None
        _forget(connection, [self.me()])

    def bury(self, connection: sqlite3.Connection, now: float, *, anyway: bool) -> bool:
        """Free what the dead had; returns whether there were any.

        Unless ``anyway``, nobody is looked for within `BURY_EVERY` of the last look.
        """
        lately = now - self._buried_at < BURY_EVERY
        if lately and not anyway:
            return False
        self._buried_at = now
        gone = []
        for holder, expires, space, pid in connection.execute(
            "SELECT id, expires, space, pid FROM holders"
        ).fetchall():
            if expires <= now:
                gone.append(holder)
            elif space and space == self.space and expires > now + MOURNING and is_dead(pid):
                connection.execute(
                    "UPDATE holders SET expires = ? WHERE id = ?", (now + MOURNING, holder)
                )
        _forget(connection, gone)
        # Nobody renews what has no holder. Ours gets one in the same step.
        orphans = [] if lately else self._orphans(connection)
        _forget(connection, orphans)
        return bool(gone or orphans)

    def _orphans(self, connection: sqlite3.Connection) -> list[str]:
        found = connection.execute(
            "SELECT holder FROM leases UNION SELECT holder FROM waits EXCEPT SELECT id FROM holders"
        )
        return [holder for (holder,) in found if holder != self.me()]


def _forget(connection: sqlite3.Connection, holders: Sequence[str]) -> None:
    some = [(holder,) for holder in holders]
    for statement in (
        "DELETE FROM leases WHERE holder = ?",
        "DELETE FROM waits WHERE holder = ?",
        "DELETE FROM holders WHERE id = ?",
    ):
        connection.executemany(statement, some)
