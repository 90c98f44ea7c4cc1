"""Function calls, signatures in odd places, and thinking blocks."""

import json
import re
from functools import reduce

import pytest
from answers import STOP, TARGET, check_grammar, chunk, context, fold, nonces, text_chunk, translate

from app.translate import signatures as sig
from app.translate.errors import BadAnswer
from app.translate.stream import StreamTranslator

ORIGIN = sig.Origin.of(TARGET)


def call(name="look", **fields):
    signature = fields.pop("signature", None)
    part = {"functionCall": {"name": name, **fields}}
    return part | ({"thoughtSignature": signature} if signature else {})


def content(*some_chunks, **fields):
    events, notes, _ = translate([*some_chunks, STOP], context(**fields))
    check_grammar(events)
    return fold(events)["content"], notes


def signed(signature):
    return sig.Signed(signature, ORIGIN)


def test_names_come_back_as_the_client_knows_them():
    names = [
        "long_name_1",
        "default_api:long_name_1",
        "default_api.Read",
        "default_api:other",
        "default_api.mine",
        "default_api:",
        "Read",
    ]
    blocks, _ = content(
        *(chunk(call(name)) for name in names),
        tool_names={"long_name_1": "mcp__a.very.long.name"},
        known_tools=frozenset({"Read", "mcp__a.very.long.name", "default_api.mine"}),
    )
    assert [block["name"] for block in blocks] == [
        "mcp__a.very.long.name",
        "mcp__a.very.long.name",
        "Read",
        "other",
        "default_api.mine",
        "default_api:",
        "Read",
    ]


def test_ids_are_unique_even_when_geminis_are_not():
    blocks, _ = content(chunk(call(id="a"), call(id="a")), chunk(call(id="a"), call()))
    ids = [block["id"] for block in blocks]
    assert len(set(ids)) == 4
    assert all(re.fullmatch(r"toolu_[a-zA-Z0-9_-]+", tool_id) for tool_id in ids)
    assert [sig.unpack_tool_id(tool_id).call_id for tool_id in ids] == ["a", "a", "a", ""]


@pytest.mark.parametrize(
    "args", [{}, {"n": 1.5, "s": 'ü\n"', "deep": [{"a": None}, []]}, {"big": 2**60, "huge": 1e300}]
)
def test_arguments_arrive_as_they_were(args):
    blocks, _ = content(chunk(call(args=args)))
    assert blocks[0]["input"] == args
    assert json.dumps(blocks[0]["input"]) == json.dumps(args)


def test_whole_numbers_arrive_as_integers():
    args = {"n": 1.0, "deep": [{"a": -2.0, "b": True}, 0.0, 2.5], "text": "1.0"}
    blocks, _ = content(chunk(call(args=args)))
    expected = {"n": 1, "deep": [{"a": -2, "b": True}, 0, 2.5], "text": "1.0"}
    assert json.dumps(blocks[0]["input"]) == json.dumps(expected)
    assert json.dumps(args["deep"]) == '[{"a": -2.0, "b": true}, 0.0, 2.5]'


@pytest.mark.parametrize("args", [{"args": None}, {}])
def test_no_arguments_are_an_empty_object(args):
    assert content(chunk(call(**args)))[0][0]["input"] == {}


@pytest.mark.parametrize(
    "part",
    [
        call(args=[1]),
        call(args="{}"),
        call(args={"x": float("nan")}),
        {"functionCall": {"args": {"x": 1}}},
        {"functionCall": {"partialArgs": [{"jsonPath": "$.a", "numberValue": 1}]}},
        {"functionCall": {"name": 5}},
        {"functionCall": {"name": "look", "partialArgs": "$.a"}},
        {"functionCall": {"name": "look", "partialArgs": ["$.a"]}},
        *(
            {"functionCall": {"name": "look", "partialArgs": [{"jsonPath": "$.a", **value}]}}
            for value in ({"stringValue": ["x"]}, {"numberValue": "1"}, {"boolValue": 1})
        ),
        {"functionCall": {"name": "look", "partialArgs": [{"jsonPath": "$" + ".a" * 9999}]}},
        call(args=reduce(lambda inner, _: {"a": inner}, range(200_000), {})),
    ],
)
def test_a_call_that_can_not_be_one_is_a_bad_answer(part):
    with pytest.raises(BadAnswer):
        translate([chunk(part), STOP])


def test_only_the_first_call_passes_when_one_was_asked_for():
    parts = [call("a"), call("b"), {"text": "done"}, call("c")]
    blocks, _ = content(chunk(*parts), one_call_only=True)
    assert [b.get("name", b.get("text")) for b in blocks] == ["a", "done"]


def test_pieces_of_a_call_that_does_not_pass_do_not_pass_either():
    second = call("b", willContinue=True)
    pieces = {"functionCall": {"partialArgs": [{"jsonPath": "$.a", "numberValue": 1}]}}
    blocks, _ = content(chunk(call("a")), chunk(second), chunk(pieces), one_call_only=True)
    assert [(block["name"], block["input"]) for block in blocks] == [("a", {})]


def test_a_call_is_a_call_whatever_else_its_part_says():
    part = call("a", args={"x": 1})
    blocks, _ = content(chunk(part | {"thought": True}), chunk(part | {"text": "So:"}))
    assert [(b.get("text"), b.get("input")) for b in blocks] == [
        (None, {"x": 1}),
        ("So:", None),
        (None, {"x": 1}),
    ]


@pytest.mark.parametrize("reason", ["OTHER", "TOO_MANY_TOOL_CALLS", "FROM_THE_FUTURE"])
def test_a_streamed_call_that_something_else_cut_is_no_good_end(reason):
    begun = {"functionCall": {"name": "look", "willContinue": True}}
    with pytest.raises(BadAnswer, match="unfinished"):
        translate([chunk({"text": "I look."}, begun), chunk(finishReason=reason)])


def test_a_long_signature_is_noted_under_the_calls_nonce():
    long = "QUJD" * 1000
    blocks, notes = content(chunk(call(signature=long)))
    ref = sig.unpack_tool_id(blocks[0]["id"])
    assert ref.signed is None
    assert notes == {sig.tool_key(ref.nonce): sig.note(long, TARGET)}


def test_a_hidden_thoughts_signature_does_not_move_to_the_call():
    thought = {"text": "hm", "thought": True, "thoughtSignature": "VEhPVQ=="}
    blocks, notes = content(chunk(thought, call()), thinking="off")
    assert sig.unpack_tool_id(blocks[0]["id"]).signed is None
    assert notes == {}


@pytest.mark.parametrize("mode", ["shown", "omitted"])
def test_each_signed_thought_has_a_block_of_its_own(mode):
    thoughts = [
        {"text": "one", "thought": True},
        {"text": "", "thought": True, "thoughtSignature": "T05F"},
        {"text": "two", "thought": True, "thoughtSignature": "VFdP"},
        {"text": "three", "thought": True},
    ]
    blocks, _ = content(chunk(*thoughts), chunk(call(signature="Q0FMTA==")), thinking=mode)
    shown = ["one", "two", "three"] if mode == "shown" else ["", "", ""]
    assert [block["thinking"] for block in blocks[:3]] == shown
    assert [sig.unpack_thinking(block["signature"]) for block in blocks[:3]] == [
        sig.ThinkingRef(own=signed("T05F")),
        sig.ThinkingRef(own=signed("VFdP")),
        sig.ThinkingRef(following=signed("Q0FMTA==")),
    ]
    assert sig.unpack_tool_id(blocks[3]["id"]).signed == signed("Q0FMTA==")


@pytest.mark.parametrize("mode", ["shown", "omitted"])
def test_a_signed_call_without_thoughts_brings_an_empty_thinking_block_only_when_first(mode):
    blocks, _ = content(
        chunk(call("a", signature="QQ==")), chunk(call("b", signature="Qg==")), thinking=mode
    )
    assert [block["type"] for block in blocks] == ["thinking", "tool_use", "tool_use"]
    assert blocks[0]["thinking"] == ""
    assert sig.unpack_thinking(blocks[0]["signature"]) == sig.ThinkingRef(following=signed("QQ=="))
    blocks, _ = content(chunk({"text": "x"}, call("b", signature="Qg==")), thinking=mode)
    assert [block["type"] for block in blocks] == ["text", "tool_use"]
    blocks, _ = content(chunk(call("a")), thinking=mode)
    assert [block["type"] for block in blocks] == ["tool_use"]


def test_an_omitted_thinking_block_leaves_only_with_what_follows():
    translator = StreamTranslator(context(thinking="omitted"), nonces())
    assert translator.feed(chunk({"text": "hm", "thought": True})) == []
    assert not translator.content_sent
    assert len(translator.feed(text_chunk("so"))) == 7
    assert translator.content_sent


def test_interleaved_thoughts_never_overlap_text():
    parts = [
        {"text": "t1", "thought": True},
        {"text": "a"},
        {"text": "t2", "thought": True},
        {"text": "b"},
    ]
    blocks, _ = content(chunk(*parts), thinking="shown")
    assert [b.get("thinking", b.get("text")) for b in blocks] == ["t1", "a", "t2", "b"]
    blocks, _ = content(chunk(*parts), thinking="off")
    assert [b.get("text") for b in blocks] == ["ab"]


def test_signed_text_is_marked_where_it_stands():
    parts = [
        {"text": "unsigned "},
        {"text": "signed", "thoughtSignature": "U0lH"},
        {"text": " more"},
        {"text": "", "thoughtSignature": "RU5E"},
    ]
    blocks, notes = content(*(chunk(part) for part in parts), thinking="shown")
    text = "unsigned signed more"
    assert blocks == [{"type": "text", "text": text}]
    assert notes == {sig.text_key(text): sig.text_note([(9, 15, "U0lH"), (20, 20, "RU5E")], TARGET)}


def test_marks_belong_to_their_own_block():
    parts = [
        {"text": "one", "thoughtSignature": "T05F"},
        call(),
        {"text": "two", "thoughtSignature": "VFdP"},
    ]
    _, notes = content(chunk(*parts))
    assert notes == {
        sig.text_key("one"): sig.text_note([(0, 3, "T05F")], TARGET),
        sig.text_key("two"): sig.text_note([(0, 3, "VFdP")], TARGET),
    }


def test_a_mark_counts_characters_also_while_text_waits():
    parts = [{"text": "a E"}, {"text": "N", "thoughtSignature": "U0lH"}, {"text": "OUGH"}]
    blocks, notes = content(*(chunk(part) for part in parts), stop_sequences=("END",))
    assert blocks[0]["text"] == "a ENOUGH"
    assert notes == {sig.text_key("a ENOUGH"): sig.text_note([(3, 4, "U0lH")], TARGET)}


def test_an_empty_signed_text_behind_a_call_is_noted_under_that_call():
    blocks, notes = content(
        chunk(call("a"), call("b")), chunk({"text": "", "thoughtSignature": "RU5E"})
    )
    nonce = sig.unpack_tool_id(blocks[1]["id"]).nonce
    assert notes == {sig.result_key(nonce): sig.note("RU5E", TARGET)}


def test_an_empty_signed_text_before_text_is_its_first_mark():
    parts = [
        {"text": "hm", "thought": True},
        {"text": "", "thoughtSignature": "QkVG"},
        {"text": "so"},
    ]
    _, notes = content(chunk(*parts), thinking="shown")
    assert notes == {sig.text_key("so"): sig.text_note([(0, 0, "QkVG")], TARGET)}


def partial(*pieces, more=True, **fields):
    return chunk({"functionCall": {"partialArgs": list(pieces), "willContinue": more} | fields})


def test_streamed_arguments_of_every_kind():
    blocks, _ = content(
        partial(name="f", id="c1"),
        partial({"jsonPath": "$.s", "stringValue": "a", "willContinue": True}),
        partial({"jsonPath": "$.s", "stringValue": 'b"', "willContinue": True}),
        partial({"jsonPath": "$.s", "stringValue": ""}),
        partial({"jsonPath": "$.n", "numberValue": 1.5}, {"jsonPath": "$.t", "boolValue": False}),
        partial({"jsonPath": "$.nothing", "nullValue": None}),
        partial({"jsonPath": "$.list[0].x", "numberValue": 0}),
        partial({"jsonPath": "$.list[2]", "stringValue": "end"}),
        partial({"jsonPath": "$['odd key'][\"a.b\"]", "stringValue": "q"}),
        partial(more=False),
    )
    assert len(blocks) == 1
    assert blocks[0]["input"] == {
        "s": 'ab"',
        "n": 1.5,
        "t": False,
        "nothing": None,
        "list": [{"x": 0}, None, "end"],
        "odd key": {"a.b": "q"},
    }
    assert sig.unpack_tool_id(blocks[0]["id"]).call_id == "c1"


def test_a_streamed_call_ends_where_the_next_part_begins():
    blocks, _ = content(
        partial({"jsonPath": "$.a", "numberValue": 1}, name="f"),
        partial({"jsonPath": "$.a", "numberValue": 2}, name="g"),
        text_chunk("text"),
        partial({"jsonPath": "$.a", "numberValue": 3}, name="h"),
    )
    assert [b.get("input", b.get("text")) for b in blocks] == [{"a": 1}, {"a": 2}, "text", {"a": 3}]


@pytest.mark.parametrize(
    "piece",
    [
        {"stringValue": "x"},
        {"jsonPath": "location", "stringValue": "x"},
        {"jsonPath": "$", "stringValue": "x"},
        {"jsonPath": "$[0]", "stringValue": "x"},
        {"jsonPath": "$.a[", "stringValue": "x"},
        {"jsonPath": "$.a[99999]", "stringValue": "x"},
        {"jsonPath": "$.s.deeper", "stringValue": "x"},
        {"jsonPath": "$.open", "stringValue": "x", "willContinue": True},
    ],
)
def test_streamed_arguments_that_make_no_sense_are_a_bad_answer(piece):
    with pytest.raises(BadAnswer):
        translate(
            [partial({"jsonPath": "$.s", "stringValue": "s"}, name="f"), partial(piece), STOP]
        )


def test_a_streamed_call_that_the_limit_cut_is_dropped():
    events, _, _ = translate(
        [
            text_chunk("x"),
            partial({"jsonPath": "$.s", "stringValue": "s", "willContinue": True}, name="f"),
            {"candidates": [{"finishReason": "MAX_TOKENS"}]},
        ]
    )
    message = fold(events)
    assert [block["type"] for block in message["content"]] == ["text"]
    assert message["stop_reason"] == "max_tokens"


def test_an_empty_signed_text_behind_text_belongs_to_it_also_while_it_waits():
    end = {"text": "", "thoughtSignature": "RU5E"}
    for fields in ({}, {"stop_sequences": ("END",)}):
        _, notes = content(chunk(call(), {"text": "E"}, end), **fields)
        assert notes == {sig.text_key("E"): sig.text_note([(1, 1, "RU5E")], TARGET)}
