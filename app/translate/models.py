"""Model names: which Gemini model a client's name means, and the catalogue clients may ask for.

Shape of a model: https://docs.anthropic.com/en/api/models-list
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Protocol

from app.translate.gemini_models import model_facts

CLAUDE_NAMES = (
    "claude-opus-5-5",
    "claude-sonnet-5",
    "claude-haiku-4-5",
    "claude-fable-5",
    "claude-mythos-5",
    "claude-opus-4-8",
    "claude-sonnet-4-6",
    "claude-sonnet-4-5",
)
"""Names listed when an alias covers them; any other name that one covers works as well."""

_EPOCH = "2026-01-01T00:00:00Z"
"""Google dates no model; clients sort by this field and need it to be there."""

Aliases = Sequence[tuple[str, str]]


class Served(Protocol):
    """What the catalogue needs of a model that some account serves."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def display_name(self) -> str: ...  # noqa: D102
    @property
    def input_limit(self) -> int: ...  # noqa: D102
    @property
    def output_limit(self) -> int: ...  # noqa: D102


def resolve(name: str, aliases: Aliases) -> str:
    """Return the Gemini model id that a client's model name means.

    ``claude-gemini-…`` is the way to name a Gemini model to clients that accept only Claude names
    (Claude Code's model picker). Other names go by the first alias that matches, or stay.
    """
    name = name.strip().removeprefix("models/")
    if name.startswith("claude-gemini-"):
        return name.removeprefix("claude-")
    for glob, model in aliases:
        if fnmatchcase(name, glob):
            return model
    return name


def catalogue(served: Iterable[Served], aliases: Aliases) -> list[dict[str, Any]]:
    """Return what to list: the Claude names that lead to a served model, then the models.

    Each Gemini model comes under its own name and under its ``claude-gemini-…`` name.
    """
    by_id = {model.id: model for model in served}
    plain = (glob for glob, _ in aliases if not any(mark in glob for mark in "*?["))
    names = [
        *dict.fromkeys((*CLAUDE_NAMES, *plain)),
        *by_id,
        *(f"claude-{model}" for model in by_id if model.startswith("gemini-")),
    ]
    return [
        describe(name, by_id[target])
        for name, target in ((name, resolve(name, aliases)) for name in dict.fromkeys(names))
        if target in by_id
    ]


def find(name: str, served: Iterable[Served], aliases: Aliases) -> dict[str, Any] | None:
    """Return the description of any name that a request could use, None when nothing serves it."""
    target = resolve(name, aliases)
    for model in served:
        if model.id == target:
            return describe(name, model)
    return None


def describe(name: str, model: Served) -> dict[str, Any]:
    """Return a model in Anthropic's shape, with the limits and abilities of what serves it."""
    return {
        "type": "model",
        "id": name,
        "display_name": _display_name(name, model),
        "created_at": _EPOCH,
        "lifecycle": "active",
        "line": _line(name),
        "deprecated_at": None,
        "retires_at": None,
        "max_input_tokens": model.input_limit,
        "max_tokens": model.output_limit,
        "capabilities": _capabilities(model.id),
    }


def _display_name(name: str, model: Served) -> str:
    shown = model.display_name or model.id
    if name == model.id:
        return shown
    if name == f"claude-{model.id}":
        return f"{shown} (gateway)"
    # claude-opus-4-1-20250805 is shown as Claude Opus 4.1
    words = [word for word in name.split("-") if len(word) < 8]
    version = ".".join(word for word in words if word.isdecimal())
    title = [word.capitalize() for word in words if not word.isdecimal()]
    return f"{' '.join([*title, version]).strip()} ({shown})"


def _line(name: str) -> str | None:
    for line in ("haiku", "sonnet", "opus", "fable", "mythos"):
        if name.startswith("claude-") and line in name:
            return line
    return None


def _capabilities(model_id: str) -> Mapping[str, Any]:
    facts = model_facts(model_id)
    yes, no = {"supported": True}, {"supported": False}
    return {
        "batch": no,
        "citations": yes,
        "code_execution": yes,
        "context_management": no,
        "effort": {
            "supported": True,
            "low": yes,
            "medium": yes,
            "high": yes,
            "xhigh": {"supported": "XHIGH" in facts.levels},
            "max": yes,
        },
        "image_input": yes,
        "pdf_input": yes,
        "structured_outputs": yes,
        "server_tools": {"supported": True, "web_search": yes, "code_execution": yes},
        "thinking": {
            "supported": True,
            "types": {
                "enabled": yes,
                "adaptive": yes,
                "disabled": {"supported": facts.can_switch_off},
                "between_tools": no,
            },
        },
    }
