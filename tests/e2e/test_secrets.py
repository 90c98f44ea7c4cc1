"""No secret in anything that leaves the gateway: logs, answers, metrics, pages, crash reports."""

import json
import re

import pytest
import requests

from app.simulator.server import Simulator
from tests.e2e.processes import GatewayProcess

ACCOUNT = "AIzaSECRETaccount"
BAD_ACCOUNT = "AIzaSECRETbad"
CLIENT = "client-SECRET-key"
ADMIN = "admin-SECRET-key"
GUESS = "guess-SECRET-key"
REFRESH, CLIENT_SECRET = "1//SECRETrefresh", "GOCSPX-SECRETclient"
BODY = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "hello"}],
}


@pytest.fixture
def simulator():
    simulator = Simulator(pace=0.0)
    simulator.start()
    yield simulator
    simulator.stop()


@pytest.fixture(params=["text", "json"])
def running(request, simulator, tmp_path):
    folder = tmp_path
    (folder / "user.json").write_text(
        json.dumps(
            {
                "type": "authorized_user",
                "client_id": "id",
                "client_secret": CLIENT_SECRET,
                "refresh_token": REFRESH,
                "token_uri": f"{simulator.base_url}/token",
            }
        )
    )
    accounts = f"""
[[account]]
name = "good"
kind = "api_key"
api_key = "{ACCOUNT}"

[[account]]
name = "bad"
kind = "api_key"
api_key = "{BAD_ACCOUNT}"
proxy = "http://user:SECRETproxy@127.0.0.1:1"

[[account]]
name = "user"
kind = "oauth"
credentials = "user.json"
"""
    with GatewayProcess(
        folder,
        ACCOUNTS_TOML=accounts,
        GEMINI_BASE_URL=simulator.base_url,
        CLIENT_API_KEYS=CLIENT,
        ADMIN_API_KEY=ADMIN,
        LOG_LEVEL="debug",
        LOG_FORMAT=request.param,
        REQUEST_RETRY="5",
    ) as running:
        yield running


def test_no_secret_leaves(running, simulator):
    said = []

    def ask(path, method="POST", key=CLIENT, **more):
        headers = {"x-api-key": key, **more.pop("headers", {})}
        answer = requests.request(method, running.url + path, headers=headers, timeout=60, **more)
        said.append(f"{answer.status_code} {answer.headers} {answer.text}")
        return answer

    for fault in (None, "400", "401", "403", "429-minute", "500", "key-leaked", "cut-1", "html"):
        simulator.script(ACCOUNT, [fault] * 3)
        ask("/v1/messages", json=BODY)
        ask("/v1/messages", json={**BODY, "stream": True})
        ask("/v1/messages/count_tokens", json=BODY)
        for action in ("enable", "clear"):
            ask(f"/admin/api/accounts/good/{action}", key=ADMIN)
    simulator.tokens.revoke(REFRESH)
    for action in ("refresh", "check"):
        for name in ("user", "bad", "good"):
            ask(f"/admin/api/accounts/{name}/{action}", key=ADMIN)
    ask("/v1/messages", json=BODY, key=GUESS)
    ask("/v1/messages", json=BODY, headers={"authorization": f"Bearer {GUESS}"})
    ask("/v1/messages", data=b"{broken")
    ask("/v1/models", method="GET")
    ask("/readyz", method="GET")
    ask("/", method="GET")
    for path in ("/metrics", "/admin/api/accounts", "/admin/api/requests", "/admin/api/series"):
        assert ask(path, method="GET", key=ADMIN).status_code == 200
        assert ask(path, method="GET", key=GUESS).status_code == 401
    html = {"accept": "text/html"}
    for path in ("/admin/", "/admin/requests", "/admin/accounts/user", "/admin/accounts/bad"):
        assert ask(path, method="GET", key=ADMIN, headers=html).status_code == 200
    ids = re.findall("req_[0-9a-f]{24}", "".join(said))
    ask(f"/admin/requests/{ids[0]}", method="GET", key=ADMIN, headers=html)
    running.terminate()
    assert running.wait() == 0
    assert simulator.tokens is not None
    assert len(running.lines) > 30
    leaks = [text for text in [*said, *running.lines] if "SECRET" in text]
    assert leaks == []


@pytest.mark.parametrize("public", [True, False])
def test_nothing_that_a_client_names_is_fetched(simulator, tmp_path, public):
    """A client's URL goes to Google or nowhere: the gateway itself asks for none."""
    bait = Simulator(pace=0.0)
    # Whoever asked for a name of the outer world would ask the proxy.
    url = f"{'http://pictures.example' if public else bait.start()}/x.png"
    settings = {"GEMINI_API_KEYS": "k", "GEMINI_BASE_URL": simulator.base_url}
    proxy = {"HTTP_PROXY": bait.start(), "HTTPS_PROXY": bait.start(), "NO_PROXY": "127.0.0.1"}
    with GatewayProcess(tmp_path, **settings, **proxy) as running:
        for kind in ("image", "document"):
            for model in ("gemini-2.5-flash", "gemini-3.8-flash"):
                block = {"type": kind, "source": {"type": "url", "url": url}}
                content = [block, {"type": "text", "text": "What is it?"}]
                turn = {"role": "user", "content": content}
                body = {**BODY, "model": model, "messages": [turn]}
                answer = requests.post(f"{running.url}/v1/messages", json=body, timeout=30)
                served = public and model != "gemini-2.5-flash"
                assert answer.status_code == (200 if served else 400), answer.text
    assert bait.requests == []
    bait.stop()
