"""The API's parts: bodies, keys, pages, envelopes, hang-ups."""

import gzip
import hashlib
import json
import socket
import threading

import pytest
from flask import Flask, g, jsonify, request

from app.api import errors
from app.api.auth import ClientKeys
from app.api.body import read_json
from app.api.deadline import BodyDeadline
from app.api.errors import ApiError
from app.api.hangup import HangupWatch
from app.api.models import models_blueprint
from app.relay.errors import Failure, RelayError

LIMIT = 1000


def packed_form(raw):
    """Return ``raw`` as gzip, the same bytes every time."""
    return gzip.compress(raw, mtime=0)


@pytest.fixture
def app():
    app = Flask("test", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = LIMIT
    errors.install(app)
    keys = ClientKeys(["open-sesame", "sha256:" + hashlib.sha256(b"hashed").hexdigest()])

    @app.before_request
    def _begin():
        g.request_id = "req_test"

    @app.post("/body")
    def body():
        return jsonify(read_json(request, app.config["MAX_CONTENT_LENGTH"], BodyDeadline(60)))

    @app.get("/key")
    def key():
        keys.check(request)
        return "in"

    @app.get("/bug")
    def bug():
        raise RuntimeError("sesame")

    @app.get("/failure/<name>")
    def failed(name):
        raise ApiError.of(RelayError(Failure[name], "why", status=400, retry_after=61.2))

    models = [{"id": f"m{number:02}", "lifecycle": "active"} for number in range(25)]
    app.register_blueprint(
        models_blueprint(
            ClientKeys([]),
            catalogue=lambda: models,
            lookup=lambda name: next((m for m in models if m["id"] == name), None),
        )
    )
    return app


@pytest.fixture
def client(app):
    return app.test_client()


def envelope(kind, message):
    return {
        "type": "error",
        "error": {"type": kind, "message": message},
        "request_id": "req_test",
    }


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"a": [1, "\xc3\xbc"]}', {"a": [1, "ü"]}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'"\\ud83d\\ude00 \\ud83d"', "😀 �"),
        (b'{"\\udc00": ["\\ud800x"]}', {"�": ["�x"]}),
    ],
)
def test_bodies_are_read(client, raw, value):
    assert client.post("/body", data=raw).json == value
    packed = client.post("/body", data=packed_form(raw), headers={"content-encoding": "gzip"})
    assert packed.json == value


@pytest.mark.parametrize(
    ("raw", "headers"),
    [
        (b"", {}),
        (b"  ", {}),
        (b"{", {}),
        (b"nonsense", {}),
        (b'{"a": NaN}', {}),
        (b'{"a": -Infinity}', {}),
        (b'{"a": 1e999}', {}),
        (b"\xff\xfe\x00", {}),
        (b"[" * 900, {}),
        (b"1" * 900, {"x": "integers of thousands of digits are refused by Python"}),
        (b"x", {"content-encoding": "gzip"}),
        (packed_form(b"{}")[:-4], {"content-encoding": "gzip"}),
        (b"{}", {"content-encoding": "br"}),
    ],
)
def test_bad_bodies_are_400(client, raw, headers):
    answer = client.post("/body", data=raw, headers=headers)
    if raw.startswith(b"1"):
        assert answer.status_code in (200, 400)
        return
    assert answer.status_code == 400
    assert answer.json["error"]["type"] == "invalid_request_error"


def test_deep_nesting_is_no_crash(app):
    app.config["MAX_CONTENT_LENGTH"] = 200_000
    answer = app.test_client().post("/body", data=b"[" * 200_000)
    assert (answer.status_code, answer.json) == (
        400,
        envelope("invalid_request_error", "The request body is nested too deeply."),
    )


@pytest.mark.parametrize("packed", [False, True])
def test_large_bodies_are_413(client, packed):
    raw = b" " * (LIMIT + 1)
    data, headers = (packed_form(raw), {"content-encoding": "gzip"}) if packed else (raw, {})
    answer = client.post("/body", data=data, headers=headers)
    assert (answer.status_code, answer.json) == (
        413,
        envelope("request_too_large", "Request exceeds the maximum size of 1000 bytes."),
    )


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-api-key": "open-sesame"}, 200),
        ({"authorization": "Bearer open-sesame"}, 200),
        ({"authorization": "bearer  hashed "}, 200),
        ({"x-api-key": "wrong", "authorization": "Bearer open-sesame"}, 200),
        ({"x-api-key": "open-sesame", "authorization": "Bearer wrong"}, 200),
        ({"x-api-key": "wrong"}, 401),
        ({"x-api-key": "sha256:" + hashlib.sha256(b"hashed").hexdigest()}, 401),
        ({"authorization": "Basic open-sesame"}, 401),
        ({"x-api-key": ""}, 401),
        ({}, 401),
    ],
)
def test_either_header_with_a_valid_key_is_enough(client, headers, status):
    answer = client.get("/key", headers=headers)
    assert answer.status_code == status
    if status == 401:
        assert answer.json["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/messages", "/messages"),
        ("/v1/v1/messages", "/v1/v1/messages"),
        ("/a%0Ab%22", "/a%0Ab%22"),
        ("/" + "x" * 8000, "/" + "x" * 99),
    ],
)
def test_a_wrong_base_url_is_told_by_the_path_that_came_of_it(client, path, told):
    assert client.post(path, json={}).json == envelope(
        "not_found_error",
        f"Not found: {told}. This gateway serves /v1/messages, /v1/messages/count_tokens and "
        "/v1/models.",
    )


def test_everything_unknown_is_in_the_envelope(client):
    assert client.get("/nowhere").json["error"]["type"] == "not_found_error"
    wrong = client.get("/body")
    assert (wrong.status_code, set(wrong.headers["allow"].split(", "))) == (
        405,
        {"OPTIONS", "POST"},
    )
    assert wrong.json == envelope("invalid_request_error", "This method is not allowed here.")
    bug = client.get("/bug")
    assert (bug.status_code, bug.json) == (
        500,
        envelope("api_error", "The gateway failed on this request; its log says why."),
    )


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("QUOTA", 429, "rate_limit_error"),
        ("NO_ACCOUNT", 503, "overloaded_error"),
        ("BUSY", 503, "overloaded_error"),
        ("FORBIDDEN", 403, "permission_error"),
        ("TIMEOUT", 504, "timeout_error"),
        ("OVERLOADED", 529, "overloaded_error"),
        ("BROKEN", 502, "api_error"),
        ("NOT_FOUND", 404, "not_found_error"),
        ("REJECTED", 400, "invalid_request_error"),
        ("STOPPING", 503, "overloaded_error"),
        ("INTERNAL", 500, "api_error"),
    ],
)
def test_each_failure_has_its_status(client, name, status, kind):
    answer = client.get(f"/failure/{name}")
    assert (answer.status_code, answer.json) == (status, envelope(kind, "why"))
    assert answer.headers["retry-after"] == "62"
    assert answer.headers["x-should-retry"] == "false"


def test_every_failure_is_in_the_table_above():
    assert set(errors.STATUSES) == set(Failure)


def test_models_come_in_pages_that_end(client):
    seen, after, pages = [], None, 0
    while True:
        page = client.get("/v1/models", query_string={"after_id": after} if after else {}).json
        seen += [model["id"] for model in page["data"]]
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], seen[-1])
        pages += 1
        if not page["has_more"]:
            break
        after = page["last_id"]
    assert seen == [f"m{number:02}" for number in range(25)]
    assert pages == 2


def test_models_can_be_paged_backwards_and_limited(client):
    page = client.get("/v1/models?before_id=m10&limit=3").json
    assert [model["id"] for model in page["data"]] == ["m07", "m08", "m09"]
    assert page["has_more"]
    empty = client.get("/v1/models?after_id=m24").json
    assert empty == {"data": [], "has_more": False, "first_id": None, "last_id": None}


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "limit=" + "9" * 5000, "after_id=no", "before_id=no"],
)
def test_wrong_pages_are_400(client, query):
    answer = client.get(f"/v1/models?{query}")
    assert answer.status_code == 400
    assert answer.json["error"]["message"].startswith(query.split("=")[0])


def test_one_model_and_none(client):
    assert client.get("/v1/models/m03").json == {"id": "m03", "lifecycle": "active"}
    missing = client.get("/v1/models/a/b:c")
    assert (missing.status_code, missing.json["error"]["message"]) == (404, "model: a/b:c")


def test_a_hangup_is_noticed_once_and_only_on_its_own_connection():
    watch = HangupWatch()
    gone = threading.Event()
    ours, theirs = socket.socketpair()
    other, other_end = socket.socketpair()
    forget_other = watch.watch(other, lambda: pytest.fail("this one is still open"))
    forget = watch.watch(ours, gone.set)
    theirs.sendall(b"pipelined")
    assert not gone.wait(0.6)
    theirs.close()
    assert gone.wait(2)
    forget()
    assert watch._watched.keys() == {other.fileno()}
    forget_other()
    for end in (ours, other, other_end):
        end.close()


def test_a_forgotten_connection_is_never_reported():
    watch = HangupWatch()
    ours, theirs = socket.socketpair()
    watch.watch(ours, lambda: pytest.fail("nobody asked"))()
    theirs.close()
    assert watch._closed() == []
    ours.close()


def test_the_envelope_of_an_event_is_that_of_an_answer():
    assert json.loads(json.dumps(ApiError(502, "why").body("req_test"))) == envelope(
        "api_error", "why"
    )


def test_a_proxy_in_front_of_a_gateway_without_keys_is_told_of_once(caplog):
    def look(keys, headers):
        with Flask("test").test_request_context("/", headers=headers):
            return keys.check(request)

    forwarded = {"x-forwarded-for": "203.0.113.7"}
    keys = ClientKeys([])

    def said():
        # Gateways of other tests in this process may have their say, too, from their threads.
        return [one for one in caplog.records if one.name == "gateway.api"]

    assert look(keys, {}) == ""
    assert said() == []
    assert [look(keys, forwarded) for _ in range(3)] == ["", "", ""]
    assert look(ClientKeys(["a-key"]), {**forwarded, "x-api-key": "a-key"}) != ""
    assert [(one.levelname, one.getMessage()) for one in said()] == [
        (
            "WARNING",
            "requests come through a proxy (X-Forwarded-For), and without CLIENT_API_KEYS whoever "
            "reaches it is let in: set them",
        )
    ]
