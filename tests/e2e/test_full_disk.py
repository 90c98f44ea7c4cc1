"""A state file that can be read and not written: told once, seen by probes, and got over."""

import re
import resource
import time
from pathlib import Path

import pytest
import requests

from tests.e2e.processes import GatewayProcess

MESSAGE = {
    "model": "claude-sonnet-5",
    "max_tokens": 10,
    "messages": [{"role": "user", "content": "hi"}],
}


@pytest.fixture
def running(tmp_path):
    with GatewayProcess(tmp_path) as running:
        yield running


def limit_files(running, size):
    """Let no worker write beyond ``size`` bytes of a file, as if the disk were full."""
    pid = running.process.pid
    hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
    for worker in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        limit = (hard if size is None else size, hard)
        resource.prlimit(int(worker), resource.RLIMIT_FSIZE, limit)


def until_ready(running, expected):
    """Ask until ``/readyz`` says that the store is ``expected``; returns the whole answer."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        answer = requests.get(f"{running.url}/readyz", timeout=5)
        if answer.json()["state_store"] is expected:
            return answer
        time.sleep(0.1)
    pytest.fail(f"state_store is not {expected}:\n{running.output}")


def test_a_full_disk(running):
    assert until_ready(running, True).status_code == 200
    limit_files(running, 0)
    answer = until_ready(running, False)
    assert (answer.status_code, answer.json()["degraded"]) == (503, True)
    assert "gateway_state_store_up 0.0" in requests.get(f"{running.url}/metrics", timeout=5).text
    for _ in range(6):  # requests go on; the watch looks at the store more than once meanwhile
        reply = requests.post(f"{running.url}/v1/messages", json=MESSAGE, timeout=10)
        assert reply.status_code == 200
        assert requests.get(f"{running.url}/readyz", timeout=5).json()["state_store"] is False
        time.sleep(0.7)
    assert "answers again" not in running.output
    limit_files(running, None)
    running.wait_for_line(re.compile("the state store answers again"))
    assert until_ready(running, True).status_code == 200
    assert running.output.count("the state store answers again") == 1, running.output
