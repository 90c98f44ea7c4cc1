"""Whatever is cut, wherever and however often: what clients get is one answer, or a prefix of it.

Nothing here knows the gateway's code: an upstream of bare sockets, a client that reads events.
"""

from __future__ import annotations

import itertools
import json
import os

import pytest
import requests
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests.backend.raw_servers import serving
from tests.chaos.gateways import in_process
from tests.chaos.recorded import wire
from tests.chaos.upstream import reset

RETRIES = 4
ALPHABET = 'aé漢🌧 \n"\\'
KINDS = ("cut", "early end", "reset")


class Model:
    """A model that gives one answer, cut as planned, and goes on from what it is shown."""

    def __init__(self, text: str, thought: str, plan) -> None:
        self.text = text
        self.thought = thought
        self.plan = list(plan)
        self.asked = 0

    def serve(self, visit, request) -> None:
        """Answer one attempt."""
        attempt = self.plan[self.asked] if self.asked < len(self.plan) else Attempt()
        self.asked += 1
        sent = _shown(request)
        begin = max(0, len(sent) - attempt.repeated)
        while begin and self.text[begin - 1] != " ":
            begin -= 1  # a repetition begins at a word
        if len(sent) - begin < 8 and begin:
            begin = len(sent)
        answer = b"".join(map(wire, self._chunks(self.text[begin:], attempt.pieces)))
        visit.send(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        end = len(answer) if attempt.cut is None else int(attempt.cut * len(answer))
        for at in range(0, end, attempt.packet):
            piece = answer[at : min(end, at + attempt.packet)]
            visit.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        if attempt.cut is None or attempt.kind == "early end":
            visit.send(b"0\r\n\r\n")
        elif attempt.kind == "reset":
            reset(visit)

    def _chunks(self, text, pieces):
        if self.thought:
            yield _chunk({"text": self.thought, "thought": True})
        size = max(1, -(-len(text) // pieces))
        for at in range(0, len(text), size):
            yield _chunk({"text": text[at : at + size]})
        yield {"candidates": [{"finishReason": "STOP"}]}


class Attempt:
    """How one attempt goes; ``cut`` is a share of the answer's bytes, None for the whole."""

    def __init__(self, cut=None, kind="cut", pieces=1, packet=10_000, repeated=0) -> None:
        self.cut, self.kind, self.pieces = cut, kind, pieces
        self.packet, self.repeated = packet, repeated

    def __repr__(self) -> str:
        how = f"{self.pieces} pieces, {self.packet} bytes at a time, repeats {self.repeated}"
        return f"<{self.kind} at {self.cut}: {how}>" if self.cut is not None else f"<whole: {how}>"


def _chunk(part):
    return {"candidates": [{"content": {"role": "model", "parts": [part]}}]}


def _shown(request) -> str:
    """Return the text that an answer should go on from, in either way of asking for it."""
    contents = request["contents"]
    told = contents[-1]["parts"][-1].get("text", "").startswith("Your last message was cut off")
    last = contents[-2] if told else contents[-1]
    return "".join(part["text"] for part in last["parts"]) if last["role"] == "model" else ""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Gateways without and with STREAM_RESUME, before one upstream."""
    models = {}

    def handle(visit):
        line, _, body = visit.request()
        visit.server.requests.clear()
        name = line.split(" ")[1].partition("?")[0].rpartition("/")[2].partition(":")[0]
        if name in models:
            models[name].serve(visit, json.loads(body))
        else:
            visit.answer({"models": []}, extra="connection: close\r\n")

    environment = {
        "GEMINI_API_KEYS": "a,b,c,d,e",  # one for each attempt: nobody waits before a second
        "REQUEST_RETRY": str(RETRIES),
        "RETRY_BUDGET": "100",
        "KEEPALIVE_INTERVAL": "60",
        "STATE_URL": "memory://",
        "LOG_LEVEL": "error",
    }
    folder = tmp_path_factory.mktemp("exactly-once")
    with serving(handle) as upstream:
        environment["GEMINI_BASE_URL"] = upstream.url
        with (
            in_process(folder / "off", environment) as plain,
            in_process(folder / "on", {**environment, "STREAM_RESUME": "true"}) as resuming,
            requests.Session() as session,
        ):
            yield models, {False: plain, True: resuming}, session, itertools.count()


def ask(session, url, model, *, stream):
    """Return (status, text, whether it ended as a success, errors)."""
    body = {
        "model": model,
        "max_tokens": 4000,
        "stream": stream,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "messages": [{"role": "user", "content": "Go."}],
    }
    answer = session.post(f"{url}/v1/messages", json=body, timeout=60)
    if not stream or answer.status_code != 200:
        value = answer.json()
        if value["type"] == "error":
            return answer.status_code, "", False, 1
        text = "".join(block["text"] for block in value["content"] if block["type"] == "text")
        return answer.status_code, text, True, 0
    events = [
        json.loads(line.removeprefix("data: "))
        for line in answer.content.decode().split("\n")
        if line.startswith("data: ")
    ]
    text = "".join(
        event["delta"]["text"]
        for event in events
        if event["type"] == "content_block_delta" and event["delta"]["type"] == "text_delta"
    )
    kinds = [event["type"] for event in events]
    assert kinds.count("message_start") == 1
    assert kinds.count("message_stop") + kinds.count("error") == 1
    return 200, text, kinds[-1] == "message_stop", kinds.count("error")


words = st.lists(st.text(ALPHABET, min_size=1, max_size=6), min_size=1, max_size=30)
texts = words.map(lambda some: " ".join(f"{number}{word}" for number, word in enumerate(some)))
cuts = st.builds(
    Attempt,
    cut=st.floats(0, 1),
    kind=st.sampled_from(KINDS),
    pieces=st.integers(1, 12),
    packet=st.sampled_from([1, 7, 100, 10_000]),
    repeated=st.sampled_from([0, 0, 10, 30, 10_000]),
)


@settings(
    max_examples=int(os.environ.get("EXAMPLES", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    text=texts,
    thought=st.sampled_from(["", "Hm. "]),
    plan=st.lists(cuts, min_size=1, max_size=RETRIES + 1),
    resume=st.booleans(),
    stream=st.booleans(),
    family=st.sampled_from(["gemini-2.5-flash", "gemini-3.8-flash"]),
)
def test_what_arrives_is_one_answer_or_a_prefix(world, text, thought, plan, resume, stream, family):
    models, urls, session, numbers = world
    name = f"{family}-x{next(numbers)}"
    model = models[name] = Model(text, thought, plan)
    status, seen, success, errors = ask(session, urls[resume], name, stream=stream)
    note(f"{status} {seen!r} {'success' if success else 'error'} after {model.asked} attempts")
    assert text.startswith(seen)
    if success:
        assert seen == text
        assert (status, errors) == (200, 0)
    else:
        assert errors == 1
    if not stream and len(plan) <= RETRIES:
        assert success
    if stream and not resume and seen and seen != text:
        assert not success
