"""Content blocks of one answer as events: the one owner of the block index."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from app.translate.errors import BadAnswer
from app.translate.signatures import text_key, text_note
from app.translate.target import Target

Event = dict[str, Any]

PING: Event = {"type": "ping"}


class BlockWriter:
    """Writes blocks one after the other; opening one closes the one before.

    ``message_start`` is made by ``head`` and written with the first block. Signed stretches of
    the text are kept as `mark`s and end up in ``notes`` when their text block closes.
    """

    def __init__(self, head: Callable[[], Event], target: Target, notes: dict[str, str]) -> None:
        self._head = head
        self._target = target
        self._notes = notes
        self._events: list[Event] = []
        self.index = -1
        """Of the newest block."""
        self._kind = ""
        self._pieces: list[str] = []
        self._text_start = 0
        self._text_end = 0
        self._break = False
        self._marks: list[tuple[int, int, str]] = []
        self.started = False
        self.visible = False
        """Something other than thinking was written."""

    def take(self) -> list[Event]:
        """Return the events since the last call."""
        events, self._events = self._events, []
        return events

    @property
    def in_text(self) -> bool:
        """Tell whether a text block is open."""
        return self._kind == "text"

    @property
    def text_start(self) -> int:
        """Where the open text block starts, in characters of all text written."""
        return self._text_start

    def start(self) -> None:
        """Write ``message_start`` if that has not happened yet."""
        if not self.started:
            self.started = True
            self._events += (self._head(), PING)
            # It belongs to the owner of this writer: a cycle would keep both after the answer.
            del self._head

    def open(self, block: dict[str, Any]) -> None:
        """Begin a block; ``block`` is what its ``content_block_start`` carries."""
        if not self.started:
            self.start()
        self.close()
        self.index += 1
        self._kind = block["type"]
        if self._kind != "thinking":
            self.visible = True
        self._events.append(
            {"type": "content_block_start", "index": self.index, "content_block": block}
        )

    def delta(self, delta: dict[str, Any]) -> None:
        """Add to the open block."""
        self._events.append({"type": "content_block_delta", "index": self.index, "delta": delta})

    def close(self) -> None:
        """End the open block, if there is one."""
        if not self._kind:
            return
        if self._kind == "text":
            self._keep_marks()
        self._kind = ""
        self._events.append({"type": "content_block_stop", "index": self.index})

    def whole(self, block: dict[str, Any]) -> None:
        """Write a block that arrives whole in its start event."""
        self.open(block)
        self.close()

    def tool(self, kind: str, tool_id: str, name: str, arguments: dict[str, Any]) -> None:
        """Write a ``tool_use`` or ``server_tool_use`` block; raises `BadAnswer` on no JSON."""
        try:
            text = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        except (ValueError, RecursionError):
            raise BadAnswer("The upstream sent function arguments that are not JSON.") from None
        self.open({"type": kind, "id": tool_id, "name": name, "input": {}})
        self.delta({"type": "input_json_delta", "partial_json": text})
        self.close()

    def text(self, piece: str) -> None:
        """Write visible text, in the open text block if there is one; ``piece`` is not ""."""
        if self._kind != "text" or self._break:
            self.open({"type": "text", "text": ""})
            self._text_start, self._pieces, self._break = self._text_end, [], False
        self._pieces.append(piece)
        self._text_end += len(piece)
        self._events.append(
            {
                "type": "content_block_delta",
                "index": self.index,
                "delta": {"type": "text_delta", "text": piece},
            }
        )

    def end(self, message_delta: Event) -> None:
        """Write the end of the message."""
        self.start()
        self.close()
        self._events += (message_delta, {"type": "message_stop"})

    def break_text(self) -> None:
        """Let the next text begin a block of its own."""
        self._break = self._kind == "text"

    def cite(self, citation: dict[str, Any]) -> None:
        """Add a citation to the open text block."""
        self.delta({"type": "citations_delta", "citation": citation})

    def mark(self, start: int, end: int, signature: str) -> None:
        """Remember that a part from ``start`` to ``end`` of all text was signed (characters)."""
        self._marks.append((start, end, signature))

    def _keep_marks(self) -> None:
        """Note the signed parts that begin in the text block that ends.

        A part may reach beyond its block (citations split text); its mark says so, with an end
        behind the block's.
        """
        if not self._marks:
            return
        start, end = self._text_start, self._text_end
        inside = [m for m in self._marks if m[0] < end or m[1] == end]
        if inside:
            self._marks = [m for m in self._marks if m not in inside]
            marks = [(max(a - start, 0), b - start, signature) for a, b, signature in inside]
            self._notes[text_key("".join(self._pieces))] = text_note(marks, self._target)


def message_start(message_id: str, model: str, usage: dict[str, Any]) -> Event:
    """Return the first event of an answer."""
    return {
        "type": "message_start",
        "message": {
            "id": message_id,
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "container": None,
            "usage": usage,
        },
    }
