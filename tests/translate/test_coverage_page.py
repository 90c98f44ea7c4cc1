"""The compatibility page says what becomes of everything the official SDK can send."""

import typing
from pathlib import Path

import pytest
from anthropic.types import content_block_param, message_create_params
from anthropic.types.beta import beta_content_block_param
from anthropic.types.beta import message_create_params as beta_params

from app.translate.conversation import Conversation
from app.translate.coverage import BLOCKS, FIELDS, TOOLS, as_markdown
from app.translate.errors import InvalidRequest
from app.translate.target import Target
from app.translate.validation import load_messages

PAGE = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"


def test_the_page_is_the_tables_print_out():
    assert PAGE.read_text() == as_markdown()


def test_every_field_of_the_sdk_is_in_the_table():
    names = {entry.name for entry in FIELDS}
    for params in (message_create_params, beta_params):
        assert set(typing.get_type_hints(params.MessageCreateParamsBase)) <= names


def test_every_block_of_the_sdk_is_in_the_table():
    kinds = set()
    for block in (
        *typing.get_args(content_block_param.ContentBlockParam),
        *(
            each
            for each in typing.get_args(beta_content_block_param.BetaContentBlockParam)
            if isinstance(each, type)  # the others are of answers
        ),
    ):
        hint = typing.get_type_hints(block)["type"]
        kinds |= set(typing.get_args(hint))
    assert {kind for kind in kinds if isinstance(kind, str)} <= {entry.name for entry in BLOCKS}


def test_what_is_called_refused_is_refused_and_nothing_else_is():
    samples = {
        "mcp_servers": [{"type": "url", "name": "x", "url": "https://x.example"}],
        "compaction": {"type": "auto"},
        "thread": {"type": "continue", "id": "x"},
    }
    harmless = {
        "cache_control": {"type": "ephemeral"},
        "service_tier": "auto",
        "speed": "fast",
        "inference_geo": "us",
        "container": {"id": "c"},
        "context_management": {"edits": []},
        "diagnostics": {"previous_message_id": None},
        "betas": ["x"],
        "billing_policy": {},
        "fallbacks": [],
        "fallback_credit_token": "x",
        "user_profile_id": "x",
        "workspace_id": "x",
    }
    assert set(harmless) == {entry.name for entry in FIELDS if entry.fate == "ignored"}
    assert set(samples) == {entry.name for entry in FIELDS if entry.fate == "refused"}
    plain = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    target = Target("gemini", "gemini-3.8-flash")

    def render(body):
        return Conversation(load_messages(body), target.model).render(target, {})

    assert render(plain | harmless) == render(plain)
    for name, value in samples.items():
        with pytest.raises(InvalidRequest, match=f"^{name}: "):
            render(plain | {name: value})


def test_refused_tools_are_refused():
    for entry in TOOLS:
        tool = {"type": f"{entry.name}_20260301", "name": entry.name}
        body = {
            "model": "m",
            "max_tokens": 9,
            "messages": [{"role": "user", "content": "hi"}],
            "tools": [tool if entry.name != "custom" else {"name": "f", "input_schema": {}}],
        }
        try:
            Conversation(load_messages(body), "gemini-3.8-flash")
        except InvalidRequest:
            assert entry.fate == "refused", entry
        else:
            assert entry.fate != "refused", entry
