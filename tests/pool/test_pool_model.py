"""Leases and wake-ups, by exhaustion: every order in which few processes can act on one book.

The real book and the real waiting protocol (first a try, then a try that leaves a ticket, then a
try at every bell; a bell when a seat is given back, or when a ticket leaves others behind) are
run through every interleaving of their atomic steps, with a process killed at any moment. What
must hold in every state: no account above its concurrency; and at every end, whoever waits has
nothing free to wait for: no bell was lost.
"""

import pickle
from dataclasses import dataclass, field

import pytest

from app.pool.seats import Full, Plan, Seat
from app.pool.state.memory_leases import LeaseTable, MemoryLeases

TTL = 10.0


class NoLock:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


@dataclass
class Process:
    """One request in one process: what it wants, and where it is."""

    name: str
    wants: tuple[str, ...]
    at: str = "new"
    """new → (asked →) waiting ⇄ woken → holding → done; gone for the killed; timed out → left."""
    has: str = ""
    since: float = 0.0


@dataclass
class World:
    """A state: processes, the book's table, and the bells that were rung but not heard yet."""

    processes: list[Process]
    concurrency: dict[str, int]
    table: LeaseTable = field(default_factory=LeaseTable)
    now: float = 100.0
    kills: int = 0
    leaves: int = 0

    def __post_init__(self):
        self.table.lock = NoLock()

    def book(self, process):
        book = MemoryLeases(self.table, process.name, ttl=TTL, clock=lambda: self.now)
        book._ring = self.ring
        return book

    def ring(self):
        """Every waiting process will hear it, sooner or later: that is a step of its own."""
        for process in self.processes:
            if process.at == "waiting":
                process.at = "woken"

    def plan(self, process):
        return Plan(
            (tuple(Seat(name, self.concurrency[name]) for name in process.wants),), "in_order"
        )

    def attempt(self, process, since):
        outcome = self.book(process).take(self.plan(process), process.name, since)
        if isinstance(outcome, Full):
            return False
        process.at, process.has = "holding", outcome
        return True

    def steps(self):
        """Return (label, index of the process) of everything that may happen next."""
        found = []
        for index, process in enumerate(self.processes):
            if process.at in ("new", "asked", "woken"):
                found.append(("try", index))
            if process.at == "holding":
                found.append(("give back", index))
            if process.at in ("waiting", "woken") and self.leaves:
                found.append(("leave", index))
            if process.at not in ("gone", "done") and self.kills:
                found.append(("kill", index))
        if any(
            process.at == "gone" and process.name in self.table.holders
            for process in self.processes
        ):
            found.append(("time passes", -1))
        return found

    def do(self, step):
        label, index = step
        if label == "time passes":
            # The living show that they live; the dead do not. Then everybody looks, as waiters do
            # every second: nobody rings for the dead.
            self.now += TTL
            for process in self.processes:
                if process.name in self.table.holders and process.at != "gone":
                    self.table.holders[process.name].expires = self.now + TTL
            self.ring()
            return
        process = self.processes[index]
        if label == "try":
            if process.at == "new":
                if not self.attempt(process, None):
                    process.at = "asked"
                    process.since = self.now
                    self.now += 0.001
            else:
                # From now on a bell is for it, also one that rings during the try.
                process.at = "waiting"
                self.attempt(process, process.since)
        elif label == "give back":
            process.at = "done"
            self.book(process).give_back((process.name, process.has))
        elif label == "leave":
            process.at = "done"
            self.leaves -= 1
            self.book(process).leave(process.name)
        elif label == "kill":
            process.at = "gone"
            self.kills -= 1

    def key(self):
        order = sorted({process.since for process in self.processes})
        return (
            tuple((p.at, p.has, order.index(p.since)) for p in self.processes),
            tuple(sorted((a, tuple(sorted(s))) for a, s in self.table.seats.items())),
            tuple(sorted((a, tuple(sorted(q))) for a, q in self.table.queues.items())),
            tuple(sorted(self.table.holders)),
            self.kills,
            self.leaves,
        )

    def check(self):
        for account, limit in self.concurrency.items():
            holding = sum(p.has == account and p.at == "holding" for p in self.processes)
            assert holding <= limit, f"{account}: {holding} at once"
            assert len(self.table.seats.get(account, ())) <= limit

    def check_end(self):
        for process in self.processes:
            assert process.at in ("done", "gone"), f"{process.name} waits for ever: {self.key()}"
        living = {p.name for p in self.processes if p.at != "gone"}
        assert not any(self.table.seats.values())
        assert not any(self.table.queues.values())
        assert all(not self.table.holders[name].leases for name in living & set(self.table.holders))


def explore(world):
    """Go through every reachable state once; returns how many there are."""
    seen = {world.key()}
    todo = [world]
    while todo:
        state = todo.pop()
        state.check()
        steps = state.steps()
        if not steps:
            state.check_end()
        packed = pickle.dumps(state)  # a copy of all of it, many times as fast as deepcopy
        for step in steps:
            after = pickle.loads(packed)
            after.do(step)
            if after.key() not in seen:
                seen.add(after.key())
                todo.append(after)
    return len(seen)


def processes(*wants):
    return [Process(f"p{number}", tuple(each)) for number, each in enumerate(wants)]


@pytest.mark.parametrize(
    ("wants", "concurrency", "kills", "leaves"),
    [
        (("a", "a", "a", "a"), {"a": 1}, 0, 1),
        (("a", "a", "a"), {"a": 1}, 1, 1),
        (("ab", "a", "b", "ab"), {"a": 1, "b": 1}, 0, 1),
        (("ab", "ba", "b"), {"a": 1, "b": 1}, 1, 1),
        (("a", "a", "a", "ab"), {"a": 2, "b": 1}, 1, 0),
    ],
)
def test_every_interleaving(wants, concurrency, kills, leaves):
    world = World(processes(*wants), concurrency, kills=kills, leaves=leaves)
    assert explore(world) > 100


def test_a_lost_bell_would_be_seen(monkeypatch):
    """The check itself is checked: without the bell of a leaving ticket, somebody is forgotten."""
    monkeypatch.setattr(World, "ring", lambda self: None)
    with pytest.raises(AssertionError, match="waits for ever"):
        explore(World(processes("a", "a"), {"a": 1}))
