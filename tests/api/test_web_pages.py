"""Pages in a browser: with a key they may ask; without one only this machine's own may."""

import pytest

from app import create_app
from app.api.web_pages import DIRECT
from app.config import load_settings
from app.simulator.server import Simulator

SITE = "https://site.example"
BODY = {
    "model": "claude-sonnet-5",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "hello"}],
}
REFUSED = "Web pages may not ask while CLIENT_API_KEYS is not set."


@pytest.fixture
def clients():
    """Make clients of gateways with and without keys."""
    simulator = Simulator(pace=0.0)
    settings = {
        "GEMINI_API_KEYS": "k",
        "GEMINI_BASE_URL": simulator.start(),
        "STATE_URL": "memory://",
    }
    yield lambda keys: create_app(load_settings(settings | {"CLIENT_API_KEYS": keys})).test_client()
    simulator.stop()


def cors(answer):
    names = ("origin", "methods", "headers")
    return [answer.headers.get(f"access-control-allow-{name}") for name in names]


def test_a_page_with_a_key_may_ask_from_anywhere(clients):
    client = clients("open-sesame")
    wanted = f"x-api-key, content-type, {DIRECT}"
    before = client.options(
        "/v1/messages",
        headers={
            "origin": SITE,
            "access-control-request-method": "POST",
            "access-control-request-headers": wanted,
        },
    )
    assert (before.status_code, cors(before)) == (200, ["*", "GET, POST", wanted])
    headers = {"origin": SITE, DIRECT: "true", "x-api-key": "open-sesame"}
    answer = client.post("/v1/messages", json=BODY, headers=headers)
    assert (answer.status_code, cors(answer)) == (200, ["*", None, None])
    assert answer.headers["access-control-expose-headers"] == "*"
    assert "You said: hello" in answer.text
    wrong = client.post("/v1/messages", json=BODY, headers=headers | {"x-api-key": "wrong"})
    assert (wrong.status_code, cors(wrong)) == (401, ["*", None, None])
    lost = client.post("/v1/v1/messages", json=BODY, headers=headers)
    assert (lost.status_code, cors(lost)) == (404, ["*", None, None])


def test_a_page_that_does_not_say_so_may_not_read(clients):
    client = clients("open-sesame")
    answer = client.get("/v1/models", headers={"origin": SITE, "x-api-key": "open-sesame"})
    assert (answer.status_code, cors(answer)) == (200, [None] * 3)
    answer = client.get("/healthz", headers={"origin": SITE, DIRECT: "true"})
    assert (answer.status_code, cors(answer)) == (200, [None] * 3)


@pytest.mark.parametrize(
    "origin", [SITE, "http://192.168.0.7", "http://127.0.0.1.site.example", "null", "", "http://["]
)
def test_without_keys_no_page_from_elsewhere_may_ask(clients, origin):
    client = clients("")
    for answer in (
        client.post("/v1/messages", json=BODY, headers={"origin": origin, DIRECT: "true"}),
        # What a page may send without asking first.
        client.post("/v1/messages", data="{}", headers={"origin": origin}),
    ):
        assert (answer.status_code, cors(answer)) == (403, [None] * 3)
        assert answer.json["error"] == {"type": "permission_error", "message": REFUSED}
    assert client.get("/healthz", headers={"origin": origin}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    ["http://localhost:3000", "https://app.localhost", "http://127.0.0.1:8080", "http://[::1]:1"],
)
def test_without_keys_this_machines_pages_may_ask(clients, origin):
    headers = {"origin": origin, DIRECT: "true"}
    answer = clients("").post("/v1/messages", json=BODY, headers=headers)
    assert (answer.status_code, cors(answer)) == (200, [origin, None, None])
    assert answer.headers["vary"] == "origin"


def test_without_keys_programs_and_extensions_may_ask(clients):
    client = clients("")
    for headers in ({}, {"origin": "vscode-webview://abc"}, {"origin": "app://x"}):
        assert client.post("/v1/messages", json=BODY, headers=headers).status_code == 200
