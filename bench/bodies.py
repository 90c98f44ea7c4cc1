"""Requests as clients send them: a few words, and what a coding agent sends on every turn."""

from __future__ import annotations

import json
from typing import Any

MODEL = "claude-sonnet-4-5"


def small() -> bytes:
    """Return a request of a few words."""
    return _dumped([{"role": "user", "content": "hello"}])


def agent(messages: int = 60, tools: int = 40, size: int = 100_000) -> bytes:
    """Return a coding agent's request: ``messages``, ``tools``, about ``size`` bytes of JSON."""
    declared = [_tool(number) for number in range(tools)]
    turns: list[dict[str, Any]] = [{"role": "user", "content": "Mend the failing test."}]
    # One call and one result a turn, the last turn being the user's.
    for number in range((messages - 1) // 2):
        call = {
            "type": "tool_use",
            "id": f"toolu_{number:024d}",
            "name": f"tool_{number % tools}",
            "input": {"file_path": f"/src/module_{number}.py", "limit": 200},
        }
        text = {"type": "text", "text": f"Let me look at module {number}."}
        result = {"type": "tool_result", "tool_use_id": call["id"], "content": ""}
        turns += [
            {"role": "assistant", "content": [text, call]},
            {"role": "user", "content": [result]},
        ]
    if len(turns) < messages:
        turns.append({"role": "assistant", "content": "Done so far."})
    body = _dumped(turns, tools=declared)
    results = [turn["content"][0] for turn in turns[2::2]]
    filling = max(0, size - len(body)) // max(1, len(results))
    line = 'def example(value: int) -> str:\n    return f"{value}"  # naïve\n'
    for result in results:
        result["content"] = (line * (filling // len(json.dumps(line)) + 1))[:filling]
    if turns[-1]["role"] == "assistant":
        turns[-1] = {"role": "user", "content": "Go on."}
        turns[-2]["content"].append({"type": "text", "text": "And now?"})
        turns = turns[:-1]
    return _dumped(turns, tools=declared)


def _tool(number: int) -> dict[str, Any]:
    properties = {
        "file_path": {"type": "string", "description": "The absolute path to the file"},
        "limit": {"type": "integer", "minimum": 1, "description": "How many lines"},
        "mode": {"type": "string", "enum": ["fast", "careful"]},
        "edits": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"old": {"type": "string"}, "new": {"type": "string"}},
                "required": ["old", "new"],
                "additionalProperties": False,
            },
        },
    }
    return {
        "name": f"tool_{number}",
        "description": f"Tool {number} does one thing to a file and tells what came of it. " * 4,
        "input_schema": {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "properties": properties,
            "required": ["file_path"],
            "additionalProperties": False,
        },
    }


def _dumped(messages: list[dict[str, Any]], **more: Any) -> bytes:
    body = {"model": MODEL, "max_tokens": 1000, "stream": True, "messages": messages, **more}
    return json.dumps(body).encode()
