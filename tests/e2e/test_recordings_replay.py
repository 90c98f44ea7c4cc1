"""Every recorded answer comes whole through the whole gateway, and its signatures come back."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anthropic
import pytest

from tests.e2e.processes import GatewayProcess
from tests.translate.answers import NO_ANSWER, RECORDINGS, chunks, good_answers

TOOLS = {
    "search": {"type": "web_search_20250305", "name": "web_search"},
    "url-context": {"type": "web_fetch_20250910", "name": "web_fetch"},
    "code-execution": {"type": "code_execution_20250825", "name": "code_execution"},
}


class Replay(BaseHTTPRequestHandler):
    """Answers ``models/NAME:…`` with the recording NAME, byte for byte; keeps the last request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement
    asked: dict[str, dict] = {}  # noqa: RUF012

    def do_POST(self):
        name = self.path.split("/models/")[1].split(":")[0].removeprefix("gemini-3.8-")
        body = self.rfile.read(int(self.headers["content-length"]))
        self.asked[name] = json.loads(body)
        path = RECORDINGS / f"{name}.response.sse"
        if not path.exists():
            path = path.with_suffix(".json")
        answer = path.read_bytes()
        if b'"method"' in answer[:20]:
            answer = json.dumps(json.loads(answer)["response"]).encode()
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for at in range(0, len(answer), 1000):
            piece = answer[at : at + 1000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def do_GET(self):
        self.send_error(404)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def replaying(tmp_path_factory):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Replay)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with GatewayProcess(
        tmp_path_factory.mktemp("replay"),
        GEMINI_API_KEYS="key-a",
        GEMINI_BASE_URL=f"http://127.0.0.1:{server.server_port}",
        REQUEST_RETRY="0",
    ) as gateway:
        yield anthropic.Anthropic(base_url=gateway.url, api_key="any", max_retries=0)
    server.shutdown()
    server.server_close()


def parts(name):
    for chunk in chunks(name):
        for candidate in chunk.get("candidates") or ():
            yield from (candidate.get("content") or {}).get("parts") or ()


def options(name):
    tools = [tool for word, tool in TOOLS.items() if word in name]
    declared = {
        part["functionCall"]["name"]
        for part in parts(name)
        if "name" in part.get("functionCall", {})
    }
    tools += [
        {"name": tool, "input_schema": {"type": "object", "properties": {"x": {"type": "string"}}}}
        for tool in sorted(declared)
    ]
    return {
        "model": f"gemini-3.8-{name}",
        "max_tokens": 20_000,
        "tools": tools,
        "extra_headers": {"anthropic-beta": "x"},
    }


THINKING = {
    "shown": {"type": "enabled", "budget_tokens": 2000},
    "omitted": {"type": "adaptive", "display": "omitted"},
    "off": {"type": "disabled"},
}
BROKEN = "fx-stream-error-mid-stream"
QUESTION = {"role": "user", "content": "question"}


@pytest.mark.parametrize("thinking", THINKING)
@pytest.mark.parametrize("name", [name for name in good_answers() if name != BROKEN])
def test_a_recording_comes_whole_and_its_signatures_come_back(replaying, name, thinking):
    client = replaying
    asked = {**options(name), "thinking": THINKING[thinking]}
    with client.messages.stream(messages=[QUESTION], **asked) as stream:
        message = stream.get_final_message()
    whole = client.messages.create(messages=[QUESTION], **asked)
    assert [block.type for block in whole.content] == [block.type for block in message.content]
    assert whole.stop_reason == message.stop_reason

    shown = "".join(part.get("text", "") for part in parts(name) if not part.get("thought"))
    thought = "".join(part.get("text", "") for part in parts(name) if part.get("thought"))
    assert "".join(block.text for block in message.content if block.type == "text") == shown
    told = "".join(block.thinking for block in message.content if block.type == "thinking")
    assert told == (thought if thinking == "shown" else "")
    calls = [
        part["functionCall"] for part in parts(name) if part.get("functionCall", {}).get("name")
    ]
    used = [block for block in message.content if block.type == "tool_use"]
    assert [block.name for block in used] == [call["name"] for call in calls]
    if "partial-args" not in name:
        assert [block.input for block in used] == [call.get("args", {}) for call in calls]

    history = [QUESTION, {"role": "assistant", "content": message.content}]
    if not message.content:
        return
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": "result"} for block in used
    ]
    history.append({"role": "user", "content": results or "go on"})
    client.messages.create(
        messages=history, **{**options(name), "max_tokens": 20_000, "timeout": 60}
    )
    sent = Replay.asked[f"{name}"]["contents"]
    signed = {
        (part["thoughtSignature"], kind(part))
        for content in sent
        for part in content["parts"]
        if "thoughtSignature" in part
    }
    given = {
        (part["thoughtSignature"], kind(part))
        for part in parts(name)
        if part.get("thoughtSignature") and not (thinking == "off" and part.get("thought"))
    }
    placeholder = {pair for pair in signed if pair[0].startswith("skip_")}
    assert signed - placeholder == given
    assert not placeholder or not any(pair[1] == "functionCall" for pair in given)


def kind(part):
    """Return what a part carries besides its signature."""
    kinds = set(part) - {"thought", "thoughtSignature"}
    return "thought" if part.get("thought") else kinds.pop() if kinds else "text"


@pytest.mark.parametrize("name", sorted(NO_ANSWER))
def test_a_recording_of_no_answer_is_an_error(replaying, name):
    with pytest.raises(anthropic.APIStatusError) as caught:
        replaying.messages.create(messages=[QUESTION], **options(name))
    assert (caught.value.status_code, caught.value.type) == (502, "api_error")


def test_an_error_in_the_middle_of_a_stream_is_told_as_what_it_is(replaying):
    with pytest.raises(anthropic.APIStatusError) as caught:
        replaying.messages.create(messages=[QUESTION], **options(BROKEN))
    assert (caught.value.status_code, caught.value.type) == (529, "overloaded_error")
    with (
        pytest.raises(anthropic.APIStatusError) as caught,
        replaying.messages.stream(messages=[QUESTION], **options(BROKEN)) as stream,
    ):
        seen = []
        seen.extend(stream.text_stream)
    assert (caught.value.status_code, caught.value.type) == (200, "overloaded_error")
    assert "".join(seen) == "".join(part.get("text", "") for part in parts(BROKEN))
