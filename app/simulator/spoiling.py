"""Answers that are bad in themselves: ends that are none, blocks, errors in mid-stream."""

from __future__ import annotations

import json
from typing import Any

from app.simulator.chunks import Chunk
from app.simulator.faults import Fault

_RATINGS = [
    {"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"},
    {"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "HIGH", "blocked": True},
]
_SOURCES = [{"startIndex": 0, "endIndex": 40, "uri": "https://example.com/"}]
_ERROR = {
    "error": {
        "code": 503,
        "message": "The model is overloaded. Please try again later.",
        "status": "UNAVAILABLE",
    }
}
_DEFAULT_CHUNKS = 2


def spoil(chunks: list[Chunk], fault: Fault) -> list[Chunk]:  # noqa: PLR0911
    """Return what goes out instead of ``chunks`` (one, for an answer that does not stream)."""
    last = chunks[-1]
    tail = {name: value for name, value in last.items() if name != "candidates"}
    match fault.kind:
        case "empty":
            return [_ended(tail, "STOP")]
        case "no-finish":
            return [*chunks[:-1], _without_end(last)]
        case "safety":
            return [*_half(chunks), _ended(tail, "SAFETY", safetyRatings=_RATINGS)]
        case "recitation":
            citation = {"citationSources": _SOURCES}
            return [*_half(chunks), _ended(tail, "RECITATION", citationMetadata=citation)]
        case "malformed-call":
            message = "Malformed function call: print(default_api.look_up(word='x'"
            return [_ended(tail, "MALFORMED_FUNCTION_CALL", finishMessage=message)]
        case "unexpected-call":
            return [_ended(tail, "UNEXPECTED_TOOL_CALL")]
        case "thoughts-only":
            return [_ended(tail, "MAX_TOKENS")]
        case "blocked":
            feedback = {"blockReason": "PROHIBITED_CONTENT", "safetyRatings": _RATINGS}
            return [{"promptFeedback": feedback, **tail}]
        case "error-mid":
            return [*chunks[: cut_after(fault, len(chunks))], _ERROR]
    return chunks


def raw_interruption(fault: Fault) -> bytes | None:
    """Return bytes that come in the middle of a stream instead of the rest, without ``data:``."""
    if fault.kind == "error-raw":
        body = {"error": {"code": 499, "message": "The operation was cancelled."}}
        body["error"]["status"] = "CANCELLED"
        return json.dumps(body, indent=2).encode() + b"\r\n"
    if fault.kind == "garbage-mid":
        return b'data: {"candidates": [{"content": {"parts": [{"text": \r\n\r\n'
    return None


def cut_after(fault: Fault, pieces: int) -> int:
    """Return how many of ``pieces`` leave before the fault strikes: never all of them."""
    wanted = fault.number if fault.number >= 0 else _DEFAULT_CHUNKS
    return min(wanted, pieces - 1)


def _ended(tail: dict[str, Any], reason: str, **fields: Any) -> Chunk:
    return {"candidates": [{"finishReason": reason, "index": 0, **fields}], **tail}


def _without_end(chunk: Chunk) -> Chunk:
    candidate = {k: v for k, v in chunk["candidates"][0].items() if k != "finishReason"}
    return {**chunk, "candidates": [candidate]}


def _half(chunks: list[Chunk]) -> list[Chunk]:
    return [_without_end(chunk) for chunk in chunks[: len(chunks) // 2]]
