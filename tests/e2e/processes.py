"""The gateway as people run it: gunicorn with gevent workers, as a child process."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_LISTENING = re.compile(r"Listening at: (http://\S+)")


class GatewayProcess:
    """``with GatewayProcess(folder, GEMINI_API_KEYS="a,b") as gateway: gateway.url``.

    ``folder`` is the working directory, so that no ``.env`` or state of the checkout is met.
    """

    command = ("-c", str(ROOT / "gunicorn.conf.py"), "wsgi:app")

    def __init__(self, folder: Path, **settings: str) -> None:
        base = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self.settings = {
            **base,
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(folder),  # what it may leave behind goes with the folder
            "PORT": "0",
            **settings,
        }
        self.folder = folder
        self.lines: list[str] = []
        self._new_line: queue.Queue[str | None] = queue.Queue()

    def start(self) -> GatewayProcess:
        """Start it without waiting for anything."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *self.command],
            cwd=self.folder,
            env=self.settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __enter__(self) -> GatewayProcess:
        self.start()
        line = self.wait_for_line(_LISTENING)
        self.url = _LISTENING.search(line)[1]
        self.port = int(self.url.rsplit(":", 1)[1])
        # Each worker says what it serves once it is ready.
        for _ in range(int(self.settings.get("WEB_CONCURRENCY", "1"))):
            self.wait_for_line(re.compile("serving from"))
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End it and its workers on the spot, for whom its end is nothing to look at.

        A process that may tidy itself up takes a fifth of all that its start took.
        """
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._reader.join(10)

    def terminate(self) -> None:
        """Ask it to drain and end, as a deploy does."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout: float = 20) -> int:
        """Return the exit status, once all output has been read."""
        status = self.process.wait(timeout)
        self._reader.join(timeout)
        return status

    def wait_for_line(self, pattern: re.Pattern[str], timeout: float = 30) -> str:
        """Return the next line of output that ``pattern`` is found in."""
        while True:
            try:
                line = self._new_line.get(timeout=timeout)
            except queue.Empty:
                raise AssertionError(f"no line {pattern.pattern!r} in:\n{self.output}") from None
            if line is None:
                raise AssertionError(f"ended without a line {pattern.pattern!r}:\n{self.output}")
            if pattern.search(line):
                return line

    def forget(self) -> None:
        """Begin anew with what it prints, for the next test that shares it."""
        self.lines.clear()
        while not self._new_line.empty():
            self._new_line.get()

    @property
    def output(self) -> str:
        """All that it has printed."""
        return "".join(self.lines)

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line)
            self._new_line.put(line)
        self._new_line.put(None)
