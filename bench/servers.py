"""What is measured: the gateway, and others that do the same work or less."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path

import requests

from tests.e2e.processes import ROOT, GatewayProcess

PEERS = Path(os.environ.get("BENCH_PEERS", ROOT / ".bench-peers"))
"""Where ``make bench-peers`` has put the others."""
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
PATIENCE = 90.0
"""Seconds that a server may take to start."""


class Missing(Exception):
    """What can't be measured here, and what to install."""


class UpstreamProcess:
    """``bench.upstream`` in a process of its own."""

    def __init__(
        self,
        events: int,
        *,
        pace: float = 0.0,
        size: int = 40,
        stamps: bool = False,
        at_once: bool = False,
    ) -> None:
        command = [sys.executable, "-m", "bench.upstream"]
        command += ["--events", str(events), "--pace", str(pace), "--size", str(size)]
        command += ["--stamps"] if stamps else []
        command += ["--at-once"] if at_once else []
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.port = int(self.url.rpartition(":")[2])

    def __enter__(self) -> UpstreamProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


class Server(ABC):
    """One that is measured. Use as a context; ``url`` answers then."""

    name = ""
    path = "/v1/messages"
    headers = ""
    needle = b"message_stop"
    agent_bodies = True
    """Whether it can answer a coding agent's request."""

    def __init__(self, folder: Path, upstream: str, *, workers: int = 1) -> None:
        self.folder = folder
        self.upstream = upstream
        self.workers = workers
        self.url = ""
        self.pid = 0

    @abstractmethod
    def __enter__(self) -> Server:
        """Start it."""

    @abstractmethod
    def __exit__(self, *_: object) -> None:
        """End it."""

    def cpu(self) -> float:
        """Return the seconds of CPU time that its processes have used."""
        return sum(ticks for ticks, _ in _tree(self.pid)) / _TICK

    def memory(self) -> int:
        """Return the bytes of memory that its processes hold."""
        return sum(pages for _, pages in _tree(self.pid)) * _PAGE


class Gateway(Server):
    """This gateway with everything on."""

    name = "gateway"
    program: type[GatewayProcess] = GatewayProcess

    def settings(self) -> dict[str, str]:
        """Return its settings: those of production, a client key, slots enough for the load."""
        account = (
            '[[account]]\nname = "bench"\nkind = "api_key"\napi_key = "upstream-key"\n'
            "concurrency = 5000\n"
        )
        return {
            "ACCOUNTS_TOML": account,
            "GEMINI_BASE_URL": self.upstream,
            "CLIENT_API_KEYS": "bench",
            "WEB_CONCURRENCY": str(self.workers),
            "PYTHONDONTWRITEBYTECODE": "",
        }

    def __enter__(self) -> Gateway:
        self.process = self.program(self.folder, **self.settings())
        self.process.__enter__()
        self.url, self.pid = self.process.url, self.process.process.pid
        return self

    def __exit__(self, *_: object) -> None:
        self.process.__exit__()


class _BareProcess(GatewayProcess):
    command = ("-k", "gevent", "-b", "127.0.0.1:0", "--worker-connections", "10000")
    command += ("bench.passthrough:app",)

    def __enter__(self) -> _BareProcess:
        self.start()
        line = self.wait_for_line(re.compile(r"Listening at: (http://\S+)"))
        self.url = re.findall(r"http://\S+", line)[0]
        self.wait_for_line(re.compile("Booting worker"))
        return self


class Bare(Gateway):
    """Flask, gunicorn with gevent and ``requests``, passing lines through."""

    name = "bare Flask"
    program = _BareProcess
    needle = b"usageMetadata"

    def settings(self) -> dict[str, str]:
        """Return its settings."""
        return {"GEMINI_BASE_URL": self.upstream, "WEB_CONCURRENCY": str(self.workers)}


class _Started(Server):
    """A server that is started by a command and does not tell its port."""

    @abstractmethod
    def command(self, port: int) -> tuple[list[str], dict[str, str]]:
        """Return the command line and its environment."""

    def __enter__(self) -> _Started:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        command, environment = self.command(port)
        self.log = (self.folder / "log").open("wb")
        self.process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, **environment},
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.pid = self.process.pid
        self.url = f"http://127.0.0.1:{port}"
        limit = time.monotonic() + PATIENCE
        while time.monotonic() < limit and self.process.poll() is None:
            try:
                requests.get(self.url, timeout=5)
            except requests.RequestException:
                time.sleep(0.1)
            else:
                return self
        self.__exit__()
        said = (self.folder / "log").read_text(errors="replace")[-2000:]
        raise Missing(f"{self.name} does not start: {said}")

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()


class Nginx(_Started):
    """nginx passing bytes through: the floor."""

    name = "nginx"
    needle = b"usageMetadata"

    def command(self, port: int) -> tuple[list[str], dict[str, str]]:
        """Return its command; writes its settings."""
        found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if not found:
            raise Missing("nginx is missing: install nginx-light")
        address = self.upstream.removeprefix("http://")
        paths = "".join(
            f"{name}_temp_path {self.folder};"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if os.geteuid() == 0 else ""
        (self.folder / "nginx.conf").write_text(f"""{user}
            daemon off; worker_processes {self.workers}; pid {self.folder}/pid;
            events {{ worker_connections 10000; }}
            http {{ access_log off; {paths} keepalive_requests 1000000; client_max_body_size 64m;
              client_body_buffer_size 2m;
              upstream gemini {{ server {address}; keepalive 512; keepalive_requests 1000000; }}
              server {{ listen 127.0.0.1:{port} backlog=4096;
                location / {{ proxy_pass http://gemini; proxy_http_version 1.1;
                  proxy_set_header connection ""; proxy_buffering off; }} }} }}""")
        # Its processes must not be mistaken for another's: they end with the group.
        config = str(self.folder / "nginx.conf")
        return [found, "-p", str(self.folder), "-c", config, "-e", "stderr"], {}


class LiteLlm(_Started):
    """The LiteLLM proxy."""

    name = "LiteLLM"
    headers = "authorization: Bearer sk-bench-0123456789abcdef0123456789abcdef\r\n"

    def command(self, port: int) -> tuple[list[str], dict[str, str]]:
        """Return its command; writes its settings."""
        program = PEERS / "litellm" / "bin" / "litellm"
        if not program.exists():
            raise Missing("LiteLLM is missing: make bench-peers")
        (self.folder / "config.yaml").write_text(f"""
model_list:
  - model_name: claude-sonnet-4-5
    litellm_params:
      model: gemini/gemini-2.5-flash
      api_base: {self.upstream}/v1beta/models/gemini-2.5-flash
      api_key: bench
""")
        arguments = ["--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
        return [str(program), *arguments], {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_MASTER_KEY": "sk-bench-0123456789abcdef0123456789abcdef",
        }


class CodeRouter(_Started):
    """claude-code-router."""

    name = "claude-code-router"

    def command(self, port: int) -> tuple[list[str], dict[str, str]]:
        """Return its command; writes its settings."""
        program = PEERS / "router" / "node_modules" / ".bin" / "ccr"
        if not program.exists():
            raise Missing("claude-code-router is missing: make bench-peers")
        home = self.folder / ".claude-code-router"
        home.mkdir(exist_ok=True)
        provider = {
            "name": "gemini",
            "api_base_url": f"{self.upstream}/v1beta/models/",
            "api_key": "bench",
            "models": ["gemini-2.5-flash"],
            "transformer": {"use": ["gemini"]},
        }
        settings = {
            "HOST": "127.0.0.1",
            "PORT": port,
            "APIKEY": "bench",
            "LOG": False,
            "Providers": [provider],
            "Router": {"default": "gemini,gemini-2.5-flash"},
        }
        (home / "config.json").write_text(json.dumps(settings))
        return [str(program), "start"], {"HOME": str(self.folder), "SERVICE_PORT": str(port)}


OTHERS: tuple[type[Server], ...] = (Nginx, Bare, CodeRouter, LiteLlm)


def _tree(pid: int) -> list[tuple[int, int]]:
    """Return (ticks of CPU time, pages of memory) of ``pid`` and all below it."""
    found: dict[int, tuple[int, int, int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(") ")[2].split()
                ticks = int(fields[11]) + int(fields[12])
                found[int(entry.name)] = (int(fields[1]), ticks, int(fields[21]))
    wanted, tree = [pid], []
    while wanted:
        one = wanted.pop()
        if one in found:
            tree.append(found[one][1:])
            wanted += [child for child, (parent, *_) in found.items() if parent == one]
    return tree
