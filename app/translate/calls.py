"""The model's function calls as ``tool_use`` blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from app.translate.blocks import BlockWriter
from app.translate.errors import BadAnswer
from app.translate.partial_args import PartialCall
from app.translate.reply import ReplyContext
from app.translate.signatures import pack_tool_id
from app.translate.thinking import ThinkingWriter

_NAMESPACES = ("default_api:", "default_api.")
"""What Gemini at times puts before a function's name."""

_EXACT = 2**53
"""Up to here a float tells every integer from the next."""


class CallWriter:
    """Writes calls as they are complete.

    A call to a tool that was not declared is passed on under its name: clients answer it with an
    error result, from which the model recovers, and Claude Code's deferred tools are such calls.
    """

    def __init__(
        self,
        context: ReplyContext,
        writer: BlockWriter,
        new_nonce: Callable[[], str],
        notes: dict[str, str],
    ) -> None:
        self._context = context
        self._writer = writer
        self._new_nonce = new_nonce
        self._notes = notes
        self._partial: PartialCall | None = None
        self._refused = False
        self._skipping = False
        self._newest = ("", -1)
        self.count = 0
        self.dropped = False
        """A call that was under way could not be written."""

    @property
    def newest_nonce(self) -> str:
        """The nonce of the call that is the answer's newest block, "" when that is no call."""
        nonce, index = self._newest
        return nonce if index == self._writer.index else ""

    def refuse(self) -> None:
        """Write no more calls: Gemini has said that they are faulty."""
        self._refused = True
        self._partial = None

    def part(self, call: Mapping[str, Any], signature: str, thinking: ThinkingWriter) -> None:
        """Take in a ``functionCall``; raises `BadAnswer` when it can't be one."""
        if self._refused:
            return
        name, call_id = call.get("name"), _word(call.get("id"))
        if not isinstance(name, str | None):
            raise BadAnswer("The upstream sent a function call whose name is no text.")
        if name:
            self.complete()
            self._skipping = self._context.one_call_only and self.count > 0
            if self._skipping:
                return
            thinking.lead_to(signature)
            self._partial = PartialCall(name, call_id, signature)
        elif self._partial is None:
            if (call.get("args") or call.get("partialArgs")) and not self._skipping:
                raise BadAnswer("The upstream sent a function call without a name.")
            return  # the end mark of a call that is complete or was dropped
        elif signature and not self._partial.signature:
            self._partial.signature = signature
        self._partial.add(call)
        if not call.get("willContinue"):
            self.complete()

    @property
    def under_way(self) -> bool:
        """Tell whether a call has begun that is not complete."""
        return self._partial is not None

    def complete(self, *, whole: bool = True) -> None:
        """Write the call under way, if there is one; drop it when it can't be ``whole``."""
        call, self._partial = self._partial, None
        if call is None:
            return
        if not whole:
            self.dropped = True
            return
        if call.mid_string:
            raise BadAnswer("The upstream left a function call unfinished.")
        nonce = self._new_nonce()
        tool_id, kept = pack_tool_id(nonce, call.call_id, call.signature, self._context.target)
        self._notes.update(kept)
        arguments = _exact(call.args)
        self._writer.tool("tool_use", tool_id, self._client_name(call.name), arguments)
        self.count += 1
        self._newest = (nonce, self._writer.index)

    def _client_name(self, name: str) -> str:
        """Return the client's name of the function that Gemini calls ``name``."""
        names, known = self._context.tool_names, self._context.known_tools
        if name in names:
            return names[name]
        for namespace in _NAMESPACES:
            bare = name.removeprefix(namespace)
            if bare and bare != name and name not in known:
                return names.get(bare, bare)
        return name


def _exact(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return ``arguments`` with whole numbers as integers.

    Gemini may write 1 as 1.0, which a client's integer parameter need not take.
    """
    whole = dict(arguments)
    waiting: list[Any] = [whole]
    while waiting:
        holder = waiting.pop()
        for key, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
            if isinstance(value, dict | list):
                holder[key] = copied = value.copy()
                waiting.append(copied)
            elif isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
                holder[key] = int(value)
    return whole


def _word(value: object) -> str:
    """Return Gemini's id of a call, "" when it is none that can travel in ours."""
    return value if isinstance(value, str) and value.isascii() else ""
