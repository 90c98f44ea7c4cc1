"""Counting, models, health, keys, and several workers, over a live gateway."""

from __future__ import annotations

import json
import re
import threading

import anthropic
import pytest
import requests

from tests.backend.raw_servers import serving
from tests.e2e.processes import ROOT
from tests.e2e.test_gateway_process import WHOLE

HELLO = {"messages": [{"role": "user", "content": "hello"}]}
MODEL = "claude-sonnet-5"


def test_tokens_are_counted_by_gemini(plain):
    client = anthropic.Anthropic(base_url=plain.url, api_key="any")
    # Words of its own: a count is remembered.
    message = {"messages": [{"role": "user", "content": "count me"}]}
    short = client.messages.count_tokens(model=MODEL, **message).input_tokens
    long = client.messages.count_tokens(
        model=MODEL, messages=[{"role": "user", "content": "count me " * 500}]
    ).input_tokens
    assert 0 < short < long
    asked = [record.path for record in plain.upstream.requests if "countTokens" in record.path]
    assert asked == ["/v1beta/models/gemini-3.8-flash:countTokens"] * 2
    client.messages.count_tokens(model=MODEL, **message)
    requested = plain.upstream.requests
    assert len([record for record in requested if "countTokens" in record.path]) == 2


def test_counting_that_is_refused_costs_no_answer(gateway):
    def counts_no_more(visit):
        while request := visit.request():
            if "countTokens" in request[0]:
                visit.answer({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}, status=429)
            elif request[0].startswith("POST"):
                visit.answer(WHOLE, content_type="text/event-stream")
            else:
                visit.answer({"models": []})

    with serving(counts_no_more) as server:
        running = gateway(GEMINI_BASE_URL=server.url)
        counted = requests.post(
            f"{running.url}/v1/messages/count_tokens", json={"model": MODEL, **HELLO}
        )
        assert counted.status_code == 200
        assert 0 < counted.json()["input_tokens"] < 20
        body = {"model": MODEL, "max_tokens": 9, **HELLO}
        assert requests.post(f"{running.url}/v1/messages", json=body).status_code == 200
    assert any("countTokens" in line for line, *_ in server.requests)


@pytest.mark.parametrize("stream", [False, True])
def test_the_sdks_tool_runner_goes_on_without_a_thread(plain, stream):
    """It continues a thread by itself, and sends all messages once it hears that there is none."""
    client = anthropic.Anthropic(base_url=plain.url, api_key="any", max_retries=0)

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """Tell the weather of a city."""
        asked.append(city)
        return "sunny"

    asked = []
    runner = client.beta.messages.tool_runner(
        model=MODEL,
        max_tokens=1500,
        messages=[{"role": "user", "content": 'use get_weather for "Paris"'}],
        tools=[get_weather],
        stream=stream,
    )
    answers = [turn.get_final_message() if stream else turn for turn in runner]
    assert [answer.stop_reason for answer in answers] == ["tool_use", "end_turn"]
    assert asked == ["Paris"]


def test_a_thread_that_goes_on_is_refused_as_one_that_is_lost(plain):
    body = {"model": MODEL, "max_tokens": 9, "thread": {"type": "continue"}, **HELLO}
    answer = requests.post(f"{plain.url}/v1/messages", json=body)
    assert (answer.status_code, answer.json()["error"]) == (
        400,
        {
            "type": "invalid_request_error",
            "message": "thread: threads are not kept by this gateway; send all messages",
            "details": {"error_code": "thread_not_found"},
        },
    )


def test_a_burst_of_counts_is_not_a_burst_upstream(plain):
    simulator = plain.upstream
    simulator.script("key-a", ["hang"] * 4)
    counts = []

    def count(number):
        body = {"model": MODEL, "messages": [{"role": "user", "content": f"tool {number}"}]}
        answer = requests.post(f"{plain.url}/v1/messages/count_tokens", json=body, timeout=5)
        counts.append(answer.json()["input_tokens"])

    def hanging(number):
        body = {"model": MODEL, "messages": [{"role": "user", "content": f"hang {number}"}]}
        with pytest.raises(requests.Timeout):
            requests.post(f"{plain.url}/v1/messages/count_tokens", json=body, timeout=4)

    first = [threading.Thread(target=hanging, args=(number,)) for number in range(4)]
    for thread in first:
        thread.start()
    assert simulator.wait_for(lambda: simulator.in_flight("key-a") == 4, 5)
    rest = [threading.Thread(target=count, args=(number,)) for number in range(21)]
    for thread in rest:
        thread.start()
    for thread in (*first, *rest):
        thread.join()
    assert len(counts) == 21
    assert all(0 < count < 100 for count in counts)
    assert len([record for record in simulator.requests if "countTokens" in record.path]) == 4


def test_models_are_what_the_accounts_serve_and_the_names_that_lead_there(gateway):
    running = gateway(MODEL_ALIASES="claude-*opus*=gemini-4-hydrogen,claude-*=no-such-model")
    client = anthropic.Anthropic(base_url=running.url, api_key="any")
    names = [model.id for model in client.models.list(limit=5)]
    assert "claude-opus-5-5" in names
    assert "claude-sonnet-5" not in names
    assert "gemini-4-hydrogen" in names
    assert "claude-gemini-4-hydrogen" in names
    assert len(names) == len(set(names))
    model = client.models.retrieve("claude-opus-4-1-20250805")
    assert (model.id, model.type, model.lifecycle) == (
        "claude-opus-4-1-20250805",
        "model",
        "active",
    )
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("claude-sonnet-5")


def test_health_and_the_root(plain):
    assert requests.get(f"{plain.url}/healthz").json() == {"status": "ok"}
    assert requests.head(plain.url).status_code == 200
    ready = requests.get(f"{plain.url}/readyz")
    assert ready.status_code == 200
    assert "simulator" not in ready.text
    assert ready.json() == {
        "ready": True,
        "serving": "gemini",
        "accounts": 1,
        "usable_account": True,
        "state_store": True,
        "shared_leases": True,
        "degraded": False,
        "draining": False,
    }


def test_the_dashboards_files_come_whole(plain):
    folder = ROOT / "app" / "ops" / "admin" / "static"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= 8
    url = f"{plain.url}/admin/static"
    with requests.Session() as client:  # on one connection: each must end where it ends
        for path in files:
            answer = client.get(f"{url}/{path.relative_to(folder)}", timeout=10)
            assert (answer.status_code, answer.content) == (200, path.read_bytes())


def test_a_dead_pool_is_not_ready(gateway, simulator):
    running = gateway()
    simulator.script("key-a", ["key-invalid"] * 3)
    body = {"model": MODEL, "max_tokens": 9, **HELLO}
    assert requests.post(f"{running.url}/v1/messages", json=body).status_code == 503
    ready = requests.get(f"{running.url}/readyz")
    assert (ready.status_code, ready.json()["usable_account"]) == (503, False)
    listed = requests.get(f"{running.url}/v1/models").json()
    assert listed == {"data": [], "has_more": False, "first_id": None, "last_id": None}
    posts = [record for record in simulator.requests if "Content" in record.path]
    assert requests.post(f"{running.url}/v1/messages", json=body).status_code == 503
    assert [record for record in simulator.requests if "Content" in record.path] == posts
    assert "key-a" not in running.output


def test_client_keys_are_asked_for_on_every_call(gateway):
    running = gateway(CLIENT_API_KEYS="open-sesame")
    for call, path in (
        (requests.post, "/v1/messages"),
        (requests.post, "/v1/messages/count_tokens"),
        (requests.get, "/v1/models"),
        (requests.get, "/v1/models/claude-sonnet-5"),
    ):
        answer = call(f"{running.url}{path}")
        assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")
        assert answer.headers["request-id"] == answer.json()["request_id"]
    client = anthropic.Anthropic(base_url=running.url, api_key="open-sesame")
    assert client.messages.create(model=MODEL, max_tokens=100, **HELLO).content
    assert "open-sesame" not in running.output


def test_signatures_come_back_over_two_workers_and_a_restart(gateway, simulator):
    settings = {"WEB_CONCURRENCY": "2", "GEMINI_API_KEYS": "key-a"}
    tool = {
        "name": "look_up",
        "description": "Look something up",
        "input_schema": {"type": "object", "properties": {"word": {"type": "string"}}},
    }
    running = gateway(**settings)
    messages = [{"role": "user", "content": "Use the tool look_up."}]
    options = {"model": MODEL, "max_tokens": 500, "tools": [tool]}

    def client_of(process):
        return anthropic.Anthropic(base_url=process.url, api_key="any", max_retries=0)

    first = client_of(running).messages.create(messages=messages, **options)
    call = first.content[-1]
    assert (call.type, call.name) == ("tool_use", "look_up")
    messages += [
        {"role": "assistant", "content": first.content},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "found"}],
        },
    ]

    def signatures(process):
        answer = client_of(process).messages.create(messages=messages, **options)
        assert answer.stop_reason == "end_turn"
        return [
            part["thoughtSignature"]
            for content in simulator.requests[-1].body["contents"]
            for part in content["parts"]
            if "functionCall" in part
        ]

    seen = [signatures(running) for _ in range(4)]
    running.__exit__()
    seen.append(signatures(gateway(**settings)))
    assert seen == [seen[0]] * 5
    assert len(seen[0]) == 1
    assert seen[0] != ["skip_thought_signature_validator"]


def test_accounts_change_without_a_restart_and_without_touching_a_stream(
    gateway, simulator, tmp_path
):
    def write(*keys):
        entries = (
            f'[[account]]\nname = "{key}"\nkind = "api_key"\napi_key = "{key}"\n' for key in keys
        )
        (tmp_path / "accounts.toml").write_text("".join(entries))

    write("key-a")
    running = gateway(GEMINI_API_KEYS="")
    simulator.script("key-a", ["silent-after-1"])
    body = {"model": MODEL, "max_tokens": 100, "stream": True, **HELLO}
    stream = requests.post(f"{running.url}/v1/messages", json=body, stream=True)
    lines = stream.iter_lines(chunk_size=1)
    assert next(lines) == b"event: message_start"
    write("key-b")
    running.wait_for_line(re.compile("accounts.toml changed"))
    body["stream"] = False
    assert requests.post(f"{running.url}/v1/messages", json=body).status_code == 200
    assert simulator.requests[-1].key == "key-b"
    assert simulator.in_flight("key-a") == 1
    (tmp_path / "accounts.toml").write_text("[[account]\n")
    running.wait_for_line(re.compile(r"accounts\.toml line 1: .*stay as they are"))
    assert requests.post(f"{running.url}/v1/messages", json=body).status_code == 200
    stream.close()
    assert simulator.wait_for(lambda: simulator.in_flight("key-a") == 0, 2)


RECORDED = ROOT / "tests" / "recordings" / "claude-code"


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
def test_every_recorded_claude_code_request_is_answered(plain, version):
    for path in sorted(RECORDED.iterdir()):
        recorded = json.loads(path.read_text())
        body = recorded.get("body", recorded)
        endpoint = "messages/count_tokens" if "count-tokens" in path.name else "messages"
        answer = requests.post(
            f"{plain.url}/v1/{endpoint}?beta=true",
            json=body,
            headers={"anthropic-version": version, "anthropic-beta": "a,b"},
        )
        assert answer.status_code == 200, (path.name, answer.text)
        if endpoint == "messages":
            assert answer.text.endswith('data: {"type":"message_stop"}\n\n'), path.name
        else:
            assert answer.json()["input_tokens"] > 0


def test_the_search_request_of_claude_code_is_answered_with_sources(plain):
    recorded = json.loads((RECORDED / "v2.1.330.deferred-tools.3.request.json").read_text())
    body = {**recorded.get("body", recorded), "stream": False}
    answer = requests.post(f"{plain.url}/v1/messages", json=body).json()
    kinds = [block["type"] for block in answer["content"]]
    assert kinds[:2] == ["server_tool_use", "web_search_tool_result"]
    assert answer["content"][0]["input"]["query"]
    assert answer["content"][1]["content"][0]["url"].startswith("http")
    cited = [c for b in answer["content"] if b["type"] == "text" for c in b.get("citations", ())]
    assert {citation["type"] for citation in cited} == {"web_search_result_location"}
    assert answer["usage"]["server_tool_use"]["web_search_requests"] >= 1
    assert answer["stop_reason"] == "end_turn"


def test_an_overflow_is_told_in_the_words_that_clients_know(plain):
    plain.upstream.script("key-a", ["too-long"])
    body = {"model": MODEL, "max_tokens": 9, **HELLO}
    answer = requests.post(f"{plain.url}/v1/messages", json=body)
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    assert re.fullmatch(r"prompt is too long: \d+ tokens > \d+ maximum", message)
