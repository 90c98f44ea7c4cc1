"""A real nginx on the very file that is shipped, but with the test's addresses and paths."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.e2e.processes import ROOT
from tests.services import missing

SHIPPED = ROOT / "deploy" / "nginx.conf"
_PATHS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def program() -> str:
    """The nginx to run; skips the test where there is none."""
    # Debian keeps it where only root's PATH leads.
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if not found:
        missing("nginx")
    return found


def rendered(folder: Path, port: int, servers: list[int], replace: dict[str, str]) -> str:
    """The shipped text with the test's ports and paths; every replaced piece must be there."""
    upstream = "server 127.0.0.1:8080 max_fails=3 fail_timeout=2s;"
    paths = "".join(f"{name}_temp_path {folder}/{name};\n" for name in _PATHS)
    pieces = {
        "user www-data;": "",
        "worker_processes auto;": "worker_processes 2;",
        "worker_rlimit_nofile 65536;": "",
        "worker_connections 16384;": "worker_connections 256;",
        "/run/nginx.pid": f"{folder}/nginx.pid",
        "/var/log/nginx": str(folder),
        "http {": f"http {{\n{paths}",
        "listen 80 default_server;": f"listen 127.0.0.1:{port} default_server;",
        upstream: "\n".join(upstream.replace("8080", str(server)) for server in servers),
        **replace,
    }
    text = SHIPPED.read_text()
    for old, new in pieces.items():
        assert old in text, f"{SHIPPED.name} has no {old!r} any more"
        text = text.replace(old, new)
    if os.geteuid() == 0:
        text = "user root;\n" + text  # the test's folders are the test user's only
    return text


class NginxServer:
    """``with NginxServer(folder, [port_of_gateway]) as nginx: nginx.url``.

    ``replace`` holds further pieces of the shipped text and what to put in their place.
    """

    def __init__(
        self, folder: Path, servers: list[int], replace: dict[str, str] | None = None
    ) -> None:
        self._program = program()
        self._folder = folder / "nginx"
        self._folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.file = self._folder / "nginx.conf"
        self.file.write_text(rendered(self._folder, self.port, servers, replace or {}))

    def __enter__(self) -> NginxServer:
        self._process = subprocess.Popen(
            [
                *(self._program, "-c", str(self.file), "-p", str(self._folder)),
                *("-e", str(self._folder / "error.log"), "-g", "daemon off;"),
            ]
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
            except OSError:
                assert self._process.poll() is None, "nginx ended at once"
                assert time.monotonic() < deadline, "nginx does not listen"
                time.sleep(0.02)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def reload(self) -> None:
        """Let it read its file again, as ``nginx -s reload`` does."""
        self._process.send_signal(signal.SIGHUP)

    @property
    def errors(self) -> str:
        """Its error log."""
        return (self._folder / "error.log").read_text()
