"""A relay over a real pool and a scripted upstream."""

from __future__ import annotations

import socket
import threading

from app.backend.errors import Fault, UpstreamError
from app.backend.upstream import Aborted
from app.pool.account import Account
from app.pool.cooldown import Exhausted
from app.pool.pool import ClientPool
from app.pool.state import MemoryStore
from app.relay.exchange import KEEPALIVE
from app.relay.relay import Relay, RelaySettings
from app.translate.errors import BadAnswer

MODEL = "gemini-3.8-flash"


class Hang:
    """Silent until the call is aborted; ``began`` and ``ended`` tell when."""

    def __init__(self):
        self.began = threading.Event()
        self.ended = threading.Event()

    def run(self, call):
        self.began.set()
        while not call.aborted:
            call.wait_aborted(5)
        self.ended.set()
        raise Aborted


class ScriptedUpstream:
    """What each account does, attempt by attempt: chunks (str), exceptions, hangs.

    Its answers pause where ``pausing`` says so, as those off a socket do: then the generator reads
    them; else their attempt's thread does, and posts them.
    """

    pausing = False

    def __init__(self, scripts):
        self.scripts = {name: list(attempts) for name, attempts in scripts.items()}
        self.asked = []
        self.refreshed = []
        self.refresh_error = None

    def run(self, lease, call, trust_foreign):
        self.asked.append((lease.account.name, lease.project, trust_foreign))
        attempts = self.scripts[lease.account.name]
        steps = attempts.pop(0) if attempts else ["hello", "."]
        return self._paused(steps, call) if self.pausing else self._posted(steps, call)

    @staticmethod
    def _paused(steps, call):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            call.attach(ours)
            call.pause(ours)
            for step in steps:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, Hang):
                    step.began.set()
                    try:
                        while not call.aborted:
                            yield None
                    finally:  # also when it is closed
                        step.ended.set()
                    raise Aborted
                call.received += len(step)
                yield {"text": step}
                theirs.send(b"more")
                yield None
                ours.recv(4)

    @staticmethod
    def _posted(steps, call):
        for step in steps:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, Hang):
                step.run(call)
            else:
                call.received += len(step)
                yield {"text": step}

    def refresh(self, account):
        self.refreshed.append(account.name)
        if self.refresh_error:
            raise self.refresh_error


class Translator:
    """Passes text on; "." ends the answer, "!" makes it a bad one, "#" is hidden."""

    def __init__(self):
        self.notes = {}
        self.done = False
        self.ended = False

    def feed(self, chunk):
        text = chunk["text"]
        if text == "!":
            raise BadAnswer("malformed")
        self.ended = self.ended or text == "."
        return [] if text == "#" else [{"text": text}]

    def finish(self):
        if not self.ended:
            raise BadAnswer("the answer has no end")
        return [{"text": "end"}]


class ScriptedJob:
    model = MODEL
    affinity_key = ""
    preferred_account = ""
    spends_quota = True

    def __init__(self, upstream, buffered=False):
        self.upstream = upstream
        self.buffered = buffered

    def open(self, lease, call, *, trust_foreign):
        return self.upstream.run(lease, call, trust_foreign)

    def translator(self, lease):
        return Translator()

    def keep(self, notes):
        raise AssertionError("no notes were made")

    def committed(self):
        """Nothing to let go of."""

    def resume(self):
        return None


class World:
    """``World(a=[["x", "."]], b=[error(...)]).run()`` → the texts the client sees."""

    def __init__(
        self,
        *,
        retry=3,
        switch=True,
        interval=60.0,
        projects=None,
        concurrency=8,
        pool_wait=5.0,
        rotation="round_robin",
        **scripts,
    ):
        self.upstream = ScriptedUpstream(scripts)
        self.pool = ClientPool(
            [
                Account(
                    name,
                    "api_key",
                    api_key=name,
                    projects=(projects or {}).get(name, ()),
                    concurrency=concurrency,
                )
                for name in scripts
            ],
            rotation=rotation,
            store=MemoryStore(),
        )
        self.relay = Relay(
            self.pool,
            self.upstream,
            MemoryStore(),
            RelaySettings(
                request_retry=retry,
                quota_switch_project=switch,
                pool_wait_timeout=pool_wait,
                keepalive_interval=interval,
            ),
        )

    def exchange(self, *, buffered=False):
        return self.relay.exchange(ScriptedJob(self.upstream, buffered))

    def run(self, *, buffered=False):
        """Return the text the client sees, keep-alives as ":"."""
        return "".join(self.texts(self.exchange(buffered=buffered)))

    def texts(self, exchange):
        try:
            for batch in exchange.events():
                yield ":" if batch is KEEPALIVE else "".join(event["text"] for event in batch)
        finally:
            self.relay.done(exchange)

    @property
    def asked(self):
        return [name for name, _, _ in self.upstream.asked]

    @property
    def in_flight(self):
        return {view.name: view.in_flight for view in self.pool.snapshot()}

    def state(self, name):
        return next(view for view in self.pool.snapshot() if view.name == name)


def error(fault, status=0, message="no", **extra):
    if fault is Fault.QUOTA:
        extra.setdefault("exhausted", Exhausted("minute", 26.0, reason="per-minute quota"))
    return UpstreamError(fault, message, status=status, **extra)
