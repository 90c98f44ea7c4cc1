"""How an answer ended: Gemini's finish and block reasons as Anthropic's stop reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.translate.errors import BadAnswer

FAULTS = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "MISSING_THOUGHT_SIGNATURE",
        "UNEXPECTED_TOOL_CALL",
    }
)
"""Finish reasons of answers that are none: a new try is worth it, a good end would be a lie."""

_REFUSALS = frozenset(
    {
        "BLOCKLIST",
        "ESCALATION",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "IMAGE_SAFETY",
        "MODEL_ARMOR",
        "PROHIBITED_CONTENT",
        "PUP_LIMITED_DISABLED",
        "RECITATION",
        "SAFETY",
        "SPII",
    }
)
_CUT = frozenset({"MAX_TOKENS", "CONTINUATION"})
"""CONTINUATION is Gemini 4's limit per request: to the client, a limit like the other."""


@dataclass(frozen=True)
class Ending:
    """``stop_details`` is None but for refusals; ``stop_sequence`` is set when that was it."""

    stop_reason: str
    stop_sequence: str | None = None
    stop_details: dict[str, Any] | None = None


def weight(reason: str) -> int:
    """Return how much a finish reason says: of two in one answer, the heavier one counts."""
    if reason in ("", "FINISH_REASON_UNSPECIFIED"):
        return 0
    if reason == "STOP":
        return 1
    if reason in FAULTS:
        return 5
    if reason in _REFUSALS:
        return 4
    return 3 if reason in _CUT else 2


def fault(reason: str, message: str) -> BadAnswer:
    """Return the error for a finish reason of `FAULTS`; ``message`` is Gemini's own, may be ""."""
    return BadAnswer(f"The upstream answer is unusable ({reason}){_told(message)}.")


def blocked(block_reason: str, message: str) -> Ending:
    """Return the end of an answer that never began: ``promptFeedback.blockReason``.

    Anthropic's categories say more than Gemini's reasons do, so the category stays null.
    """
    return _refusal(f"Gemini blocked the prompt: {block_reason}{_told(message)}.")


def finished(
    reason: str, message: str, *, content: bool, calls: bool, may_be_empty: bool
) -> Ending:
    """Return what a ``finishReason`` means for the client; raises `BadAnswer`.

    ``content``: something visible came; ``calls``: a call for the client to make is among it;
    ``may_be_empty``: an empty answer can be true (Gemini takes a stop sequence off the end, so
    one that hit at once leaves nothing, and Gemini does not say which it was).
    """
    if reason in FAULTS:
        raise fault(reason, message)
    if reason in _REFUSALS:
        return _refusal(f"Gemini stopped the answer: {reason}{_told(message)}.")
    if reason in _CUT:
        return Ending("max_tokens")
    if not content and not (reason == "STOP" and may_be_empty):
        raise BadAnswer(f"The upstream answer is empty (finish reason {reason}{_told(message)}).")
    if calls:
        return Ending("tool_use")
    if reason == "TOO_MANY_TOOL_CALLS":  # Google's own tools ran too often: the turn may go on
        return Ending("pause_turn")
    return Ending("end_turn")


def _refusal(explanation: str) -> Ending:
    details = {"type": "refusal", "category": None, "explanation": explanation}
    return Ending("refusal", stop_details=details)


def _told(message: str) -> str:
    message = message.strip().rstrip(".")
    return f": {message}" if message else ""
