"""A resumed answer is one answer: nothing twice, nothing lost, one head, one end."""

import itertools
from functools import partial

import pytest

from app.translate.errors import BadAnswer
from app.translate.fold import MessageFold
from app.translate.reply import ReplyContext
from app.translate.resume import OverlapFilter, Sent, resumed_body, splicer
from app.translate.stream import StreamTranslator
from app.translate.target import Target

WHOLE = "The quick brown fox jumps over the lazy dog. The quick brown fox sleeps."


def context(**extra):
    return ReplyContext("claude-x", Target("gemini", "gemini-3.8-flash"), **extra)


def nonces():
    numbers = itertools.count()
    return lambda: f"{next(numbers):022}"


def chunk(*parts, finish=None, output=None):
    candidate = {"content": {"role": "model", "parts": list(parts)}}
    if finish:
        candidate["finishReason"] = finish
    usage = {"promptTokenCount": 10}
    if output is not None:
        usage["candidatesTokenCount"] = output
    return {"candidates": [candidate], "usageMetadata": usage}


def text(*pieces, finish=None, output=None):
    return chunk(*({"text": piece} for piece in pieces), finish=finish, output=output)


def answer(attempts, **extra):
    """Return the events of attempts of which all but the last are cut."""
    sent = Sent()
    events = []
    nonce = nonces()
    for number, chunks in enumerate(attempts):
        translator = splicer(
            partial(StreamTranslator, context(resumed=number > 0, **extra), nonce),
            sent,
            resumed=number > 0,
        )
        for each in chunks:
            events += translator.feed(each)
        if number < len(attempts) - 1:
            with pytest.raises(BadAnswer):
                translator.finish()
            assert sent.resumable
            sent.cut(translator.usage)
        else:
            events += translator.finish()
    return events


def folded(events):
    fold = MessageFold()
    for event in events:
        fold.add(event)
    return fold.message()


def check_grammar(events):
    kinds = [event["type"] for event in events if event["type"] != "ping"]
    assert kinds[0] == "message_start"
    assert kinds.count("message_start") == kinds.count("message_stop") == 1
    assert kinds[-2:] == ["message_delta", "message_stop"]
    open_block, started = None, 0
    for event in events:
        if event["type"] == "content_block_start":
            assert open_block is None
            assert event["index"] == started
            open_block, started = event["index"], started + 1
        elif event["type"] == "content_block_delta":
            assert event["index"] == open_block
        elif event["type"] == "content_block_stop":
            assert event["index"] == open_block
            open_block = None
    assert open_block is None


@pytest.mark.parametrize("repeated", [0, 9, 19, 24, None])
@pytest.mark.parametrize("pieces", [1, 3, 100])
def test_wherever_it_was_cut_the_text_is_whole(repeated, pieces):
    for cut in range(25, len(WHOLE)):
        begin = 0 if repeated is None else cut - repeated
        if begin and repeated and WHOLE[begin - 1].isalnum() and WHOLE[begin].isalnum():
            continue  # a model does not take up an answer in the middle of a word
        rest = WHOLE[begin:]
        size = -(-len(rest) // pieces)
        parts = [rest[at : at + size] for at in range(0, len(rest), size)]
        events = answer(
            [
                [text(WHOLE[:10], output=3), text(WHOLE[10:cut], output=5)],
                [*(text(part, output=7) for part in parts), text(finish="STOP", output=9)],
            ]
        )
        check_grammar(events)
        message = folded(events)
        assert message["content"] == [{"type": "text", "text": WHOLE}]
        assert message["stop_reason"] == "end_turn"
        assert message["usage"]["output_tokens"] == 14


def test_three_attempts_make_one_answer():
    events = answer(
        [
            [text("one ", output=1)],
            [text("two ", output=1)],
            [text("three", finish="STOP", output=1)],
        ]
    )
    check_grammar(events)
    assert folded(events)["content"][0]["text"] == "one two three"
    assert folded(events)["usage"]["output_tokens"] == 3


def test_thinking_of_the_new_attempt_is_not_shown_and_calls_follow_on():
    thought = {"text": "hm", "thought": True}
    call = {"functionCall": {"name": "look", "args": {"a": 1}}}
    events = answer(
        [
            [chunk(thought), text("Let me ")],
            [chunk(thought), text("look."), chunk(call, finish="STOP")],
        ],
        thinking="shown",
        known_tools=frozenset({"look"}),
    )
    check_grammar(events)
    message = folded(events)
    assert [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use"]
    assert message["content"][1]["text"] == "Let me look."
    assert message["content"][2]["input"] == {"a": 1}
    assert message["stop_reason"] == "tool_use"


def test_a_continuation_that_is_a_call_closes_the_text():
    call = {"functionCall": {"name": "look", "args": {}}}
    events = answer([[text("Let me ")], [chunk(call, finish="STOP")]])
    check_grammar(events)
    assert [block["type"] for block in folded(events)["content"]] == ["text", "tool_use"]


@pytest.mark.parametrize("begun", ['```json\n{"a": 1,', '{"a": 1,'])
@pytest.mark.parametrize(
    "pieces",
    [
        [' "b": "`"}'],
        [' "b": "`"}\n```'],
        [' "b": "`', '"}\n``', "`\n"],
        ['```json\n{"a": 1, "b": "`"}', "\n```"],
    ],
)
def test_a_fence_around_json_is_taken_off_also_where_its_halves_are_of_two_attempts(begun, pieces):
    rest = [text(piece) for piece in pieces]
    events = answer([[text(begun)], [*rest, text(finish="STOP")]], json_answer=True)
    check_grammar(events)
    assert folded(events)["content"][0]["text"] == '{"a": 1, "b": "`"}'


@pytest.mark.parametrize("fence", ["```", "\n```", "\n```\n"])
def test_half_a_fence_may_be_all_that_was_missing(fence):
    events = answer([[text("```json\n[1]")], [text(fence, finish="STOP")]], json_answer=True)
    check_grammar(events)
    assert folded(events)["content"][0]["text"] == "[1]"


def test_a_continuation_of_nothing_but_an_end_ends_the_answer():
    events = answer([[text("All said.")], [text(finish="MAX_TOKENS")]])
    check_grammar(events)
    assert folded(events)["content"][0]["text"] == "All said."
    assert folded(events)["stop_reason"] == "max_tokens"


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [chunk({"text": "hm", "thought": True})],
        [text("x"), chunk({"functionCall": {"name": "look", "args": {}}})],
        [text("x"), chunk({"executableCode": {"code": "1", "language": "PYTHON"}})],
    ],
)
def test_what_cannot_be_continued_is_not_resumable(chunks):
    sent = Sent()
    translator = splicer(
        lambda: StreamTranslator(context(thinking="shown"), nonces()), sent, resumed=False
    )
    for each in chunks:
        translator.feed(each)
    assert not sent.resumable


@pytest.mark.parametrize(
    ("sent", "continuation", "new"),
    [
        ("It is what it is", " what it is, is it?", ", is it?"),
        ("very very", " very good", " very good"),
        ("abc", "abc def", " def"),
        ("abc", "abd", "abd"),
        ("I said hello again", "hello again and left", " and left"),
        ("I said hello again", "hello again", ""),
        ("I said hello again", "hello ag", "hello ag"),
        ("", "x", "x"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 1000])
def test_overlaps(sent, continuation, new, size):
    overlap = OverlapFilter(sent)
    shown = "".join(
        overlap.push(continuation[at : at + size])
        if not overlap.settled
        else continuation[at : at + size]
        for at in range(0, len(continuation), size)
    )
    assert shown + ("" if overlap.settled else overlap.flush()) == new


def test_the_partial_answer_becomes_the_prefill():
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    assert resumed_body(body, "He") == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "He"}],
    }
