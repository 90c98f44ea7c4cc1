"""``make bench``: CPU time per request and per streamed event, beside a bare pass-through.

CPU time, since machines are shared; both servers are gunicorn with one gevent worker.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import requests

from tests.bench.upstream import BenchUpstream
from tests.e2e.processes import ROOT, GatewayProcess

SHORT, LONG = 5, 2000
REQUESTS_SHORT, REQUESTS_LONG = 300, 15
BODY = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 1000,
    "stream": True,
    "messages": [{"role": "user", "content": "hello"}],
}
_TICK = os.sysconf("SC_CLK_TCK")


class PassThrough(GatewayProcess):
    """The same server with the bare proxy in it."""

    command = ("-k", "gevent", "-b", "127.0.0.1:0", "tests.bench.passthrough:app")

    def __enter__(self):
        self.start()
        line = self.wait_for_line(re.compile(r"Listening at: (http://\S+)"))
        self.url = re.search(r"http://\S+", line)[0]
        return self


def cpu_seconds(master: int) -> float:
    """Return user and system time of the processes that ``master`` started."""
    total = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(") ", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == master:
                total += int(fields[11]) + int(fields[12])
    return total / _TICK


def measure(kind: type[GatewayProcess], events: int, count: int) -> float:
    """Return milliseconds of CPU time per request of ``events`` events."""
    upstream = BenchUpstream(events)
    settings = {
        "GEMINI_API_KEYS": "bench",
        "GEMINI_BASE_URL": upstream.url,
        "BENCH_MODEL": "gemini-3.8-flash",
        "LOG_LEVEL": "warning" if kind is PassThrough else "info",
    }
    with tempfile.TemporaryDirectory() as folder, kind(Path(folder), **settings) as server:
        session = requests.Session()

        def ask() -> None:
            answer = session.post(f"{server.url}/v1/messages", json=BODY)
            if answer.status_code != 200 or b"word 0" not in answer.content:
                raise SystemExit(f"unexpected answer: {answer.status_code} {answer.text[:200]}")

        for _ in range(5):
            ask()
        before = cpu_seconds(server.process.pid)
        for _ in range(count):
            ask()
        spent = cpu_seconds(server.process.pid) - before
    upstream.close()
    return spent / count * 1000


def main() -> None:
    """Measure both servers and print a table."""
    print(f"{'':14}{'per request':>14}{'per event':>14}   ({ROOT.name}, CPU time)")
    for name, kind in (("gateway", GatewayProcess), ("pass-through", PassThrough)):
        short = measure(kind, SHORT, REQUESTS_SHORT)
        long = measure(kind, LONG, REQUESTS_LONG)
        event = (long - short) / (LONG - SHORT) * 1000
        print(f"{name:14}{short:11.2f} ms{event:11.1f} µs")


if __name__ == "__main__":
    main()
