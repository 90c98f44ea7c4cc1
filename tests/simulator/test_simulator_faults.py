"""Each fault, as it looks on the wire."""

import gzip
import json
import re
import socket
from pathlib import Path

import pytest
import requests

from app.simulator import faults

STREAM = "streamGenerateContent"


def wire(simulator, fault, call=STREAM, text="one two three four"):
    """What comes back until the connection ends: (all bytes, how it ended)."""
    body = json.dumps({"contents": [{"parts": [{"text": text}]}]}).encode()
    host, port = simulator.base_url.removeprefix("http://").split(":")
    query = "?alt=sse" if call == STREAM else ""
    head = (
        f"POST /v1beta/models/gemini-sim-{fault}:{call}{query} HTTP/1.1\r\nhost: x\r\n"
        f"x-goog-api-key: key-a\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    received = b""
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(head.encode() + body)
        try:
            while piece := connection.recv(65536):
                received += piece
        except ConnectionResetError:
            return received, "reset"
    return received, "closed"


def events(received):
    """The whole chunks of a body that has the chunked transfer coding, and the rest."""
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head.lower()
    found = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        found.append(rest[: int(size, 16)])
        body = rest[int(size, 16) + 2 :]
    return found


@pytest.mark.parametrize("name", sorted(faults.HTTP_ERRORS))
def test_http_errors_have_googles_shape(simulator, ask, name):
    simulator.script("key-a", [name])
    answer = ask.post()
    error = answer.json()["error"]
    assert error["code"] == answer.status_code
    if name[:3].isdigit():
        assert answer.status_code == int(name[:3])
    assert error["message"]
    assert error["status"].isupper()
    assert ask.post().status_code == 200
    assert [record.fault for record in simulator.requests] == [name, ""]


def test_a_refusal_per_minute_says_what_and_how_long(ask):
    error = ask.post(model="gemini-2.5-flash-sim-429-minute-7").json()["error"]
    failure, _, retry = error["details"]
    assert failure["violations"] == [
        {
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
            "quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
            "quotaDimensions": {"location": "global", "model": "gemini-2.5-flash"},
            "quotaValue": "10",
        }
    ]
    assert retry == {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}
    assert error["message"].endswith("Please retry in 7.3s.")


def test_a_refusal_per_day_names_a_misleading_delay(ask):
    error = ask.post(model="gemini-sim-429-day").json()["error"]
    assert "PerDay" in error["details"][0]["violations"][0]["quotaId"]
    assert error["details"][2]["retryDelay"] == "47s"


def test_refusals_before_a_stream_without_sse_come_in_an_array(ask):
    assert ask.post(model="gemini-sim-503", call=STREAM).json()[0]["error"]["code"] == 503


@pytest.mark.parametrize("call", [STREAM, "generateContent", "countTokens"])
def test_reset_comes_before_the_headers(simulator, call):
    assert wire(simulator, "reset", call) == (b"", "reset")


def test_reset_in_the_middle(simulator):
    # What was sent may be lost with the RST, so only the end is certain.
    assert wire(simulator, "reset-3")[1] == "reset"


@pytest.mark.parametrize(("name", "whole"), [("cut", 2), ("cut-0", 0), ("cut-4", 4), ("cut-99", 6)])
def test_cut_ends_without_the_last_chunk(simulator, name, whole):
    received, end = wire(simulator, name)
    assert end == "closed"
    found = events(received)
    assert len(found) == whole
    assert all(event.endswith(b"\r\n\r\n") for event in found)
    assert not any(b"finishReason" in event for event in found)


def test_cut_after_bytes(simulator):
    received, _ = wire(simulator, "cut-bytes-50")
    assert [len(piece) for piece in events(received)] == [50]
    assert events(wire(simulator, "cut-bytes-0")[0]) == []


def test_half_an_event(simulator):
    found = events(wire(simulator, "half-event")[0])
    assert len(found) == 3
    assert found[2].startswith(b"data: ")
    assert not found[2].endswith(b"\r\n\r\n")


@pytest.mark.parametrize("call", ["generateContent", "countTokens"])
def test_cut_breaks_whole_answers_in_the_middle(ask, call):
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        ask.post(model="gemini-sim-cut", call=call)


@pytest.mark.parametrize(
    ("name", "status"),
    [("hang", 0), ("silent", 200), ("silent-after-2", 200), ("delay-60000", 0)],
)
def test_silence_lasts_until_the_client_hangs_up(simulator, name, status):
    body = json.dumps({"contents": [{"parts": [{"text": "one two three"}]}]}).encode()
    address = ("127.0.0.1", int(simulator.base_url.rsplit(":", 1)[1]))
    with socket.create_connection(address, timeout=5) as connection:
        connection.sendall(
            f"POST /v1beta/models/gemini-sim-{name}:{STREAM}?alt=sse HTTP/1.1\r\nhost: x\r\n"
            f"x-goog-api-key: key-a\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        assert simulator.wait_for(lambda: simulator.in_flight("key-a") == 1, 5)
        if status:
            received = connection.recv(4096)
            assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        record = simulator.requests[-1]
        assert not record.aborted
    assert record.ended.wait(1)
    assert (record.aborted, simulator.aborted, record.status) == (True, 1, status)
    assert (simulator.in_flight("key-a"), simulator.max_in_flight("key-a")) == (0, 1)


def test_silence_keeps_what_came_before(ask):
    answer = ask.post(
        "one two three",
        model="gemini-sim-silent-after-2",
        call=STREAM,
        query="?alt=sse",
        stream=True,
    )
    pieces = answer.raw.read_chunked()
    texts = [json.loads(next(pieces)[6:])["candidates"][0]["content"]["parts"] for _ in range(2)]
    assert texts == [[{"text": "You "}], [{"text": "said: "}]]
    answer.close()


def test_delay_holds_the_headers_back(ask):
    answer = ask.post(model="gemini-sim-delay-120")
    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() >= 0.12


def test_no_finish_is_a_clean_end_without_a_reason(ask):
    made = ask.chunks("one two", model="gemini-sim-no-finish")
    assert len(made) == 5
    assert all("finishReason" not in chunk["candidates"][0] for chunk in made)


def test_error_in_mid_stream(ask):
    made = ask.chunks("one two", model="gemini-sim-error-mid-1")
    assert [list(chunk) for chunk in made[1:]] == [["error"]]
    assert made[1]["error"]["code"] == 503


def test_raw_error_in_mid_stream(ask):
    answer = ask.post("one two", model="gemini-sim-error-raw-1", call=STREAM, query="?alt=sse")
    first, _, raw = answer.text.partition("\r\n\r\n")
    assert first.startswith("data: ")
    assert json.loads(raw)["error"]["status"] == "CANCELLED"


def test_garbage(ask):
    def streamed(name):
        return ask.post("one", model=f"gemini-sim-{name}", call=STREAM, query="?alt=sse")

    garbage = streamed("garbage")
    assert garbage.headers["content-type"] == "text/event-stream"
    assert b"data:" not in garbage.content
    html = streamed("html")
    assert (html.status_code, html.headers["content-type"]) == (200, "text/html; charset=UTF-8")
    wrong = streamed("wrong-type")
    assert wrong.headers["content-type"] == "text/plain; charset=UTF-8"
    assert wrong.content.startswith(b"data: {")
    middle = streamed("garbage-mid-1").text.split("\r\n\r\n")
    json.loads(middle[0][6:])
    with pytest.raises(json.JSONDecodeError):
        json.loads(middle[1][6:])


def test_redirect_leads_to_a_place_that_takes_notes(simulator, ask):
    answer = ask.post(model="gemini-sim-redirect")
    assert (answer.status_code, answer.headers["location"]) == (302, "/_simulator/redirected")
    requests.get(f"{simulator.base_url}/_simulator/redirected")
    assert simulator.requests[-1].path == "/_simulator/redirected"


@pytest.mark.parametrize("call", [STREAM, "generateContent"])
def test_gzip_is_a_good_answer_in_another_coat(ask, call):
    query = "?alt=sse" if call == STREAM else ""
    plain = ask.post("one two", call=call, query=query).text
    packed = ask.post(
        "one two", model="gemini-3.8-flash-sim-gzip", call=call, query=query, stream=True
    )
    assert packed.headers["content-encoding"] == "gzip"
    unpacked = gzip.decompress(packed.raw.read(decode_content=False)).decode()
    assert _without_id(unpacked) == _without_id(plain)


def _without_id(text):
    return [line for line in text.replace(", ", ",\n").splitlines() if "responseId" not in line]


def test_slow_drips(simulator):
    found = events(wire(simulator, "slow", text="a")[0])
    assert {len(piece) for piece in found[:-2]} == {16}
    assert b"finishReason" in b"".join(found)


@pytest.mark.parametrize(
    ("name", "candidates"),
    [
        ("empty", [{"finishReason": "STOP", "index": 0}]),
        ("thoughts-only", [{"finishReason": "MAX_TOKENS", "index": 0}]),
        ("unexpected-call", [{"finishReason": "UNEXPECTED_TOOL_CALL", "index": 0}]),
        ("blocked", None),
    ],
)
def test_answers_that_are_none(ask, name, candidates):
    (only,) = ask.chunks("one two", model=f"gemini-sim-{name}")
    assert only.get("candidates") == candidates
    assert ("promptFeedback" in only) == (name == "blocked")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("safety", "SAFETY"),
        ("recitation", "RECITATION"),
        ("malformed-call", "MALFORMED_FUNCTION_CALL"),
    ],
)
def test_bad_ends(ask, name, reason):
    made = ask.chunks("one two three", model=f"gemini-sim-{name}")
    assert made[-1]["candidates"][0]["finishReason"] == reason
    assert "content" not in made[-1]["candidates"][0]
    assert (len(made) > 1) == (name != "malformed-call")


def test_faults_by_key(ask):
    assert ask.refusal(key="sim-fault-403") == (403, "The caller does not have permission")
    address = f"{ask.simulator.base_url}/v1beta/models?key=sim-fault-key-invalid"
    assert requests.get(address).json()["error"]["details"][0]["reason"] == "API_KEY_INVALID"


def test_faults_by_header_and_how_often(ask):
    headers = {"x-goog-api-key": "key-a", "x-simulator-fault": "503;times=2"}
    assert [ask.post(headers=headers).status_code for _ in range(4)] == [503, 503, 200, 200]
    del headers["x-simulator-fault"]
    assert ask.post(headers=headers).status_code == 200


def test_scripts_are_per_key_and_in_order(simulator, ask):
    simulator.script("key-a", ["503", None, "429"])
    got = [ask.post(key=key).status_code for key in ("key-a", "key-b", "key-a", "key-a", "key-a")]
    assert got == [503, 200, 200, 429, 200]


def test_scripts_leave_the_listing_alone_unless_meant_for_it(simulator):
    simulator.script("key-a", ["503"])
    address = f"{simulator.base_url}/v1beta/models?key=key-a"
    assert requests.get(address).status_code == 200
    simulator.script("key-b", ["403"], on=["models"])
    assert requests.get(address.replace("key-a", "key-b")).status_code == 403


def test_scripts_over_http(simulator, ask):
    control = f"{simulator.base_url}/_simulator/"
    script = {"key": "key-a", "faults": ["500", None]}
    assert requests.post(f"{control}script", json=script).status_code == 200
    assert [ask.post().status_code for _ in range(2)] == [500, 200]
    seen = requests.get(f"{control}state").json()
    assert [r["status"] for r in seen["requests"] if r["key"] == "key-a"] == [500, 200]
    assert seen["faults"] == sorted(faults.NAMES)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("script", {"key": "a", "faults": ["nonsense"]}, 400),
        ("script", {"faults": []}, 400),
        ("script", [], 400),
        ("nothing", {}, 404),
    ],
)
def test_wrong_controls_say_so(simulator, path, body, status):
    answer = requests.post(f"{simulator.base_url}/_simulator/{path}", json=body)
    assert answer.status_code == status
    assert answer.json()["error"]


def test_unknown_faults_are_refused_where_they_are_named(simulator, ask):
    with pytest.raises(faults.UnknownFault, match="no fault called 'nonsense'"):
        simulator.script("key-a", ["nonsense"])
    status, message = ask.refusal(model="gemini-sim-nonsense")
    assert status == 400
    assert "no fault called 'nonsense'; there are: 400, 401" in message


def test_every_fault_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
    named = set(re.findall(r"`([a-z0-9-]+?)(?:-N)?`", page))
    assert sorted(faults.NAMES - named) == []
