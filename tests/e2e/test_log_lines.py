"""Every line that real processes print, in both formats, through the life of a gateway."""

import json
import os
import re
import signal
import socket
from datetime import datetime
from pathlib import Path

import pytest
import requests

from tests.e2e.processes import ROOT, GatewayProcess

KEYS = {"time", "level", "logger", "pid", "message"}
LEVELS = {"debug", "info", "warning", "error", "critical"}
TEXT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR|CRITICAL) .+")

FAULTY = """
import threading, warnings, gevent
from wsgi import app

def fail():
    raise ValueError("two\\nlines")

class Bad:
    def __del__(self):
        raise ValueError("in a finalizer")

@app.get("/faults")
def faults():
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    gevent.spawn(fail).join()
    Bad()
    warnings.warn("old ways")
    raise KeyError("a view")
"""


def parsed(lines):
    """Each line as JSON with the agreed keys."""
    found = []
    for line in lines:
        record = json.loads(line)
        assert record.keys() >= KEYS, line
        assert record["level"] in LEVELS
        assert isinstance(record["pid"], int)
        assert datetime.fromisoformat(record["time"]).tzinfo
        found.append(record)
    return found


class Faulty(GatewayProcess):
    """A gateway that fails on demand; it wants ``faulty.py`` in its folder."""

    command = (*GatewayProcess.command[:-1], "faulty:app")


def asked(running, simulator):
    """Ask for all kinds of answers; return the ids of one with a failover and of a failed one."""
    simulator.script("secret-a", ["429-day"])
    url = f"{running.url}/v1/messages"
    body = {
        "model": "claude-sonnet-4-5\n2026-01-01 00:00:00,000 INFO forged \u2028 \ud800",
        "max_tokens": 50,
        "messages": [{"role": "user", "content": "hello"}],
    }
    query = {"key": "secret-query"}
    first = requests.post(url, params=query, json={**body, "stream": True}, timeout=30)
    assert first.status_code == 200
    simulator.script("secret-b", ["key-invalid"])
    second = requests.post(url, json=body, timeout=30)
    assert second.status_code == 429
    assert requests.get(f"{running.url}/faults", timeout=30).status_code == 500
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as client:
        client.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
        assert b"400" in client.recv(100)
    return first.headers["request-id"], second.headers["request-id"]


@pytest.fixture
def faulty(tmp_path, simulator):
    """Start a faulty gateway with an access log; it is ended with the test."""
    (tmp_path / "faulty.py").write_text(FAULTY)
    running = []

    def start(**settings):
        process = Faulty(
            tmp_path,
            GEMINI_API_KEYS="secret-a,secret-b",
            GEMINI_BASE_URL=simulator.base_url,
            GUNICORN_CMD_ARGS="--access-logfile -",
            DRAIN_TIMEOUT="0.2",
            LOG_LEVEL="debug",
            PYTHONPATH=f"{ROOT}:{tmp_path}",
            **settings,
        )
        running.append(process)
        return process.__enter__()

    yield start
    for process in running:
        process.__exit__()


def test_every_line_is_json_with_the_agreed_keys(faulty, simulator, tmp_path):
    running = faulty(LOG_FORMAT="json")
    first, second = asked(running, simulator)
    pid = running.process.pid
    (worker,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    running.wait_for_line(re.compile("sent SIGKILL"))
    running.wait_for_line(re.compile("serving from"))
    (tmp_path / ".env").write_text("REQUEST_RETRY=many\n")
    running.process.send_signal(signal.SIGHUP)
    running.wait_for_line(re.compile("reload refused"))
    (tmp_path / ".env").unlink()
    running.process.send_signal(signal.SIGHUP)
    running.wait_for_line(re.compile("serving from"))
    running.terminate()
    assert running.wait() == 0
    assert "secret-" not in running.output
    found = parsed(running.lines)
    loggers = {record["logger"] for record in found}
    assert {"gunicorn.error", "gunicorn.access", "gateway.request", "py.warnings",
            "gateway.unhandled"} <= loggers  # fmt: skip

    def of(request_id, logger):
        return [
            record for record in found
            if record.get("request_id") == request_id and record["logger"] == logger
        ]  # fmt: skip

    (request,) = of(first, "gateway.request")
    assert request["level"] == "info"
    assert (request["status"], request["outcome"]) == (200, "ok")
    assert [one["account"] for one in request["attempts"]] == ["key-1", "key-2"]
    assert "\n2026-01-01 00:00:00,000 INFO forged" in request["model"]
    (access,) = of(first, "gunicorn.access")
    shown = {"remote": "127.0.0.1", "method": "POST", "path": "/v1/messages", "status": 200}
    assert access | shown == access
    # The pool speaks in the attempt's thread, and says for whom.
    assert any("out of quota" in one["message"] for one in of(first, "gateway.pool"))
    assert any("unusable" in one["message"] for one in of(second, "gateway.pool"))
    unhandled = [record for record in found if record["logger"] == "gateway.unhandled"]
    assert len(unhandled) == 3
    assert all("ValueError" in record["exception"] for record in unhandled)
    (view,) = [record for record in found if "KeyError" in record.get("exception", "")]
    assert view["request_id"].startswith("req_")
    (odd,) = [record for record in found if "not an HTTP request" in record["message"]]
    assert odd["request_id"].startswith("req_")
    booting = [record for record in found if record["message"].startswith("Booting worker")]
    assert booting
    assert not any("request_id" in record for record in booting)


def test_every_line_for_people_has_its_time_and_level(faulty, simulator):
    running = faulty()
    first, second = asked(running, simulator)
    running.terminate()
    assert running.wait() == 0
    assert "secret-" not in running.output
    lines = running.lines
    for line in lines:
        # Only a traceback is indented, under its line.
        assert line.startswith("  ") or TEXT.fullmatch(line.rstrip("\n")), line
    (request,) = [line for line in lines if f"INFO {first} /v1/messages 200 ok" in line]
    assert "\\n2026-01-01 00:00:00,000 INFO forged \\u2028" in request
    assert any("out of quota" in line and line.endswith(f"[{first}]\n") for line in lines)
    assert any("unusable" in line and line.endswith(f"[{second}]\n") for line in lines)
    assert any('"POST /v1/messages HTTP/1.1" 200' in line and first in line for line in lines)


@pytest.mark.parametrize(
    "settings",
    [
        {"PORT": "many"},
        {"ACCOUNTS_TOML": "["},
        {"STATE_URL": "sqlite:////proc/nowhere/state.db"},
    ],
)
def test_a_refused_start_is_one_line(tmp_path, settings):
    (tmp_path / ".env").write_text("LOG_FORMAT=json\n")
    refused = GatewayProcess(tmp_path, **settings).start()
    assert refused.wait(30) == 1
    (line,) = parsed(refused.lines)
    assert line["level"] == "critical"
    assert line["message"].startswith(f"claude-gemini-gateway can't start: {next(iter(settings))}")


@pytest.mark.parametrize(
    ("code", "level", "shown"),
    [
        ("from app.config import SettingsError\nraise SettingsError('STATE_URL …')", "critical",
         "claude-gemini-gateway can't start: STATE_URL …"),
        ("import nowhere", "error", "the worker can't start for a reason of the gateway's own"),
    ],
)  # fmt: skip
def test_what_only_a_worker_finds_wrong_is_a_line_of_the_log(tmp_path, code, level, shown):
    (tmp_path / "faulty.py").write_text(code)
    path = f"{ROOT}:{tmp_path}"
    refused = Faulty(tmp_path, LOG_FORMAT="json", PYTHONPATH=path).start()
    assert refused.wait(30) == 3
    found = parsed(refused.lines)
    assert [line["level"] for line in found if line["message"] == shown] == [level]
    assert sum("exception" in line for line in found) == (level == "error")
