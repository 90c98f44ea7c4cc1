"""Requests that are not let in: each has its one line in the log, and is counted."""

import logging

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app import create_app
from app.config import load_settings

KEY = {"x-api-key": "right"}
BODY = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "hello"}],
}


@pytest.fixture
def application(tmp_path):
    settings = {
        "CLIENT_API_KEYS": "right",
        "CLIENT_REQUESTS_PER_MINUTE": "1",
        "STATE_URL": "memory://",
        "MAX_REQUEST_BYTES": "2000",
    }
    return create_app(load_settings(settings, root=tmp_path))


@pytest.fixture
def client(application, caplog):
    caplog.set_level(logging.INFO, "gateway.request")
    return application.test_client()


def lines(caplog):
    return [one.getMessage() for one in caplog.records if one.name == "gateway.request"]


def counted(client, *names):
    """The samples of ``names`` whose value is not 0, as (name, labels by name, value)."""
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.name in names and sample.value
    ]


@pytest.mark.parametrize(
    ("method", "path", "given", "status", "outcome", "label"),
    [
        ("POST", "/v1/messages", {"json": BODY}, 401, "unauthenticated", "/v1/messages"),
        ("POST", "/v1/messages", {"json": BODY, "headers": {"x-api-key": "w"}}, 401,
         "unauthenticated", "/v1/messages"),
        ("GET", "/v1/models", {}, 401, "unauthenticated", "/v1/models"),
        ("POST", "/v1/messages", {"headers": KEY, "json": {}}, 400, "invalid", "/v1/messages"),
        ("POST", "/v1/messages/count_tokens", {"headers": KEY, "data": b"{"}, 400, "invalid",
         "/v1/messages/count_tokens"),
        ("POST", "/v1/messages", {"headers": KEY, "data": b" " * 2001}, 413, "invalid",
         "/v1/messages"),
        ("GET", "/v1/messages", {"headers": KEY}, 405, "invalid", "/v1/messages"),
        ("GET", "/v1/models?limit=x", {"headers": KEY}, 400, "invalid", "/v1/models"),
        ("GET", "/v1/models/nothing-like-it", {"headers": KEY}, 404, "not_found", "other"),
        ("POST", "/v1/v1/messages", {"headers": KEY, "json": BODY}, 404, "not_found", "other"),
    ],
)  # fmt: skip
def test_a_refusal_is_told_once(client, caplog, method, path, given, status, outcome, label):
    answer = client.open(path, method=method, **given)
    assert answer.status_code == status
    bare = path.partition("?")[0]
    request_id = answer.headers["request-id"]
    assert lines(caplog) == [f"{request_id} {bare} {status} {outcome}: {method}, not let in"]
    assert counted(client, "gateway_refused_total", "gateway_requests_total") == [
        (
            "gateway_refused_total",
            {"path": label, "status": str(status), "outcome": outcome},
            1,
        )
    ]


def test_the_fields_of_the_line(client, caplog):
    answer = client.post("/v1/messages", json={}, headers=KEY)
    (record,) = [one for one in caplog.records if one.name == "gateway.request"]
    assert record.fields.pop("at") == pytest.approx(record.created, abs=5)
    assert len(record.fields.pop("client")) == 8
    assert record.fields == {
        "request_id": answer.headers["request-id"],
        "method": "POST",
        "path": "/v1/messages",
        "status": 400,
        "outcome": "invalid",
    }


def test_an_answered_request_and_one_above_the_limit_have_a_line_each(client, caplog):
    first = client.post("/v1/messages", json=BODY, headers=KEY)
    assert first.status_code == 200
    first.close()
    second = client.post("/v1/messages", json=BODY, headers=KEY)
    assert second.status_code == 429
    told = lines(caplog)
    assert [line.split(": ")[0] for line in told] == [
        f"{first.headers['request-id']} /v1/messages 200 ok",
        f"{second.headers['request-id']} /v1/messages 429 limited",
    ]
    names = "gateway_refused_total", "gateway_requests_total", "gateway_request_seconds_count"
    assert sorted((name, value) for name, _, value in counted(client, *names)) == [
        ("gateway_refused_total", 1),
        ("gateway_request_seconds_count", 1),
        ("gateway_requests_total", 1),
    ]


def test_a_fault_of_ours_on_the_way_in_is_no_refusal(client, application, caplog, monkeypatch):
    def fail(*_):
        raise KeyError("ours")

    monkeypatch.setattr("app.api.messages.load_messages", fail)
    answer = client.post("/v1/messages", json=BODY, headers=KEY)
    request_id = answer.headers["request-id"]
    assert lines(caplog) == [f"{request_id} /v1/messages 500 internal: POST, not let in"]
    assert counted(client, "gateway_refused_total", "gateway_requests_total") == [
        (
            "gateway_requests_total",
            {"path": "/v1/messages", "model": "other", "status": "500", "outcome": "internal"},
            1,
        )
    ]


@pytest.mark.parametrize("path", ["/", "/wp-login.php", "/readyz/x", "/healthz"])
def test_what_is_not_of_the_api_has_no_line(client, caplog, path):
    client.get(path)
    assert lines(caplog) == []
