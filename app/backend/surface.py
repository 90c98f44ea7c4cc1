"""What one of Google's API surfaces must know how to write and read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import quote

from app.backend.connection import Call
from app.backend.errors import Fault, UpstreamError
from app.backend.link import Link, Outgoing
from app.pool.account import Account

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:-]{0,199}")


@dataclass(frozen=True)
class ListedModel:
    """One model as an account lists it; limits in tokens, 0 and None where it does not say."""

    id: str
    display_name: str = ""
    input_token_limit: int = 0
    output_token_limit: int = 0
    methods: tuple[str, ...] = ()
    thinking: bool | None = None


class Surface(Protocol):
    """One account on one of Google's surfaces. All methods raise `UpstreamError`."""

    link: Link

    def __init__(self, account: Account, link: Link, base_url: str) -> None: ...

    def generation(self, project: str, model: str, body: Mapping[str, Any], call: Call) -> Outgoing:
        """Return the streamed generate request for ``body``, which names no model."""
        ...

    def count(self, project: str, model: str, body: Mapping[str, Any], call: Call) -> Outgoing:
        """Return the count request for ``body``."""
        ...

    def listing(self, page_token: str) -> Outgoing | None:
        """Return the request for a page of the models; None where they can't be listed."""
        ...

    def listed(self, answer: Mapping[str, Any]) -> list[ListedModel]:
        """Return the models on a page."""
        ...

    @property
    def unwrap(self) -> Callable[[dict[str, Any]], dict[str, Any] | None] | None:
        """What returns the GenerateContentResponse in a chunk, None if there is none.

        None where chunks are nothing else.
        """
        ...


@lru_cache(maxsize=256)
def model_segment(model: str) -> str:
    """Return ``model`` as a path segment; raises NOT_FOUND for what can't be a model's name."""
    if not _MODEL.fullmatch(model):
        raise UpstreamError(Fault.NOT_FOUND, f"models/{model[:200]} is not found.", status=404)
    return quote(model, safe="@")


def text_of(item: Mapping[str, Any], name: str) -> str:
    """Return the text field ``name`` of an answer's object, "" for anything else."""
    value = item.get(name)
    return value if isinstance(value, str) else ""


def tokens_of(item: Mapping[str, Any], name: str) -> int:
    """Return the int field ``name``, which proto3 JSON may write as text; 0 for anything else."""
    value = item.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    return value if isinstance(value, int) else 0


def objects_of(answer: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the objects in the list field ``name``."""
    items = answer.get(name)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
