"""Recorded answers for the tests of the response side, and a strict reader of events."""

import json
from functools import cache
from itertools import count
from pathlib import Path

from app.translate.fold import MessageFold
from app.translate.reply import ReplyContext
from app.translate.stream import StreamTranslator
from app.translate.target import Target
from app.translate.usage import LateCount

RECORDINGS = Path(__file__).parents[1] / "recordings"
TARGET = Target("gemini", "gemini-3.8-flash", "a1b2c3d4")
NO_ANSWER = {
    "fx-stream-empty-content",
    "fx-stream-malformed-function-call",
    "unary-unexpected-tool-call-vertex",
}
"""Recordings of answers that are none."""


@cache
def answers() -> list[str]:
    """Return the names of all recorded answers (no errors, no counts)."""
    index = json.loads((RECORDINGS / "index.json").read_text())
    entries = index if isinstance(index, list) else index["recordings"]
    return [
        entry["name"]
        for entry in entries
        if entry["status"] == 200 and not entry["name"].startswith("count-tokens")
    ]


def good_answers() -> list[str]:
    return [name for name in answers() if name not in NO_ANSWER]


@cache
def _chunks(name: str) -> str:
    sse = RECORDINGS / f"{name}.response.sse"
    if not sse.exists():
        text = (RECORDINGS / f"{name}.response.json").read_text("utf-8")
        try:
            body = json.loads(text)
        except ValueError:
            body = [json.loads(line) for line in text.splitlines() if line.strip()]
        if isinstance(body, dict):
            body = body["response"] if "method" in body else [body]
        return json.dumps(body)
    found = []
    for event in sse.read_bytes().decode().replace("\r\n", "\n").split("\n\n"):
        data = [line[5:] for line in event.split("\n") if line.startswith("data:")]
        if data:
            found.append(json.loads("\n".join(data)))
    return json.dumps(found)


def chunks(name: str) -> list[dict]:
    """Return a fresh copy of a recording's chunks."""
    return json.loads(_chunks(name))


def nonces():
    numbers = count(1)
    return lambda: f"{next(numbers):0>22}"


def context(input_estimate=0, **fields) -> ReplyContext:
    fields["input_estimate"] = LateCount(lambda: input_estimate)
    return ReplyContext(**{"model": "claude-sonnet-5", "target": TARGET} | fields)


def context_for(name: str, **fields) -> ReplyContext:
    """Return the context that the recording's request would have had."""
    tools = {
        "search": {"web_search"},
        "url-context": {"web_fetch"},
        "code-execution": {"code_execution"},
    }
    server = frozenset(tool for word, ts in tools.items() if word in name for tool in ts)
    known = frozenset({"calculator"} if "combined" in name else ())
    return context(**{"server_tools": server, "known_tools": known} | fields)


def translate(some_chunks, reply_context=None, now=None):
    """Return the events, the notes and the translator of one answer."""
    translator = StreamTranslator(reply_context or context(), nonces(), now)
    events, notes = [], {}
    for chunk in some_chunks:
        events += translator.feed(chunk)
        notes |= translator.notes
        translator.notes.clear()
    events += translator.finish()
    notes |= translator.notes
    translator.notes.clear()
    return events, notes, translator


def fold(events) -> dict:
    message = MessageFold()
    for event in events:
        message.add(event)
    return message.message()


def text_of(message) -> str:
    return "".join(b["text"] for b in message["content"] if b["type"] == "text")


def text_chunk(text, **candidate):
    return chunk({"text": text}, **candidate)


def chunk(*parts, **candidate):
    content = {"content": {"role": "model", "parts": list(parts)}} if parts else {}
    return {"candidates": [content | candidate]}


STOP = {"candidates": [{"finishReason": "STOP"}]}

DELTAS = {
    "text": {"text_delta", "citations_delta"},
    "thinking": {"thinking_delta", "signature_delta"},
    "tool_use": {"input_json_delta"},
    "server_tool_use": {"input_json_delta"},
}


def check_grammar(events, *, complete=True) -> None:
    """Fail unless ``events`` are in the one order that clients accept."""
    if not events:
        assert not complete
        return
    assert events[0]["type"] == "message_start"
    start = events[0]["message"]
    assert (start["content"], start["stop_reason"]) == ([], None)
    open_block, index, signed = None, -1, False
    ended = stopped = False
    for event in events[1:]:
        kind = event["type"]
        assert not stopped, "something follows message_stop"
        if kind == "ping":
            continue
        if kind == "message_stop":
            assert ended
            stopped = True
            continue
        assert not ended, "something follows message_delta"
        if kind == "content_block_start":
            assert open_block is None, "blocks overlap"
            index += 1
            assert event["index"] == index
            open_block, signed = event["content_block"], False
            expected = {
                "text": {"type": "text", "text": ""},
                "thinking": {"type": "thinking", "thinking": "", "signature": ""},
            }.get(open_block["type"], open_block)
            assert open_block == expected
            assert open_block.get("input", {}) == {}
        elif kind == "content_block_delta":
            assert open_block is not None
            assert event["index"] == index
            delta = event["delta"]
            assert delta["type"] in DELTAS[open_block["type"]]
            assert not signed, "something follows the signature"
            signed = delta["type"] == "signature_delta"
            assert "" not in (delta.get("text"), delta.get("thinking"))
        elif kind == "content_block_stop":
            assert open_block is not None
            assert event["index"] == index
            assert signed == (open_block["type"] == "thinking")
            open_block = None
        else:
            assert kind == "message_delta", kind
            assert open_block is None
            assert event["delta"]["stop_reason"]
            assert event["usage"]["output_tokens"] >= 0
            ended = True
    assert stopped or not complete
