"""Stop sequences found in a stream: Gemini takes few of them and never says which one hit."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Watches text that arrives in pieces for the first stop sequence in it.

    The match that is complete first wins, as it would stop a model that writes character by
    character; of two that end at the same place, the longer one. Only what may be the beginning
    of a match is held back, so the result does not depend on how the text was cut into pieces.
    """

    def __init__(self, sequences: Sequence[str]) -> None:
        self._wanted = tuple(dict.fromkeys(sequence for sequence in sequences if sequence))
        self._longest = max(map(len, self._wanted), default=0)
        self._starts = frozenset(sequence[0] for sequence in self._wanted)
        self._held = ""

    @property
    def holding(self) -> bool:
        """Tell whether text is held back."""
        return bool(self._held)

    def push(self, text: str) -> tuple[str, str | None]:
        """Return what may be shown now, and the sequence that hit (None while none has)."""
        text = self._held + text
        hits = [
            (start + len(sequence), start, sequence)
            for sequence in self._wanted
            if (start := text.find(sequence)) >= 0
        ]
        if hits:
            _, start, sequence = min(hits)
            self._held = ""
            return text[:start], sequence
        shown = self._begun(text)
        self._held = text[shown:]
        return text[:shown], None

    def flush(self) -> str:
        """Return what was held back, now that nothing can complete it."""
        text, self._held = self._held, ""
        return text

    def _begun(self, text: str) -> int:
        """Return where the earliest match begins that is not complete, else the length."""
        for at in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[at] in self._starts:
                tail = text[at:]
                if any(sequence.startswith(tail) for sequence in self._wanted):
                    return at
        return len(text)
