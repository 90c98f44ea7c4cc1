"""The models that the simulator serves, and the rules that differ between them.

State of November 2026, from Google's model pages and ``models.list``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

_MINIMAL = ("MINIMAL", "LOW", "MEDIUM", "HIGH")
_LOW = ("LOW", "MEDIUM", "HIGH")
_XHIGH = ("LOW", "MEDIUM", "HIGH", "XHIGH")


@dataclass(frozen=True)
class Model:
    """One model. ``version`` is (major, minor); ``budgets`` the range of ``thinkingBudget``.

    ``budgets`` is None where a budget is refused, ``levels`` empty where a level is. Token limits
    are per request.
    """

    id: str
    display_name: str
    version: tuple[int, int]
    levels: tuple[str, ...] = ()
    default_level: str = ""
    budgets: tuple[int, int] | None = None
    zero_budget: bool = False
    thinks_by_default: bool = True
    prefill: bool = True
    penalties: bool = False
    input_limit: int = 1_048_576
    output_limit: int = 65_536

    @property
    def generation(self) -> int:
        """The major version: thought signatures are valid within one."""
        return self.version[0]

    @property
    def cache_threshold(self) -> int:
        """Shortest prefix (tokens) that implicit caching keeps."""
        return 2048 if self.generation == 2 else 4096

    def listed(self) -> dict[str, Any]:
        """Return the entry of ``models.list`` (Gemini API)."""
        return {
            "name": f"models/{self.id}",
            "version": "-".join(map(str, self.version)),
            "displayName": self.display_name,
            "description": f"Simulated {self.display_name}",
            "inputTokenLimit": self.input_limit,
            "outputTokenLimit": self.output_limit,
            "supportedGenerationMethods": ["generateContent", "countTokens"],
            "temperature": 1,
            "maxTemperature": 2,
            "topP": 0.95,
            "topK": 64,
            "thinking": True,
        }


def _third(model_id: str, minor: int, levels: tuple[str, ...], default: str, **more: Any) -> Model:
    return Model(model_id, _shown(model_id), (3, minor), levels, default, (1, 32_768), **more)


def _fourth(model_id: str, levels: tuple[str, ...], default: str) -> Model:
    return Model(model_id, _shown(model_id), (4, 0), levels, default, prefill=False)


def _shown(model_id: str) -> str:
    return " ".join(word.capitalize() for word in model_id.split("-"))


MODELS: dict[str, Model] = {
    model.id: model
    for model in (
        _fourth("gemini-4-carbon", _LOW, "MEDIUM"),
        _fourth("gemini-4-neon", _XHIGH, "HIGH"),
        _fourth("gemini-4-hydrogen", _XHIGH, "HIGH"),
        _fourth("gemini-4-argon", _LOW, "MEDIUM"),
        _third("gemini-3.8-flash", 8, _LOW, "MEDIUM", prefill=False),
        _third("gemini-3.6-flash", 6, _MINIMAL, "MEDIUM", prefill=False),
        _third("gemini-3.5-flash-lite", 5, _MINIMAL, "MINIMAL", prefill=False),
        _third("gemini-3.1-flash-lite", 1, _MINIMAL, "MINIMAL", zero_budget=True),
        _third("gemini-3.1-pro-preview", 1, _LOW, "HIGH", penalties=True),
        _third("gemini-3-flash-preview", 0, _MINIMAL, "HIGH", zero_budget=True),
        Model("gemini-2.5-pro", "Gemini 2.5 Pro", (2, 5), budgets=(128, 32_768), penalties=True),
        Model(
            "gemini-2.5-flash",
            "Gemini 2.5 Flash",
            (2, 5),
            budgets=(1, 24_576),
            zero_budget=True,
            penalties=True,
        ),
        Model(
            "gemini-2.5-flash-lite",
            "Gemini 2.5 Flash Lite",
            (2, 5),
            budgets=(512, 24_576),
            zero_budget=True,
            thinks_by_default=False,
            penalties=True,
        ),
    )
}

DEFAULT = MODELS["gemini-3.8-flash"]
"""Whose rules hold for names that tell nothing."""

ROUTED = {
    "gemini-3.7-flash": "gemini-3.8-flash",
    "gemini-3.5-flash": "gemini-3.6-flash",
    "gemini-pro-latest": "gemini-4-carbon",
    "gemini-flash-latest": "gemini-3.8-flash",
    "gemini-flash-lite-latest": "gemini-3.5-flash-lite",
    "gemini-3-flash": "gemini-3.8-flash",
}
"""Names that another model answers, as ``modelVersion`` then tells."""

_VERSION = re.compile(r"gemini-(\d+)(?:\.(\d+))?(?=-|$)")
_FAULT = re.compile(r"(?:^|-)sim-(?P<fault>.+)$")


def split_fault(name: str) -> tuple[str, str]:
    """Return the model part and the fault part of a model name.

    ``gemini-2.5-flash-sim-503`` gives (``gemini-2.5-flash``, ``503``); without a fault the second
    is empty, and ``gemini-sim-503`` gives the default model.
    """
    match = _FAULT.search(name)
    if match is None:
        return name, ""
    base = name[: match.start()]
    return (DEFAULT.id if base in ("", "gemini") else base), match["fault"]


def find_model(name: str) -> Model | None:
    """Return the model that answers to ``name``, None where Google would say 404.

    An unknown ``gemini-…`` name is served by the rules of its generation, so that new and made-up
    names can be tried; everything below 2.5 is switched off since June 2026.
    """
    known = MODELS.get(ROUTED.get(name, name))
    if known is not None:
        return known
    if not name.startswith("gemini-"):
        return None
    match = _VERSION.match(name)
    if match is None:
        return replace(DEFAULT, id=name, display_name=_shown(name))
    version = int(match[1]), int(match[2] or 0)
    if version < (2, 5):
        return None
    like = next((m for m in MODELS.values() if m.version <= version), DEFAULT)
    return replace(like, id=name, display_name=_shown(name), version=version)
