"""The thinking of an answer as ``thinking`` blocks, and the signatures they carry."""

from __future__ import annotations

from typing import Literal

from app.translate.blocks import BlockWriter
from app.translate.signatures import pack_thinking
from app.translate.target import Target


class ThinkingWriter:
    """Writes thought parts as the client wants to see them.

    A block stays open until the next part is known, so that its one ``signature_delta`` can also
    carry that part's signature. Blocks whose text is ``omitted`` are written whole at their end:
    they show nothing before, and an attempt that fails until then can be repeated unseen. With
    thinking ``off`` the signatures of thought parts are dropped: without the part there is no
    place to send them back on, and Gemini does not ask for thought parts.
    """

    def __init__(
        self, mode: Literal["shown", "omitted", "off"], writer: BlockWriter, target: Target
    ) -> None:
        self._mode = mode
        self._writer = writer
        self._target = target
        self._own = ""
        self.pending = False
        """A thinking block is under way."""

    def thought(self, text: str, signature: str) -> None:
        """Take in a thought part."""
        if self._mode == "off" or not (text or signature):
            return
        if self.pending and self._own:  # a signature is of one part: the next is another
            self.end()
        if not self.pending:
            self._begin()
        if text and self._mode == "shown":
            self._writer.delta({"type": "thinking_delta", "thinking": text})
        self._own = signature

    def lead_to(self, signature: str, length: int = 0) -> None:
        """End the thinking before a part with this signature ("" for none).

        ``length`` is the part's visible text in characters, 0 for a call. A signed part that no
        thinking precedes gets an empty thinking block for its signature, if it comes first.
        """
        if self.pending:
            self.end(signature, length)
        elif signature and self._mode != "off" and not self._writer.started:
            self._begin()
            self.end(signature, length)

    def end(self, following: str = "", length: int = 0) -> None:
        """End the thinking block, if one is under way."""
        if not self.pending:
            return
        if self._mode == "omitted":
            self._open()
        length = length if following else 0
        signature = pack_thinking(self._own, following, self._target, length=length)
        self._writer.delta({"type": "signature_delta", "signature": signature})
        self._writer.close()
        self.pending, self._own = False, ""

    def _begin(self) -> None:
        self.pending = True
        if self._mode == "shown":
            self._open()

    def _open(self) -> None:
        self._writer.open({"type": "thinking", "thinking": "", "signature": ""})
