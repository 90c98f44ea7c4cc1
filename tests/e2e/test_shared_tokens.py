"""One token for all workers: fetched once, kept over restarts, replaced once when it ends."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.e2e.processes import GatewayProcess
from tests.redis_server import RedisServer

BODY = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hello"}],
}
ACCOUNT = """
[[account]]
name = "user"
kind = "oauth"
credentials = "{path}"
base_url = "{base_url}"
concurrency = 100
"""


@pytest.fixture(params=["sqlite", "redis"])
def state_url(request, tmp_path):
    if request.param == "sqlite":
        yield "sqlite:///state.db"
    else:
        with RedisServer(tmp_path) as server:
            yield server.url


def ask(gateway, times):
    with ThreadPoolExecutor(50) as pool:
        asked = [
            pool.submit(requests.post, f"{gateway.url}/v1/messages", json=BODY, timeout=60)
            for _ in range(times)
        ]
        return [one.result().status_code for one in asked]


@pytest.mark.timeout(180)
def test_a_hundred_requests_on_two_workers_need_one_token(simulator, state_url, tmp_path):
    path = tmp_path / "user.json"
    path.write_text(
        json.dumps(
            {
                "type": "authorized_user",
                "client_id": "the-client",
                "client_secret": "the-client-secret",
                "refresh_token": "the-refresh-token",
                "token_uri": f"{simulator.base_url}/token",
            }
        )
    )
    settings = {
        "ACCOUNTS_TOML": ACCOUNT.format(path=path, base_url=simulator.base_url),
        "STATE_URL": state_url,
        "WEB_CONCURRENCY": "2",
    }
    with GatewayProcess(tmp_path, **settings) as gateway:
        assert ask(gateway, 100) == [200] * 100
        assert simulator.tokens.granted == 1
    with GatewayProcess(tmp_path, **settings) as gateway:
        assert ask(gateway, 10) == [200] * 10
        assert simulator.tokens.granted == 1
        simulator.tokens.expire()
        assert ask(gateway, 40) == [200] * 40
        assert simulator.tokens.granted == 2
    if state_url.startswith("sqlite"):
        kept = b"".join(each.read_bytes() for each in tmp_path.glob("state.db*"))
        assert b"token-" in kept
        assert b"ya29" not in kept
        assert b"the-refresh-token" not in kept
