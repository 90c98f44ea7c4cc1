"""The server: connections, credentials, every API surface, and other ways to run it."""

import base64
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import pytest
import requests
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import Request
from google.oauth2.credentials import Credentials

from app.simulator.app import create_simulator_app
from app.simulator.server import Simulator
from app.simulator.state import SimulatorState

ROOT = Path(__file__).parents[2]
BODY = {"contents": [{"role": "user", "parts": [{"text": "one two"}]}]}
VERTEX = "/v1beta1/projects/proj-1/locations/global/publishers/google/models/gemini-3.8-flash"
EXPRESS = "/v1beta1/publishers/google/models/gemini-3.8-flash"
BEARER = {"authorization": "Bearer token-of-mine"}


def test_start_and_stop_can_be_repeated():
    simulator = Simulator()
    with pytest.raises(RuntimeError, match="not started"):
        _ = simulator.base_url
    simulator.stop()
    first = simulator.start()
    assert simulator.start() == first == simulator.base_url
    simulator.stop()
    simulator.stop()
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(first)
    assert requests.get(f"{simulator.start()}/v1beta/models?key=k").status_code == 200
    simulator.stop()


def test_stopping_ends_silent_streams(simulator, ask):
    answer = ask.post(model="gemini-sim-silent", call="streamGenerateContent", stream=True)
    simulator.stop()
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        _ = answer.content


def test_connections_are_kept(simulator):
    host = simulator.base_url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=5)
    ports = set()
    for call in ("generateContent", "streamGenerateContent?alt=sse", "countTokens"):
        address = f"/v1beta/models/gemini-3.8-flash:{call}"
        connection.request("POST", address, json.dumps(BODY), {"x-goog-api-key": "k"})
        ports.add(connection.sock.getsockname())
        assert connection.getresponse().read()
    assert len(ports) == 1
    connection.close()


def test_bodies_may_come_in_chunks(simulator):
    data = json.dumps(BODY).encode()
    address = f"{simulator.base_url}/v1beta/models/gemini-3.8-flash:countTokens?key=k"
    answer = requests.post(address, data=iter([data[:9], data[9:]]))
    assert answer.json()["totalTokens"] == 2
    assert simulator.requests[-1].body == BODY


def test_every_event_leaves_at_once(simulator, ask):
    """The next event is not even made before the pace is over, so the first can't wait for it."""
    simulator.pace = 60.0
    answer = ask.post(call="streamGenerateContent", query="?alt=sse", stream=True)
    first = next(answer.raw.read_chunked())
    assert first.endswith(b"\r\n\r\n")
    answer.close()
    ask.session.close()
    assert simulator.wait_for(lambda: simulator.aborted == 1, 1)


def test_without_sse_a_stream_is_one_array(ask):
    answer = ask.post("one two", call="streamGenerateContent")
    assert answer.headers["content-type"] == "application/json; charset=UTF-8"
    assert len(answer.json()) == 5


def test_http_1_0_clients_get_an_end(simulator):
    host, port = simulator.base_url.removeprefix("http://").split(":")
    data = json.dumps(BODY).encode()
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(
            b"POST /v1beta/models/gemini-3.8-flash:streamGenerateContent?alt=sse&key=k HTTP/1.0\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(data), data)
        )
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b"chunked" not in received.lower()
    assert received.endswith(b"\r\n\r\n")
    assert received.count(b"data: ") == 5


def test_calls_in_flight_are_counted_per_key(simulator):
    simulator.script("key-a", ["hang"] * 3)
    threads = []
    sockets = []

    def hang():
        connection = socket.create_connection(
            ("127.0.0.1", int(simulator.base_url.rsplit(":", 1)[1]))
        )
        sockets.append(connection)
        data = json.dumps(BODY).encode()
        connection.sendall(
            b"POST /v1beta/models/gemini-3.8-flash:countTokens?key=key-a HTTP/1.1\r\n"
            b"host: x\r\ncontent-length: %d\r\n\r\n%b" % (len(data), data)
        )

    threads = [threading.Thread(target=hang) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert simulator.wait_for(lambda: simulator.in_flight("key-a") == 3, 5)
    assert simulator.in_flight("key-b") == 0
    for thread in threads:
        thread.join()
    for connection in sockets:
        connection.close()
    assert simulator.wait_for(lambda: simulator.in_flight("key-a") == 0, 1)
    assert (simulator.max_in_flight("key-a"), simulator.aborted) == (3, 3)


def test_waiting_ends_without_what_was_waited_for(simulator):
    began = time.monotonic()
    assert simulator.wait_for(lambda: False, 0.05) is False
    assert time.monotonic() - began < 1


def test_records_hold_no_credentials_but_the_key(simulator, ask):
    ask.post(headers={"x-goog-api-key": "key-a", "x-goog-user-project": "proj-1", "x-extra": "1"})
    record = simulator.requests[-1]
    assert (record.key, record.project, record.call) == ("key-a", "proj-1", "generateContent")
    assert record.headers["x-extra"] == "1"
    assert "x-goog-api-key" not in record.headers
    requests.get(f"{simulator.base_url}/v1beta/models?key=key-b&pageSize=3", headers={})
    record = simulator.requests[-1]
    assert (record.path, record.query, record.key) == (
        "/v1beta/models",
        {"pageSize": "3"},
        "key-b",
    )


def test_records_are_bounded():
    simulator = Simulator(keep=3)
    address = f"{simulator.start()}/v1beta/models?key="
    for key in "abcde":
        requests.get(address + key)
    assert [record.key for record in simulator.requests] == ["c", "d", "e"]
    assert simulator.served == 5
    simulator.stop()


@pytest.mark.parametrize(
    ("path", "headers", "status", "reason"),
    [
        ("/v1beta/models/gemini-3.8-flash:generateContent", {}, 403, None),
        (
            "/v1beta/models/gemini-3.8-flash:generateContent",
            {"authorization": "Basic x"},
            403,
            None,
        ),
        (
            "/v1beta/models/gemini-3.8-flash:generateContent",
            {"x-goog-api-key": "k", **BEARER},
            400,
            None,
        ),
        (f"{VERTEX}:generateContent", {}, 401, "CREDENTIALS_MISSING"),
        (f"{VERTEX}:generateContent", {"x-goog-api-key": "k"}, 401, "CREDENTIALS_MISSING"),
        ("/v1internal:generateContent", {}, 401, "CREDENTIALS_MISSING"),
        ("/v1internal:generateContent", {"x-goog-api-key": "k"}, 401, "CREDENTIALS_MISSING"),
    ],
)
def test_credentials_are_asked_for(simulator, path, headers, status, reason):
    answer = requests.post(f"{simulator.base_url}{path}", json=BODY, headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, status)
    assert (error["details"][0]["reason"] if "details" in error else None) == reason


def test_unknown_paths_are_not_found_as_at_google(simulator):
    for method, path in (
        ("GET", "/"),
        ("GET", "/v1beta/models/gemini-3.8-flash:generateContent"),
        ("POST", "/v1beta/models/gemini-3.8-flash:frobnicate"),
        ("DELETE", "/v1beta/models"),
    ):
        answer = requests.request(method, f"{simulator.base_url}{path}?key=k")
        assert (answer.status_code, answer.headers["content-type"]) == (
            404,
            "text/html; charset=UTF-8",
        )


@pytest.mark.parametrize(
    ("path", "headers", "project"),
    [(VERTEX, BEARER, "proj-1"), (EXPRESS, {"x-goog-api-key": "k"}, "")],
)
def test_vertex(simulator, ask, path, headers, project):
    whole = ask.post("one", path=f"{path}:generateContent", headers=headers, labels={"a": "b"})
    assert whole.status_code == 200
    assert whole.json()["usageMetadata"]["trafficType"] == "ON_DEMAND"
    assert re.fullmatch(r"\d{4}-.*Z", whole.json()["createTime"])
    assert simulator.requests[-1].project == project
    streamed = ask.chunks("one", path=f"{path}:streamGenerateContent", headers=headers)
    assert len(streamed) == 4
    counted = ask.post("one two", path=f"{path}:countTokens", headers=headers)
    assert counted.json() == {
        "totalTokens": 2,
        "totalBillableCharacters": 6,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 2}],
    }


def test_vertex_has_its_own_words(simulator, ask):
    path = f"{VERTEX.replace('gemini-3.8', 'gemini-1.5')}:generateContent"
    assert ask.refusal(path=path, headers=BEARER)[1].startswith(
        "Publisher Model `projects/proj-1/locations/global/publishers/google/models/"
        "gemini-1.5-flash` was not found"
    )
    turns = [
        {"role": "user", "parts": [{"text": "a"}]},
        {"role": "model", "parts": [{"functionCall": {"name": "f"}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {}}}]},
    ]
    assert ask.refusal(turns, path=f"{VERTEX}:generateContent", headers=BEARER)[1].startswith(
        "Unable to submit request because function call `f` in the 2. content block is missing a "
        "`thought_signature`."
    )
    listed = requests.get(f"{simulator.base_url}/v1beta1/publishers/google/models", headers=BEARER)
    assert listed.json()["publisherModels"][0]["name"] == "publishers/google/models/gemini-4-carbon"


def test_counting_takes_the_whole_request(ask):
    whole = {
        "model": "models/gemini-3.8-flash",
        **BODY,
        "systemInstruction": {"parts": [{"text": "12345678"}]},
    }
    counted = ask.post(body={"generateContentRequest": whole}, call="countTokens").json()
    assert counted["totalTokens"] == 4
    assert ask.refusal(body={"generateContentRequest": BODY}, call="countTokens")[0] == 400
    assert ask.refusal(body={**BODY, "systemInstruction": {}}, call="countTokens")[0] == 400


def envelope(**request):
    return {
        "model": "gemini-3.8-flash",
        "project": "proj-1",
        "user_prompt_id": "1",
        "request": {**BODY, "session_id": "s", **request},
    }


def test_code_assist_wraps_its_answers(simulator, ask):
    whole = ask.post(body=envelope(), path="/v1internal:generateContent", headers=BEARER).json()
    assert set(whole) == {"response", "traceId"}
    assert whole["response"]["candidates"][0]["content"]["parts"][0]["text"] == "You said: one two"
    record = simulator.requests[-1]
    assert (record.key, record.project, record.model) == (
        "token-of-mine",
        "proj-1",
        "gemini-3.8-flash",
    )
    made = ask.chunks(body=envelope(), path="/v1internal:streamGenerateContent", headers=BEARER)
    assert all(set(chunk) == {"response", "traceId"} for chunk in made)
    counted = {"request": {"model": "models/gemini-3.8-flash", **BODY}}
    assert ask.post(body=counted, path="/v1internal:countTokens", headers=BEARER).json() == {
        "totalTokens": 2
    }
    bad = {**envelope(), "model": "gemini-sim-503"}
    assert ask.refusal(body=bad, path="/v1internal:generateContent", headers=BEARER)[0] == 503
    assert ask.refusal(
        body=envelope(store=True), path="/v1internal:generateContent", headers=BEARER
    ) == (
        400,
        "Invalid JSON payload received. Unknown name \"store\" at 'request': Cannot find field.",
    )


def test_code_assist_finds_a_project_and_takes_newcomers_in(simulator):
    def post(method, **body):
        address = f"{simulator.base_url}/v1internal:{method}"
        return requests.post(address, json=body, headers=BEARER).json()

    assert post("loadCodeAssist")["cloudaicompanionProject"] == "simulated-project"
    assert post("loadCodeAssist")["currentTier"]["id"] == "standard-tier"
    simulator.require_onboarding("token-of-mine")
    loaded = post("loadCodeAssist")
    assert "currentTier" not in loaded
    assert loaded["allowedTiers"][0]["isDefault"]
    operation = post("onboardUser", tierId="standard-tier")
    assert operation == {"name": "operations/onboarding"}
    address = f"{simulator.base_url}/v1internal/{operation['name']}"
    done = requests.get(address, headers=BEARER).json()
    assert done["response"]["cloudaicompanionProject"] == {"id": "simulated-project"}
    assert "currentTier" in post("loadCodeAssist")


def user_credentials(simulator):
    return Credentials(
        None,
        refresh_token="refresh-1",
        client_id="id",
        client_secret="secret",
        token_uri=f"{simulator.base_url}/token",
    )


def test_tokens_are_given_expire_and_are_revoked(simulator):
    credentials = user_credentials(simulator)
    credentials.refresh(Request())

    def status():
        headers = {"authorization": f"Bearer {credentials.token}"}
        address = f"{simulator.base_url}/v1beta/models"
        return requests.get(address, headers=headers).status_code

    assert status() == 200
    assert simulator.requests[-1].key == "refresh-1"
    simulator.tokens.expire("refresh-1")
    assert status() == 401
    credentials.refresh(Request())
    assert status() == 200
    simulator.tokens.revoke("refresh-1")
    assert status() == 401
    with pytest.raises(RefreshError, match="expired or revoked"):
        credentials.refresh(Request())
    assert "secret" not in str([vars(record) for record in simulator.requests])


def assertion(**claims):
    pieces = [{"alg": "RS256"}, claims]
    encoded = [
        base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in pieces
    ]
    return ".".join([*encoded, "c2ln"])


def test_service_accounts_get_tokens_for_assertions(simulator):
    def ask_for(**claims):
        grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
        form = {"grant_type": grant, "assertion": assertion(**claims)}
        return requests.post(f"{simulator.base_url}/token", data=form)

    now = int(time.time())
    given = ask_for(iss="robot@example.com", aud="a", iat=now, exp=now + 3600)
    token = given.json()["access_token"]
    requests.get(
        f"{simulator.base_url}/v1beta/models", headers={"authorization": f"Bearer {token}"}
    )
    assert simulator.requests[-1].key == "robot@example.com"
    late = ask_for(iss="robot@example.com", aud="a", iat=now - 9000, exp=now - 5400)
    assert (late.status_code, late.json()["error"]) == (400, "invalid_grant")
    assert "short-lived token" in late.json()["error_description"]
    assert ask_for(iss="x").status_code == 400


def test_it_is_an_ordinary_wsgi_application():
    state = SimulatorState(pace=0.0)
    data = json.dumps(BODY).encode()
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/v1beta/models/gemini-3.8-flash:streamGenerateContent",
        "QUERY_STRING": "alt=sse&key=k",
        "CONTENT_LENGTH": str(len(data)),
        "wsgi.input": io.BytesIO(data),
    }
    setup_testing_defaults(environ)
    started = []
    body = create_simulator_app(state)(environ, lambda status, headers: started.append(status))
    assert len(list(body)) == 5
    assert started == ["200 OK"]
    assert (state.in_flight("k"), state.max_in_flight("k"), state.aborted) == (0, 1, 0)
    body.close()


CHILD = """
import gevent.monkey
gevent.monkey.patch_all()
import gevent, requests
from app.simulator.server import Simulator

simulator = Simulator(pace=0.001)
base = simulator.start()
body = {"contents": [{"parts": [{"text": "one two"}]}]}

def ask(model):
    address = f"{base}/v1beta/models/{model}:streamGenerateContent?alt=sse&key=k"
    return requests.post(address, json=body, timeout=30).content.count(b"data: ")

silent = gevent.spawn(ask, "gemini-sim-silent")
assert simulator.wait_for(lambda: simulator.in_flight("k") == 1, 10)
jobs = [gevent.spawn(ask, "gemini-3.8-flash") for _ in range(30)]
gevent.joinall(jobs, timeout=30, raise_error=True)
assert [job.value for job in jobs] == [5] * 30, [job.value for job in jobs]
silent.kill()
assert simulator.wait_for(lambda: simulator.aborted == 1, 1)
simulator.stop()
print("well")
"""


def test_it_works_under_gevent():
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (child.returncode, child.stdout) == (0, "well\n"), child.stderr


def test_people_can_start_it():
    command = [sys.executable, "-m", "app.simulator", "--port", "0", "--pace", "0"]
    # Tests that run in the background have a Ctrl-C that is ignored, and would pass it on.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        started = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with started as process:
        line = process.stdout.readline()
        base = re.fullmatch(r"simulated Gemini on (http://\S+) \(Ctrl-C ends it\)\n", line)[1]
        address = f"{base}/v1beta/models/gemini-3.8-flash:generateContent?key=k"
        answer = requests.post(address, json=BODY).json()
        assert answer["candidates"][0]["finishReason"] == "STOP"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


def test_a_taken_port_is_said_in_one_line(simulator):
    port = simulator.base_url.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "app.simulator", "--port", port]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr == f"can't listen on 127.0.0.1 port {port}: Address already in use\n"
