"""The recorded answer: every event that the upstream sends, and what the client makes of each.

Both columns are written by hand, so that no code of the gateway says what the gateway must do.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

Event = dict[str, Any]

REQUEST = {
    "max_tokens": 8000,
    "thinking": {"type": "enabled", "budget_tokens": 2000},
    "tools": [
        {
            "name": "get_weather",
            "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
        }
    ],
    "messages": [{"role": "user", "content": "What is the weather in Boston?"}],
}
COUNT = 21
ESTIMATE = 58
"""What the gateway guesses itself where counting is refused."""
TEXT = "Über Boston 🌧 it rains."


@dataclass(frozen=True)
class Step:
    """One event of the upstream's, and the client's events that it is good for."""

    place: str
    chunk: Event
    events: tuple[Event, ...]


def _chunk(part: Event, **candidate: Any) -> Event:
    return {
        "candidates": [{"content": {"role": "model", "parts": [part]}, **candidate}],
        "usageMetadata": {"promptTokenCount": 7},
    }


def _started(index: int, block: Event) -> Event:
    return {"type": "content_block_start", "index": index, "content_block": block}


def _delta(index: int, **delta: Any) -> Event:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def _stopped(index: int) -> Event:
    return {"type": "content_block_stop", "index": index}


_USAGE = {
    "input_tokens": 7,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 8,
    "output_tokens_details": {"thinking_tokens": 3},
}
_START = {
    "type": "message_start",
    "message": {
        "id": "msg",
        "type": "message",
        "role": "assistant",
        "model": "MODEL",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
        "container": None,
        "usage": {
            "input_tokens": 7,
            "output_tokens": 1,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens_details": {"thinking_tokens": 0},
            "server_tool_use": None,
            "service_tier": "standard",
            "inference_geo": None,
            "speed": None,
        },
    },
}

STEPS = (
    Step(
        "thinking",
        _chunk({"text": "Where is ", "thought": True}),
        (
            _START,
            {"type": "ping"},
            _started(0, {"type": "thinking", "thinking": "", "signature": ""}),
            _delta(0, type="thinking_delta", thinking="Where is "),
        ),
    ),
    Step(
        "thinking",
        _chunk({"text": "Boston?", "thought": True}),
        (_delta(0, type="thinking_delta", thinking="Boston?"),),
    ),
    Step(
        "text",
        _chunk({"text": "Über Boston "}),
        (
            _delta(0, type="signature_delta", signature="SIGNATURE"),
            _stopped(0),
            _started(1, {"type": "text", "text": ""}),
            _delta(1, type="text_delta", text="Über Boston "),
        ),
    ),
    Step(
        "text",
        _chunk({"text": "🌧 it rains."}),
        (_delta(1, type="text_delta", text="🌧 it rains."),),
    ),
    # A call leaves when it is whole: of one that was cut, nothing has reached the client.
    Step(
        "tool call",
        _chunk(
            {
                "functionCall": {"name": "get_weather", "willContinue": True},
                "thoughtSignature": "c2lnbmVk",
            }
        ),
        (),
    ),
    Step(
        "tool call",
        _chunk(
            {
                "functionCall": {
                    "partialArgs": [{"jsonPath": "$.city", "stringValue": "Boston"}],
                    "willContinue": True,
                }
            }
        ),
        (),
    ),
    Step(
        "tool call",
        _chunk({"functionCall": {}}),
        (
            _stopped(1),
            _started(2, {"type": "tool_use", "id": "toolu", "name": "get_weather", "input": {}}),
            _delta(2, type="input_json_delta", partial_json='{"city":"Boston"}'),
            _stopped(2),
        ),
    ),
    Step(
        "end",
        {
            "candidates": [{"finishReason": "STOP"}],
            "usageMetadata": {
                "promptTokenCount": 7,
                "candidatesTokenCount": 5,
                "thoughtsTokenCount": 3,
            },
        },
        (
            {
                "type": "message_delta",
                "delta": {"stop_reason": "tool_use", "stop_sequence": None},
                "usage": _USAGE,
            },
            {"type": "message_stop"},
        ),
    ),
)

EVENTS = tuple(event for step in STEPS for event in step.events)
MESSAGE = {
    "id": "msg",
    "type": "message",
    "role": "assistant",
    "model": "MODEL",
    "content": [
        {"type": "thinking", "thinking": "Where is Boston?", "signature": "SIGNATURE"},
        {"type": "text", "text": TEXT},
        {"type": "tool_use", "id": "toolu", "name": "get_weather", "input": {"city": "Boston"}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "stop_details": None,
    "container": None,
    "usage": {
        "input_tokens": 7,
        "output_tokens": 8,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens_details": {"thinking_tokens": 3},
        "server_tool_use": None,
        "service_tier": "standard",
        "inference_geo": None,
        "speed": None,
    },
}


def wire(chunk: Event) -> bytes:
    """Return ``chunk`` as Google writes an event."""
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\r\n\r\n"


PIECES = tuple(wire(step.chunk) for step in STEPS)
ANSWER = b"".join(PIECES)
COUNTED = json.dumps({"totalTokens": COUNT}).encode()
STARTS = tuple(sum(map(len, PIECES[:number])) for number in range(len(PIECES) + 1))
"""Where each event begins in `ANSWER`; the last one is its length."""


def whole_lines(offset: int) -> int:
    """Return how many events are over, their line ends included, in the first ``offset`` bytes."""
    return sum(offset >= end - 2 for end in STARTS[1:])


def whole_values(offset: int) -> int:
    """Return how many events have all their data in the first ``offset`` bytes."""
    return sum(offset >= end - 4 for end in STARTS[1:])


def events_after(steps: int) -> list[Event]:
    """Return what the client has been sent once ``steps`` events of the upstream have come."""
    return [event for step in STEPS[:steps] for event in step.events]


def goes_on(sent: str) -> bytes:
    """Return the answer of a model that goes on exactly where ``sent`` ends."""
    rest = [step.chunk for step in STEPS if step.place != "text"]
    left = len(sent)
    at = 2
    for step in STEPS:
        if step.place == "text":
            text = step.chunk["candidates"][0]["content"]["parts"][0]["text"]
            if text[left:]:
                rest.insert(at, _chunk({"text": text[left:]}))
                at += 1
            left = max(0, left - len(text))
    return b"".join(map(wire, rest))
