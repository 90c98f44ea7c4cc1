"""Any JSON Schema keeps its meaning, and what Gemini ignores stays readable."""

import json
import re

import jsonschema
import pytest
import referencing.exceptions
from hypothesis import HealthCheck, assume, given, settings
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
        (
            {"enum": [1, "a", None]},
            {"enum": [1, "a", None], "description": '("enum": [1, "a", null])'},
        ),
        ({"const": True}, {"enum": [True], "type": "boolean", "description": '("enum": [true])'}),
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
                "description": '("required": ["gone"])',
            },
        ),
        (
            {
                "allOf": [
                    {"type": "integer", "minimum": 1, "description": "From one."},
                    {"minimum": 5, "maximum": 9, "description": "From five."},
                    {"maximum": 7},
                    {"anyOf": [{"multipleOf": 2}]},
                    {"anyOf": [{"multipleOf": 3}]},
                ]
            },
            {
                "type": "integer",
                "minimum": 5,
                "maximum": 7,
                "anyOf": [{"description": '("multipleOf": 2)'}],
                "description": 'From one. From five. ("allOf": [{"anyOf": [{"multipleOf": 3}]}])',
            },
        ),
        (
            {
                "allOf": [
                    {"properties": {"x": {"type": "string"}}},
                    {"properties": {"x": {"title": "X"}}},
                ]
            },
            {"properties": {"x": {"type": "string", "title": "X"}}},
        ),
        (
            {"anyOf": [{"type": "string"}], "oneOf": [{"minLength": 3}]},
            {"anyOf": [{"type": "string"}], "description": '("oneOf": [{"minLength": 3}])'},
        ),
        (
            {"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {
                "type": "object",
                "anyOf": [
                    {"description": '("required": ["a"])'},
                    {"description": '("required": ["b"])'},
                ],
            },
        ),
        (
            {"type": "array", "prefixItems": [{"type": "string"}], "items": False},
            {
                "type": "array",
                "prefixItems": [{"type": "string"}],
                "description": '("items": false)',
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
                "properties": {"tree": {"anyOf": [{"$ref": "#/$defs/Node"}], "description": "x"}},
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
        (
            {"type": "object", "required": ["gone"]},
            {"type": "object", "description": '("required": ["gone"])'},
        ),
        ({"not": {"type": "string"}}, {"description": '("not": {"type": "string"})'}),
    ],
)
def test_what_a_schema_becomes(schema, cleaned):
    wrapped = clean({"type": "object", "properties": {"x": schema}} if schema is True else schema)
    assert (wrapped["properties"]["x"] if schema is True else wrapped) == cleaned


COLOUR = {"type": "string", "enum": ["red"]}


@pytest.mark.parametrize(
    ("schema", "cleaned"),
    [
        (  # as pydantic 1 and 2 write a field of another type
            {"allOf": [{"$ref": "#/$defs/Colour"}], "default": "red"},
            {"anyOf": [{"$ref": "#/$defs/Colour"}], "description": '("default": "red")'},
        ),
        (
            {"$ref": "#/$defs/Colour", "description": "Which"},
            {"anyOf": [{"$ref": "#/$defs/Colour"}], "description": "Which"},
        ),
        (
            {"allOf": [{"$ref": "#/$defs/Base"}, {"properties": {"b": {"type": "integer"}}}]},
            {
                "type": "object",
                "properties": {"a": {"$ref": "#/$defs/Colour"}, "b": {"type": "integer"}},
            },
        ),
        ({"$ref": "#colour"}, {"$ref": "#/$defs/Colour"}),
        ({"$ref": "https://x.example/s#/$defs/Colour"}, {"$ref": "#/$defs/Colour"}),
        ({"$ref": "#/$defs/Two~1%20words"}, {"$ref": "#/$defs/Two__words"}),
        (  # as zod-to-json-schema writes a type that is used twice
            {"$ref": "#/properties/first/items"},
            {"$ref": "#/$defs/properties_first_items"},
        ),
        (
            {"$ref": "#/properties/gone", "allOf": [{"type": "string"}]},
            {"type": "string", "description": '("$ref": "#/properties/gone")'},
        ),
    ],
)
def test_references_lead_somewhere(schema, cleaned):
    document = {
        "$id": "https://x.example/s",
        "type": "object",
        "properties": {"first": {"type": "array", "items": {"type": "number"}}, "x": schema},
        "$defs": {
            "Colour": {"$anchor": "colour", **COLOUR},
            "Base": {"type": "object", "properties": {"a": {"$ref": "#/$defs/Colour"}}},
            "Two/ words": {"type": "null"},
        },
    }
    result = clean(document)
    assert result["properties"]["x"] == cleaned
    assert result["$defs"]["Colour"] == COLOUR
    assert result["$defs"]["Two__words"] == {"type": "null"}
    assert result["$defs"].get("properties_first_items", {"type": "number"}) == {"type": "number"}


def test_the_root_describes_an_object_by_itself():
    node = {
        "type": "object",
        "properties": {"value": {"type": "string"}, "next": {"$ref": "#/$defs/Node"}},
        "required": ["value", "next"],
    }
    loosened = {**node, "required": ["value"], "description": '("required": ["next"])'}
    result = clean({"$ref": "#/$defs/Node", "$defs": {"Node": node}})
    assert result == {**node, "$defs": {"Node": loosened}}
    loop = {"type": "object", "properties": {"again": {"$ref": "#"}}}
    assert clean({**loop, "required": ["again"]}) == {
        **loop,
        "description": '("required": ["again"])',
    }


def test_references_do_not_multiply_a_schema():
    large = {"type": "string", "description": "x" * 100_000}
    used = [{"allOf": [{"$ref": "#/$defs/L"}, {"minLength": number}]} for number in range(500)]
    result = clean({"type": "object", "anyOf": used, "$defs": {"L": large}})
    assert len(json.dumps(result)) < 1_000_000
    doubled = {
        f"D{n}": {
            "allOf": [
                {"properties": {k: {"allOf": [{"$ref": f"#/$defs/D{n + 1}"}, {"title": k}]}}}
                for k in "ab"
            ]
        }
        for n in range(40)
    }
    result = clean({"type": "object", "$defs": doubled | {"D40": {"type": "string"}}})
    assert len(json.dumps(result)) < 2_000_000


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
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SCHEMAS, SCHEMAS, VALUES)
def test_what_fits_a_schema_fits_what_becomes_of_it(schema, other, value):
    """Less may be forbidden, since Gemini can't say it; nothing more is."""
    assume(not _rests_on_itself(other))
    document = {"properties": {"p": schema}, "$defs": {"N": other}}
    cleaned = clean(document)
    if _fits(document, value):
        jsonschema.Draft202012Validator(cleaned).validate({"p": value})


def _rests_on_itself(definition):
    """Whether N means N, or not N, of the very same value: nobody can answer that."""
    waiting = [definition]
    while waiting:
        part = waiting.pop()
        if part.get("$ref") == "#/$defs/N":
            return True
        for key in ("anyOf", "oneOf", "allOf"):
            waiting += part.get(key, [])
        if "not" in part:
            waiting.append(part["not"])
    return False


def _fits(document, value):
    try:
        return jsonschema.Draft202012Validator(document).is_valid({"p": value})
    except (RecursionError, re.error, referencing.exceptions.Unresolvable):
        return False


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


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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
