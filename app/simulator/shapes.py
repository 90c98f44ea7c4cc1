"""How Google's JSON front end reads a body: which fields exist where, and of what type.

Accepts camelCase and snake_case, drops nulls, takes a single object for a list of one, and
refuses anything unknown in Google's own words (proto3 JSON,
https://protobuf.dev/programming-guides/json/).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.simulator.errors import GoogleError, bad_request
from app.simulator.signatures import decode


@dataclass(frozen=True)
class Leaf:
    """A scalar. ``name`` is how Google calls its type; ``values`` the words of an enum."""

    name: str
    values: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Many:
    """A repeated field."""

    item: Shape


@dataclass(frozen=True)
class MapOf:
    """An object with free keys."""

    item: Shape


@dataclass(frozen=True)
class Obj:
    """A message. ``oneof`` names the fields of which only one may be set."""

    fields: dict[str, Shape]
    oneof: frozenset[str] = field(default=frozenset())


Shape = Leaf | Many | MapOf | Obj

STR, BOOL = Leaf("TYPE_STRING"), Leaf("TYPE_BOOL")
INT, NUM = Leaf("TYPE_INT32"), Leaf("TYPE_FLOAT")
BYTES = Leaf("TYPE_BYTES")
ANY = Leaf("google.protobuf.Value")
STRUCT = Leaf("google.protobuf.Struct")


def enum(name: str, words: str) -> Leaf:
    """Return an enum of ``words``, separated by spaces."""
    return Leaf(
        f"type.googleapis.com/google.ai.generativelanguage.{name}", frozenset(words.split())
    )


def read(value: object, shape: Shape, path: str = "") -> Any:
    """Return ``value`` with camelCase names and no nulls; raises `GoogleError` (400)."""
    match shape:
        case Many():
            items = value if isinstance(value, list) else [value]
            return [read(item, shape.item, f"{path}[{n}]") for n, item in enumerate(items)]
        case MapOf():
            _want_object(value, path)
            return {str(k): read(v, shape.item, path) for k, v in _items(value)}
        case Obj():
            return _message(value, shape, path)
        case Leaf():
            return _scalar(value, shape, path)


def _message(value: object, shape: Obj, path: str) -> dict[str, Any]:
    _want_object(value, path)
    out: dict[str, Any] = {}
    taken = ""
    for name, item in _items(value):
        camel = _camel(name)
        known = shape.fields.get(camel)
        if known is None:
            where = f" at '{path}'" if path else ""
            raise bad_request(
                f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.',
                path,
            )
        if item is None:
            continue
        if camel in shape.oneof:
            if taken:
                message = (
                    f"Invalid value at '{path}' (oneof), oneof field 'data' is already set. "
                    f"Cannot set '{camel}'"
                )
                raise bad_request(message, path)
            taken = camel
        inner = f"{path}.{_snake(camel)}" if path else _snake(camel)
        if isinstance(item, list) and not isinstance(known, Many) and known is not ANY:
            raise bad_request(
                f"Invalid JSON payload received. Unknown name \"{name}\" at '{path}': Proto field "
                "is not repeating, cannot start list.",
                path,
            )
        out[camel] = read(item, known, inner)
    return out


def _scalar(value: object, leaf: Leaf, path: str) -> Any:  # noqa: PLR0911
    if leaf is ANY:
        return value
    if leaf is STRUCT and isinstance(value, Mapping):
        return dict(value)
    if leaf is STR and isinstance(value, str):
        return value
    if leaf is BOOL and isinstance(value, bool):
        return value
    if leaf in (INT, NUM) and not isinstance(value, bool):
        number = _number(value)
        if number is not None and (leaf is NUM or number == int(number)):
            return number if leaf is NUM else int(number)
    if leaf is BYTES and isinstance(value, str):
        if decode(value) is None:
            raise bad_request(
                f"Invalid value at '{path}' (TYPE_BYTES), Base64 decoding failed for "
                f'"{value[:60]}"',
                path,
            )
        return value
    if leaf.values and isinstance(value, str) and value.upper() in leaf.values:
        return value.upper()
    shown = f'"{value}"' if isinstance(value, str) else value
    raise bad_request(f"Invalid value at '{path}' ({leaf.name}), {shown}", path)


def _number(value: object) -> float | int | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, int | float) and math.isfinite(value):
        return value
    return None


def _want_object(value: object, path: str) -> None:
    if not isinstance(value, Mapping):
        where = f" at '{path}'" if path else ""
        raise GoogleError(400, f"Invalid JSON payload received. Expected an object{where}.")


def _items(value: object) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, Mapping) else []


_UNDERSCORE = re.compile(r"_([a-z0-9])")
_UPPER = re.compile(r"([A-Z])")


def _camel(name: str) -> str:
    return _UNDERSCORE.sub(lambda match: match[1].upper(), name)


def _snake(name: str) -> str:
    return _UPPER.sub(lambda match: f"_{match[1].lower()}", name)
