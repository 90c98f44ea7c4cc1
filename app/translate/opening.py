"""What Gemini may put around an answer and the client did not ask for."""

from __future__ import annotations

import re

_FENCE = re.compile(r"\s*```(?:json|JSON)?[ \t]*\r?\n")
_FENCE_BEGUN = re.compile(r"\s*(?:`{0,2}|```(?:j(?:s(?:on?)?)?|J(?:S(?:ON?)?)?)?[ \t]*\r?)")
_FENCE_END = re.compile(r"\s*`{0,3}\s*")


class PrefillFilter:
    """Takes a repeated prefill off the start of an answer, if the whole of it is repeated."""

    def __init__(self, prefill: str) -> None:
        self._prefill = prefill
        self._held = ""
        self.settled = False

    def cut(self, text: str) -> int:
        """Return how many characters go off the start of a whole answer."""
        return len(self._prefill) if text.startswith(self._prefill) else 0

    def push(self, text: str) -> str:
        """Return what may be shown now."""
        if self.settled:
            return text
        text = self._held + text
        if len(text) < len(self._prefill) and self._prefill.startswith(text):
            self._held = text
            return ""
        self.settled, self._held = True, ""
        return text[self.cut(text) :]

    def flush(self) -> str:
        """Return what was held back, now that no more text follows."""
        text, self._held = self._held, ""
        self.settled = True
        return text


class FenceFilter:
    """Takes a Markdown fence off an answer that should be bare JSON.

    Models that are only asked for JSON (no schema enforced upstream) like to fence it. JSON can't
    begin with a back quote, so an answer that does not is passed on untouched: unless it goes on
    with one that may have begun with a fence (``inside``), and may end with its other half.
    """

    def __init__(self, *, inside: bool = False) -> None:
        self._inside = inside
        self._held = ""
        self._fenced = False
        self.settled = False

    def cut(self, text: str) -> int:
        """Return how many characters go off the start of a whole answer."""
        fence = _FENCE.match(text)
        return fence.end() if fence else 0

    def push(self, text: str) -> str:
        """Return what may be shown now."""
        if self.settled:
            return text
        text = self._held + text
        self._held = ""
        if not self._fenced:
            if _FENCE_BEGUN.fullmatch(text):
                self._held = text
                return ""
            end = self.cut(text)
            if not end and not self._inside:
                self.settled = True
                return text
            self._fenced, text = True, text[end:]
        kept = text.rstrip("` \t\r\n")
        self._held = text[len(kept) :]
        return kept

    def flush(self) -> str:
        """Return what was held back, less the closing fence."""
        text, self._held = self._held, ""
        self.settled = True
        return "" if (self._fenced or self._inside) and _FENCE_END.fullmatch(text) else text
