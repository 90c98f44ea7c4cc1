"""The JSON of a request as plain values, of which the tools are made once.

Coding agents send the same tools with every turn, and most values of a request are theirs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec
from msgspec import UNSET

from app.translate.coverage import FIELDS

LARGEST_LIST_KEPT = 131_072
"""Bytes of JSON of a request's tools, all of them, that are kept with what was made of them."""
SMALL = 4096
"""Bytes of a request whose tools, if any, are few."""


class SentTools(list[dict[str, Any]]):
    """The tools of a request: one object for the same bytes. Not to be changed: others have it."""

    __slots__ = ("checked", "text")

    def __init__(self, tools: list[dict[str, Any]], text: bytes) -> None:
        super().__init__(tools)
        self.text = text
        """Their JSON as it was sent."""
        self.checked = False
        """Whether `app.translate.validation` found them right."""


_Body = msgspec.defstruct(
    "_Body",
    [(each.name, msgspec.Raw if each.name == "tools" else Any, UNSET) for each in FIELDS],
    forbid_unknown_fields=True,
)
_bodies = msgspec.json.Decoder(_Body)


def parse(raw: bytes) -> Any:
    """Return the value of the JSON in ``raw``; the tools of a request may be `SentTools`.

    Raises ValueError or RecursionError for what msgspec does not take.
    """
    if len(raw) < SMALL:
        return msgspec.json.decode(raw)
    try:
        sent = msgspec.structs.asdict(_bodies.decode(raw))
        body = {name: value for name, value in sent.items() if value is not UNSET}
        if "tools" in body:
            text = bytes(body["tools"])
            whole = len(text) > LARGEST_LIST_KEPT
            body["tools"] = msgspec.json.decode(text) if whole else _known(text)
    except (ValueError, RecursionError):  # no JSON, no object, or one with a field of the future
        return msgspec.json.decode(raw)
    return body


@lru_cache(maxsize=32)
def _known(text: bytes) -> Any:
    value = msgspec.json.decode(text)
    return SentTools(value, text) if type(value) is list else value
