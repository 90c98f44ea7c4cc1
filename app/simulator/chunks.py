"""Answers as they go out: cut into chunks with running totals, or whole."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.simulator.answers import Answer, Part, output_tokens, part_cost
from app.simulator.tokens import details, text_tokens, tokens_of_bytes

_PIECES = re.compile(r"\S+\s*|\s+")
_MOST_PIECES = 400

Chunk = dict[str, Any]


@dataclass(frozen=True)
class Frame:
    """What all chunks of one response share. ``prompt`` and ``cached`` are tokens by modality."""

    model_version: str
    response_id: str
    prompt: Counter[str]
    cached: int
    vertex: bool
    create_time: str

    def chunk(
        self,
        parts: list[Part],
        *,
        thoughts: int = 0,
        visible: int = 0,
        tool: int = 0,
        candidate: Mapping[str, Any] | None = None,
    ) -> Chunk:
        """Return one chunk; the token counts are totals so far."""
        content: dict[str, Any] = {"role": "model"}
        if parts:
            content = {"parts": parts, "role": "model"}
        return {
            "candidates": [{"content": content, "index": 0, **(candidate or {})}],
            **self.tail(thoughts=thoughts, visible=visible, tool=tool),
        }

    def tail(self, *, thoughts: int = 0, visible: int = 0, tool: int = 0) -> Chunk:
        """Return the fields behind the candidates."""
        prompt = self.prompt.total()
        usage: dict[str, Any] = {"promptTokenCount": prompt}
        if visible:
            usage["candidatesTokenCount"] = visible
        usage["totalTokenCount"] = prompt + visible + thoughts + tool
        usage["promptTokensDetails"] = details(self.prompt)
        if self.cached:
            usage["cachedContentTokenCount"] = self.cached
            usage["cacheTokensDetails"] = details({"TEXT": self.cached})
        if tool:
            usage["toolUsePromptTokenCount"] = tool
            usage["toolUsePromptTokensDetails"] = details({"TEXT": tool})
        if thoughts:
            usage["thoughtsTokenCount"] = thoughts
        tail: Chunk = {"usageMetadata": usage, "modelVersion": self.model_version}
        if self.vertex:
            usage["trafficType"] = "ON_DEMAND"
            tail["createTime"] = self.create_time
        return {**tail, "responseId": self.response_id}


def stream(answer: Answer, frame: Frame) -> list[Chunk]:
    """Return the chunks of a streamed answer."""
    groups = _groups(answer.parts)
    chunks: list[Chunk] = []
    spent = 0
    for thought in answer.thoughts:
        spent += text_tokens(thought)
        part = {"text": thought, "thought": True}
        chunks.append(frame.chunk([part], thoughts=min(spent, answer.thought_tokens)))
    text_bytes = others = 0
    end = _end(answer)
    for index, group in enumerate(groups):
        text_bytes += sum(len(part.get("text", "").encode()) for part in group)
        others += sum(part_cost(part) for part in group if "text" not in part)
        last = index == len(groups) - 1
        chunks.append(
            frame.chunk(
                group,
                thoughts=answer.thought_tokens,
                visible=tokens_of_bytes(text_bytes) + others,
                tool=answer.tool_tokens,
                candidate=end if last else None,
            )
        )
    if not groups:
        chunks.append(
            frame.chunk([], thoughts=answer.thought_tokens, tool=answer.tool_tokens, candidate=end)
        )
    return chunks


def whole(answer: Answer, frame: Frame) -> Chunk:
    """Return the answer to a request that does not stream: neighbouring text is one part."""
    parts: list[Part] = [{"text": text, "thought": True} for text in answer.thoughts[:1]]
    if parts:
        parts[0]["text"] = "".join(answer.thoughts)
    for part in answer.parts:
        before = parts[-1] if parts else {}
        if part.get("text") == "" and "text" in before and not before.get("thought"):
            before |= part | {"text": before["text"]}
        else:
            parts.append(dict(part))
    return frame.chunk(
        parts,
        thoughts=answer.thought_tokens,
        visible=output_tokens(answer.parts),
        tool=answer.tool_tokens,
        candidate=_end(answer),
    )


def _end(answer: Answer) -> dict[str, Any]:
    end: dict[str, Any] = {"finishReason": answer.finish}
    if answer.finish_message:
        end["finishMessage"] = answer.finish_message
    return {**end, **answer.extras}


def _groups(parts: list[Part]) -> list[list[Part]]:
    """Return the parts of each chunk: text word by word, each other part alone.

    Parallel calls share a chunk as 2.5 sends them; 3 and later, whose calls have ids, spread them
    and close with an empty text.
    """
    groups: list[list[Part]] = []
    for part in parts:
        if part.get("text"):
            groups += [[piece] for piece in _split(part)]
        elif _is_bare_call(part) and groups and _is_bare_call(groups[-1][-1]):
            groups[-1].append(part)
        else:
            groups.append([part])
    if parts and "id" in parts[-1].get("functionCall", {}):
        groups.append([{"text": ""}])
    return groups


def _is_bare_call(part: Part) -> bool:
    return "functionCall" in part and "id" not in part["functionCall"]


def _split(part: Part) -> list[Part]:
    words = _PIECES.findall(part["text"])
    step = -(-len(words) // _MOST_PIECES)
    texts = ["".join(words[n : n + step]) for n in range(0, len(words), step)]
    pieces: list[Part] = [{"text": text} for text in texts]
    # The signature of a text sits on the piece that opens it.
    pieces[0] = {**part, "text": texts[0]}
    return pieces
