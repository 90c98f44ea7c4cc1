"""Plausible token counts: about four bytes of text a token, fixed sums for media."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from app.simulator.models import Model

BYTES_PER_TOKEN = 4


def text_tokens(text: str) -> int:
    """Return the tokens of ``text``; 0 only when it is empty."""
    return tokens_of_bytes(len(text.encode()))


def tokens_of_bytes(count: int) -> int:
    """Return the tokens of ``count`` bytes of text."""
    return -(-count // BYTES_PER_TOKEN)


def json_tokens(value: object) -> int:
    """Return the tokens of ``value`` written as JSON."""
    return text_tokens(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def part_tokens(part: Mapping[str, Any], model: Model) -> tuple[str, int]:
    """Return the modality and the tokens of one part of a content."""
    if "text" in part:
        return "TEXT", text_tokens(part["text"])
    for name in ("inlineData", "fileData"):
        if name in part:
            return _media_tokens(part[name], model)
    data = {name: value for name, value in part.items() if name != "thoughtSignature"}
    return "TEXT", json_tokens(data)


def _media_tokens(media: Mapping[str, Any], model: Model) -> tuple[str, int]:
    kind, _, subtype = str(media.get("mimeType", "")).partition("/")
    if kind == "text":
        return "TEXT", text_tokens(str(media.get("data", ""))) * 3 // 4 + 1
    if subtype == "pdf":
        return "DOCUMENT", 258 if model.generation == 2 else 560
    if kind in ("audio", "video"):
        return kind.upper(), 320
    return "IMAGE", 258 if model.generation == 2 else 1120


def prompt_units(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what a prompt is made of, in the order in which a cached prefix grows."""
    for tool in body.get("tools", ()):
        yield "tool", tool
    if "systemInstruction" in body:
        yield "system", body["systemInstruction"]
    for content in body.get("contents", ()):
        yield "content", content


def unit_tokens(kind: str, unit: Mapping[str, Any], model: Model) -> Counter[str]:
    """Return the tokens of one of `prompt_units` by modality."""
    counts: Counter[str] = Counter()
    if kind == "tool":
        counts["TEXT"] += json_tokens(unit) if "functionDeclarations" in unit else 0
        return counts
    for part in unit.get("parts", ()):
        modality, tokens = part_tokens(part, model)
        counts[modality] += tokens
        for media in part.get("functionResponse", {}).get("parts", ()):
            modality, tokens = part_tokens(media, model)
            counts[modality] += tokens
    return counts


def prompt_tokens(body: Mapping[str, Any], model: Model) -> Counter[str]:
    """Return the tokens of a whole prompt by modality."""
    counts: Counter[str] = Counter()
    for kind, unit in prompt_units(body):
        counts.update(unit_tokens(kind, unit, model))
    return counts


def details(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return ``promptTokensDetails`` of counts by modality."""
    return [{"modality": name, "tokenCount": count} for name, count in counts.items() if count]
