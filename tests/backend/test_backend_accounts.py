"""Every kind of account over real HTTP: where it asks, how it shows who it is, how tokens live."""

import functools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs

import pytest
from raw_servers import serving, sse, text_chunk

from app.backend.errors import Fault, UpstreamError
from app.backend.session import UpstreamSession
from app.backend.token_auth import TokenAuth
from app.backend.upstream import Call, ListedModel
from app.backend.vertex import host
from app.pool.account import Account

ONE = text_chunk("one")
MODEL = "gemini-3.8-flash"


class Google:
    """A token endpoint and an API on one port; ``refuse`` answers the next token request."""

    def __init__(self):
        self.issued = 0
        self.grants = []
        self.refusals = []
        self.lifetime = 3600
        self.valid = None
        self.answer = ONE
        self.gate = threading.Event()
        self.gate.set()
        self.lock = threading.Lock()

    def __call__(self, visit):
        while request := visit.request():
            line, headers, body = request
            if line.startswith("POST /token "):
                self.token(visit, body)
            elif self.valid and headers.get("authorization") != f"Bearer {self.valid}":
                error = {"code": 401, "status": "UNAUTHENTICATED", "message": "expired"}
                visit.answer({"error": error}, 401)
            else:
                self.api(visit, line, body)

    def token(self, visit, body):
        self.gate.wait(5)
        with self.lock:
            self.grants.append({name: text[0] for name, text in parse_qs(body.decode()).items()})
            if self.refusals:
                visit.answer(*self.refusals.pop(0))
                return
            self.issued += 1
            token = f"token-{self.issued}"
        visit.answer({"access_token": token, "expires_in": self.lifetime, "token_type": "Bearer"})

    def api(self, visit, line, body):
        if "countTokens" in line:
            visit.answer({"totalTokens": 3})
        elif "loadCodeAssist" in line or "onboardUser" in line or "/operations/" in line:
            visit.answer(self.code_assist.pop(0))
        else:
            visit.chunked(sse(self.answer))


@pytest.fixture
def google():
    return Google()


@pytest.fixture
def server(google):
    with serving(google) as server:
        yield server


def user_file(folder, server, **more):
    path = folder / "user.json"
    content = {
        "type": "authorized_user",
        "client_id": "the-client",
        "client_secret": "the-client-secret",
        "refresh_token": "the-refresh-token",
        "token_uri": f"{server.url}/token",
        **more,
    }
    path.write_text(json.dumps(content))
    return str(path)


@functools.cache
def private_key():
    """One for all tests: it takes long to make."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return key.decode()


def service_file(folder, server):
    path = folder / "service.json"
    content = {
        "type": "service_account",
        "project_id": "own-project",
        "private_key_id": "1",
        "private_key": private_key(),
        "client_email": "robot@own-project.iam.gserviceaccount.com",
        "token_uri": f"{server.url}/token",
    }
    path.write_text(json.dumps(content))
    return str(path)


def ask(upstream, account, project="", body=None):
    return list(upstream.generate(account, project, MODEL, body or {}, Call()))


def api_requests(server):
    return [
        (line.split()[1], headers, json.loads(body or b"null"))
        for line, headers, body in server.requests
        if "/token " not in line
    ]


def shown(headers):
    names = ("authorization", "x-goog-api-key", "x-goog-user-project")
    return {name: headers[name] for name in names if name in headers}


def test_oauth(upstream, google, server, tmp_path):
    path = user_file(tmp_path, server, quota_project_id="file-project")
    account = Account("a", "oauth", credentials=path, base_url=server.url)
    assert ask(upstream, account) == ask(upstream, account, "p-2") == [ONE]
    assert google.grants == [
        {
            "grant_type": "refresh_token",
            "client_id": "the-client",
            "client_secret": "the-client-secret",
            "refresh_token": "the-refresh-token",
        }
    ]
    paths = f"/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"
    bearer = "Bearer token-1"
    assert [(path, shown(headers)) for path, headers, _ in api_requests(server)] == [
        (paths, {"authorization": bearer, "x-goog-user-project": "file-project"}),
        (paths, {"authorization": bearer, "x-goog-user-project": "p-2"}),
    ]


def test_service_account(upstream, google, server, tmp_path):
    path = service_file(tmp_path, server)
    account = Account("a", "service_account", credentials=path, base_url=server.url)
    assert ask(upstream, account) == [ONE]
    [(_, headers, _)] = api_requests(server)
    assert shown(headers) == {"authorization": "Bearer token-1"}
    assert google.grants[0]["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"


def test_vertex(upstream, server, tmp_path):
    path = service_file(tmp_path, server)
    account = Account("a", "vertex", credentials=path, base_url=server.url, location="eu")
    assert ask(upstream, account) == ask(upstream, account, "p-2") == [ONE]
    tail = f"/publishers/google/models/{MODEL}:streamGenerateContent?alt=sse"
    assert [(path, shown(headers)) for path, headers, _ in api_requests(server)] == [
        (f"/v1beta1/projects/{p}/locations/eu{tail}", {"authorization": "Bearer token-1"})
        for p in ("own-project", "p-2")
    ]


def test_vertex_express(upstream, server):
    account = Account("a", "vertex", api_key="AQ.key", base_url=server.url, location="us")
    assert ask(upstream, account) == [ONE]
    assert upstream.count_tokens(account, "", MODEL, {"contents": []}, Call()) == 3
    assert upstream.list_models(account) == []
    base = f"/v1beta1/publishers/google/models/{MODEL}"
    assert [(path, shown(headers)) for path, headers, _ in api_requests(server)] == [
        (f"{base}:streamGenerateContent?alt=sse", {"x-goog-api-key": "AQ.key"}),
        (f"{base}:countTokens", {"x-goog-api-key": "AQ.key"}),
    ]


def test_vertex_with_default_credentials(upstream, server, tmp_path, monkeypatch):
    path = service_file(tmp_path, server)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", path)
    account = Account("a", "vertex", base_url=server.url)
    assert ask(upstream, account) == [ONE]
    [(path, headers, _)] = api_requests(server)
    assert path.startswith("/v1beta1/projects/own-project/locations/global/publishers/")
    assert shown(headers) == {"authorization": "Bearer token-1"}


def test_vertex_lists_what_can_answer(upstream, google, server, tmp_path):
    names = ["gemini-3.8-flash", "imagen-5", "gemini-embedding-001"]
    listed = [{"name": f"publishers/google/models/{name}"} for name in names]
    google.api = lambda visit, line, body: visit.answer({"publisherModels": listed})
    path = service_file(tmp_path, server)
    account = Account("a", "vertex", credentials=path, base_url=server.url)
    assert upstream.list_models(account) == [ListedModel("gemini-3.8-flash")]
    [(path, headers, _)] = api_requests(server)
    assert path == "/v1beta1/publishers/google/models?pageSize=100"
    assert headers["x-goog-user-project"] == "own-project"


def test_vertex_hosts():
    assert {name: host(name) for name in ("global", "us", "eu", "europe-west4")} == {
        "global": "aiplatform.googleapis.com",
        "us": "aiplatform.us.rep.googleapis.com",
        "eu": "aiplatform.eu.rep.googleapis.com",
        "europe-west4": "europe-west4-aiplatform.googleapis.com",
    }


METADATA = {
    "ideType": "IDE_UNSPECIFIED",
    "platform": "PLATFORM_UNSPECIFIED",
    "pluginType": "GEMINI",
}


def code_assist_account(server, tmp_path):
    return Account("a", "code_assist", credentials=user_file(tmp_path, server), base_url=server.url)


def test_code_assist(upstream, google, server, tmp_path):
    google.code_assist = [{"currentTier": {"id": "standard-tier"}, "cloudaicompanionProject": "p"}]
    wrapped = [{"response": ONE, "traceId": "t"}, {"traceId": "t"}]
    google.api = lambda visit, line, body: (
        visit.answer(google.code_assist.pop(0)) if "load" in line else visit.chunked(sse(*wrapped))
    )
    account = code_assist_account(server, tmp_path)
    body = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    assert ask(upstream, account, body=body) == ask(upstream, account, body=body) == [ONE]
    (load, _, asked), (path, _, first), (_, _, second) = api_requests(server)
    assert (load, asked) == ("/v1internal:loadCodeAssist", {"metadata": METADATA})
    assert path == "/v1internal:streamGenerateContent?alt=sse"
    session = first["request"]["session_id"]
    for envelope in (first, second):
        assert len(envelope.pop("user_prompt_id")) == 36
        assert envelope == {
            "model": MODEL,
            "project": "p",
            "request": {**body, "session_id": session},
        }


def test_code_assist_joins_a_new_user(upstream, google, server, tmp_path):
    google.code_assist = [
        {"allowedTiers": [{"id": "x"}, {"id": "free-tier", "isDefault": True}]},
        {"name": "operations/7", "done": False},
        {
            "name": "operations/7",
            "done": True,
            "response": {"cloudaicompanionProject": {"id": "q"}},
        },
    ]
    account = code_assist_account(server, tmp_path)
    upstream._surface(account).poll_interval = 0.01
    wrapped = {"request": {"contents": []}}
    assert upstream.count_tokens(account, "", MODEL, wrapped, Call()) == 3
    ask(upstream, account)
    paths = [(path, body) for path, _, body in api_requests(server)]
    assert paths[0] == (
        "/v1internal:countTokens",
        {"request": {"model": f"models/{MODEL}", "contents": []}},
    )
    assert paths[1:4] == [
        ("/v1internal:loadCodeAssist", {"metadata": METADATA}),
        ("/v1internal:onboardUser", {"tierId": "free-tier", "metadata": METADATA}),
        ("/v1internal/operations/7", None),
    ]
    assert paths[4][1]["project"] == "q"


def test_code_assist_says_why_not(upstream, google, server, tmp_path):
    why = {
        "reasonCode": "VALIDATION_REQUIRED",
        "reasonMessage": "Verify your account.",
        "validationUrl": "https://accounts.google.com/verify",
    }
    google.code_assist = [{"currentTier": {"id": "free-tier"}, "ineligibleTiers": [why]}]
    with pytest.raises(UpstreamError) as caught:
        ask(upstream, code_assist_account(server, tmp_path))
    assert (caught.value.fault, caught.value.reason, caught.value.message) == (
        Fault.CREDENTIAL,
        "VALIDATION_REQUIRED",
        "Code Assist does not serve this account: Verify your account. "
        "https://accounts.google.com/verify",
    )


@pytest.fixture(params=["oauth", "service_account", "vertex", "vertex-adc", "code_assist"])
def holder(request, google, server, tmp_path, monkeypatch):
    """An account of each kind that has tokens."""
    kind, _, adc = request.param.partition("-")
    google.code_assist = [
        {"currentTier": {"id": "standard-tier"}, "cloudaicompanionProject": "p"}
    ] * 100
    people = kind in ("oauth", "code_assist")
    path = (user_file if people else service_file)(tmp_path, server)
    if adc:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", path)
        path = ""
    elif kind == "code_assist":
        google.answer = {"response": ONE}
    return Account("a", kind, credentials=path, base_url=server.url)


def test_a_hundred_requests_need_one_token(upstream, google, holder):
    with ThreadPoolExecutor(100) as threads:
        answers = list(threads.map(lambda _: ask(upstream, holder), range(100)))
    assert (answers, google.issued) == ([[ONE]] * 100, 1)


def test_a_hundred_refusals_need_one_refresh(upstream, google, holder):
    ask(upstream, holder)
    google.valid = "token-2"
    barrier = threading.Barrier(100)

    def refused_then_right(_):
        barrier.wait(10)
        for _ in range(2):
            try:
                return ask(upstream, holder)
            except UpstreamError as error:
                assert error.fault is Fault.UNAUTHENTICATED  # noqa: PT017
                upstream.refresh(holder)
        return None

    with ThreadPoolExecutor(100) as threads:
        answers = list(threads.map(refused_then_right, range(100)))
    assert (answers, google.issued) == ([[ONE]] * 100, 2)


def test_a_revoked_grant_names_the_way_out_of_its_kind(upstream, google, holder):
    ask(upstream, holder)
    google.refusals = [({"error": "invalid_grant", "error_description": "gone"}, 400)]
    with pytest.raises(UpstreamError) as caught:
        upstream.refresh(holder)
    if holder.kind in ("oauth", "code_assist"):
        way_out = "run `flask accounts login a`"
    else:
        way_out = f"check {holder.credentials or 'the application default credentials'}"
    assert (caught.value.fault, caught.value.reason, caught.value.message) == (
        Fault.CREDENTIAL,
        "invalid_grant",
        f"Google refused the credential (invalid_grant: gone); {way_out}",
    )


def test_a_hundred_requests_share_one_failure(upstream, google, server, tmp_path):
    account = Account("a", "oauth", credentials=user_file(tmp_path, server), base_url=server.url)
    google.refusals = [({"error": "invalid_grant", "error_description": "revoked"}, 400)] * 100
    google.gate.clear()
    auth = upstream._surface(account).link.auth

    def outcome(_):
        with pytest.raises(UpstreamError) as caught:
            auth.headers()
        return caught.value.fault

    with ThreadPoolExecutor(20) as threads:
        faults = [threads.submit(outcome, n) for n in range(20)]
        threading.Timer(0.3, google.gate.set).start()
        assert {fault.result() for fault in faults} == {Fault.CREDENTIAL}
    assert len(google.grants) == 1


class Clock:
    def __init__(self):
        import time

        self.now = time.time()

    def __call__(self):
        return self.now


def token_auth(account, clock):
    return TokenAuth(
        account,
        UpstreamSession(),
        file_types={"authorized_user"},
        connect_timeout=2,
        wall=clock,
    )


def bearer(auth):
    return auth.headers()["Authorization"]


def test_a_token_is_replaced_before_it_ends(google, server, tmp_path):
    clock = Clock()
    auth = token_auth(Account("a", "oauth", credentials=user_file(tmp_path, server)), clock)
    assert [bearer(auth), bearer(auth)] == ["Bearer token-1"] * 2
    clock.now += 3600 - 301
    assert bearer(auth) == "Bearer token-1"
    clock.now += 2
    google.refusals = [({"error": "slow_down"}, 400)]
    assert bearer(auth) == "Bearer token-1"
    assert bearer(auth) == "Bearer token-1"
    assert len(google.grants) == 2
    clock.now += 31
    assert bearer(auth) == "Bearer token-2"


def test_only_one_waits_while_a_good_token_is_replaced(google, server, tmp_path):
    clock = Clock()
    auth = token_auth(Account("a", "oauth", credentials=user_file(tmp_path, server)), clock)
    bearer(auth)
    clock.now += 3400
    google.gate.clear()
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(bearer, auth)
        while not auth._lock.locked():
            pass
        assert bearer(auth) == "Bearer token-1"
        google.gate.set()
        assert first.result(5) == "Bearer token-2"
    assert google.issued == 2


def failed(auth):
    with pytest.raises(UpstreamError) as caught:
        auth.headers()
    return caught.value.fault, caught.value.reason, caught.value.message


def test_a_revoked_grant_says_what_to_do_and_a_new_login_is_noticed(google, server, tmp_path):
    auth = token_auth(Account("bob", "oauth", credentials=user_file(tmp_path, server)), Clock())
    text = "Token has been expired or revoked."
    google.refusals = [({"error": "invalid_grant", "error_description": text}, 400)]
    assert failed(auth) == (
        Fault.CREDENTIAL,
        "invalid_grant",
        f"Google refused the credential (invalid_grant: {text}); run `flask accounts login bob`",
    )
    assert not auth.outdated()
    user_file(tmp_path, server, refresh_token="another-refresh-token")
    assert auth.outdated()
    assert bearer(auth) == "Bearer token-1"
    assert google.grants[-1]["refresh_token"] == "another-refresh-token"


def test_a_wrong_clock_is_named(google, server, tmp_path):
    account = Account("a", "vertex", credentials=service_file(tmp_path, server))
    auth = TokenAuth(account, UpstreamSession(), file_types=(), connect_timeout=2)
    text = (
        "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable "
        "timeframe. Check your iat and exp values in the JWT claim."
    )
    google.refusals = [({"error": "invalid_grant", "error_description": text}, 400)]
    assert failed(auth) == (
        Fault.UNAVAILABLE,  # it passes once the clock is right
        "invalid_grant",
        f"no token came (invalid_grant: {text}); check this machine's clock",
    )


def test_trouble_of_the_token_endpoint_passes(google, server, tmp_path):
    auth = token_auth(Account("a", "oauth", credentials=user_file(tmp_path, server)), Clock())
    google.refusals = [({"error": "slow_down"}, 400)]
    assert failed(auth) == (Fault.UNAVAILABLE, "slow_down", "no token came (slow_down: None)")
    google.refusals = [(b"<html>captive portal</html>", 403)]
    assert failed(auth)[0] is Fault.UNAVAILABLE
    google.refusals = [(b"hello", 200)]
    assert failed(auth)[0] is Fault.BROKEN
    server.close()
    assert failed(auth) == (
        Fault.BROKEN,
        "token endpoint",
        "Google's token endpoint could not be reached.",
    )


FILES = {
    "is not JSON": "{",
    "is not a JSON object": "[]",
    "is an OAuth client, not a login; run `flask accounts login bob`": '{"installed": {}}',
    "is of type service_account, but kind oauth needs authorized_user": (
        '{"type": "service_account"}'
    ),
    "lacks client_secret, refresh_token": '{"type": "authorized_user", "client_id": "c"}',
}


@pytest.mark.parametrize("why", FILES)
def test_a_wrong_file_is_named_with_its_reason(tmp_path, why):
    path = tmp_path / "user.json"
    path.write_text(FILES[why])
    auth = token_auth(Account("bob", "oauth", credentials=str(path)), Clock())
    assert failed(auth) == (Fault.CREDENTIAL, "credentials", f"credentials file {path}: {why}")


def test_a_missing_file_and_a_broken_key(tmp_path):
    path = tmp_path / "none.json"
    auth = token_auth(Account("bob", "oauth", credentials=str(path)), Clock())
    assert failed(auth)[2] == f"credentials file {path}: No such file or directory"
    path = tmp_path / "service.json"
    content = {"type": "service_account", "client_email": "e", "token_uri": "t"}
    path.write_text(json.dumps({**content, "private_key": "SECRET"}))
    account = Account("bob", "service_account", credentials=str(path))
    auth = TokenAuth(account, UpstreamSession(), file_types=(), connect_timeout=2)
    fault, _, message = failed(auth)
    assert fault is Fault.CREDENTIAL
    assert message.startswith(f"credentials file {path}: can't be used (")
    assert "SECRET" not in message


def test_a_changed_file_starts_the_account_afresh(upstream, google, server, tmp_path):
    account = Account("a", "oauth", credentials=user_file(tmp_path, server), base_url=server.url)
    ask(upstream, account)
    upstream.forget([account])
    ask(upstream, account)
    assert google.issued == 1
    user_file(tmp_path, server, refresh_token="another-one")
    upstream.forget([account])
    ask(upstream, account)
    assert (google.issued, google.grants[-1]["refresh_token"]) == (2, "another-one")


def test_a_key_cannot_be_refreshed(upstream):
    with pytest.raises(UpstreamError) as caught:
        upstream.refresh(Account("a", "api_key", api_key="k"))
    assert caught.value.fault is Fault.CREDENTIAL


def test_a_refresh_without_a_refusal_is_a_real_one(upstream, google, server, tmp_path):
    account = Account("a", "oauth", credentials=user_file(tmp_path, server), base_url=server.url)
    upstream.refresh(account)
    upstream.refresh(account)
    assert google.issued == 2


def test_an_account_has_its_own_proxy(upstream, server):
    """A plain HTTP proxy gets the whole URL."""
    account = Account(
        "a", "api_key", api_key="k", base_url="http://gemini.invalid", proxy=server.url
    )
    assert ask(upstream, account) == [ONE]
    [(path, _, _)] = api_requests(server)
    assert path.startswith("http://gemini.invalid/v1beta/models/")


def test_the_environments_proxy_is_used(upstream, server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    account = Account("a", "api_key", api_key="k", base_url="http://gemini.invalid")
    assert ask(upstream, account) == [ONE]
    direct = Account("b", "api_key", api_key="k", base_url=server.url)
    assert ask(upstream, direct) == [ONE]
    assert [path.startswith("http://gemini.invalid/") for path, _, _ in api_requests(server)] == [
        True,
        False,
    ]


def test_a_socks_proxy(upstream):
    def handler(visit):
        reader = visit._reader
        reader.read(reader.read(2)[1])
        visit.send(b"\x05\x00")
        visit.server.requests.append(reader.read(4) + reader.read(reader.peek(1)[0] + 3))
        visit.send(b"\x05\x00\x00\x01" + b"\x00" * 6)
        visit.request()
        visit.chunked(sse(ONE))

    with serving(handler) as proxy:
        account = Account(
            "a",
            "api_key",
            api_key="k",
            base_url="http://gemini.invalid",
            proxy=f"socks5h://127.0.0.1:{proxy.port}",
        )
        assert ask(upstream, account) == [ONE]
        connect, (line, _, _) = proxy.requests
    assert connect == b"\x05\x01\x00\x03" + bytes([14]) + b"gemini.invalid" + bytes([0, 80])
    assert line.startswith("POST /v1beta/models/")
