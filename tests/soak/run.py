"""The long run: a real gateway, the simulator with faults, and clients that are no better."""

from __future__ import annotations

import json
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.e2e.processes import ROOT, GatewayProcess

COLUMNS = ("rss", "fds", "threads", "greenlets", "attempts", "leases")
BOUNDS = {"rss": 12.0, "fds": 4, "threads": 2, "greenlets": 4, "attempts": 0, "leases": 0}
"""How much more of each (MiB for ``rss``) there may be at the end than after the first part.

A worker's allocator settles slowly: most of what ``rss`` grows by comes soon after that part, and
none of it is proportional to the number of requests. A leak of 1 KB a request would be 100 MB.
Threads that look names up come when two are looked up at once, and stay: they account for the rest.
"""
CLIENTS = 12
KEYS = tuple(f"soak-{number}" for number in range(12))
MODEL = "claude-sonnet-4-5"
FAULTS = (
    *("500", "503", "504", "403", "429-plain", "reset", "reset-1", "cut-1", "cut-2"),
    *("cut-bytes-300", "half-event-1", "garbage", "garbage-mid-1", "html", "empty", "no-finish"),
    *("error-mid-1", "error-raw-1", "malformed-call", "wrong-type", "gzip", "slow", "redirect"),
    *("hang", "silent", "silent-after-1", "safety", "blocked", "thoughts-only"),
)
SHARE_OF_FAULTS = 0.25
TOOLS = [{"name": "look", "input_schema": {"type": "object", "properties": {"at": {}}}}]

Report = Callable[[int, float, dict[str, float]], None]


@dataclass
class Outcome:
    """What a run came to: how requests ended, and what has grown past its bound."""

    seen: Counter[str]
    first: dict[str, float]
    last: dict[str, float]

    @property
    def grown(self) -> list[str]:
        """One line for each figure past its bound."""
        return [
            f"{name}: {self.first[name]:.1f} after the first part, {self.last[name]:.1f} at the "
            f"end; {bound} more would be allowed"
            for name, bound in BOUNDS.items()
            if self.last[name] > self.first[name] + bound
        ]


class SoakGateway(GatewayProcess):
    """The gateway that tells what it holds."""

    command = ("-c", str(ROOT / "gunicorn.conf.py"), "tests.soak.wsgi:app")

    def holdings(self) -> dict[str, float]:
        """Return what the worker holds once nothing is under way and nothing ends any more."""
        deadline = time.monotonic() + 60
        last: dict[str, float] = {}
        while True:
            page = requests.get(
                f"{self.url}/_soak", headers={"connection": "close"}, timeout=60
            ).json()
            at_rest = not (page["live"] or page["attempts"] or page["leases"])
            if at_rest and all(page[name] == last.get(name) for name in ("fds", "greenlets")):
                return page
            if time.monotonic() > deadline:
                return page  # what stays is a finding
            last = page
            time.sleep(0.1)


@contextmanager
def simulator():
    """Run a simulator in a process of its own; yields its address."""
    command = [sys.executable, "-m", "app.simulator", "--port", "0", "--pace", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield re.search(r"http://\S+", process.stdout.readline())[0]
        finally:
            process.kill()


def soak(
    folder: Path, *, warm: int, count: int, report: Report, parts: int = 10, seed: int = 1
) -> Outcome:
    """Send ``count`` requests, and compare the worker after ``warm`` of them with its end.

    ``report`` is called after ``warm`` of them, and after each of ``parts`` equal parts.
    """
    with (
        simulator() as upstream,
        SoakGateway(
            folder,
            GEMINI_API_KEYS=",".join(KEYS),
            GEMINI_BASE_URL=upstream,
            READ_TIMEOUT="0.5",
            KEEPALIVE_INTERVAL="0.2",
            STREAM_RESUME="true",
            RETRY_BUDGET="100",
            MAX_REQUEST_BYTES="200000",
        ) as gateway,
    ):
        clients = [Client(gateway, upstream, random.Random(seed + n)) for n in range(CLIENTS)]
        began = time.monotonic()
        stops = sorted({warm, *(count * part // parts for part in range(1, parts + 1))})
        done = 0
        first: dict[str, float] = {}
        for stop in (stop for stop in stops if stop >= warm):
            _drive(clients, stop - done)
            done = stop
            last = gateway.holdings()
            first = first or last
            report(done, time.monotonic() - began, last)
        seen = sum((client.seen for client in clients), Counter())
        if "Traceback" in gateway.output:
            raise AssertionError(gateway.output[gateway.output.index("Traceback") - 500 :][:3000])
        return Outcome(seen, first, last)


def _drive(clients: list[Client], count: int) -> None:
    """Have all clients together send ``count`` requests, then hang up."""
    left = threading.Semaphore(count)

    def work(client: Client) -> None:
        while left.acquire(blocking=False):
            client.step()
        client.session.close()

    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Client:
    """One client: mostly well behaved; ``seen`` counts how its requests ended."""

    def __init__(self, gateway: GatewayProcess, upstream: str, chance: random.Random) -> None:
        self.session = requests.Session()
        self.seen: Counter[str] = Counter()
        self._gateway = gateway
        self._upstream = upstream
        self._chance = chance
        self._ways = (
            (self._stream, 8),
            (self._message, 4),
            (self._count, 2),
            (self._leave_early, 2),
            (self._leave_unheard, 1),
            (self._send_nonsense, 1),
            (self._look, 1),
        )

    def step(self) -> None:
        """Send one request, and perhaps let some upstream call fail before."""
        chance = self._chance
        if chance.random() < SHARE_OF_FAULTS:
            order = {"key": chance.choice(KEYS), "faults": [chance.choice(FAULTS)]}
            requests.post(f"{self._upstream}/_simulator/script", json=order, timeout=60)
        ways, weights = zip(*self._ways, strict=True)
        chance.choices(ways, weights)[0]()

    def _body(self, **more) -> dict:
        chance = self._chance
        text = chance.choice(["hello", "write 40 words", "use look, please", "explain, then look"])
        body = {"model": MODEL, "max_tokens": 3000, "tools": TOOLS, **more}
        body["messages"] = [{"role": "user", "content": f"{text} {chance.random()}"}]
        if chance.random() < 0.5:
            body["thinking"] = {"type": "enabled", "budget_tokens": 1024}
        return body

    def _post(self, path: str, **options) -> requests.Response:
        return self.session.post(f"{self._gateway.url}{path}", timeout=60, **options)

    def _stream(self) -> None:
        answer = self._post("/v1/messages", json=self._body(stream=True))
        if answer.status_code != 200:
            self.seen[f"status {answer.status_code}"] += 1
        else:
            last = json.loads(answer.text.rstrip().rpartition("data: ")[2])
            self.seen["streams whole" if last["type"] == "message_stop" else "streams failed"] += 1

    def _message(self) -> None:
        answer = self._post("/v1/messages", json=self._body())
        whole = answer.ok and answer.json()["type"] == "message"
        self.seen["messages" if whole else f"status {answer.status_code}"] += 1

    def _count(self) -> None:
        body = self._body()
        del body["max_tokens"]
        answer = self._post("/v1/messages/count_tokens", json=body)
        self.seen["counts" if answer.ok else f"status {answer.status_code}"] += 1

    def _leave_early(self) -> None:
        """Hang up in the middle of a stream."""
        answer = self._post("/v1/messages", json=self._body(stream=True), stream=True)
        next(answer.iter_content(64), b"")
        answer.close()
        self.seen["hung up"] += 1

    def _leave_unheard(self) -> None:
        """Hang up before anything has come."""
        body = json.dumps(self._body(stream=True)).encode()
        with socket.create_connection(("127.0.0.1", self._gateway.port)) as connection:
            head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
        self.seen["hung up"] += 1

    def _send_nonsense(self) -> None:
        """Send what is no request: no JSON, too much, or not even HTTP."""
        how = self._chance.randrange(4)
        if how == 0:
            status = self._post("/v1/messages", data=b"{]").status_code
        elif how == 1:
            status = self._post("/v1/messages", data=b"x" * 300_000).status_code
        elif how == 2:
            status = self._post("/v1/messages", json={"model": MODEL}).status_code
        else:
            with socket.create_connection(("127.0.0.1", self._gateway.port)) as connection:
                connection.sendall(b"\x16\x03 nonsense\r\n\r\n")
                status = int(connection.makefile("rb").readline().split()[1])
        self.seen[f"status {status}"] += 1

    def _look(self) -> None:
        """Ask for one of the pages."""
        page = self._chance.choice(["/v1/models", "/healthz", "/readyz", "/metrics", "/nowhere"])
        self.seen[f"status {self.session.get(self._gateway.url + page).status_code}"] += 1
