"""What happens to visible text: stop sequences, prefill, fences."""

from itertools import pairwise

import pytest
from answers import (
    STOP,
    check_grammar,
    chunk,
    context,
    fold,
    nonces,
    text_chunk,
    text_of,
    translate,
)
from hypothesis import given
from hypothesis import strategies as st

from app.translate.stop_sequences import StopMatcher
from app.translate.stream import StreamTranslator

SMALL = st.text("abc", max_size=12)


def shown(*pieces, **fields):
    events, _, _ = translate([*map(text_chunk, pieces), STOP], context(**fields))
    check_grammar(events)
    message = fold(events)
    return text_of(message), message["stop_reason"], message["stop_sequence"]


@pytest.mark.parametrize(
    ("pieces", "sequences", "expected"),
    [
        (["one END two"], ["END"], ("one ", "stop_sequence", "END")),
        (["one E", "N", "D two"], ["END"], ("one ", "stop_sequence", "END")),
        (["one E", "NOUGH"], ["END"], ("one ENOUGH", "end_turn", None)),
        (["one EN"], ["END"], ("one EN", "end_turn", None)),
        (["END"], ["END"], ("", "stop_sequence", "END")),
        (["aab", "aac"], ["aac"], ("aab", "stop_sequence", "aac")),
        (["aaaa", "ab"], ["aab"], ("aaa", "stop_sequence", "aab")),
        (["x</a></b>"], ["</b>", "</a>"], ("x", "stop_sequence", "</a>")),
        (["xabcd"], ["abcd", "bc"], ("xa", "stop_sequence", "bc")),
        (["xabc"], ["bc", "abc"], ("x", "stop_sequence", "abc")),
        (["xab", "cd"], ["abcd", "abx", "bcd"], ("x", "stop_sequence", "abcd")),
        (["\n\nHuman:"], ["\n\nHuman:", "\n\nAssistant:"], ("", "stop_sequence", "\n\nHuman:")),
        (["größer", "als"], ["ßera"], ("grö", "stop_sequence", "ßera")),
        (["seven 7"], ["1", "2", "3", "4", "5", "6", "7"], ("seven ", "stop_sequence", "7")),
        (["plain"], [""], ("plain", "end_turn", None)),
    ],
)
def test_a_stop_sequence_ends_the_text_and_never_shows(pieces, sequences, expected):
    assert shown(*pieces, stop_sequences=tuple(sequences)) == expected


def test_a_hit_ends_the_message_at_once():
    translator = StreamTranslator(context(stop_sequences=("STOP",)), nonces())
    translator.feed(text_chunk("go "))
    events = translator.feed(text_chunk("ST"))
    assert events == []
    events = translator.feed(text_chunk("OP and on"))
    assert [event["type"] for event in events] == [
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[1]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "STOP"}
    assert translator.done


def test_text_that_waited_for_a_sequence_stays_before_what_follows_it():
    call = {"functionCall": {"name": "look"}}
    events, _, _ = translate(
        [chunk({"text": "one E"}, call, {"text": "ND"}), STOP], context(stop_sequences=("END",))
    )
    check_grammar(events)
    content = fold(events)["content"]
    assert [b.get("text", b["type"]) for b in content] == ["one E", "tool_use", "ND"]


@pytest.mark.parametrize(("thought", "mode"), [("hm", "off"), ("", "shown"), (None, "omitted")])
def test_thoughts_that_are_not_shown_do_not_part_a_sequence(thought, mode):
    parts = [{"text": "one E"}, {"text": thought, "thought": True}, {"text": "ND two"}]
    events, _, _ = translate([chunk(*parts)], context(stop_sequences=("END",), thinking=mode))
    assert text_of(fold(events)) == "one "


@given(
    SMALL, st.lists(st.text("abc", min_size=1, max_size=4), max_size=4), st.sets(st.integers(0, 12))
)
def test_the_matcher_sees_what_a_character_by_character_model_would(text, sequences, cuts):
    expected, hit = text, None
    for end in range(len(text) + 1):
        ending = [s for s in sequences if text[:end].endswith(s)]
        if ending:
            hit = max(ending, key=len)
            expected = text[: end - len(hit)]
            break
    matcher, out, found = StopMatcher(sequences), "", None
    for start, end in pairwise(sorted({0, len(text), *(c for c in cuts if c < len(text))})):
        piece, found = matcher.push(text[start:end])
        out += piece
        assert text.startswith(out)
        if found:
            break
    assert (out + ("" if found else matcher.flush()), found) == (expected, hit)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["Here is the list"], " the list"),
        (["He", "re", " is", " the list"], " the list"),
        (["Here was the list"], "Here was the list"),
        (["Here i", "t is"], "Here it is"),
        (["Here"], "Here"),
        (["so: Here is"], "so: Here is"),
        ([" Here is"], " Here is"),
        (["Here isHere is"], "Here is"),
    ],
)
def test_a_repeated_prefill_is_taken_off(pieces, expected):
    assert shown(*pieces, prefill="Here is") == (expected, "end_turn", None)


def test_an_answer_that_only_repeats_the_prefill_is_an_end():
    assert shown("Here is", prefill="Here is") == ("", "end_turn", None)


def test_thoughts_before_the_text_do_not_hide_a_repeated_prefill():
    thought = {"text": "hm", "thought": True}
    events, _, _ = translate(
        [chunk(thought), text_chunk("Here is it"), STOP],
        context(prefill="Here is", thinking="shown"),
    )
    assert text_of(fold(events)) == " it"


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (['```json\n{"a": 1}\n```'], '{"a": 1}'),
        (["``", "`js", 'on\n{"a"', ": 1}\n", "``", "`\n"], '{"a": 1}'),
        (["```\n[1]\n```"], "[1]"),
        (['{"a": "```"}'], '{"a": "```"}'),
        (['{"a": 1}\n'], '{"a": 1}\n'),
        (['```json\n{"a": "`` b"}\n```'], '{"a": "`` b"}'),
        (["```python\nx\n```"], "```python\nx\n```"),
    ],
)
def test_a_fence_around_json_is_taken_off(pieces, expected):
    assert shown(*pieces, json_answer=True) == (expected, "end_turn", None)
    assert shown(*pieces) == ("".join(pieces), "end_turn", None)
