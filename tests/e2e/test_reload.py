"""Reloads, restarts and rolling deploys under load, behind a real nginx: nothing is lost."""

from __future__ import annotations

import json
import re
import signal
import socket
import threading

import pytest
import requests

from tests.e2e.nginx_server import NginxServer
from tests.e2e.processes import GatewayProcess

ASK = {
    "model": "claude-sonnet-5",
    "max_tokens": 2000,
    "stream": True,
    "messages": [{"role": "user", "content": "Write 40 words."}],
}
# The shipped 4 s, shortened as what they stand against is by DRAIN_TIMEOUT: the tests' time.
BRISK = {"keepalive_timeout 4s;": "keepalive_timeout 1s;"}


class Load:
    """Clients that ask one question after the other, and keep what came of each."""

    def __init__(self, url, clients=6):
        self._url = url
        self._stop = threading.Event()
        self._lock = threading.Condition()
        self.outcomes = []
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        self.wait_for(len(self._threads))
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more):
        """Wait until so many more answers have come."""
        with self._lock:
            target = len(self.outcomes) + more
            assert self._lock.wait_for(lambda: len(self.outcomes) >= target, 30)

    def _run(self):
        with requests.Session() as session:
            while not self._stop.is_set():
                outcome = self._ask(session)
                with self._lock:
                    self.outcomes.append(outcome)
                    self._lock.notify_all()
                if outcome != "whole":
                    self._stop.wait(0.2)  # as an SDK would, obeying retry-after

    def _ask(self, session):
        try:
            answer = session.post(f"{self._url}/v1/messages", json=ASK, timeout=30)
        except requests.RequestException as error:
            return f"lost: {error!r}"
        if answer.status_code == 200:
            whole = answer.text.endswith('data: {"type":"message_stop"}\n\n')
            return "whole" if whole else f"cut: {answer.text[-200:]}"
        error = answer.json()["error"]
        retry_after = answer.headers.get("retry-after")
        return f"{answer.status_code} {error['type']} {retry_after}: {error['message']}"


def reloaded(running, workers):
    """Wait until every worker has been followed by a new one, in whatever order they say so."""
    line = re.compile(r"serving from|Worker exiting")
    while running.output.count("serving from") < 2 * workers or (
        running.output.count("Worker exiting") < workers
    ):
        running.wait_for_line(line)


@pytest.fixture
def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def test_a_reload_under_load_loses_nothing(gateway, simulator, tmp_path):
    (tmp_path / ".env").write_text("KEEPALIVE_INTERVAL=5\n")
    running = gateway(GEMINI_API_KEYS="a,b,c", WEB_CONCURRENCY="2")
    simulator.pace = 0.005
    with NginxServer(tmp_path, [running.port], BRISK) as nginx, Load(nginx.url) as load:
        running.process.send_signal(signal.SIGHUP)
        reloaded(running, workers=2)
        load.wait_for(12)
    assert set(load.outcomes) == {"whole"}, nginx.errors + running.output
    assert running.process.poll() is None


def test_a_reload_with_wrong_settings_changes_nothing(gateway, simulator, tmp_path):
    running = gateway()
    (tmp_path / ".env").write_text("ROTATION=randomly\n")
    running.process.send_signal(signal.SIGHUP)
    line = running.wait_for_line(re.compile("reload refused"))
    assert line.rstrip().endswith(
        "reload refused, the old settings stay in force: ROTATION must be one of round_robin, "
        "fill_first, least_busy, sticky, not 'randomly'"
    )
    assert requests.get(f"{running.url}/readyz").status_code == 200
    (tmp_path / ".env").write_text("REQUEST_RETRY=0\n")
    running.process.send_signal(signal.SIGHUP)
    reloaded(running, workers=1)
    simulator.script("key-a", ["500", None])
    body = {**ASK, "stream": False}
    assert requests.post(f"{running.url}/v1/messages", json=body).status_code == 502


def refused_reload(running):
    """Ask for a reload; returns why it is refused."""
    running.process.send_signal(signal.SIGHUP)
    line = running.wait_for_line(re.compile("reload refused"))
    return line.rstrip().partition("the old settings stay in force: ")[2]


def test_a_reload_with_a_slip_in_the_file_lets_nobody_in(gateway, tmp_path):
    (tmp_path / ".env").write_text("CLIENT_API_KEYS=first,second\n")
    running = gateway()
    (tmp_path / ".env").write_text('CLIENT_API_KEYS="first",second\n')
    assert refused_reload(running) == (
        f"{tmp_path}/.env, line 1: not NAME=value; put the whole value in quotes or none"
    )
    assert requests.get(f"{running.url}/v1/models").status_code == 401
    assert "dotenv" not in running.output


def serving(running):
    return requests.get(f"{running.url}/readyz").json()["serving"]


def test_a_reload_that_leaves_no_account_changes_nothing(simulator, tmp_path):
    env = tmp_path / ".env"
    env.write_text(f"GEMINI_API_KEYS=key-a\nGEMINI_BASE_URL={simulator.base_url}\n")
    refusal = (
        f"{tmp_path}/accounts.toml: has no account any more, nor have GEMINI_API_KEYS and "
        "ACCOUNTS_TOML; add one, or restart to serve from the simulator"
    )
    with GatewayProcess(tmp_path) as running:
        for text in ("GEMINI_API_KEYS=\n", "", "# GEMINI_API_KEYS=key-a\n"):
            env.write_text(text)
            assert refused_reload(running) == refusal
        assert serving(running) == "gemini"


def test_the_simulator_may_go_on_until_there_are_accounts(simulator, tmp_path):
    env = tmp_path / ".env"
    with GatewayProcess(tmp_path, GEMINI_BASE_URL=simulator.base_url) as running:
        env.write_text("REQUEST_RETRY=1\n")
        running.process.send_signal(signal.SIGHUP)
        reloaded(running, workers=1)
        assert serving(running) == "simulator"
        env.write_text("GEMINI_API_KEYS=key-a\n")
        running.process.send_signal(signal.SIGHUP)
        running.wait_for_line(re.compile("serving from Gemini"))
        env.write_text("")
        assert "has no account any more" in refused_reload(running)


def test_a_reload_to_a_taken_address_changes_nothing(tmp_path, free_port):
    env = tmp_path / ".env"
    env.write_text(f"PORT={free_port}\n")
    starting = GatewayProcess(tmp_path)
    del starting.settings["PORT"]
    with (
        starting as running,
        socket.create_server(("127.0.0.1", 0)) as taken,
        socket.create_server(("127.0.0.2", free_port)),
    ):
        port = taken.getsockname()[1]
        end = "set another PORT, or end what holds it"
        env.write_text(f"PORT={port}\n")
        assert refused_reload(running) == (
            f"PORT={port} can't be taken at 127.0.0.1 (Address already in use): {end}"
        )
        env.write_text(f"HOST=127.0.0.2\nPORT={free_port}\n")
        assert refused_reload(running) == (
            f"PORT={free_port} can't be taken at 127.0.0.2 (Address already in use): {end}"
        )
        assert requests.get(f"{running.url}/readyz").status_code == 200
        taken.close()
        env.write_text(f"PORT={port}\n")
        running.process.send_signal(signal.SIGHUP)
        running.wait_for_line(re.compile(f"Listening at: http://127.0.0.1:{port}"))
        reloaded(running, workers=1)
        assert requests.get(f"http://127.0.0.1:{port}/readyz").status_code == 200


def test_a_reload_with_options_that_redis_has_not_changes_nothing(gateway, tmp_path):
    running = gateway()
    for option in ("foo=1", "socket_timeout=abc"):
        (tmp_path / ".env").write_text(f"STATE_URL=redis://127.0.0.1:1/0?{option}\n")
        assert refused_reload(running).startswith("STATE_URL: no Redis address: write redis://")
    assert requests.get(f"{running.url}/readyz").status_code == 200
    assert "Traceback" not in running.output


def test_sigterm_finishes_what_is_open_and_refuses_cleanly(gateway, simulator, tmp_path, free_port):
    running = gateway(GEMINI_API_KEYS="a,b,c", WEB_CONCURRENCY="2", PORT=str(free_port))
    simulator.pace = 0.02
    with NginxServer(tmp_path, [free_port], BRISK) as nginx:
        opened = [
            requests.post(f"{nginx.url}/v1/messages", json=ASK, stream=True) for _ in range(4)
        ]
        with Load(nginx.url) as load:
            running.terminate()
            for answer in opened:
                assert answer.text.endswith('data: {"type":"message_stop"}\n\n')
            assert running.wait(40) == 0
            load.wait_for(6)
    assert set(load.outcomes) == {
        "whole",
        "503 overloaded_error 1: The gateway is not running or is just being restarted. Try again.",
    }
    assert "Worker graceful timeout" not in running.output


def test_a_rolling_restart_of_two_instances_loses_nothing(gateway, simulator, tmp_path, free_port):
    settings = {"GEMINI_API_KEYS": "a,b,c"}
    first, second = gateway(**settings, PORT=str(free_port)), gateway(**settings)
    simulator.pace = 0.005
    with (
        NginxServer(tmp_path, [free_port, second.port], BRISK) as nginx,
        Load(nginx.url) as load,
    ):
        first.terminate()
        assert first.wait(40) == 0
        load.wait_for(6)
        gateway(**settings, PORT=str(free_port))
        load.wait_for(12)
    assert set(load.outcomes) == {"whole"}


def test_a_request_on_an_idle_connection_is_served_while_stopping(gateway, simulator):
    running = gateway()
    with requests.Session() as session:
        assert session.get(f"{running.url}/healthz").headers["connection"] == "keep-alive"
        running.terminate()
        running.wait_for_line(re.compile("Handling signal: term"))
        body = {**ASK, "stream": False}
        connection = "keep-alive"
        while connection == "keep-alive":  # the line is the master's: the worker hears of it later
            late = session.post(f"{running.url}/v1/messages", json=body)
            assert late.status_code == 200
            assert json.loads(late.text)["stop_reason"] == "end_turn"
            connection = late.headers["connection"]
        assert connection == "close"
    assert running.wait(20) == 0
