"""``GATEWAY_DEBUG_HEADERS`` over real HTTP: in answers, streams, errors, and nowhere by default."""

import re

import pytest
import requests

HEADER = "x-gateway-attempts"


def post(gateway, path="/v1/messages", **more):
    body = {
        "model": "claude-sonnet-4-5",
        "max_tokens": 50,
        "messages": [{"role": "user", "content": "hello"}],
        **more,
    }
    if path.endswith("count_tokens"):
        del body["max_tokens"]
    return requests.post(f"{gateway.url}{path}", json=body, timeout=30, stream=True)


@pytest.fixture
def telling(gateway):
    return gateway(
        GEMINI_API_KEYS="secret-a,secret-b",
        GATEWAY_DEBUG_HEADERS="true",
        KEEPALIVE_INTERVAL="0.2",
        ROTATION="fill_first",
        REQUEST_RETRY="1",
    )


def test_the_way_of_a_request_is_told(telling, simulator):
    simulator.script("secret-a", ["503", "503", "delay-1500"])
    ms = r"\d+ms"
    answer = post(telling)
    assert answer.status_code == 200
    assert re.fullmatch(rf"key-1 503 \S.* {ms}; key-2 200 {ms}", answer.headers[HEADER])
    simulator.script("secret-b", ["400"])
    failed = post(telling, stream=True)
    assert failed.status_code == 400
    assert re.fullmatch(rf"key-1 503 \S.* {ms}; key-2 400 \S.* {ms}", failed.headers[HEADER])
    # A stream tells what is known when its status goes out, here with a keep-alive.
    slow = post(telling, stream=True)
    assert slow.status_code == 200
    assert re.fullmatch(rf"key-1 open {ms}", slow.headers[HEADER])
    assert b"message_stop" in slow.content
    counted = post(telling, "/v1/messages/count_tokens")
    assert re.fullmatch(rf"key-1 200 {ms}", counted.headers[HEADER])
    for response in (answer, failed, slow, counted):
        assert "secret" not in str(response.headers)
    assert HEADER not in requests.get(f"{telling.url}/v1/models", timeout=20).headers
    assert HEADER not in post(telling, max_tokens="x").headers


def test_it_is_off_by_default(plain):
    assert HEADER not in post(plain).headers
    plain.upstream.script("key-a", ["400"])
    failed = post(plain)
    assert failed.status_code == 400
    assert HEADER not in failed.headers
