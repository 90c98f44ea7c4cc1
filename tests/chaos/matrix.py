"""Runs cells against gateways, many at once, and says where what was seen is not as stated."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import requests

from tests.backend.raw_servers import make_tls
from tests.chaos.cells import KINDS, Cell, Seen, expected
from tests.chaos.client import ask
from tests.chaos.gateways import PREFIX, Upstreams, accounts_toml, settings_of, sort_of

AT_ONCE = 8
COUNTS_AT_ONCE = 4
"""More than these a gateway estimates (`app.relay.counting`)."""

Start = Callable[[Path, dict[str, str]], AbstractContextManager[str]]


class Matrix:
    """``with Matrix(cells, folder, start, redis_url) as matrix: matrix.run()``.

    ``start`` starts a gateway with an environment. Cells that need the same settings share one.
    """

    def __init__(
        self, cells: Iterable[Cell], folder: Path, start: Start, redis_url: str = ""
    ) -> None:
        self._folder = folder
        self._redis_url = redis_url
        self._start = start
        self._stack = ExitStack()
        self.cells = list(cells)
        self.names = {
            cell: f"{PREFIX}{sort_of(cell, number)}-{number}"
            for number, cell in enumerate(self.cells)
        }
        self._groups: dict[tuple[str, bool, str], list[Cell]] = defaultdict(list)
        for cell in self.cells:
            group = (KINDS[cell.kind].gateway, cell.mode == "resume", cell.store)
            self._groups[group].append(cell)
        self.urls: dict[Cell, str] = {}
        self._counting: dict[str, threading.Semaphore] = {}

    def __enter__(self) -> Matrix:
        stack = self._stack
        for name in ("ours", "alien"):
            (self._folder / name).mkdir()
        tls, bundle = make_tls(self._folder / "ours")
        alien_tls, _ = make_tls(self._folder / "alien")
        trusted = os.environ.get("REQUESTS_CA_BUNDLE")
        os.environ["REQUESTS_CA_BUNDLE"] = bundle
        stack.callback(_restore, "REQUESTS_CA_BUNDLE", trusted)
        self.upstreams = Upstreams(tls, alien_tls)
        stack.callback(self.upstreams.close)
        for cell, name in self.names.items():
            self.upstreams.expect(name, cell)
        with ThreadPoolExecutor(4) as starting:
            for urls in list(starting.map(self._open, range(len(self._groups)), self._groups)):
                self.urls.update(urls)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self, number: int, group: tuple[str, bool, str]) -> dict[Cell, str]:
        kind, resume, store = group
        cells = self._groups[group]
        folder = self._folder / f"gateway-{number}"
        state = {
            "memory": "memory://",
            "sqlite": f"sqlite:///{folder}/state.db",
            "redis": self._redis_url.replace("/0", f"/{number % 16}"),
        }[store]
        sorts = {self.names[cell].removeprefix(PREFIX).rpartition("-")[0] for cell in cells}
        environment = settings_of(
            kind, resume=resume, store=state, accounts=accounts_toml(sorts, self.upstreams)
        )
        environment["REQUESTS_CA_BUNDLE"] = os.environ["REQUESTS_CA_BUNDLE"]
        url = self._stack.enter_context(self._start(folder, environment))
        self._counting[url] = threading.Semaphore(COUNTS_AT_ONCE)
        return dict.fromkeys(cells, url)

    def run(self, done: Callable[[Cell, Seen], None] = lambda cell, seen: None) -> dict[Cell, Seen]:
        """Ask for every cell; ``done`` is called with each, in no order."""
        local = threading.local()

        def one(cell: Cell) -> tuple[Cell, Seen]:
            if not hasattr(local, "session"):
                local.session = requests.Session()
            url = self.urls[cell]
            if cell.mode == "count":
                with self._counting[url]:
                    seen = ask(local.session, url, self.names[cell], cell.mode)
            else:
                seen = ask(local.session, url, self.names[cell], cell.mode)
            done(cell, seen)
            return cell, seen

        # Those that wait for a time limit wait beside the others.
        slow = [cell for cell in self.cells if KINDS[cell.kind].gateway]
        quick = [cell for cell in self.cells if not KINDS[cell.kind].gateway]
        with ThreadPoolExecutor(64) as waiting, ThreadPoolExecutor(AT_ONCE) as working:
            results = [waiting.submit(one, cell) for cell in slow]
            results += [working.submit(one, cell) for cell in quick]
            return dict(result.result() for result in results)


def disagreement(cell: Cell, seen: Seen) -> str:
    """Return what is wrong, "" if nothing."""
    wanted = expected(cell)
    if seen == wanted:
        return ""
    text = f"{cell}: wanted {wanted}, saw {seen}"
    if str(wanted) == str(seen):
        text += (
            f"\n  wanted {wanted.events or wanted.message}\n  saw    {seen.events or seen.message}"
        )
    return text


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
