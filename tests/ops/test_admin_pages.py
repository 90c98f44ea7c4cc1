"""The dashboard's doors and answers: who gets in, what a form must bring, what the JSON says."""

import re
import time
import tomllib
from html import unescape
from pathlib import Path

import pytest
from jinja2 import FileSystemBytecodeCache

import app as app_package
from app import create_app
from app.config import load_settings
from app.ops.admin.pages import _inside
from app.ops.admin.session import COOKIE, LIFETIME, Sessions
from app.ops.throttle import KNOWN_FOR, PER_ADDRESS, TOGETHER, WINDOW, Throttle
from app.pool.cooldown import Exhausted
from app.pool.pool import Wanted
from app.pool.state import MemoryStore
from app.pool.watch import AccountsWatcher
from app.simulator.server import Simulator

KEY = "open sesame"
HTML = {"accept": "text/html,application/xhtml+xml"}
OURS = {"origin": "http://localhost", "sec-fetch-site": "same-origin", **HTML}
ACCOUNTS = """
[[account]]
name = "good"
kind = "api_key"
api_key = "AIza-good-secret"

[[account]]
name = "team/b <&"
kind = "api_key"
api_key = "AIza-other-secret"
projects = ["proj-1"]
"""


@pytest.fixture
def simulator():
    simulator = Simulator(pace=0)
    simulator.start()
    yield simulator
    simulator.stop()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The templates' code, for the applications of all tests: to compile it takes longest."""
    return FileSystemBytecodeCache(tmp_path_factory.mktemp("templates"))


@pytest.fixture
def make(tmp_path, simulator, compiled):
    def make(**settings):
        base = {
            "ACCOUNTS_TOML": ACCOUNTS,
            "GEMINI_BASE_URL": simulator.base_url,
            "STATE_URL": "memory://",
        }
        app = create_app(load_settings({**base, **settings}, root=tmp_path))
        app.jinja_env.bytecode_cache = compiled
        return app

    return make


@pytest.fixture
def app(make):
    return make(ADMIN_API_KEY=KEY)


def token_in(page):
    return re.search(r'name="token" value="(\w+)"', page.text)[1]


def log_in(client, **headers):
    token = token_in(client.get("/admin/login", headers=HTML))
    form = {"key": KEY, "token": token, "next": "/admin/requests?failed=1"}
    return client.post("/admin/login", data=form, headers={**OURS, **headers})


@pytest.fixture
def browser(app):
    client = app.test_client()
    assert log_in(client).status_code == 303
    return client


# Who gets in


@pytest.mark.parametrize("path", ["/admin/", "/admin", "/admin/requests", "/admin/accounts/good"])
def test_without_the_key_people_get_the_log_in_page_and_scripts_the_envelope(app, path):
    page = app.test_client().get(path, headers=HTML)
    assert page.status_code == 401
    assert '<h1 id="title">Log in</h1>' in page.text
    assert f'name="next" value="{path}"' in page.text
    assert "good" not in page.text.replace("/admin/accounts/good", "")
    answer = app.test_client().get(path)
    assert (answer.status_code, answer.json["error"]["type"]) == (401, "authentication_error")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-api-key": KEY}, 200),
        ({"authorization": f"Bearer {KEY}"}, 200),
        ({"x-api-key": "wrong"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({}, 401),
    ],
)
def test_the_key_opens_the_api(app, headers, status):
    client = app.test_client()
    assert client.get("/admin/api/accounts", headers=headers).status_code == status
    act = client.post("/admin/api/accounts/good/disable", headers=headers)
    assert act.status_code == status


def test_logging_in_and_out(app):
    client = app.test_client()
    answer = log_in(client)
    assert answer.headers["location"] == "/admin/requests?failed=1"
    cookie = answer.headers["set-cookie"]
    for part in ("HttpOnly", "SameSite=Strict", "Path=/admin", f"Max-Age={LIFETIME}"):
        assert part in cookie
    assert "Secure" not in cookie
    page = client.get("/admin/", headers=HTML)
    assert page.status_code == 200
    assert client.get("/admin/api/accounts").status_code == 200
    out = client.post("/admin/logout", data={"token": token_in(page)}, headers=OURS)
    assert out.status_code == 303
    assert client.get("/admin/", headers=HTML).status_code == 401


def test_behind_https_the_cookie_is_for_https_only(app):
    answer = log_in(app.test_client(), **{"x-forwarded-proto": "https"})
    assert "Secure" in answer.headers["set-cookie"]


def test_a_wrong_key_is_refused(app):
    client = app.test_client()
    token = token_in(client.get("/admin/login"))
    page = client.post("/admin/login", data={"key": "guess", "token": token}, headers=OURS)
    assert page.status_code == 401
    assert "That is not the admin key." in page.text
    assert "guess" not in page.text
    assert client.get("/admin/", headers=HTML).status_code == 401


def test_a_session_holds_in_other_workers_and_dies_with_the_key(app, make, browser):
    cookie = browser.get_cookie(COOKIE, path="/admin").value

    def visit(other):
        client = other.test_client()
        client.set_cookie(COOKIE, cookie, path="/admin")
        return client.get("/admin/", headers=HTML).status_code

    assert visit(make(ADMIN_API_KEY=KEY)) == 200
    assert visit(make(ADMIN_API_KEY="another")) == 401
    assert KEY not in cookie


def test_a_session_ends_after_its_time(app, browser, monkeypatch):
    from itsdangerous import timed

    real = timed.time.time
    monkeypatch.setattr(timed.time, "time", lambda: real() + LIFETIME + 2)
    assert browser.get("/admin/", headers=HTML).status_code == 401


def test_a_cookie_from_before_the_log_in_opens_nothing(app):
    client = app.test_client()
    before = client.get("/admin/login")
    assert "set-cookie" in before.headers
    assert client.get("/admin/", headers=HTML).status_code == 401
    # Nor one that is signed with nothing but an empty key.
    sessions = Sessions("")
    forged = sessions._signer.dumps({"nonce": "n", "in": True})
    client.set_cookie(COOKIE, forged, path="/admin")
    assert client.get("/admin/", headers=HTML).status_code == 401


def test_off_loopback_without_a_key_it_is_closed(make):
    client = make(HOST="0.0.0.0", CLIENT_API_KEYS="c").test_client()
    page = client.get("/admin/", headers=HTML)
    assert page.status_code == 403
    assert "set ADMIN_API_KEY" in page.text
    assert client.get("/admin/login", headers=HTML).status_code == 403
    assert client.get("/admin/api/accounts").status_code == 403
    forged = Sessions("")._signer.dumps({"nonce": "n", "in": True})
    client.set_cookie(COOKIE, forged, path="/admin")
    assert client.get("/admin/api/accounts").status_code == 403


def test_on_loopback_without_a_key_it_is_open_to_this_machine_only(make):
    client = make().test_client()
    assert client.get("/admin/").status_code == 200
    assert client.get("/admin/login").headers["location"] == "/admin/"
    for host in ("127.0.0.1:8080", "[::1]:8080", "localhost:80"):
        assert client.get("/admin/api/accounts", headers={"host": host}).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example:8080"):
        answer = client.get("/admin/api/accounts", headers={"host": host})
        assert answer.status_code == 403
    disable = "/admin/api/accounts/good/disable"
    assert client.post(disable).json["ok"] is True
    for headers in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"origin": "http://localhost"},  # ours, but without its token
    ):
        assert client.post(disable, headers=headers).status_code == 403
    token = token_in(client.get("/admin/"))
    assert client.post(disable, headers={**OURS, "x-form-token": token}).status_code == 200


def test_guessing_is_slowed_down(app):
    client = app.test_client()
    token = token_in(client.get("/admin/login"))
    form = {"key": "guess", "token": token}
    for _ in range(PER_ADDRESS - 1):
        assert client.post("/admin/login", data=form, headers=OURS).status_code == 401
    assert client.get("/admin/api/accounts", headers={"x-api-key": "g"}).status_code == 401
    refused = client.post("/admin/login", data={**form, "key": KEY}, headers=OURS)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= WINDOW
    assert client.get("/admin/api/accounts", headers={"x-api-key": KEY}).status_code == 429
    elsewhere = {"REMOTE_ADDR": "10.1.2.3"}
    form = {"key": KEY, "token": token}
    answer = client.post("/admin/login", data=form, headers=OURS, environ_base=elsewhere)
    assert answer.status_code == 303


def test_the_throttle_forgets_and_has_a_limit_for_all():
    now = [1000.0]
    throttle = Throttle(MemoryStore(), lambda: now[0])
    for number in range(TOGETHER):
        assert throttle.wait(f"10.0.0.{number}") == 0.0
        throttle.wrong(f"10.0.0.{number}")
    assert throttle.wait("10.9.9.9") == WINDOW
    now[0] += WINDOW + 0.1
    assert throttle.wait("10.9.9.9") == 0.0


def test_others_guesses_do_not_shut_out_who_has_shown_the_right_key():
    now = [1000.0]
    throttle = Throttle(MemoryStore(), lambda: now[0])
    throttle.right("10.1.1.1")
    for number in range(TOGETHER):
        throttle.wrong(f"10.0.0.{number}")
    assert (throttle.wait("10.1.1.1"), throttle.wait("10.9.9.9")) == (0.0, WINDOW)
    for _ in range(PER_ADDRESS):  # it may guess no more than anybody
        throttle.wrong("10.1.1.1")
    assert throttle.wait("10.1.1.1") == WINDOW


def test_an_address_is_known_for_as_long_as_it_comes():
    now = [1000.0]
    store = MemoryStore(clock=lambda: now[0])
    throttle = Throttle(store, lambda: now[0])
    throttle.right("10.1.1.1")
    (known,) = store.scan("admin-right-key/").items()
    now[0] += KNOWN_FOR / 2 - 1
    throttle.right("10.1.1.1")
    assert store.scan("admin-right-key/") == dict([known])  # nothing is written each time
    now[0] += 2
    throttle.right("10.1.1.1")
    now[0] += KNOWN_FOR - 1
    for _ in range(TOGETHER):
        throttle.wrong("10.0.0.1")
    assert throttle.wait("10.1.1.1") == 0.0
    now[0] += 2
    assert throttle.wait("10.1.1.1") == WINDOW - 2


# Forms


@pytest.mark.parametrize(
    ("headers", "with_token"),
    [
        ({"origin": "https://evil.example"}, True),
        ({"origin": "null"}, True),
        ({"origin": "http://localhost.evil.example"}, True),
        ({"origin": "http://localhost", "sec-fetch-site": "cross-site"}, True),
        ({"origin": "http://localhost"}, False),
        ({}, False),
    ],
)
@pytest.mark.parametrize("path", ["/admin/api/accounts/good/disable", "/admin/logout"])
def test_a_session_alone_changes_nothing(app, browser, path, headers, with_token):
    token = token_in(browser.get("/admin/", headers=HTML))
    form = {"token": token} if with_token else {"token": "0" * 64}
    assert browser.post(path, data=form, headers=headers).status_code == 403
    assert state(app, "good") == "ready"
    assert browser.get("/admin/", headers=HTML).status_code == 200


def test_another_sessions_token_is_of_no_use(app, browser):
    other = app.test_client()
    log_in(other)
    token = token_in(other.get("/admin/", headers=HTML))
    answer = browser.post("/admin/api/accounts/good/disable", headers={"x-form-token": token})
    assert answer.status_code == 403


def test_behind_a_proxy_its_name_counts(browser):
    token = token_in(browser.get("/admin/", headers=HTML))
    headers = {
        "origin": "https://gateway.example",
        "x-forwarded-host": "gateway.example",
        "x-form-token": token,
    }
    path = "/admin/api/accounts/good/disable"
    assert browser.post(path, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "path", ["//evil.example/admin/", "https://evil.example", "/v1/models", "/admin/\\evil", ""]
)
def test_the_log_in_leads_only_to_own_pages(app, path):
    with app.test_request_context():
        assert _inside(path) == "/admin/"


@pytest.mark.parametrize(
    "path", ["/admin/", "/admin/login", "/admin/api/accounts", "/admin/requests/nothing"]
)
def test_every_answer_carries_the_headers(browser, path):
    answer = browser.get(path, headers=HTML)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["request-id"].startswith("req_")


def test_pages_keep_to_their_policy_and_their_assets_are_found_without_a_key(app, browser):
    for path in ("/admin/", "/admin/login", "/admin/requests", "/admin/accounts/good"):
        text = browser.get(path, headers=HTML).text
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", text)
        assets = re.findall(r'(?:src|href)="(/admin/static/[^"]+)"', text)
        assert len(assets) >= 5
        for asset in assets:
            answer = app.test_client().get(unescape(asset))
            assert (answer.status_code, "immutable" in answer.headers["cache-control"]) == (
                200,
                True,
            )


# What it shows


def state(app, name):
    views = app.extensions["gateway"].pool.snapshot()
    return next(view.state for view in views if view.name == name)


def cool(app, name="good"):
    pool = app.extensions["gateway"].pool
    tried = frozenset((view.name, "") for view in pool.snapshot() if view.name != name)
    wanted = Wanted("gemini-3.8-flash", tried=tried | {("team/b <&", "proj-1")})
    with pool.acquire(wanted, timeout=0) as lease:
        assert lease.account.name == name
        pool.cool_down(lease, Exhausted("minute", 300.0, reason="per-minute requests", limit=10))


def test_the_first_page_says_who_is_out_until_when_and_why(app, browser):
    browser.get("/admin/", headers=HTML)
    cool(app)
    text = browser.get("/admin/", headers=HTML).text
    assert "1 of 2 accounts is ready." in text
    attention = text[text.index('class="attention"') : text.index("</section>")]
    assert "Cooling down" in attention
    assert "gemini-3.8-flash" in attention
    assert "Per-minute requests" in attention
    assert re.search(r'data-until="\d+\.\d{3}" title="\d{4}-\d\d-\d\dT[\d:.]+Z"', attention)
    assert "0</b> of 10 left this minute" in text
    assert "AIza" not in text
    assert "team/b &lt;&amp;" in text
    assert "Simulator" not in text


def test_the_simulator_is_named_loudly(tmp_path):
    app = create_app(load_settings({"STATE_URL": "memory://"}, root=tmp_path))
    page = app.test_client().get("/admin/")
    assert "every answer is made up" in page.text
    assert app.test_client().get("/admin/api/accounts").json["serving"] == "simulator"


def test_an_unchanged_part_is_not_sent_again(browser):
    part = browser.get("/admin/requests", headers={**HTML, "x-part": "main"})
    assert part.text.lstrip().startswith("<section")
    again = browser.get(
        "/admin/requests", headers={**HTML, "x-part": "main", "if-none-match": part.headers["etag"]}
    )
    assert (again.status_code, again.text) == (304, "")
    assert float(again.headers["x-now"]) > 0


def ask(app, **headers):
    body = {"model": "claude-x", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
    answer = app.test_client().post("/v1/messages", json=body, headers=headers)
    answer.close()
    return answer.headers["request-id"]


def known(client, request_id):
    """Return the request's record, as soon as the history's thread has written it."""
    for _ in range(1500):
        answer = client.get(f"/admin/api/requests/{request_id}")
        if answer.status_code == 200 and answer.json["outcome"]:
            return answer.json
        time.sleep(0.02)
    raise AssertionError("the request was never written")


def test_a_request_is_found_by_its_id_with_all_its_attempts(app, browser, simulator):
    simulator.script("AIza-good-secret", ["429-minute"])
    simulator.script("AIza-other-secret", ["429-minute"])
    browser.get("/admin/")
    request_id = ask(app)
    record = known(browser, request_id)
    assert record["status"] == 429
    assert {one["account"] for one in record["attempts"]} == {"good", "team/b <&"}
    found = browser.get("/admin/requests", query_string={"search": request_id}, headers=HTML)
    assert found.headers["location"] == f"/admin/requests/{request_id}"
    page = browser.get(found.headers["location"], headers=HTML)
    assert request_id in page.text
    assert re.search(r"429 per-minute requests, \d+ ms →", page.text)
    listed = browser.get("/admin/api/requests", query_string={"failed": "1"}).json
    assert [one["request_id"] for one in listed["requests"]] == [request_id]
    assert browser.get("/admin/api/requests?search=nothing").json["requests"] == []
    series = browser.get("/admin/api/series").json
    assert (sum(series["requests"]), sum(series["refused"])) == (1, 1)
    assert len(series["starts"]) == len(series["first_event_ms"]["p50"]) == 60
    accounts = browser.get("/admin/api/accounts").json["accounts"]
    assert [one["last_hour"]["refused"] for one in accounts] == [1, 1]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/admin/api/series?range=1y", 400),
        ("/admin/api/requests?limit=0", 400),
        ("/admin/api/requests?limit=x", 400),
        ("/admin/api/requests/req_none", 404),
        ("/admin/requests/req_none", 404),
        ("/admin/accounts/nobody", 404),
        ("/admin/nothing", 404),
        ("/admin/static/nothing", 404),
    ],
)
def test_what_is_not_there(browser, path, status):
    assert browser.get(path, headers=HTML).status_code == status


# Actions


def act(client, action, name="good"):
    return client.post(f"/admin/api/accounts/{name}/{action}", headers={"x-api-key": KEY})


def test_actions_change_the_pool_and_say_so(app):
    client = app.test_client()
    done = act(client, "disable").json
    assert done["ok"] is True
    assert done["message"] == "good is disabled: it gets no new requests."
    assert done["account"]["state"] == state(app, "good") == "disabled"
    assert act(client, "enable").json["account"]["state"] == "ready"
    cool(app)
    assert state(app, "good") == "cooling"
    assert act(client, "clear").json["account"]["state"] == "ready"
    assert act(client, "disable", "team/b%20%3C&").json["account"]["name"] == "team/b <&"


def test_checking_and_refreshing(app, simulator):
    client = app.test_client()
    assert re.fullmatch(r"good works: \d+ models\.", act(client, "check").json["message"])
    # Twice: the registry may ask for its models in between.
    simulator.script("AIza-good-secret", ["key-invalid"] * 2, on=["models"])
    failed = act(client, "check").json
    assert failed["ok"] is False
    assert failed["message"].startswith("good does not work: API key not valid")
    refreshed = act(client, "refresh").json
    assert (refreshed["ok"], "no token to refresh" in refreshed["message"]) == (False, True)


def test_an_account_disabled_in_its_file_is_enabled_there(make):
    accounts = ACCOUNTS.replace('name = "good"', 'name = "good"\ndisabled = true')
    done = act(make(ADMIN_API_KEY=KEY, ACCOUNTS_TOML=accounts).test_client(), "enable").json
    assert (done["ok"], done["account"]["state"]) == (False, "disabled")
    assert "accounts file" in done["message"]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("disable", "good is disabled: it gets no new requests."),
        ("enable", "good is in use again."),
        ("clear", "good has no cooldown any more."),
    ],
)
def test_an_action_that_the_store_did_not_take_failed(make, monkeypatch, action, message):
    # It would go on asking for the store, and telling of it, in all tests that follow.
    monkeypatch.setattr(AccountsWatcher, "start", lambda _: None)
    client = make(ADMIN_API_KEY=KEY, STATE_URL="redis://127.0.0.1:1/0").test_client()
    for _ in range(2):  # once more makes it no truer
        done = act(client, action).json
        assert (done["ok"], done["message"]) == (
            False,
            f"{message} But this holds in one worker only: the state store can't be written, and "
            "the others learn of it when it can be again. Look at STATE_URL and the disk's free "
            "space.",
        )
    assert done["account"]["state"] == ("disabled" if action == "disable" else "ready")


@pytest.mark.parametrize("path", ["nobody/disable", "good/explode"])
def test_unknown_accounts_and_actions(app, path):
    answer = app.test_client().post(f"/admin/api/accounts/{path}", headers={"x-api-key": KEY})
    assert answer.status_code == 404


def test_forms_work_without_scripts(app, browser):
    token = token_in(browser.get("/admin/", headers=HTML))
    page = browser.post("/admin/accounts/good/disable", data={"token": token}, headers=OURS)
    assert (page.status_code, "good is disabled" in page.text) == (200, True)
    assert state(app, "good") == "disabled"
    nobody = browser.post("/admin/accounts/nobody/disable", data={"token": token}, headers=OURS)
    assert nobody.status_code == 404


def test_a_wheel_has_pages_and_assets():
    root = Path(app_package.__file__).parent
    project = tomllib.loads((root.parent / "pyproject.toml").read_text())
    globs = project["tool"]["setuptools"]["package-data"]["app"]
    packed = {path for glob in globs for path in root.glob(glob)}
    files = {
        path
        for folder in ("templates", "static")
        for path in (root / "ops/admin" / folder).rglob("*")
        if path.is_file()
    }
    assert len(files) > 10
    assert files <= packed
