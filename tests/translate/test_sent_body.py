"""A request's JSON: the same values as any decoder makes, with tools that are made once."""

import copy
import json
import threading

import pytest

from app.translate.conversation import Conversation
from app.translate.errors import InvalidRequest
from app.translate.sent_body import LARGEST_LIST_KEPT, SMALL, SentTools, parse
from app.translate.target import Target
from app.translate.validation import DEEPEST, load_messages

TOOL = {
    "name": "search",
    "description": "Find \u201cit\u201d.",
    "input_schema": {"type": "object", "properties": {"words": {"type": "string"}}},
}
LONG = [{"role": "user", "content": "word " * SMALL}]
BODY = {"model": "claude-sonnet-4-5", "max_tokens": 10, "messages": LONG, "tools": [TOOL]}


def sent(**more):
    return json.dumps({**BODY, **more}).encode()


@pytest.mark.parametrize(
    "raw",
    [
        sent(),
        sent(tools=[]),
        sent(tools=None),
        sent(tools="none"),
        sent(tools=[{**TOOL, "description": "x" * LARGEST_LIST_KEPT}]),
        sent(stream=None, context_management={"edits": []}),
        sent(of_the_future={"tools": 1}),
        sent().replace(b'"tools"', b'"t\\u006fols"'),
        sent()[:-1] + b', "tools": [], "model": "the last one counts"}',
        json.dumps(BODY, indent=2, ensure_ascii=False).encode(),
        json.dumps({"messages": LONG}).encode(),
        json.dumps([LONG]).encode(),
        json.dumps("x" * SMALL).encode(),
        b"{}",
    ],
)
def test_it_is_what_another_decoder_makes_of_it(raw):
    for _ in range(2):
        assert parse(raw) == json.loads(raw)


@pytest.mark.parametrize(
    "wrong",
    [
        sent()[:-1],
        sent() + b"}",
        sent(tools=[TOOL])[:-2] + b",]}",
        sent(tools=["\ud83d"]),
        sent().replace(b'"name"', b'"\xff"'),
        sent().replace(b"10", b"NaN"),
        b"[" * 100_000,
        b'{"tools": ' + b"[" * 100_000,
    ],
)
def test_what_is_no_json_is_refused(wrong):
    for _ in range(2):
        with pytest.raises((ValueError, RecursionError)):
            parse(wrong)


def test_the_same_tools_are_one_object_and_all_else_is_each_requests_own():
    first, second = parse(sent(max_tokens=1)), parse(sent(max_tokens=2))
    other = parse(sent(tools=[TOOL, {**TOOL, "name": "other"}]))
    assert first["tools"] is second["tools"]
    assert type(first["tools"]) is SentTools
    assert (first["max_tokens"], second["max_tokens"]) == (1, 2)
    assert first["messages"] is not second["messages"]
    assert [tool["name"] for tool in other["tools"]] == ["search", "other"]


def test_requests_that_share_tools_leave_them_as_they_were():
    change = {"type": "tool_definition", "definition": {**TOOL, "description": "New."}}
    changed = [*LONG, {"role": "user", "content": [{"type": "tool_addition", "tool": change}]}]
    for more in ({}, {"tool_choice": {"type": "any"}}, {"messages": changed}, {}):
        raw = sent(**more)
        shared = parse(raw)
        plain = json.loads(raw)
        written = [
            Conversation(load_messages(body), "gemini-3.8-flash").render(
                Target("gemini", "gemini-3.8-flash"), {}
            )
            for body in (shared, plain)
        ]
        assert written[0] == written[1]
        assert shared["tools"] == [TOOL]


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([TOOL, {"name": "x"}], "tools.1.input_schema: Field required"),
        ([TOOL, 5], "tools.1: Input should be an object"),
        ([TOOL, TOOL], "tools.1.name: Tool names must be unique: 'search'"),
        ([{**TOOL, "type": "advisor_x"}], "tools.0.type: 'advisor_x' is not supported by this"),
    ],
)
def test_what_is_wrong_with_tools_is_said_each_time(tools, message):
    for _ in range(3):
        with pytest.raises(InvalidRequest, match=message):
            Conversation(load_messages(parse(sent(tools=tools))), "gemini-3.8-flash")


@pytest.mark.parametrize(("levels", "right"), [(DEEPEST - 5, True), (DEEPEST + 5, False)])
def test_tools_are_as_deep_as_those_that_are_not_shared(levels, right):
    schema = {}
    for _ in range(levels):
        schema = {"items": schema}
    body = json.loads(sent(tools=[{**TOOL, "input_schema": schema}]))
    for request in (body, parse(json.dumps(body).encode()), parse(json.dumps(body).encode())):
        if right:
            assert load_messages(request)["tools"] == body["tools"]
        else:
            with pytest.raises(InvalidRequest, match="nested more than"):
                load_messages(request)


def test_threads_may_ask_for_the_same_tools_at_once():
    raw, made = sent(tools=[{**TOOL, "name": f"tool_{n}"} for n in range(50)]), []
    start = threading.Barrier(8)

    def ask():
        start.wait()
        made.append(copy.deepcopy(load_messages(parse(raw))["tools"]))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [json.loads(raw)["tools"]] * 8
