"""``generationConfig``: limits, sampling, stop sequences, thinking, structured output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.translate.gemini_models import ModelFacts
from app.translate.json_schema import clean

MOST_STOP_SEQUENCES = 5
"""Gemini takes no more (https://ai.google.dev/api/generate-content#generationconfig)."""

MOST_TOP_K = 64
"""Vertex AI takes 1 to 64, and says so in a 400."""

_LEVELS = ("MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH")
_EFFORTS = {"low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "XHIGH", "max": "XHIGH"}
_EFFORT_BUDGETS = {"low": 1024, "medium": 8192, "high": 24_576, "xhigh": 32_768, "max": 32_768}


def generation_config(
    body: Mapping[str, Any], facts: ModelFacts, *, json_mode: bool
) -> dict[str, Any]:
    """Return the ``generationConfig`` of a validated request."""
    config: dict[str, Any] = {}
    if body.get("max_tokens") is not None:
        config["maxOutputTokens"] = min(max(1, body["max_tokens"]), facts.output_limit)
    stops = stop_sequences(body)
    if stops:
        config["stopSequences"] = list(stops[:MOST_STOP_SEQUENCES])
    if facts.sampling:
        for theirs, ours in (("temperature", "temperature"), ("top_p", "topP"), ("top_k", "topK")):
            if body.get(theirs) is not None:
                config[ours] = body[theirs]
        if "topK" in config:
            config["topK"] = min(config["topK"], MOST_TOP_K)
            if not config["topK"]:  # Anthropic takes 0, Gemini does not: no limit
                del config["topK"]
    if facts.thinking:
        config["thinkingConfig"] = thinking_config(body, facts)
    schema = answer_schema(body)
    if schema is not None and json_mode:
        config["responseMimeType"] = "application/json"
        config["responseJsonSchema"] = clean(schema)
    return config


def stop_sequences(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the client's stop sequences, each once."""
    return tuple(dict.fromkeys(stop for stop in body.get("stop_sequences") or () if stop))


def answer_schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the JSON Schema asked for by ``output_config.format`` or ``output_format``."""
    wanted = (body.get("output_config") or {}).get("format") or body.get("output_format")
    if wanted and wanted.get("type") == "json_schema":
        schema = wanted.get("schema")
        return schema if isinstance(schema, Mapping) else {}
    return None


def thinking_shown(body: Mapping[str, Any]) -> str:
    """Return how thinking reaches the client: ``shown``, ``omitted`` or ``off``."""
    thinking = body.get("thinking") or {}
    if thinking.get("type", "disabled") == "disabled":
        return "off"
    return "omitted" if thinking.get("display") == "omitted" else "shown"


def thinking_config(body: Mapping[str, Any], facts: ModelFacts) -> dict[str, Any]:
    """Return the ``thinkingConfig``: a level or a budget, as the model takes it."""
    thinking = body.get("thinking") or {}
    kind = thinking.get("type", "disabled")
    # Effort says how deep to think, also where the request is silent on thinking; not whether to.
    effort = "" if thinking.get("type") == "disabled" else _effort(body)
    config: dict[str, Any] = {}
    if thinking_shown(body) == "shown":
        config["includeThoughts"] = True
    if facts.levels:
        level = _level(kind, thinking.get("budget_tokens"), effort, facts)
        if level:
            config["thinkingLevel"] = level
        return config
    budget = thinking.get("budget_tokens") if kind == "enabled" else None
    if kind == "disabled" and not effort:
        config["thinkingBudget"] = 0 if facts.can_switch_off else facts.least_budget
    elif budget is None and not effort:
        config["thinkingBudget"] = -1
    else:
        wanted = budget if budget is not None else _EFFORT_BUDGETS[effort]
        config["thinkingBudget"] = min(max(wanted, facts.least_budget), facts.most_budget)
    return config


def _level(kind: str, budget: int | None, effort: str, facts: ModelFacts) -> str:
    if kind == "enabled" and budget is not None:
        wanted = "HIGH"
        for most, level in ((1024, "MINIMAL"), (8192, "LOW"), (16_384, "MEDIUM")):
            if budget <= most:
                wanted = level
                break
    elif effort:
        wanted = _EFFORTS[effort]
    elif kind == "disabled":
        return facts.levels[0]
    else:
        return ""
    if wanted in facts.levels:
        return wanted
    rank = _LEVELS.index(wanted)
    return min(facts.levels, key=lambda level: abs(_LEVELS.index(level) - rank))


def _effort(body: Mapping[str, Any]) -> str:
    effort = (body.get("output_config") or {}).get("effort")
    for message in body["messages"]:
        if message.get("role") == "system" and isinstance(message.get("output_config"), Mapping):
            effort = message["output_config"].get("effort") or effort
    return effort if effort in _EFFORTS else ""
