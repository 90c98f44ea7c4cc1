"""The non-streaming answer: the fold of the stream."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class MessageFold:
    """Collects the events of one answer into the message they tell; events are not changed.

    Comments, pings and events of the future leave no trace.
    """

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._blocks: list[_Block] = []

    def add(self, event: Mapping[str, Any]) -> None:
        """Take in the next event."""
        match event["type"]:
            case "content_block_delta":
                self._blocks[event["index"]].add(event["delta"])
            case "content_block_start":
                self._blocks.append(_Block(event["content_block"]))
            case "message_start":
                self._message = {**event["message"], "usage": {**event["message"]["usage"]}}
            case "message_delta":
                self._message.update(event["delta"])
                usage = event.get("usage") or {}
                totals = {name: value for name, value in usage.items() if value is not None}
                self._message["usage"].update(totals)

    def message(self) -> dict[str, Any]:
        """Return the whole message."""
        return {**self._message, "content": [block.whole() for block in self._blocks]}


class _Block:
    """One content block under way; what comes in pieces is joined once, at the end."""

    def __init__(self, start: Mapping[str, Any]) -> None:
        self._start = start
        self._pieces: list[str] = []
        self._signature: str | None = None
        self._citations: list[Any] = []

    def add(self, delta: Mapping[str, Any]) -> None:
        match delta["type"]:
            case "text_delta":
                self._pieces.append(delta["text"])
            case "thinking_delta":
                self._pieces.append(delta["thinking"])
            case "input_json_delta":
                self._pieces.append(delta["partial_json"])
            case "signature_delta":
                self._signature = delta["signature"]
            case "citations_delta":
                self._citations.append(delta["citation"])

    def whole(self) -> dict[str, Any]:
        block, joined = dict(self._start), "".join(self._pieces)
        match block["type"]:
            case "text":
                block["text"] += joined
                if self._citations:  # as Anthropic's: a list or no such field, never null
                    block["citations"] = self._citations
            case "thinking":
                block["thinking"] += joined
                block["signature"] = self._signature or block["signature"]
            case "tool_use" | "server_tool_use" if joined:
                block["input"] = json.loads(joined)
        return block
