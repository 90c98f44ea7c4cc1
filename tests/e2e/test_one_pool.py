"""Many workers, many machines, one pool: real gateways, killed at random, on a real store.

``POOL_REQUESTS`` sets how many requests each story takes; the short form is for every day.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from app.pool.state import open_store
from tests.e2e.processes import GatewayProcess
from tests.redis_server import RedisServer
from tests.services import missing

REQUESTS = int(os.environ.get("POOL_REQUESTS", "96"))
CALLERS = 16
CONCURRENCY = 2
KEYS = ("key-a", "key-b", "key-c")
ACCOUNTS = "\n".join(
    f'[[account]]\nname = "{key}"\nkind = "api_key"\napi_key = "{key}"\n'
    f"concurrency = {CONCURRENCY}\n"
    for key in KEYS
)
BODY = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hello"}],
}
NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream machines {{ {servers} }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://machines; proxy_http_version 1.1; proxy_buffering off;
            proxy_next_upstream error timeout non_idempotent;
        }}
    }}
}}
"""


@pytest.fixture
def redis_server(tmp_path):
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
def nginx(tmp_path):
    """Start an nginx before gateways, each a machine; returns its address."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not program:
        missing("nginx")
    running = []

    def start(gateways):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        servers = " ".join(f"server {gateway.url.removeprefix('http://')};" for gateway in gateways)
        conf = tmp_path / "nginx.conf"
        conf.write_text(NGINX.format(folder=tmp_path, servers=servers, port=port))
        running.append(subprocess.Popen([program, "-p", str(tmp_path), "-c", str(conf)], stderr=-3))
        address = f"http://127.0.0.1:{port}"
        for _ in range(200):
            try:
                requests.get(f"{address}/healthz", timeout=5)
            except requests.ConnectionError:
                threading.Event().wait(0.05)
            else:
                return address
        raise AssertionError(f"nginx does not answer: {(tmp_path / 'error.log').read_text()}")

    yield start
    for process in running:
        process.terminate()
        process.wait(10)


def workers_of(gateway):
    pid = gateway.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Load:
    """Callers that ask until all requests are answered; a broken connection is asked again."""

    def __init__(self, addresses, count=REQUESTS):
        self._addresses = addresses
        self._left = count
        self._lock = threading.Lock()
        self.statuses = []
        self.broken = 0
        self._pool = ThreadPoolExecutor(CALLERS)
        self._callers = [self._pool.submit(self._call, n) for n in range(CALLERS)]

    def _call(self, number):
        draw = random.Random(number)
        while True:
            with self._lock:
                if not self._left:
                    return
                self._left -= 1
            while True:
                try:
                    answer = requests.post(
                        f"{draw.choice(self._addresses)}/v1/messages", json=BODY, timeout=60
                    )
                except requests.ConnectionError:
                    self.broken += 1
                    threading.Event().wait(0.05)
                else:
                    break
            self.statuses.append(answer.status_code)

    def running(self):
        return not all(caller.done() for caller in self._callers)

    def finish(self):
        for caller in self._callers:
            caller.result(120 + REQUESTS // 4)
        self._pool.shutdown()


def kill_now_and_then(load, gateways, every, most):
    """Kill a random worker every so often; the others must not exceed what is theirs."""
    draw = random.Random(3)
    killed = 0
    while load.running() and killed < most:
        threading.Event().wait(every)
        workers = [pid for gateway in gateways for pid in workers_of(gateway)]
        if load.running() and workers:
            os.kill(draw.choice(workers), signal.SIGKILL)
            killed += 1
    return killed


def all_home(url, folder):
    """Tell whether every lease came home, as another process sees it."""
    store = open_store(url, folder)
    try:
        return store.leases.in_flight() == {}
    finally:
        store.close()


def check(simulator, load, folder, url, *gateways):
    assert load.statuses == [200] * REQUESTS
    said = [line for gateway in gateways for line in gateway.lines if "WARNING" in line]
    most = {key: simulator.max_in_flight(key) for key in KEYS}
    assert most == dict.fromkeys(KEYS, CONCURRENCY), "".join(said)
    assert simulator.wait_for(lambda: not any(map(simulator.in_flight, KEYS)), 20)
    assert simulator.wait_for(lambda: all_home(url, folder), 25)


@pytest.mark.timeout(900)
def test_the_workers_of_one_machine_are_one_pool(gateway, simulator, tmp_path):
    simulator.pace = 0.01
    running = gateway(
        GEMINI_API_KEYS="", ACCOUNTS_TOML=ACCOUNTS, WEB_CONCURRENCY="4", LEASE_TTL="5"
    )
    load = Load([running.url])
    killed = kill_now_and_then(load, [running], every=0.7, most=max(2, REQUESTS // 200))
    load.finish()
    assert killed >= 1
    check(simulator, load, tmp_path, "sqlite:///var/state.db", running)


@pytest.mark.timeout(900)
def test_two_machines_behind_nginx_are_one_pool(simulator, redis_server, nginx, tmp_path):
    simulator.pace = 0.01
    settings = {
        "GEMINI_BASE_URL": simulator.base_url,
        "ACCOUNTS_TOML": ACCOUNTS,
        "STATE_URL": redis_server.url,
        "WEB_CONCURRENCY": "2",
        "LEASE_TTL": "5",
    }
    with (
        GatewayProcess(tmp_path, HOST="127.0.0.1", **settings) as one,
        GatewayProcess(tmp_path, HOST="127.0.0.2", **settings) as other,
    ):
        load = Load([nginx([one, other])])
        killed = kill_now_and_then(load, [one, other], every=0.7, most=max(2, REQUESTS // 200))
        load.finish()
        assert killed >= 1
        check(simulator, load, tmp_path, redis_server.url, one, other)


@pytest.mark.timeout(900)
def test_a_redis_that_dies_costs_no_request(simulator, redis_server, tmp_path):
    simulator.pace = 0.01
    with GatewayProcess(
        tmp_path,
        GEMINI_BASE_URL=simulator.base_url,
        ACCOUNTS_TOML=ACCOUNTS,
        STATE_URL=redis_server.url,
        WEB_CONCURRENCY="2",
    ) as running:
        load = Load([running.url])
        assert simulator.wait_for(lambda: simulator.served >= REQUESTS // 6, 60 + REQUESTS // 4)
        redis_server.kill()
        assert simulator.wait_for(lambda: simulator.served >= REQUESTS // 2, 60 + REQUESTS // 4)
        degraded = requests.get(f"{running.url}/readyz", timeout=10)
        assert (degraded.status_code, degraded.json()["degraded"]) == (503, True)
        assert requests.get(f"{running.url}/readyz?degraded=ok", timeout=10).status_code == 200
        redis_server.start()
        load.finish()
        assert load.statuses == [200] * REQUESTS
        assert load.broken == 0
        assert simulator.wait_for(
            lambda: requests.get(f"{running.url}/readyz", timeout=10).json()["shared_leases"], 20
        )
        assert simulator.wait_for(lambda: all_home(redis_server.url, tmp_path), 25)
    assert "the Redis server does not answer" in running.output
    assert "the shared book of leases answers again" in running.output


@pytest.mark.timeout(120)
def test_a_redis_that_hangs_holds_nobody_up(simulator, redis_server, tmp_path):
    with GatewayProcess(
        tmp_path,
        GEMINI_BASE_URL=simulator.base_url,
        GEMINI_API_KEYS="key-a",
        STATE_URL=redis_server.url,
    ) as running:
        assert requests.post(f"{running.url}/v1/messages", json=BODY, timeout=20).ok
        redis_server.freeze()
        took = []
        for _ in range(10):
            answer = requests.post(f"{running.url}/v1/messages", json=BODY, timeout=20)
            assert answer.status_code == 200
            took.append(answer.elapsed.total_seconds())
        redis_server.thaw()
        # A quarter of a second for the first, nothing for those that follow; and a slow machine.
        assert sorted(took)[5] < 0.25
        assert max(took) < 1.5
