"""Any JSON Schema keeps its meaning, and what Gemini ignores stays readable."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.translate.conversation import Conversation
from app.translate.json_schema import clean
from app.translate.target import Target
from app.translate.validation import load_messages
from tests.translate.google_schemas import check


@pytest.mark.parametrize(
    ("schema", "cleaned"),
    [
        ({}, {}),
        (True, {}),
        ({"$schema": "x", "type": "object"}, {"type": "object"}),
        ({"const": 5}, {"enum": [5]}),
        ({"enum": [1, "a", None]}, {"enum": [1, "a", None]}),
        ({"type": ["string", "null"]}, {"type": ["string", "null"]}),
        ({"oneOf": [{"type": "string"}]}, {"anyOf": [{"type": "string"}]}),
        (
            {"items": [{"type": "string"}, {"type": "integer"}], "type": "array"},
            {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}]},
        ),
        (
            {"type": "string", "description": "A zip", "pattern": "^[0-9]+$", "minLength": 5},
            {"type": "string", "description": 'A zip ("pattern": "^[0-9]+$", "minLength": 5)'},
        ),
        (
            {"type": "number", "exclusiveMinimum": 0, "multipleOf": 2},
            {"type": "number", "description": '("exclusiveMinimum": 0, "multipleOf": 2)'},
        ),
        (
            {
                "type": "object",
                "allOf": [
                    {"properties": {"a": {"type": "string"}}, "required": ["a"]},
                    {"allOf": [{"properties": {"b": {"const": 1}}, "required": ["b", "gone"]}]},
                ],
            },
            {
                "type": "object",
                "properties": {"a": {"type": "string"}, "b": {"enum": [1]}},
                "required": ["a", "b"],
            },
        ),
        (
            {
                "type": "object",
                "properties": {"tree": {"$ref": "#/definitions/Node", "description": "x"}},
                "definitions": {
                    "Node": {
                        "type": "object",
                        "properties": {
                            "children": {"type": "array", "items": {"$ref": "#/definitions/Node"}}
                        },
                    }
                },
            },
            {
                "type": "object",
                "properties": {"tree": {"$ref": "#/$defs/Node"}},
                "$defs": {
                    "Node": {
                        "type": "object",
                        "properties": {
                            "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}
                        },
                    }
                },
            },
        ),
        ({"$ref": "#"}, {"$ref": "#"}),
        (
            {"$ref": "https://x.example/s.json"},
            {"description": '("$ref": "https://x.example/s.json")'},
        ),
        (
            {"type": "object", "additionalProperties": {"type": "string", "format": "uri"}},
            {"type": "object", "additionalProperties": {"type": "string", "format": "uri"}},
        ),
        (
            {"type": "object", "patternProperties": {"^x": {"type": "string"}}},
            {"type": "object", "description": '("patternProperties": {"^x": {"type": "string"}})'},
        ),
        ({"type": "object", "required": ["gone"]}, {"type": "object"}),
        ({"not": {"type": "string"}}, {"description": '("not": {"type": "string"})'}),
    ],
)
def test_what_a_schema_becomes(schema, cleaned):
    wrapped = clean({"type": "object", "properties": {"x": schema}} if schema is True else schema)
    assert (wrapped["properties"]["x"] if schema is True else wrapped) == cleaned


SCALARS = st.one_of(st.text(max_size=5), st.integers(-9, 9), st.booleans(), st.none())
NAMES = st.sampled_from(["a", "b", "c"])
LEAVES = st.one_of(
    st.builds(dict),
    st.fixed_dictionaries({"type": st.sampled_from(["string", "integer", "boolean", "null"])}),
    st.fixed_dictionaries({"enum": st.lists(SCALARS, min_size=1, max_size=3)}),
    st.fixed_dictionaries({"const": SCALARS}),
    st.fixed_dictionaries(
        {"$ref": st.sampled_from(["#", "#/$defs/N", "#/$defs/gone", "http://x"])}
    ),
    st.fixed_dictionaries({"type": st.just("string"), "pattern": st.text(max_size=3)}),
    st.fixed_dictionaries({"type": st.lists(st.sampled_from(["string", "null"]), min_size=1)}),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
        st.fixed_dictionaries({"prefixItems": st.lists(inner, max_size=2)}),
        st.fixed_dictionaries(
            {
                "type": st.just("object"),
                "properties": st.dictionaries(NAMES, inner, max_size=3),
                "required": st.lists(NAMES, max_size=2, unique=True),
                "additionalProperties": st.one_of(st.booleans(), inner),
            }
        ),
        *(
            st.fixed_dictionaries({key: st.lists(inner, min_size=1, max_size=2)})
            for key in ("anyOf", "oneOf", "allOf")
        ),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=8,
)
TEXTS = st.builds(lambda text: {"type": "text", "text": text}, st.text(max_size=20))
IMAGES = st.just(
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}}
)
FUTURE = st.just({"type": "hologram", "beam": 1})


@st.composite
def requests(draw):
    """Valid requests: any order of turns, calls answered, blocks from the future among them."""
    messages = [{"role": "user", "content": [{"type": "text", "text": "start"}]}]
    number = 0
    for _ in range(draw(st.integers(0, 4))):
        blocks = draw(st.lists(st.one_of(TEXTS, FUTURE), max_size=3))
        calls = []
        for _ in range(draw(st.integers(0, 2))):
            number += 1
            arguments = draw(st.dictionaries(NAMES, SCALARS, max_size=2))
            calls.append({"type": "tool_use", "id": f"t{number}", "name": "f", "input": arguments})
        messages.append({"role": "assistant", "content": [*blocks, *calls]})
        answers = [
            {
                "type": "tool_result",
                "tool_use_id": each["id"],
                "content": draw(
                    st.one_of(st.text(max_size=5), st.lists(st.one_of(TEXTS, IMAGES), max_size=2))
                ),
                "is_error": draw(st.booleans()),
            }
            for each in calls
        ]
        rest = draw(st.lists(st.one_of(TEXTS, IMAGES, FUTURE), max_size=2))
        messages.append({"role": "user", "content": draw(st.permutations([*answers, *rest]))})
        if draw(st.booleans()):
            messages.append({"role": "system", "content": draw(st.text(max_size=5))})
    schema = draw(SCHEMAS)
    return {
        "model": "claude-x",
        "max_tokens": draw(st.integers(1, 200_000)),
        "messages": messages,
        "tools": [
            {
                "name": "f",
                "description": draw(st.one_of(st.none(), st.text(max_size=5))),
                "input_schema": {
                    "type": "object",
                    "properties": {"p": schema},
                    "$defs": {"N": schema},
                },
            }
        ],
        "system": draw(st.one_of(st.none(), st.text(max_size=9), st.lists(TEXTS, max_size=2))),
        "stop_sequences": draw(
            st.one_of(st.none(), st.lists(st.sampled_from("abcdefg"), max_size=7))
        ),
        "temperature": draw(st.one_of(st.none(), st.floats(0, 1))),
    }


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    requests(),
    st.sampled_from(["gemini", "vertex", "code_assist"]),
    st.sampled_from(["gemini-2.5-pro", "gemini-3.8-flash", "gemini-4-neon"]),
)
def test_no_valid_request_makes_an_invalid_body(request_body, flavour, model):
    conversation = Conversation(load_messages(request_body), model)
    target = Target(flavour, model)
    body = conversation.render(target, {})
    check(body)
    assert [content["role"] for content in body["contents"]] == [
        "model" if number % 2 else "user" for number in range(len(body["contents"]))
    ]
    for before, after in zip(body["contents"], body["contents"][1:], strict=False):
        calls = [part for part in before["parts"] if "functionCall" in part]
        responses = [part for part in after["parts"] if "functionResponse" in part]
        assert [part["functionCall"]["name"] for part in calls] == [
            part["functionResponse"]["name"] for part in responses
        ]
        assert after["parts"][: len(responses)] == responses
    assert conversation.estimate() > 0
    conversation.render_count(target, {})
