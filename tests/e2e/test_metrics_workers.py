"""Two workers' counters add up, and a worker that was killed leaves its counts behind."""

import os
import signal
from pathlib import Path

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
