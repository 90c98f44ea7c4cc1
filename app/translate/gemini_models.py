"""What the Gemini models can do, as far as requests depend on it (state of 2026-11-23)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from app.translate.target import model_family

Levels = tuple[str, ...]


@dataclass(frozen=True)
class ModelFacts:
    """One model; limits in tokens.

    ``levels`` are the thinking levels it offers, lowest first; empty for models that take a
    ``thinkingBudget`` of ``least_budget`` to ``most_budget`` instead.
    """

    id: str
    display_name: str = ""
    levels: Levels = ("LOW", "MEDIUM", "HIGH")
    least_budget: int = 0
    most_budget: int = 0
    can_switch_off: bool = False
    sampling: bool = False
    prefill: bool = False
    input_limit: int = 1_048_576
    output_limit: int = 65_536
    thinking: bool = True
    methods: tuple[str, ...] = ("generateContent", "countTokens")

    @property
    def answers(self) -> bool:
        """Tell whether it can hold a conversation."""
        return "generateContent" in self.methods


_ALL = ("MINIMAL", "LOW", "MEDIUM", "HIGH")
_FOUR = ("LOW", "MEDIUM", "HIGH", "XHIGH")

KNOWN_MODELS = (
    ModelFacts("gemini-4-carbon", "Gemini 4 Carbon"),
    ModelFacts("gemini-4-neon", "Gemini 4 Neon", _FOUR),
    ModelFacts("gemini-4-hydrogen", "Gemini 4 Hydrogen", _FOUR),
    ModelFacts("gemini-4-argon", "Gemini 4 Argon"),
    ModelFacts("gemini-3.8-flash", "Gemini 3.8 Flash"),
    ModelFacts("gemini-3.6-flash", "Gemini 3.6 Flash", _ALL),
    ModelFacts("gemini-3.5-flash-lite", "Gemini 3.5 Flash-Lite", _ALL),
    ModelFacts("gemini-3.1-flash-lite", "Gemini 3.1 Flash-Lite", _ALL, prefill=True),
    ModelFacts("gemini-3.1-pro-preview", "Gemini 3.1 Pro Preview", prefill=True),
    ModelFacts("gemini-3-flash-preview", "Gemini 3 Flash Preview", _ALL, prefill=True),
    ModelFacts("gemini-2.5-pro", "Gemini 2.5 Pro", (), 128, 32_768, sampling=True, prefill=True),
    ModelFacts(
        "gemini-2.5-flash", "Gemini 2.5 Flash", (), 0, 24_576, True, sampling=True, prefill=True
    ),
    ModelFacts(
        "gemini-2.5-flash-lite",
        "Gemini 2.5 Flash-Lite",
        (),
        512,
        24_576,
        True,
        sampling=True,
        prefill=True,
    ),
)
_BY_ID = {model.id: model for model in KNOWN_MODELS}


def model_facts(model: str) -> ModelFacts:
    """Return what is known of ``model``; an unknown one is taken for its nearest relative."""
    known = _BY_ID.get(model)
    if known:
        return known
    for facts in KNOWN_MODELS:
        if model.startswith(facts.id):
            return replace(facts, id=model, display_name="")
    family = model_family(model)
    if family == "2":
        return replace(_BY_ID["gemini-2.5-flash"], id=model, display_name="")
    if family == "1":
        return ModelFacts(
            model, levels=(), thinking=False, sampling=True, prefill=True, output_limit=8192
        )
    return ModelFacts(model)
