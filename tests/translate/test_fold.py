"""The non-streaming message is the fold of the events, whole and nothing else."""

from copy import deepcopy

from app.translate.fold import MessageFold

EVENTS = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-5",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "container": None,
            "usage": {
                "input_tokens": 9,
                "output_tokens": 1,
                "server_tool_use": None,
                "speed": None,
            },
        },
    },
    {"type": "ping"},
    {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "thinking", "thinking": "", "signature": ""},
    },
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "thinking_delta", "thinking": "a"},
    },
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "thinking_delta", "thinking": "b"},
    },
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "signature_delta", "signature": "s"},
    },
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "x"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "y"}},
    {
        "type": "content_block_delta",
        "index": 1,
        "delta": {"type": "citations_delta", "citation": {"url": "u"}},
    },
    {"type": "content_block_delta", "index": 1, "delta": {"type": "of_the_future"}},
    {"type": "content_block_stop", "index": 1},
    {
        "type": "content_block_start",
        "index": 2,
        "content_block": {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}},
    },
    {
        "type": "content_block_delta",
        "index": 2,
        "delta": {"type": "input_json_delta", "partial_json": '{"a":'},
    },
    {
        "type": "content_block_delta",
        "index": 2,
        "delta": {"type": "input_json_delta", "partial_json": "1}"},
    },
    {"type": "content_block_stop", "index": 2},
    {
        "type": "content_block_start",
        "index": 3,
        "content_block": {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}},
    },
    {"type": "content_block_stop", "index": 3},
    {
        "type": "content_block_start",
        "index": 4,
        "content_block": {"type": "redacted_thinking", "data": "d"},
    },
    {"type": "content_block_stop", "index": 4},
    {"type": "of_the_future"},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "refusal", "stop_sequence": None, "stop_details": {"type": "x"}},
        "usage": {"output_tokens": 5, "input_tokens": None, "server_tool_use": {"n": 1}},
    },
    {"type": "message_stop"},
]

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-5",
    "content": [
        {"type": "thinking", "thinking": "ab", "signature": "s"},
        {"type": "text", "text": "xy", "citations": [{"url": "u"}]},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}},
        {"type": "redacted_thinking", "data": "d"},
    ],
    "stop_reason": "refusal",
    "stop_sequence": None,
    "stop_details": {"type": "x"},
    "container": None,
    "usage": {"input_tokens": 9, "output_tokens": 5, "server_tool_use": {"n": 1}, "speed": None},
}


def test_the_message_has_every_field_and_the_events_stay_as_they_were():
    events, fold = deepcopy(EVENTS), MessageFold()
    for event in events:
        fold.add(event)
    assert fold.message() == MESSAGE
    assert fold.message() == MESSAGE
    assert events == EVENTS


def test_a_text_block_without_citations_leaves_the_field_out():
    """Vercel's AI SDK takes a list there or nothing: with null it refused the whole answer."""
    fold = MessageFold()
    for event in (EVENTS[0], {**EVENTS[7], "index": 0}, {**EVENTS[8], "index": 0}):
        fold.add(event)
    assert fold.message()["content"] == [{"type": "text", "text": "x"}]
