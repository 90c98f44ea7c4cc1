"""What Gemini's chunks are made of, read without trust: what can't be read fails the attempt.

Field types: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.translate.errors import BadAnswer

SERVER_PARTS = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse")
"""Parts of the tools that Google runs itself."""
_PART_TYPES: Mapping[str, type] = {
    "text": str,
    "thought": bool,
    **dict.fromkeys(("functionCall", *SERVER_PARTS), dict),
}
"""What a part's fields must be where they are set; others are not known or carry no content."""


def first_candidate(chunk: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the candidate to show: the one with index 0, which may go unsaid."""
    for candidate in repeated(chunk, "candidates"):
        if not isinstance(candidate, dict):
            raise malformed("candidates")
        index = candidate.get("index")
        if index is not None and type(index) is not int:
            raise malformed("index")
        if not index:
            return candidate
    return None


def check_part(part: object) -> None:
    """Raise `BadAnswer` for a part of which something would get lost in a seemingly good answer."""
    if not isinstance(part, dict):
        raise malformed("parts")
    for name, value in part.items():
        kind = _PART_TYPES.get(name)
        if kind is not None and value is not None and not isinstance(value, kind):
            raise malformed(name)


def repeated(holder: Mapping[str, Any], name: str) -> list[Any]:
    """Return what a repeated field holds; null is nothing, as in all proto JSON."""
    value = holder.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise malformed(name)
    return value


def malformed(name: str) -> BadAnswer:
    """Return the error of a field ``name`` whose type is not Gemini's."""
    return BadAnswer(f"The upstream sent a malformed answer: its {name} can't be read.")


def visible_text(part: Mapping[str, Any]) -> str:
    """Return the text of ``part`` that is no thought, "" when there is none."""
    return "" if part.get("thought") else text_of(part.get("text"))


def text_of(value: object) -> str:
    """Return ``value`` if it is text, else ""."""
    return value if isinstance(value, str) else ""
