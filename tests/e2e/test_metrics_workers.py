"""Two workers' counters add up, and a worker that was killed leaves its counts behind."""

import fcntl
import os
import signal
import time
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

BODY = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "hello"}],
}


def scraped(gateway):
    text = requests.get(f"{gateway.url}/metrics", timeout=20).text
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def total(gateway, name):
    return sum(sample.value for sample in scraped(gateway) if sample.name == name)


def workers_of(gateway):
    pid = gateway.process.pid
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_counters_add_up_over_workers_and_their_deaths(gateway, simulator, tmp_path):
    running = gateway(WEB_CONCURRENCY="2", TMPDIR=str(tmp_path))
    for _ in range(20):
        assert requests.post(f"{running.url}/v1/messages", json=BODY, timeout=30).ok
    # The last answer has arrived before its worker has counted it.
    assert simulator.wait_for(lambda: total(running, "gateway_requests_total") == 20, 20)
    for _ in range(4):  # whichever worker is asked
        assert total(running, "gateway_requests_total") == 20
        assert total(running, "gateway_attempts_total") == 20
    output = total(running, "gateway_tokens_total")
    assert output > 0
    before = workers_of(running)
    os.kill(int(before[0]), signal.SIGKILL)
    assert simulator.wait_for(lambda: len(set(workers_of(running)) - set(before)) == 1, 20)
    for _ in range(10):
        assert requests.post(f"{running.url}/v1/messages", json=BODY, timeout=30).ok
    assert simulator.wait_for(lambda: total(running, "gateway_requests_total") == 30, 20)
    assert len(list(tmp_path.glob("claude-gateway-metrics-*"))) == 1
    running.terminate()
    assert running.wait() == 0
    assert list(tmp_path.glob("claude-gateway-metrics-*")) == []


def folders(tmp_path):
    return set(tmp_path.glob("claude-gateway-metrics-*"))


def test_what_a_killed_master_left_goes_and_what_is_in_use_stays(gateway, tmp_path):
    running = gateway(TMPDIR=str(tmp_path))
    (used,) = folders(tmp_path)
    an_hour_ago = time.time() - 3600
    os.utime(used, (an_hour_ago, an_hour_ago))
    handle = os.open(used, os.O_RDONLY)
    with pytest.raises(BlockingIOError):  # as systemd-tmpfiles looks, before it takes old files
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    os.close(handle)

    killed = gateway(TMPDIR=str(tmp_path))
    (left,) = folders(tmp_path) - {used}
    killed.kill()
    assert list(left.iterdir())
    third = gateway(TMPDIR=str(tmp_path))
    assert folders(tmp_path) > {used, left}  # it might be that of a master which just begins
    third.terminate()
    assert third.wait() == 0
    os.utime(left, (an_hour_ago, an_hour_ago))
    gateway(TMPDIR=str(tmp_path))
    assert used in folders(tmp_path)
    assert left not in folders(tmp_path)
    running.terminate()
    assert running.wait() == 0
    assert used not in folders(tmp_path)
