"""Gateways for the matrix: in this process for the short form, gunicorn for the full one."""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path

from werkzeug.serving import WSGIRequestHandler, make_server

from tests.chaos.cells import KINDS, Cell
from tests.chaos.client import SECRET
from tests.chaos.upstream import Upstream

PREFIX = "gemini-2.5-flash-"
SETTINGS = {
    "": {},
    "hasty": {"READ_TIMEOUT": "2", "CONNECT_TIMEOUT": "2"},
    "chatty": {"READ_TIMEOUT": "2", "KEEPALIVE_INTERVAL": "0.1"},
}
_COMMON = {
    "REQUEST_RETRY": "1",
    "RETRY_BUDGET": "100",
    "KEEPALIVE_INTERVAL": "60",
    "READ_TIMEOUT": "30",
    "ROTATION": "fill_first",
    "LOG_LEVEL": "error",
}


class Upstreams:
    """Every sort of upstream there is: live, over TLS, of an unknown authority, deaf, gone."""

    def __init__(self, tls, alien_tls) -> None:
        self._stack = ExitStack()
        self.live = Upstream()
        self.tls = Upstream(tls)
        self.alien = Upstream(alien_tls)
        for each in (self.live, self.tls, self.alien):
            self._stack.callback(each.close)
        self.gone = self._stack.enter_context(socket.socket())
        self.gone.bind(("127.0.0.1", 0))  # nobody listens, and nobody else gets the port
        self.deaf = self._stack.enter_context(socket.socket())
        self.deaf.bind(("127.0.0.1", 0))
        self.deaf.listen(0)
        for _ in range(4):  # fills the queue of connections, so that the next ones get no answer
            filler = self._stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(self.deaf.getsockname())

    def close(self) -> None:
        """End them all."""
        self._stack.close()

    def urls(self, accounts: str) -> tuple[str, str]:
        """Return the base URLs of the first and the second account of a sort."""
        first = {
            "refused": f"http://127.0.0.1:{self.gone.getsockname()[1]}",
            "deaf": f"http://127.0.0.1:{self.deaf.getsockname()[1]}",
            "alien": self.alien.url,
            "tls": self.tls.url,
        }.get(accounts, self.live.url)
        return first, first if accounts == "tls" else self.live.url

    def expect(self, name: str, cell: Cell) -> None:
        """Have ``cell`` played for the model ``name``."""
        for each in (self.live, self.tls):
            each.cells[name] = cell


def sort_of(cell: Cell, number: int) -> str:
    """Return the name of the pair of accounts that ``cell`` is played on."""
    sort = KINDS[cell.kind].accounts
    if sort == "spent":
        return f"spent{number}"
    return sort if cell.left or sort in ("main", "tls") else f"{sort}both"


def accounts_toml(sorts: set[str], upstreams: Upstreams) -> str:
    """Return the accounts file with a pair of accounts for each of ``sorts``."""
    text = ""
    for sort in sorted(sorts):
        first, second = upstreams.urls(sort.removesuffix("both"))
        if sort.endswith("both"):
            second = first
        for name, url in (("a", first), ("b", second)):
            text += (
                f'[[account]]\nname = "{sort}-{name}"\nkind = "api_key"\n'
                f'api_key = "{SECRET}{sort}-{name}"\nbase_url = "{url}"\n'
                f'models = ["{PREFIX}{sort}-*"]\nconcurrency = 100\n\n'
            )
    return text


def settings_of(cell_gateway: str, *, resume: bool, store: str, accounts: str) -> dict[str, str]:
    """Return the environment of one gateway."""
    return {
        **_COMMON,
        **SETTINGS[cell_gateway],
        "STREAM_RESUME": str(resume).lower(),
        "STATE_URL": store,
        "ACCOUNTS_TOML": accounts,
    }


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: object) -> None:
        pass


@contextmanager
def in_process(folder: Path, environment: dict[str, str]):
    """Serve a gateway from threads of this process; yields its URL."""
    from app.config import load_settings
    from app.factory import build

    kept = [
        (log, log.level, list(log.handlers)) for log in map(logging.getLogger, (None, "gateway"))
    ]
    folder.mkdir(exist_ok=True)
    app = build(load_settings(environment, root=folder))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Handler)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        app.extensions["gateway"].close()
        logging.captureWarnings(False)
        for log, level, handlers in kept:
            log.setLevel(level)
            log.handlers[:] = handlers


@contextmanager
def in_gunicorn(folder: Path, environment: dict[str, str]):
    """Serve a gateway as it is in production; yields its URL."""
    from tests.e2e.processes import GatewayProcess

    folder.mkdir(exist_ok=True)
    with GatewayProcess(folder, **{**environment, "LOG_LEVEL": "info"}) as process:
        yield process.url
