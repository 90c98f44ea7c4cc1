"""``flask accounts``: what it prints, what it changes, how it exits."""

import json
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from app import create_app
from app.config import load_settings
from app.ops.login import LoginError, log_in
from app.pool.cooldown import Exhausted
from app.pool.pool import ClientPool, Wanted
from app.pool.sources import load_accounts
from app.pool.state import StateError, open_store
from app.pool.state.sqlite import SqliteStore
from app.simulator.server import Simulator
from tests.e2e.processes import ROOT

ACCOUNTS = """
[[account]]
name = "good"
kind = "api_key"
api_key = "good-key"

[[account]]
name = "dead"
kind = "api_key"
api_key = "sim-fault-key-invalid"
"""


@pytest.fixture
def simulator():
    simulator = Simulator(pace=0)
    simulator.start()
    yield simulator
    simulator.stop()


@pytest.fixture
def settings(tmp_path, simulator):
    (tmp_path / "accounts.toml").write_text(ACCOUNTS)
    return load_settings({"GEMINI_BASE_URL": simulator.base_url}, tmp_path)


@pytest.fixture
def run(settings):
    def command(*words):
        return create_app(settings).test_cli_runner().invoke(args=["accounts", *words])

    return command


@pytest.fixture
def run_with(settings):
    """Run a command with another STATE_URL."""

    def command(state_url, *words):
        app = create_app(replace(settings, state_url=state_url))
        return app.test_cli_runner().invoke(args=["accounts", *words])

    return command


@pytest.fixture
def worker_pool(settings):
    """The pool of a running worker on the same store."""
    return ClientPool(load_accounts(settings), store=open_store(settings.state_url, settings.root))


def test_list_shows_every_account_and_why(run, worker_pool):
    with worker_pool.acquire(Wanted("gemini-3.8-flash"), timeout=0) as lease:
        worker_pool.cool_down(lease, Exhausted("minute", 300.0, reason="per-minute requests"))
    lines = run("list").output.splitlines()
    assert lines[0].split() == ["NAME", "KIND", "STATE", "WHY,", "AND", "UNTIL", "WHEN"]
    assert lines[1].split()[:3] == ["good", "api_key", "cooling"]
    assert "gemini-3.8-flash: per-minute requests; until " in lines[1]
    assert lines[2].split() == ["dead", "api_key", "ready"]
    listed = json.loads(run("list", "--json").output)
    assert [(each["name"], each["state"]) for each in listed] == [
        ("good", "cooling"),
        ("dead", "ready"),
    ]
    assert "good-key" not in run("list").output


def test_check_tells_what_is_wrong_and_exits_so(run, simulator):
    simulator.script("sim-fault-key-invalid", ["key-invalid"], on=["models"])
    result = run("check")
    assert result.exit_code == 1
    rows = [line.split(maxsplit=2) for line in result.stdout.splitlines()]
    assert rows[1][:2] == ["good", "ok"]
    assert rows[2][:2] == ["dead", "WRONG"]
    assert "API key not valid" in rows[2][2]
    alone = run("check", "good", "--json")
    assert alone.exit_code == 0
    assert [each["ok"] for each in json.loads(alone.stdout)] == [True]


def test_what_is_said_reaches_a_running_worker(run, worker_pool):
    def states():
        worker_pool.sync()
        return {view.name: view.state for view in worker_pool.snapshot()}

    assert run("disable", "good").output == "good is disabled.\n"
    assert states()["good"] == "disabled"
    assert run("enable", "good").output == "good is enabled.\n"
    assert states()["good"] == "ready"
    with worker_pool.acquire(Wanted("gemini-3.8-flash"), timeout=0) as lease:
        name = lease.account.name
        worker_pool.cool_down(lease, Exhausted("day"))
    assert states()[name] == "cooling"
    assert run("cool-down", "clear", name).exit_code == 0
    assert states()[name] == "ready"


SAYINGS = [("disable", "good"), ("enable", "good"), ("cool-down", "clear", "good")]
UNWRITTEN = (
    "Error: nothing was changed for good: the state store (STATE_URL) can't be written; "
    "is it up, and is there space on its disk?\n"
)


def errors_of(result):
    """Return what it says on standard error, and nothing elsewhere."""
    assert result.stdout == ""
    return result.stderr


@pytest.mark.parametrize("words", SAYINGS)
def test_what_no_store_took_did_not_happen(words, run_with):
    result = run_with("redis://127.0.0.1:1/0", *words)
    assert (result.exit_code, errors_of(result)) == (1, UNWRITTEN)


@pytest.mark.parametrize("words", SAYINGS)
def test_memory_of_another_process_is_out_of_reach(words, run_with):
    result = run_with("memory://", *words)
    assert (result.exit_code, errors_of(result)) == (
        1,
        "Error: with STATE_URL=memory:// a running gateway can't be heard or told from here, "
        "so nothing was changed: use its dashboard, /admin/\n",
    )


@pytest.mark.parametrize("words", SAYINGS[:2])
def test_a_full_disk_takes_nothing(words, run, worker_pool, monkeypatch):
    monkeypatch.setattr(SqliteStore, "put_many", full)
    result = run(*words)
    assert (result.exit_code, errors_of(result)) == (1, UNWRITTEN)
    worker_pool.sync()
    assert [view.state for view in worker_pool.snapshot()] == ["ready", "ready"]


def full(*_):
    raise StateError("the state file does not answer: database or disk is full")


def test_the_list_says_what_it_could_not_ask(run_with):
    result = run_with("redis://127.0.0.1:1/0", "list")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["NAME", "good", "dead"]
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: the state store (STATE_URL) does not answer: what running gateways know of the "
        "accounts is missing here\n",
    )
    alone = run_with("memory://", "list", "--json")
    assert [each["name"] for each in json.loads(alone.stdout)] == ["good", "dead"]
    assert (alone.exit_code, alone.stderr) == (
        0,
        "Note: with STATE_URL=memory:// a running gateway can't be heard or told from here; "
        "its view is at /admin/.\n",
    )


def test_what_its_definition_disables_is_not_enabled_here(run, tmp_path):
    text = ACCOUNTS.replace('name = "good"', 'name = "good"\ndisabled = true')
    (tmp_path / "accounts.toml").write_text(text)
    result = run("enable", "good")
    assert (result.exit_code, errors_of(result)) == (
        1,
        "Error: good is disabled in its definition; remove `disabled` there\n",
    )


@pytest.mark.parametrize("words", [("accounts", "list"), ("accounts", "--help"), ("--help",)])
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"PORT": "x"}, "PORT must be a whole number from 0 to 65535, not 'x'"),
        (
            {"ACCOUNTS_TOML": "[[account]]\nname = 'a'\nkind = 'key'\n"},
            "ACCOUNTS_TOML line 3: account 'a': kind 'key' is not known; write one of api_key, "
            "oauth, service_account, vertex, code_assist",
        ),
        (
            {"STATE_URL": "sqlite:////dev/null/state.db"},
            "STATE_URL: the state file /dev/null/state.db can't be opened: ",
        ),
    ],
)
def test_what_keeps_it_from_starting_is_one_line(tmp_path, words, settings, said):
    result = subprocess.run(
        [sys.executable, "-m", "flask", "--app", str(ROOT / "wsgi.py"), *words],
        check=False, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), **settings},
        capture_output=True, text=True,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {said}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words", [("check", "nobody"), ("disable", "nobody"), ("enable",), ("nonsense",)]
)
def test_wrong_words_exit_with_2(run, words):
    assert run(*words).exit_code == 2


def test_keys_need_no_login(run, tmp_path):
    (tmp_path / "client.json").write_text("{}")
    result = run("login", "good", "--client-file", str(tmp_path / "client.json"))
    assert result.exit_code == 2
    assert "needs no login" in result.output


class TokenEndpoint(HTTPServer):
    def __init__(self, answer):
        self.forms = []
        self.answer = answer
        super().__init__(("127.0.0.1", 0), _TokenHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _TokenHandler(BaseHTTPRequestHandler):
    def do_POST(self):
        form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        self.server.forms.append({name: values[0] for name, values in form.items()})
        body = json.dumps(self.server.answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def browse(tmp_path, answer, visit):
    """Log in with a browser that does what ``visit`` says; returns the endpoint's forms."""
    endpoint = TokenEndpoint(answer)
    client = tmp_path / "client.json"
    token_uri = f"http://127.0.0.1:{endpoint.server_port}/token"
    auth = {"client_id": "id", "client_secret": "sesame", "auth_uri": "https://auth.example"}
    client.write_text(json.dumps({"installed": {**auth, "token_uri": token_uri}}))
    visits = []

    def show(line):
        if line.startswith("https://"):
            query = {name: v[0] for name, v in parse_qs(urlsplit(line).query).items()}
            thread = threading.Thread(target=visit, args=(query,))
            thread.start()
            visits.append((thread, query))

    try:
        log_in(client, tmp_path / "secrets" / "o.json", show=show)
    finally:
        for thread, _ in visits:
            thread.join(5)
        endpoint.shutdown()
        endpoint.server_close()
    return endpoint.forms, visits[0][1]


def test_a_login_writes_a_private_credentials_file(tmp_path):
    def visit(query):
        stray = requests.get(query["redirect_uri"], params={"code": "evil", "state": "guess"})
        assert stray.status_code == 404
        requests.get(query["redirect_uri"], params={"code": "c0de", "state": query["state"]})

    forms, query = browse(tmp_path, {"refresh_token": "1//fresh"}, visit)
    path = tmp_path / "secrets" / "o.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    written = json.loads(path.read_text())
    assert (written["type"], written["refresh_token"]) == ("authorized_user", "1//fresh")
    assert forms[0]["code"] == "c0de"
    assert forms[0]["redirect_uri"] == query["redirect_uri"]
    assert len(forms[0]["code_verifier"]) >= 43
    assert query["code_challenge_method"] == "S256"
    assert [each.name for each in path.parent.iterdir()] == ["o.json"]


@pytest.mark.parametrize(
    ("answer", "back", "message"),
    [
        ({}, {"error": "access_denied"}, "Google refused the login: access_denied"),
        (
            {"error": "invalid_grant"},
            {"code": "x"},
            "Google gave no refresh token (invalid_grant); try again",
        ),
    ],
)
def test_a_login_that_fails_says_why_and_writes_nothing(tmp_path, answer, back, message):
    def visit(query):
        requests.get(query["redirect_uri"], params={**back, "state": query["state"]})

    with pytest.raises(LoginError) as caught:
        browse(tmp_path, answer, visit)
    assert str(caught.value) == message
    assert not (tmp_path / "secrets").exists()


def test_a_file_that_is_no_client_is_told(tmp_path):
    (tmp_path / "client.json").write_text("[]")
    with pytest.raises(LoginError, match="is no OAuth client file"):
        log_in(tmp_path / "client.json", tmp_path / "o.json", show=print)
