"""The gateway as a process: gunicorn, gevent, the official SDK, a live upstream."""

from __future__ import annotations

import json
import re
import socket
import threading
import time

import anthropic
import pytest
import requests

from tests.backend.raw_servers import serving
from tests.e2e.processes import GatewayProcess

HELLO = {"max_tokens": 200, "messages": [{"role": "user", "content": "hello"}]}
MODEL = "claude-sonnet-5"
WHOLE = (
    b'data: {"candidates": [{"content": {"role": "model", "parts": [{"text": "Hi."}]}, '
    b'"finishReason": "STOP"}]}\n\n'
)


def sdk(gateway, **options):
    options.setdefault("max_retries", 0)
    return anthropic.Anthropic(base_url=gateway.url, api_key="any", **options)


def post(gateway, **body):
    return requests.post(f"{gateway.url}/v1/messages", json={"model": MODEL, **HELLO, **body})


def test_without_accounts_it_serves_from_the_simulator_and_says_so(gateway):
    running = gateway(GEMINI_API_KEYS="", GEMINI_BASE_URL="")
    assert "simulator" in running.output
    ready = requests.get(f"{running.url}/readyz")
    assert (ready.status_code, ready.json()["serving"]) == (200, "simulator")
    message = sdk(running).messages.create(model=MODEL, **HELLO)
    assert message.stop_reason == "end_turn"
    assert "hello" in message.content[0].text


def test_streaming_and_not_streaming_give_the_same_message(plain):
    client = sdk(plain)
    whole = client.messages.create(model=MODEL, **HELLO)
    with client.messages.stream(model=MODEL, **HELLO) as stream:
        text = "".join(stream.text_stream)
        streamed = stream.get_final_message()
    assert whole.content[0].text == text
    ignore = {"id"}
    assert (
        whole.model_dump(exclude=ignore)["content"]
        == streamed.model_dump(exclude=ignore)["content"]
    )
    assert whole.usage.output_tokens == streamed.usage.output_tokens > 0
    assert whole.model == streamed.model == MODEL


def test_a_tool_loop_with_thinking_brings_every_signature_back(plain):
    client = sdk(plain)
    tools = [
        {
            "name": "get_weather",
            "description": "Weather of a city",
            "input_schema": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        }
    ]
    messages = [{"role": "user", "content": "Use the tool get_weather for Boston."}]
    options = {
        "model": MODEL,
        "max_tokens": 4000,
        "tools": tools,
        "thinking": {"type": "enabled", "budget_tokens": 2000},
    }
    first = client.messages.create(messages=messages, **options)
    assert first.stop_reason == "tool_use"
    call = first.content[-1]
    assert (call.type, call.name) == ("tool_use", "get_weather")
    assert set(call.input) == {"city"}
    messages += [
        {"role": "assistant", "content": first.content},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "22 degrees"}],
        },
    ]
    second = client.messages.create(messages=messages, **options)
    assert second.stop_reason == "end_turn"
    assert "22 degrees" in "".join(block.text for block in second.content if block.type == "text")
    sent = plain.upstream.requests[-1].body["contents"]
    calls = [part for content in sent for part in content["parts"] if "functionCall" in part]
    assert len(calls) == 1
    assert calls[0]["thoughtSignature"] != "skip_thought_signature_validator"


def test_a_quota_error_on_one_key_is_invisible(gateway, simulator):
    running = gateway(GEMINI_API_KEYS="key-a,key-b")
    simulator.script("key-a", ["429-minute"] * 5)
    with sdk(running).messages.stream(model=MODEL, **HELLO) as stream:
        assert "hello" in "".join(stream.text_stream)
    for _ in range(3):
        assert post(running).status_code == 200
    asked = [record.key for record in simulator.requests if "Content" in record.path]
    assert asked.count("key-a") <= 1
    assert asked.count("key-b") == 4


def test_when_all_are_out_the_client_is_told_for_how_long(lone_accounts):
    running, simulator, key = lone_accounts()
    simulator.script(key, ["429-minute"])
    answer = post(running, model=f"gemini-{key}")
    assert answer.status_code == 429
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert answer.json()["request_id"] == answer.headers["request-id"]
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    again = post(running, model=f"gemini-{key}")
    assert again.status_code == 429
    assert 1 <= int(again.headers["retry-after"]) <= int(answer.headers["retry-after"])


@pytest.mark.parametrize(
    ("fault", "status", "kind", "asked"),
    [
        ("500", 502, "api_error", 3),
        ("503", 529, "overloaded_error", 3),
        ("504", 504, "timeout_error", 3),
        ("403", 403, "permission_error", 3),
        ("reset", 502, "api_error", 3),
        ("hang", 504, "timeout_error", 3),
        ("silent", 504, "timeout_error", 3),
        ("empty", 502, "api_error", 3),
        ("garbage", 502, "api_error", 3),
        ("html", 502, "api_error", 3),
        ("400", 400, "invalid_request_error", 1),
        ("404", 404, "not_found_error", 1),
        ("key-invalid", 503, "overloaded_error", 1),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_each_fault_ends_in_its_status(lone_accounts, fault, status, kind, asked, stream):
    running, simulator, key = lone_accounts()
    simulator.script(key, [fault] * 10)
    answer = post(running, stream=stream, model=f"gemini-{key}")
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)
    assert answer.headers["content-type"] == "application/json"
    posts = [record for record in simulator.requests if "Content" in record.path]
    assert sum(record.key == key for record in posts) == asked
    line = running.wait_for_line(re.compile(rf"{answer.headers['request-id']} /v1/messages"))
    assert f" /v1/messages {status} " in line
    assert line.count(key) >= asked
    assert "client gone" not in line


def test_events_leave_as_they_arrive(plain):
    plain.upstream.script("key-a", ["silent-after-1"])
    answer = requests.post(
        f"{plain.url}/v1/messages", json={"model": MODEL, **HELLO, "stream": True}, stream=True
    )
    lines = answer.iter_lines(chunk_size=1)
    seen = []
    for line in lines:
        seen.append(line)
        if b"text_delta" in line:
            break
    assert seen[0] == b"event: message_start"
    answer.close()
    line = plain.wait_for_line(re.compile(answer.headers["request-id"]))
    assert " /v1/messages 200 client gone: " in line


def test_keepalives_fill_the_silence_and_cost_no_status(gateway, simulator):
    running = gateway(KEEPALIVE_INTERVAL="0.2")
    simulator.script("key-a", ["silent"])
    answer = requests.post(
        f"{running.url}/v1/messages", json={"model": MODEL, **HELLO, "stream": True}, stream=True
    )
    lines = answer.iter_lines(chunk_size=1)
    assert [next(lines) for _ in range(6)] == [b": keep-alive", b""] * 3
    answer.close()


def test_a_client_that_hangs_up_frees_the_account_within_a_second(plain):
    simulator = plain.upstream
    simulator.script("key-a", ["hang", "silent"])
    for _ in range(2):
        connection = socket.create_connection(("127.0.0.1", plain.port))
        body = json.dumps({"model": MODEL, **HELLO, "stream": True}).encode()
        head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        assert simulator.wait_for(lambda: simulator.in_flight("key-a") == 1, 10)
        gone = time.monotonic()
        connection.close()
        assert simulator.wait_for(lambda: simulator.in_flight("key-a") == 0, 10)
        assert time.monotonic() - gone < 1.0
        plain.wait_for_line(re.compile(r" /v1/messages 499 client gone: "), timeout=2)


def test_two_hundred_at_once_never_exceed_an_accounts_concurrency(gateway, simulator):
    running = gateway(GEMINI_API_KEYS="key-a,key-b,key-c")
    simulator.pace = 0.002
    statuses = []

    def ask():
        statuses.append(post(running).status_code)

    threads = [threading.Thread(target=ask) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 200
    for key in ("key-a", "key-b", "key-c"):
        assert 1 <= simulator.max_in_flight(key) <= 8
        assert simulator.in_flight(key) == 0
    asked = [record.key for record in simulator.requests if "Content" in record.path]
    assert {key: 50 <= asked.count(key) <= 84 for key in set(asked)} == {
        "key-a": True,
        "key-b": True,
        "key-c": True,
    }


def test_sigterm_lets_open_streams_finish(gateway, simulator):
    running = gateway()
    simulator.pace = 0.05
    idle = socket.create_connection(("127.0.0.1", running.port))
    used = requests.Session()
    used.get(f"{running.url}/healthz")
    answer = requests.post(
        f"{running.url}/v1/messages", json={"model": MODEL, **HELLO, "stream": True}, stream=True
    )
    lines = answer.iter_lines(chunk_size=1)
    assert next(lines) == b"event: message_start"
    running.terminate()
    assert idle.recv(1) == b""
    assert list(lines)[-3:] == [b"event: message_stop", b'data: {"type":"message_stop"}', b""]
    assert running.wait(15) == 0
    assert "Traceback" not in running.output


def test_streams_that_outlive_the_drain_end_with_an_error_event(gateway, simulator):
    running = gateway(DRAIN_TIMEOUT="0.5")
    simulator.script("key-a", ["silent-after-1"])
    answer = requests.post(
        f"{running.url}/v1/messages", json={"model": MODEL, **HELLO, "stream": True}, stream=True
    )
    lines = answer.iter_lines(chunk_size=1)
    assert next(lines) == b"event: message_start"
    running.terminate()
    rest = list(lines)
    assert rest[-3] == b"event: error"
    assert json.loads(rest[-2].removeprefix(b"data: "))["error"]["type"] == "overloaded_error"
    assert running.wait(15) == 0
    assert answer.status_code == 200
    assert f"{answer.headers['request-id']} /v1/messages 503 stopping: " in running.output


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"PORT": "many"}, "PORT"),
        ({"HOST": "0.0.0.0", "CLIENT_API_KEYS": ""}, "CLIENT_API_KEYS"),
        ({"HOST": "no.such.name.invalid", "CLIENT_API_KEYS": "key"}, "HOST"),
        ({"HOST": "192.0.2.1", "CLIENT_API_KEYS": "key"}, "HOST"),
        ({"HOST": "nosuch"}, "HOST must be an address of this machine"),
        ({"HOST": "999.1.1.1"}, "HOST must be an address of this machine"),
        ({"HOST": f"{'a' * 70}.b", "CLIENT_API_KEYS": "key"}, "HOST"),
        ({"ROTATION": "random"}, "ROTATION"),
        ({"ACCOUNTS_TOML": "[[account]]\nname = 1"}, "ACCOUNTS_TOML"),
        ({"ACCOUNTS_FILE": "nowhere.toml"}, "nowhere.toml"),
        ({"CLIENT_API_KEYS": "sha256:zz"}, "CLIENT_API_KEYS"),
        ({"STATE_URL": "redis://127.0.0.1:1/0?foo=1"}, "STATE_URL: no Redis address"),
    ],
)
def test_a_refused_start_names_the_variable(tmp_path, settings, named):
    refused = GatewayProcess(tmp_path, **settings).start()
    assert refused.wait() != 0
    assert refused.output.startswith("claude-gemini-gateway can't start: ")
    assert named in refused.output
    assert refused.output.count("\n") == 1


def test_a_taken_port_is_named_before_gunicorn_tries_it(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        waiting = GatewayProcess(tmp_path, PORT=str(port)).start()
        line = waiting.wait_for_line(re.compile("PORT"))
        assert line.rstrip().endswith(
            f"PORT={port} can't be taken at 127.0.0.1 (Address already in use): set another PORT, "
            "or end what holds it; trying for some seconds"
        )
    # Whoever held it has ended meanwhile.
    waiting.wait_for_line(re.compile(f"Listening at: http://127.0.0.1:{port}"))
    waiting.kill()  # a worker that is about to start would not hear of a quick end for long


def test_bytes_that_are_not_http_get_the_envelope(plain):
    for garbage in (b"\x16\x03\x01\x00\xa5\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"NONSENSE\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", plain.port)) as connection:
            connection.sendall(garbage)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.split(b"\r\n")[0].split(b" ")[1] == b"400"
        assert json.loads(body)["error"]["type"] == "invalid_request_error"


def test_a_body_that_is_far_too_large_still_gets_its_413(plain):
    answer = requests.post(f"{plain.url}/v1/messages", data=b"x" * 50_000_000)
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "request_too_large"


def test_every_line_is_json_when_asked_for(gateway, simulator):
    running = gateway(LOG_FORMAT="json")
    assert post(running).status_code == 200
    line = running.wait_for_line(re.compile("key-1"))
    running.terminate()
    assert running.process.wait(15) == 0
    for each in running.lines:
        json.loads(each)
    record = json.loads(line)
    assert record["request_id"].startswith("req_")
    assert "key-a" not in running.output


def test_a_cut_stream_is_resumed_on_another_account_when_asked_for(gateway, simulator):
    running = gateway(GEMINI_API_KEYS="key-a,key-b", STREAM_RESUME="true", ROTATION="fill_first")
    simulator.script("key-a", ["cut-2"])
    model = "gemini-2.5-flash"
    with sdk(running).messages.stream(model=model, **HELLO) as stream:
        text = "".join(stream.text_stream)
        assert stream.get_final_message().stop_reason == "end_turn"
    posts = [record for record in simulator.requests if "Content" in record.path]
    assert [record.key for record in posts] == ["key-a", "key-b"]
    partial = posts[1].body["contents"][-1]
    assert partial["role"] == "model"
    assert partial["parts"][0]["text"]
    assert text.startswith(partial["parts"][0]["text"])
    assert len(text) > len(partial["parts"][0]["text"])


def test_a_cut_stream_ends_in_one_error_event_otherwise(gateway, simulator):
    running = gateway(GEMINI_API_KEYS="key-a,key-b", ROTATION="fill_first")
    simulator.script("key-a", ["cut-2"])
    with (
        pytest.raises(anthropic.APIStatusError) as caught,
        sdk(running).messages.stream(model=MODEL, **HELLO) as stream,
    ):
        "".join(stream.text_stream)
    assert caught.value.type == "api_error"
    simulator.script("key-a", ["cut-2"])
    assert post(running, stream=False).json()["stop_reason"] == "end_turn"
    assert [r.key for r in simulator.requests if "Content" in r.path] == ["key-a", "key-a", "key-b"]


def test_the_start_screen_shows_once_whatever_the_number_of_workers(gateway, tmp_path):
    running = gateway(WEB_CONCURRENCY="2", GEMINI_API_KEYS="key-a,key-b")
    for line in (
        f"serves http://127.0.0.1:{running.port} with 2 worker(s)",
        "accounts:    key-1 (api_key), key-2 (api_key)",
        f"dashboard:   http://127.0.0.1:{running.port}/admin/, open to this machine",
    ):
        assert running.output.count(line) == 1, running.output
    assert running.output.count("serving from Gemini") == 2
    files = list((tmp_path / "var").iterdir())
    assert {f"{path.name} {path.stat().st_mode & 0o777:o}" for path in files} >= {
        "state.db 600",
        "state.db-leases 600",
    }
    assert not [path.name for path in files if path.stat().st_mode & 0o077]


def test_a_failover_is_not_lost_to_the_connection_of_who_failed(gateway):
    answered = []

    def fails_and_leaves(visit):
        failed = False
        while request := visit.request():
            if request[0].startswith("GET"):
                visit.answer({"models": []})
            elif failed:
                return  # as when the news of its end and the next request cross
            elif answered:
                visit.answer(WHOLE, content_type="text/event-stream")
            else:
                failed = True
                answered.append(503)
                visit.answer({"error": {"code": 503, "message": "busy"}}, status=503)

    with serving(fails_and_leaves) as server:
        running = gateway(
            GEMINI_API_KEYS="key-a,key-b", GEMINI_BASE_URL=server.url, REQUEST_RETRY="1"
        )
        answer = post(running)
        assert answer.status_code == 200, answer.text
        assert answer.json()["content"][0]["text"] == "Hi."


@pytest.mark.parametrize("leaves", [False, True], ids=["it stays", "it leaves"])
def test_a_failover_after_a_refusal_goes_over_a_kept_connection(gateway, leaves):
    asked, served = [], set()

    def refuses_once(visit):
        while request := visit.request():
            if request[0].startswith("GET"):
                visit.answer({"models": []})
                served.add(visit)
                continue
            asked.append((visit in served, request[1]["x-goog-api-key"]))
            if len(asked) == 2 and leaves:
                return  # as when the news of its end and the next request cross
            served.add(visit)
            if len(asked) == 1:
                visit.answer({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}, status=429)
            else:
                visit.answer(WHOLE, content_type="text/event-stream")

    with serving(refuses_once) as server:
        running = gateway(
            GEMINI_API_KEYS="key-a,key-b", GEMINI_BASE_URL=server.url, REQUEST_RETRY="0"
        )
        answer = post(running)
        assert answer.status_code == 200, answer.text
        assert answer.json()["content"][0]["text"] == "Hi."
    (_, refused), (kept, key), *third = asked
    assert kept
    assert {refused, key} == {"key-a", "key-b"}
    assert third == [(False, key)] * leaves


LOOK = {"type": "object", "properties": {"at": {"type": "string"}}}
TOOL = {"name": "look", "input_schema": LOOK}
SIGNED = (
    b'data: {"candidates": [{"content": {"role": "model", "parts": [{"functionCall": {"name": '
    b'"look", "args": {"at": "x"}, "id": "c1"}, "thoughtSignature": "b3BhcXVl"}]}, '
    b'"finishReason": "STOP"}]}\n\n'
)


@pytest.mark.parametrize("model", ["claude-haiku-4-5", MODEL], ids=["another model", "the same"])
def test_a_signature_that_is_refused_is_not_sent_twice(gateway, model):
    """A client goes on with another model, or with the model of a key that has been replaced."""
    sent = []

    def refuses_signatures(visit):
        while request := visit.request():
            if request[0].startswith("GET"):
                visit.answer({"models": []})
                continue
            contents = json.loads(request[2])["contents"]
            calls = [part for turn in contents for part in turn["parts"] if "functionCall" in part]
            sent.append([call["thoughtSignature"] for call in calls])
            if not calls:
                visit.answer(SIGNED, content_type="text/event-stream")
            elif sent[-1] == ["b3BhcXVl"]:
                refusal = {"code": 400, "message": "Corrupted thought signature."}
                visit.answer({"error": refusal}, status=400)
            else:
                visit.answer(WHOLE, content_type="text/event-stream")

    with serving(refuses_signatures) as server:
        running = gateway(GEMINI_BASE_URL=server.url, REQUEST_RETRY="0")
        first = post(running, tools=[TOOL]).json()["content"]
        result = {"type": "tool_result", "tool_use_id": first[-1]["id"], "content": "seen"}
        messages = [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": first},
            {"role": "user", "content": [result]},
        ]
        answer = post(running, model=model, tools=[TOOL], messages=messages)
        assert answer.status_code == 200, answer.text
        assert answer.json()["content"][0]["text"] == "Hi."
    assert sent == [[], ["b3BhcXVl"], ["skip_thought_signature_validator"]]
