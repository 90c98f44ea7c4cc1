"""Model names and the catalogue."""

from dataclasses import dataclass

import pytest

from app.config import DEFAULT_ALIASES, load_settings
from app.translate.models import CLAUDE_NAMES, catalogue, find, resolve


@dataclass
class Model:
    id: str
    display_name: str = ""
    input_limit: int = 1000
    output_limit: int = 100


ALIASES = load_settings({}).model_aliases
FLASH = Model("gemini-3.8-flash", "Gemini 3.8 Flash")


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("claude-sonnet-5", "gemini-3.8-flash"),
        ("claude-3-5-haiku-20241022", "gemini-3.5-flash-lite"),
        ("claude-opus-4-1-20250805", "gemini-4-hydrogen"),
        ("claude-something-new", "gemini-3.8-flash"),
        ("claude-gemini-2.5-pro", "gemini-2.5-pro"),
        ("gemini-2.5-pro", "gemini-2.5-pro"),
        ("models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("gpt-x", "gpt-x"),
    ],
)
def test_what_a_name_means(name, model):
    assert resolve(name, ALIASES) == model


def test_the_first_match_wins():
    assert resolve("claude-x", (("claude-*", "one"), ("*", "two"))) == "one"


def test_the_catalogue_lists_what_is_served_under_all_its_names():
    listed = catalogue([FLASH, Model("learnlm")], ALIASES)
    assert [model["id"] for model in listed] == [
        *(name for name in CLAUDE_NAMES if "sonnet" in name),
        "gemini-3.8-flash",
        "learnlm",
        "claude-gemini-3.8-flash",
    ]
    assert listed[0]["display_name"] == "Claude Sonnet 5 (Gemini 3.8 Flash)"
    assert all(model["max_input_tokens"] == 1000 for model in listed)


def test_any_usable_name_is_found():
    found = find("claude-sonnet-4-5-20250929", [FLASH], ALIASES)
    assert (found["id"], found["display_name"], found["line"]) == (
        "claude-sonnet-4-5-20250929",
        "Claude Sonnet 4.5 (Gemini 3.8 Flash)",
        "sonnet",
    )
    assert find("claude-opus-5-5", [FLASH], ALIASES) is None


def test_the_default_aliases_lead_to_known_models():
    from app.translate.gemini_models import KNOWN_MODELS

    known = {model.id for model in KNOWN_MODELS}
    assert {pair.split("=")[1] for pair in DEFAULT_ALIASES.split(",")} <= known
