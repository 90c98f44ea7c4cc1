"""What an answer cost: Gemini's counts in Anthropic's words.

Gemini repeats cumulative counts in any chunk and leaves out fields that are zero or not known
yet, so the last value of each field wins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_COUNT = re.compile(r"[0-9]{1,19}")
_FIELDS = (
    "promptTokenCount",
    "cachedContentTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
    "toolUsePromptTokenCount",
)


class LateCount:
    """A count that costs something: made when it is asked for first, or never.

    By then, or once it is clear that nobody will ask, it lets go of what it would be made of.
    """

    def __init__(self, count: Callable[[], int]) -> None:
        self._count: Callable[[], int] | None = count
        self._value = 0

    def __call__(self) -> int:
        """Return the count, never below 0."""
        count, self._count = self._count, None
        if count is not None:
            self._value = max(count(), 0)
        return self._value

    def forget(self) -> None:
        """Nobody will ask any more."""
        self._count = None


class UsageMeter:
    """Collects ``usageMetadata`` over a stream.

    ``input_estimate`` (tokens) stands in for the prompt as long as Gemini has not counted it,
    which it nearly always has before anything is shown.
    """

    def __init__(self, input_estimate: LateCount) -> None:
        self._estimate = input_estimate
        self._counts: dict[str, int] = {}
        self._counted = False

    def observe(self, metadata: Mapping[str, Any]) -> None:
        """Take in one chunk's ``usageMetadata``; what is no count in it is left alone."""
        for field in _FIELDS:
            value = metadata.get(field)
            if value is None:
                continue
            if type(value) is int and value >= 0:
                self._counts[field] = value
            elif isinstance(value, str) and _COUNT.fullmatch(value):
                self._counts[field] = int(value)  # proto JSON may write an int64 as a string
        if not self._counted and "promptTokenCount" in self._counts:
            self._counted = True
            self._estimate.forget()

    @property
    def fed_by_tools(self) -> bool:
        """Tell whether a Google-run tool has put something into the prompt."""
        return self._counts.get("toolUsePromptTokenCount", 0) > 0

    def start(self, *, output_tokens: int) -> dict[str, Any]:
        """Return the usage of ``message_start``, with every field of a whole message."""
        totals = self.totals()
        return {
            "input_tokens": totals["input_tokens"],
            "output_tokens": output_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": totals["cache_read_input_tokens"],
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens_details": {"thinking_tokens": 0},
            "server_tool_use": None,
            "service_tier": "standard",
            "inference_geo": None,
            "speed": None,
        }

    def totals(self, *, searches: int = 0, fetches: int = 0) -> dict[str, Any]:
        """Return the totals so far, as ``message_delta`` carries them (tokens).

        Input is prompt - cached + what Google-run tools fed back; output is the visible answer
        plus thinking. ``server_tool_use`` is there only when a tool ran.
        """
        counts = self._counts
        cached = counts.get("cachedContentTokenCount", 0)
        prompt = counts.get("promptTokenCount")
        if prompt is None:
            prompt = self._estimate() + cached
        thinking = counts.get("thoughtsTokenCount", 0)
        usage: dict[str, Any] = {
            "input_tokens": max(prompt - cached, 0) + counts.get("toolUsePromptTokenCount", 0),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": counts.get("candidatesTokenCount", 0) + thinking,
            "output_tokens_details": {"thinking_tokens": thinking},
        }
        if searches or fetches:
            usage["server_tool_use"] = {
                "web_search_requests": searches,
                "web_fetch_requests": fetches,
            }
        return usage
