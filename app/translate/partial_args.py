"""A function call whose arguments stream in pieces (Vertex, ``streamFunctionCallArguments``).

The pieces (``partialArgs``: a JSON path and a scalar) are put together here and reach the client
when the call is complete: their order need not be that of a JSON text, which the client's
``input_json_delta`` pieces must be.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from app.translate.errors import BadAnswer

_STEP = re.compile(
    r"\.?([^.\[\]'\"]+)|\[(\d+)\]|\[(?:'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\")\]"
)
_ESCAPED = re.compile(r"\\(.)")
_LONGEST_GAP = 1000
"""Array items that a path may skip; more is a broken path, not an argument."""

_SCALARS = (("stringValue", {str}), ("numberValue", {int, float}), ("boolValue", {bool}))
_DEEPEST_PATH = 200
"""Steps of a path; more is no argument, and too deep for JSON readers."""

Path = tuple[str | int, ...]


class PartialCall:
    """One call under way: ``name``, Gemini's ``call_id`` and ``signature``, and ``args`` so far."""

    def __init__(self, name: str, call_id: str, signature: str) -> None:
        self.name = name
        self.call_id = call_id
        self.signature = signature
        self.args: dict[str, Any] = {}
        self._open: Path | None = None

    @property
    def mid_string(self) -> bool:
        """Tell whether a string argument is begun and not ended."""
        return self._open is not None

    def add(self, call: Mapping[str, Any]) -> None:
        """Take in one ``functionCall`` of the stream; raises `BadAnswer` when it makes no sense."""
        whole = call.get("args")
        if isinstance(whole, dict):
            self.args.update(whole)
        elif whole is not None:
            raise BadAnswer("The upstream sent function arguments that are not an object.")
        pieces = call.get("partialArgs")
        if not isinstance(pieces, list | None):
            raise BadAnswer("The upstream streamed function arguments that are not a list.")
        for piece in pieces or ():
            if not isinstance(piece, dict):
                raise BadAnswer("The upstream streamed a function argument that is not an object.")
            self._put(piece)

    def _put(self, piece: Mapping[str, Any]) -> None:
        path = _parse(piece.get("jsonPath"))
        value = _value(piece)
        holder, last = self._reach(path)
        if isinstance(value, str) and path == self._open:
            value = f"{holder[last]}{value}"
        holder[last] = value
        self._open = path if isinstance(value, str) and piece.get("willContinue") else None

    def _reach(self, path: Path) -> tuple[Any, str | int]:
        """Return the container that holds ``path``'s last step, made where it was missing."""
        holder: Any = self.args
        for step, following in pairwise(path):
            _make_room(holder, step)
            if holder[step] is None:
                holder[step] = [] if isinstance(following, int) else {}
            holder = holder[step]
        _make_room(holder, path[-1])
        return holder, path[-1]


def _make_room(holder: Any, step: str | int) -> None:
    if isinstance(holder, dict) and isinstance(step, str):
        holder.setdefault(step, None)
    elif isinstance(holder, list) and isinstance(step, int) and step <= len(holder) + _LONGEST_GAP:
        holder.extend([None] * (step + 1 - len(holder)))
    else:
        raise BadAnswer("The upstream's streamed function arguments contradict each other.")


def _parse(path: object) -> Path:
    if not isinstance(path, str) or not path.startswith("$"):
        raise BadAnswer("The upstream streamed a function argument without a JSON path.")
    steps: list[str | int] = []
    at = 1
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            raise BadAnswer("The upstream streamed a function argument with a broken JSON path.")
        plain, index, single, double = step.groups()
        if index is not None:
            steps.append(int(index[:9]))
        elif plain is not None:
            steps.append(plain)
        else:
            steps.append(_ESCAPED.sub(r"\1", single if single is not None else double))
        at = step.end()
    if not steps or not isinstance(steps[0], str) or len(steps) > _DEEPEST_PATH:
        raise BadAnswer("The upstream streamed a function argument with a broken JSON path.")
    return tuple(steps)


def _value(piece: Mapping[str, Any]) -> Any:
    for kind, types in _SCALARS:
        value = piece.get(kind)
        if value is None:
            continue
        if type(value) not in types:
            raise BadAnswer("The upstream sent function arguments that are not JSON.")
        return value
    return "" if "stringValue" in piece else None
