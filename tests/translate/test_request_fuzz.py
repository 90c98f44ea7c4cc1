"""Whatever JSON comes, the answer is a request or `InvalidRequest`, and never anything else.

Good requests with a few places spoiled: they get further than made-up ones.
"""

import copy
import json
import random
from pathlib import Path

import pytest

from app.translate.conversation import Conversation
from app.translate.errors import InvalidRequest
from app.translate.target import Target
from app.translate.validation import load_count, load_messages

FOLDER = Path(__file__).resolve().parents[1] / "recordings" / "claude-code"
NODE = {"anyOf": [{"type": "string"}, {"items": [{"const": 1}]}]}
TOOL = {
    "name": "f",
    "description": "d",
    "input_schema": {
        "type": "object",
        "properties": {
            "a": {"$ref": "#/$defs/N"},
            "b": {"type": ["string", "null"], "allOf": [{"enum": ["x"]}]},
        },
        "required": ["a"],
        "$defs": {"N": NODE},
    },
}
RICH = {
    "model": "m",
    "max_tokens": 5000,
    "stream": True,
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
    "thinking": {"type": "enabled", "budget_tokens": 2000, "display": "omitted"},
    "stop_sequences": ["a", "b"],
    "temperature": 1,
    "top_p": 0.9,
    "top_k": 3,
    "metadata": {"user_id": '{"session_id": "x"}'},
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "output_config": {
        "effort": "high",
        "format": {"type": "json_schema", "schema": {"type": "object"}},
    },
    "tools": [
        TOOL,
        {"type": "bash_20250124", "name": "bash"},
        {**TOOL, "name": "g", "defer_loading": True},
    ],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "q"},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"},
                },
                {
                    "type": "document",
                    "source": {"type": "content", "content": [{"type": "text", "text": "x"}]},
                    "title": "t",
                    "context": "c",
                },
                {"type": "document", "source": {"type": "text", "data": "x"}},
                {
                    "type": "search_result",
                    "source": "s",
                    "title": "t",
                    "content": [{"type": "text", "text": "r"}],
                },
            ],
        },
        {
            "role": "system",
            "content": [
                {"type": "text", "text": "e"},
                {
                    "type": "tool_addition",
                    "tool": {"type": "tool_definition", "definition": {**TOOL, "name": "h"}},
                },
                {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "g"}},
            ],
            "output_config": {"effort": "low"},
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "t", "signature": "g1.g300000000.QQ.QQ.3"},
                {"type": "text", "text": "abc def"},
                {
                    "type": "server_tool_use",
                    "id": "srvtoolu_1",
                    "name": "code_execution",
                    "input": {"code": "1"},
                },
                {
                    "type": "code_execution_tool_result",
                    "tool_use_id": "srvtoolu_1",
                    "content": {"type": "code_execution_result", "stdout": "1", "content": []},
                },
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "content": [
                        {"type": "text", "text": "r"},
                        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
                        {"type": "tool_reference", "tool_name": "g"},
                    ],
                    "is_error": True,
                }
            ],
        },
    ],
}
JUNK = [
    *(None, True, 0, -1, 3.5, "", "x", " ", [], {}, [None], ["x"], [[]], [{}], 10**30),
    *({"type": "text"}, {"type": None}, {"a": {"b": [1]}}, {"$ref": 7}, {"allOf": [7]}),
    *({"properties": {"a": 7}}, {"properties": 7}, {"required": [7]}, {"enum": 7}, "\ud800"),
    *(float("inf"), {"required": "a"}),
]


def recorded(name):
    body = json.loads((FOLDER / f"{name}.request.json").read_text())
    return body.get("body", body)


SEEDS = [
    RICH,
    RICH,
    RICH,
    {**RICH, "tools": [TOOL, {"type": "web_search_20250305", "name": "web_search"}]},
    recorded("v2.1.330.tool.turn2"),
    recorded("v2.1.330.image-in-tool-result"),
]


def paths(value, path=()):
    yield path
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from paths(inner, (*path, key))


def spoil(body, path, chance):
    *way, last = path
    for key in way:
        body = body[key]
    if chance.random() < 0.25:
        del body[last]
    else:
        body[last] = copy.deepcopy(chance.choice(JUNK))


@pytest.mark.parametrize("seed", range(4))
def test_any_body_is_translated_or_refused(seed):
    chance = random.Random(seed)
    places = [[path for path in paths(body) if path] for body in SEEDS]
    outcomes = {"translated": 0, "refused": 0}
    for _ in range(700):
        number = chance.randrange(len(SEEDS))
        body = copy.deepcopy(SEEDS[number])
        # From the end on, so that an earlier place is still there.
        spoiled = chance.sample(places[number], chance.choice([1, 1, 2, 3]))
        for path in sorted(spoiled, key=str, reverse=True):
            try:
                spoil(body, path, chance)
            except (KeyError, IndexError, TypeError):
                continue
        model = chance.choice(["gemini-2.5-flash", "gemini-3.8-flash"])
        target = Target(chance.choice(["gemini", "vertex", "code_assist"]), model)
        load = chance.choice([load_messages, load_messages, load_count])
        try:
            conversation = Conversation(load(body), model)
            json.dumps(conversation.render_count(target, {}))
            if load is load_messages:
                json.dumps(conversation.render(target, {}))
                conversation.reply_context(target)
            assert isinstance(conversation.affinity_key, str)
            assert isinstance(conversation.preferred_account, str)
            assert isinstance(conversation.store_keys, list)
            outcomes["translated"] += 1
        except InvalidRequest as error:
            outcomes["refused"] += 1
            refusal = error.message
            assert refusal
            assert "\n" not in refusal
    assert min(outcomes.values()) > 100
