"""Tools that come with every request are translated once, and no request sees another's."""

import copy

import pytest

from app.translate.errors import InvalidRequest
from app.translate.tools import LARGEST_LIST_KEPT, read_tools

SEARCH = {
    "name": "search",
    "description": "Find it.",
    "input_schema": {"type": "object", "properties": {"words": {"type": "string"}}},
}
DEFERRED = {**SEARCH, "name": "later", "defer_loading": True}
SEARCHED = {
    "name": "search",
    "description": "Find it.",
    "parametersJsonSchema": {"type": "object", "properties": {"words": {"type": "string"}}},
}


def tools(*given, change=None, **more):
    content = [change] if change else [{"type": "text", "text": "Hi"}]
    messages = [{"role": "user", "content": content}]
    return read_tools({"tools": copy.deepcopy(list(given)), "messages": messages, **more})


def named(kind, name):
    return {"type": kind, "tool": {"type": "tool_reference", "name": name}}


def test_the_same_tools_are_the_same_to_every_request_and_their_choice_is_its_own():
    first = tools(SEARCH, tool_choice={"type": "any"})
    second = tools(SEARCH)
    assert first.declarations == second.declarations == (SEARCHED,)
    assert first.declarations[0] is second.declarations[0]
    assert (first.choice, second.choice) == ({"type": "any"}, {})


def test_what_a_conversation_loads_and_removes_is_its_own():
    later = {**SEARCHED, "name": "later"}
    for _ in range(2):
        assert tools(SEARCH, DEFERRED).declarations == (SEARCHED,)
        loaded = tools(SEARCH, DEFERRED, change=named("tool_addition", "later"))
        assert loaded.declarations == (SEARCHED, later)
        removed = tools(SEARCH, DEFERRED, change=named("tool_removal", "search"))
        assert removed.declarations == ()


def test_what_is_wrong_is_said_each_time():
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="Tool names must be unique: 'search'"):
            tools(SEARCH, SEARCH)
        with pytest.raises(InvalidRequest, match="Tool 'other' is not in tools"):
            tools(SEARCH, tool_choice={"type": "tool", "name": "other"})


@pytest.mark.parametrize("description", ["x" * LARGEST_LIST_KEPT, "half an emoji: \ud83d"])
def test_what_is_not_kept_is_translated_all_the_same(description):
    for _ in range(2):
        assert tools({**SEARCH, "description": description}).declarations == (
            {**SEARCHED, "description": description},
        )
