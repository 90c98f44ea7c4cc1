"""What the answer's translator must know of the request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from app.translate.target import Target
from app.translate.usage import LateCount


@dataclass(frozen=True)
class ReplyContext:
    """Made by `Conversation.reply_context`, read by `StreamTranslator`."""

    model: str
    """The name the client asked for, echoed in the answer."""
    target: Target
    """Where the answer comes from: the origin of its signatures."""
    thinking: Literal["shown", "omitted", "off"] = "off"
    """``omitted``: thinking blocks with empty text and a signature. ``off``: none at all."""
    tool_names: Mapping[str, str] = field(default_factory=dict)
    """Gemini's function name → the client's, for names that had to change."""
    known_tools: frozenset[str] = frozenset()
    """The client's names of all declared tools."""
    one_call_only: bool = False
    """``disable_parallel_tool_use``: only the first call reaches the client."""
    server_tools: frozenset[str] = frozenset()
    """Of ``web_search``, ``web_fetch``, ``code_execution``."""
    stop_sequences: tuple[str, ...] = ()
    """All of the client's, in its order."""
    json_answer: bool = False
    """Structured output was asked for."""
    input_estimate: LateCount = field(default_factory=lambda: LateCount(int))
    """Tokens, for ``message_start`` when Gemini has not counted yet."""
    resumed: bool = False
    """The answer goes on with one that was cut, a fence that it began included."""
    prefill: str = ""
    """Assistant text the answer continues and must not repeat."""
