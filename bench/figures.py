"""The figures: each is one experiment on one server. CPU time in microseconds unless it says ms."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from bench import bodies
from bench.load import Load, Result
from bench.servers import Gateway, Server, UpstreamProcess
from tests.e2e.processes import ROOT

EVENTS = 100
"""Events of a stream."""


@dataclass(frozen=True)
class Size:
    """How much work goes into a figure: 1.0 for the full measurement."""

    scale: float = 1.0

    def __call__(self, number: int, least: int = 1) -> int:
        return max(least, round(number * self.scale))


@contextmanager
def _serving(
    kind: type[Server], upstream: UpstreamProcess, *, workers: int = 1
) -> Iterator[Server]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        kind(Path(folder), upstream.url, workers=workers) as server,
    ):
        yield server


def _load(server: Server, body: bytes, **more: Any) -> Load:
    return Load(
        server.url, body, path=server.path, headers=server.headers, needle=server.needle, **more
    )


def burst(kind: type[Server], size: Size) -> float:
    """Return CPU time per event of 32 streams at a time, without pauses."""
    count = size(640, 64)
    with UpstreamProcess(EVENTS) as upstream, _serving(kind, upstream) as server:
        load = _load(server, bodies.small())
        load.run(64, 32)
        before = server.cpu()
        load.run(count, 32)
        return (server.cpu() - before) / (count * EVENTS) * 1e6


def paced(kind: type[Server], size: Size) -> float:
    """Return CPU time per event of 300 streams with an event each 20 ms."""
    # A slow server would be measured in burst instead: fewer streams for it.
    together = size(30 if kind.name == "LiteLLM" else 300, 10)
    with UpstreamProcess(EVENTS, pace=0.02) as upstream, _serving(kind, upstream) as server:
        load = _load(server, bodies.small())
        load.run(min(32, together), min(32, together))
        before = server.cpu()
        load.run(together * 2, together)
        return (server.cpu() - before) / (together * 2 * EVENTS) * 1e6


def _per_request(kind: type[Server], body: bytes, count: int) -> float:
    with UpstreamProcess(1) as upstream, _serving(kind, upstream) as server:
        load = _load(server, body)
        load.run(16, 4)
        before = server.cpu()
        load.run(count, 4)
        return (server.cpu() - before) / count * 1e3


def small_request(kind: type[Server], size: Size) -> float:
    """Return milliseconds of CPU time of a small request with an answer of one event."""
    return _per_request(kind, bodies.small(), size(1000, 50))


def agent_request(kind: type[Server], size: Size) -> float:
    """Return the same for a coding agent's request of 100 KB, 40 tools and 60 messages."""
    return _per_request(kind, bodies.agent(), size(300, 20))


def large_event(kind: type[Server], size: Size) -> float:
    """Return milliseconds of CPU time of one event with 100 KB of text."""
    return _large(kind, 100_000, size)


def large_event_growth(kind: type[Server], size: Size) -> float:
    """Return how many times as much an event of 800 KB costs as one of 100 KB; 8 is linear."""
    return _large(kind, 800_000, size) / _large(kind, 100_000, size)


def _large(kind: type[Server], text: int, size: Size) -> float:
    count, events = size(40, 8), 11
    costs = []
    for length in (text, 40):
        with (
            UpstreamProcess(events, size=length) as upstream,
            _serving(kind, upstream) as server,
        ):
            load = _load(server, bodies.small())
            load.run(4, 1)
            before = server.cpu()
            load.run(count, 1)
            costs.append((server.cpu() - before) / count)
    return (costs[0] - costs[1]) / events * 1e3


def memory_per_stream(kind: type[Server], size: Size) -> float:
    """Return KiB of memory that one more open stream takes, from 100 to 1,000 of them."""
    few, many = size(100, 10), size(1000, 50)
    with UpstreamProcess(60, pace=2.0, stamps=True) as upstream, _serving(kind, upstream) as server:
        held = []
        for count in (few, many):
            load = _load(server, bodies.small(), stamped=True)
            result = Result()
            for answering in load.running(count, count, result):
                if answering == count:
                    held.append(server.memory())
                    break
        return (held[1] - held[0]) / (many - few) / 1024


def many_streams(kind: type[Server], size: Size) -> dict[str, float]:
    """Return events lost and the added delay (ms, p99) of 1,000 streams at 5 events a second."""
    count, events = size(1000, 20), 30
    with (
        UpstreamProcess(events, pace=0.2, stamps=True) as upstream,
        _serving(kind, upstream) as server,
    ):
        load = _load(server, bodies.small(), stamped=True)
        result = load.run(count, count)
        # The opening of all streams at once is not what is asked: what leaves from then on is.
        each = zip(result.left, result.delays, strict=True)
        late = sorted(delay for left, delay in each if left >= result.all_open)
        return {
            "lost": float(count * events - result.received),
            "p99_ms": late[int(len(late) * 0.99)] / 1e6,
            "p50_ms": late[len(late) // 2] / 1e6,
        }


def first_event(kind: type[Server], size: Size) -> float:
    """Return milliseconds that the server adds to the first event on an idle machine (p50)."""
    with UpstreamProcess(2, stamps=True) as upstream, _serving(kind, upstream) as server:
        load = _load(server, bodies.small(), stamped=True)
        direct = Load(
            upstream.url,
            bodies.small(),
            path="/v1beta/models/gemini-3.8-flash:streamGenerateContent",
            stamped=True,
            needle=b"usageMetadata",
        )
        load.run(20, 1)
        through, straight = Result(), Result()
        for _ in range(size(100, 10)):  # in turns, so that both meet the same noise
            through.first += load.run(1, 1).first
            straight.first += direct.run(1, 1).first
        return (statistics.median(through.first) - statistics.median(straight.first)) / 1e6


def longest_gap(kind: type[Server], size: Size) -> float:
    """Return ms of the longest delay of other streams while a request of 1 MB is translated."""
    big = bodies.agent(messages=200, tools=40, size=1_000_000)
    worst = []
    with (
        UpstreamProcess(200, pace=0.01, stamps=True) as upstream,
        _serving(kind, upstream) as server,
    ):
        watched = _load(server, bodies.small(), stamped=True)
        heavy = _load(server, big)
        watched.run(4, 4)
        for _ in range(size(5, 1)):
            result = Result()
            thread = threading.Timer(0.7, heavy.run, (1, 1))
            thread.start()
            for _ in watched.running(10, 10, result):
                pass
            thread.join()
            worst.append(max(result.delays[50:]) / 1e6)
    return statistics.median(worst)


def two_workers(kind: type[Server], size: Size) -> float:
    """Return how many times the streams per second of one worker two workers serve.

    On two cores, whatever the upstream and the load take is missing to two workers, not to one:
    the upstream writes each answer at once.
    """
    rates = []
    for workers in (1, 2):
        with (
            UpstreamProcess(EVENTS, at_once=True) as upstream,
            _serving(kind, upstream, workers=workers) as on,
        ):
            load = _load(on, bodies.small())
            load.run(128, 64)
            count = size(3000, 128)
            rates.append(count / load.run(count, 64).wall)
    return rates[1] / rates[0]


def ready_after(kind: type[Server], size: Size) -> float:
    """Return seconds from the start to the first good answer of ``/readyz``."""
    times = []
    for _ in range(size(3, 1)):
        with UpstreamProcess(1) as upstream, tempfile.TemporaryDirectory() as folder:
            server = Gateway(Path(folder), upstream.url)
            begun = time.monotonic()
            with server:
                while requests.get(f"{server.url}/readyz", timeout=5).status_code != 200:
                    time.sleep(0.01)
                times.append(time.monotonic() - begun)
    return statistics.median(times)


def import_time(kind: type[Server], size: Size) -> float:
    """Return seconds that importing the application takes, beyond an empty interpreter."""

    def run(code: str) -> float:
        begun = time.monotonic()
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
        return time.monotonic() - begun

    run("import app.factory")  # the file cache
    rounds = range(size(5, 1))
    return statistics.median(run("import app.factory") - run("pass") for _ in rounds)


@dataclass(frozen=True)
class Figure:
    """One row of the table."""

    name: str
    title: str
    unit: str
    measure: Callable[[type[Server], Size], float | dict[str, float]]
    target: float
    at_least: bool = False
    """Whether more is better."""
    times: dict[str, float] | None = None
    """Server → at most so many times its figure."""


FIGURES = (
    Figure("burst", "CPU per event, burst", "µs", burst, 20.0,
           times={"nginx": 11, "claude-code-router": 1 / 2, "LiteLLM": 1 / 50}),
    Figure("paced", "CPU per event, paced", "µs", paced, 60.0,
           times={"nginx": 4, "claude-code-router": 1 / 2, "LiteLLM": 1 / 20}),
    Figure("request", "CPU per request, small", "ms", small_request, 2.0),
    Figure("agent", "CPU per request, coding agent", "ms", agent_request, 5.0,
           times={"claude-code-router": 1 / 9, "LiteLLM": 1 / 14}),
    Figure("large", "one upstream event of 100 KB", "ms", large_event, 1.0),
    Figure("linear", "800 KB against 100 KB (8 is linear)", "times", large_event_growth, 10.0),
    Figure("memory", "memory per open stream", "KiB", memory_per_stream, 64.0),
    Figure("lost", "1,000 streams: events lost", "", many_streams, 0.0),
    Figure("p99_ms", "1,000 streams: added time, p99", "ms", many_streams, 25.0),
    Figure("first", "first event, added (p50)", "ms", first_event, 3.0),
    Figure("gap", "longest gap beside a 1 MB request", "ms", longest_gap, 25.0),
    Figure("workers", "two workers against one", "times", two_workers, 1.8, at_least=True),
    Figure("ready", "start to ready", "s", ready_after, 1.5),
    Figure("import", "import time", "s", import_time, 0.6),
)  # fmt: skip
"""All that is measured, in the order of the table."""


def dumped(results: dict[str, Any]) -> str:
    """Return the results as JSON."""
    return json.dumps(results, indent=1, sort_keys=True) + "\n"
