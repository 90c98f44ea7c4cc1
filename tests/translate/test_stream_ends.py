"""Every way an answer can end, or fail to."""

import pytest
from answers import STOP, check_grammar, chunk, context, fold, nonces, text_chunk, translate

from app.translate.errors import BadAnswer
from app.translate.stream import StreamTranslator

REFUSALS = [
    "SAFETY",
    "RECITATION",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "MODEL_ARMOR",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
    "ESCALATION",
    "PUP_LIMITED_DISABLED",
]
FAULTS = [
    "MALFORMED_FUNCTION_CALL",
    "UNEXPECTED_TOOL_CALL",
    "MALFORMED_RESPONSE",
    "MISSING_THOUGHT_SIGNATURE",
]
CALL = {"functionCall": {"name": "look", "args": {"at": 1}}}


def ended(*some_chunks, **fields):
    events, _, translator = translate(some_chunks, context(**fields))
    check_grammar(events)
    assert translator.done
    message = fold(events)
    assert translator.stop_reason == message["stop_reason"]
    return message


@pytest.mark.parametrize("reason", REFUSALS)
@pytest.mark.parametrize("parts", [[], [{"text": "so far"}], [CALL]])
def test_a_block_is_a_refusal_that_says_why(reason, parts):
    message = ended(chunk(*parts, finishReason=reason, finishMessage="Not this."))
    assert message["stop_reason"] == "refusal"
    assert message["stop_details"] == {
        "type": "refusal",
        "category": None,
        "explanation": f"Gemini stopped the answer: {reason}: Not this.",
    }
    assert len(message["content"]) == len(parts)


@pytest.mark.parametrize("reason", ["SAFETY", "OTHER", "BLOCKLIST", "JAILBREAK", "NEW_ONE"])
def test_a_blocked_prompt_is_a_refusal(reason):
    message = ended({"promptFeedback": {"blockReason": reason}, "candidates": []})
    assert message["content"] == []
    assert message["stop_details"]["explanation"] == f"Gemini blocked the prompt: {reason}."


@pytest.mark.parametrize("reason", FAULTS)
def test_a_fault_before_anything_was_sent_is_raised_at_once(reason):
    translator = StreamTranslator(context(), nonces())
    with pytest.raises(BadAnswer, match=reason) as caught:
        translator.feed(chunk(CALL, finishReason=reason, finishMessage="Why."))
    assert caught.value.retryable
    assert caught.value.message == f"The upstream answer is unusable ({reason}): Why."
    assert not translator.content_sent


@pytest.mark.parametrize("reason", FAULTS)
def test_a_fault_after_text_keeps_the_text_and_drops_the_call(reason):
    translator = StreamTranslator(context(), nonces())
    events = translator.feed(text_chunk("I will look. "))
    events += translator.feed(chunk({"text": "Now."}, CALL, finishReason=reason))
    events += translator.feed(STOP)
    check_grammar(events, complete=False)
    assert fold(events)["content"] == [{"type": "text", "text": "I will look. Now."}]
    with pytest.raises(BadAnswer, match=reason):
        translator.finish()
    assert translator.content_sent
    assert not translator.done


@pytest.mark.parametrize(
    "some_chunks",
    [
        [],
        [{}],
        [{"candidates": []}],
        [{"candidates": None, "usageMetadata": None}],
        [text_chunk("cut")],
        [chunk({"text": "cut"}, CALL)],
        [{"usageMetadata": {"promptTokenCount": 3}}],
    ],
)
def test_an_end_without_a_finish_reason_is_no_end(some_chunks):
    with pytest.raises(BadAnswer, match="without a finish reason"):
        translate(some_chunks)


@pytest.mark.parametrize("reason", ["STOP", "OTHER", "LANGUAGE", "FROM_THE_FUTURE"])
@pytest.mark.parametrize("mode", ["shown", "omitted", "off"])
@pytest.mark.parametrize(
    "parts", [[], [{"text": ""}], [{"text": "hm", "thought": True}], [{"functionCall": {}}]]
)
def test_an_answer_without_anything_to_see_is_a_failure(reason, mode, parts):
    with pytest.raises(BadAnswer, match="empty") as caught:
        translate([chunk(*parts, finishReason=reason)], context(thinking=mode))
    assert caught.value.retryable


def test_an_empty_answer_may_be_a_stop_sequence_that_hit_at_once():
    message = ended(STOP, stop_sequences=("END",))
    assert (message["content"], message["stop_reason"]) == ([], "end_turn")


def test_an_answer_of_media_alone_is_reported_and_not_repeated():
    picture = {"inlineData": {"mimeType": "image/png", "data": "AA=="}}
    with pytest.raises(BadAnswer, match="media") as caught:
        translate([chunk(picture, finishReason="STOP")])
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("reason", "parts", "stop_reason"),
    [
        ("STOP", [{"text": "x"}], "end_turn"),
        ("STOP", [{"text": "x"}, CALL], "tool_use"),
        ("STOP", [CALL, {"text": "x"}], "tool_use"),
        ("OTHER", [{"text": "x"}], "end_turn"),
        ("OTHER", [CALL], "tool_use"),
        ("FROM_THE_FUTURE", [{"text": "x"}], "end_turn"),
        ("MAX_TOKENS", [{"text": "x"}], "max_tokens"),
        ("MAX_TOKENS", [CALL], "max_tokens"),
        ("MAX_TOKENS", [], "max_tokens"),
        ("CONTINUATION", [{"text": "x"}], "max_tokens"),
        ("TOO_MANY_TOOL_CALLS", [{"text": "x"}], "pause_turn"),
        ("TOO_MANY_TOOL_CALLS", [CALL], "tool_use"),
    ],
)
def test_the_stop_reason_is_the_true_one(reason, parts, stop_reason):
    assert ended(chunk(*parts, finishReason=reason))["stop_reason"] == stop_reason


def test_what_follows_the_finish_reason_still_counts():
    usage = {"usageMetadata": {"candidatesTokenCount": 4, "promptTokenCount": "11"}}
    message = ended(
        text_chunk("a", finishReason="STOP"),
        text_chunk("b", finishReason="STOP"),
        chunk(CALL),
        usage,
        {"candidates": [{"finishReason": None}], "usageMetadata": {"thoughtsTokenCount": 5}},
    )
    assert [block["type"] for block in message["content"]] == ["text", "tool_use"]
    assert message["content"][0]["text"] == "ab"
    assert message["stop_reason"] == "tool_use"
    assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (11, 9)


def test_a_stop_does_not_soften_a_refusal():
    assert ended(text_chunk("a", finishReason="SAFETY"), STOP)["stop_reason"] == "refusal"


@pytest.mark.parametrize(
    ("reasons", "counts"),
    [
        (("SAFETY", "MAX_TOKENS"), "refusal"),
        (("MAX_TOKENS", "SAFETY"), "refusal"),
        (("MAX_TOKENS", "OTHER"), "max_tokens"),
        (("FINISH_REASON_UNSPECIFIED", "MAX_TOKENS"), "max_tokens"),
        (("FINISH_REASON_UNSPECIFIED", "STOP"), "end_turn"),
    ],
)
def test_of_two_reasons_the_graver_counts(reasons, counts):
    message = ended(*(text_chunk("a", finishReason=reason) for reason in reasons))
    assert message["stop_reason"] == counts


def test_a_fault_stays_one_whatever_follows():
    with pytest.raises(BadAnswer, match="MALFORMED"):
        ended(
            text_chunk("a"),
            chunk(finishReason="MALFORMED_FUNCTION_CALL"),
            chunk(finishReason="OTHER"),
        )


@pytest.mark.parametrize(
    "broken",
    [
        {"candidates": {}},
        {"candidates": [None]},
        {"candidates": ["x"]},
        {"candidates": [{"index": "0"}]},
        {"candidates": [{"index": [0]}]},
        {"candidates": [{"index": True}]},
        {"candidates": [{"content": "x"}]},
        {"candidates": [{"content": [{"text": "x"}]}]},
        {"candidates": [{"content": {"parts": "x"}}]},
        {"candidates": [{"content": {"parts": {"text": "x"}}}]},
        {"candidates": [{"finishReason": 1}]},
        *(
            chunk(part)
            for part in (
                None,
                "x",
                {"text": 5},
                {"text": ["x"]},
                {"text": "x", "thought": "false"},
                {"functionCall": "x"},
                {"functionCall": []},
                {"executableCode": "x"},
                {"codeExecutionResult": 1},
                {"toolCall": "x"},
                {"toolResponse": []},
            )
        ),
    ],
)
def test_content_that_can_not_be_read_is_never_left_out_of_a_good_answer(broken):
    for behind in ([STOP], []):
        with pytest.raises(BadAnswer):
            translate([text_chunk("so far"), broken, *behind])


@pytest.mark.parametrize(
    "nothing",
    [
        {},
        {"candidates": None},
        {"candidates": []},
        {"candidates": [{}]},
        {"candidates": [{"content": None, "finishReason": None, "index": None}]},
        {"candidates": [{"content": {"parts": None}}]},
        {"candidates": [{"content": {"parts": []}, "finishReason": ""}]},
        chunk({"text": None, "functionCall": None, "thought": None}),
        chunk({"new": 5}),
        {"usageMetadata": {"promptTokenCount": "9" * 5000, "candidatesTokenCount": -1}},
        {"usageMetadata": [], "modelVersion": 4, "promptFeedback": "x"},
    ],
)
def test_what_is_null_or_unknown_is_nothing(nothing):
    message = ended(nothing, text_chunk("a"), nothing, STOP)
    assert (message["content"][0]["text"], message["stop_reason"]) == ("a", "end_turn")
    with pytest.raises(BadAnswer):
        translate([nothing])


@pytest.mark.parametrize("error", [{"code": 503, "message": "overloaded"}, "overloaded"])
@pytest.mark.parametrize("beside", [{}, {"candidates": [{"finishReason": "STOP"}]}])
def test_an_error_object_in_the_stream_is_no_end(error, beside):
    translator = StreamTranslator(context(), nonces())
    translator.feed(text_chunk("so far"))
    with pytest.raises(BadAnswer, match="overloaded"):
        translator.feed({"error": error} | beside)


def test_usage_is_what_gemini_counted():
    message = ended(
        {"usageMetadata": {"promptTokenCount": 100, "cachedContentTokenCount": 60}},
        text_chunk("x") | {"usageMetadata": {"promptTokenCount": 110, "thoughtsTokenCount": 7}},
        STOP
        | {
            "usageMetadata": {
                "candidatesTokenCount": 5,
                "toolUsePromptTokenCount": 30,
                "thoughtsTokenCount": None,
                "totalTokenCount": "not ours",
            }
        },
    )
    assert message["usage"] == {
        "input_tokens": 80,
        "output_tokens": 12,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 60,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens_details": {"thinking_tokens": 7},
        "server_tool_use": None,
        "service_tier": "standard",
        "inference_geo": None,
        "speed": None,
    }


def test_input_that_gemini_did_not_count_is_estimated():
    events, _, _ = translate([text_chunk("x"), STOP], context(input_estimate=42))
    assert events[0]["message"]["usage"]["input_tokens"] == 42
    assert fold(events)["usage"]["input_tokens"] == 42


def test_nothing_comes_after_the_end():
    translator = StreamTranslator(context(stop_sequences=("!",)), nonces())
    assert translator.feed(text_chunk("hi! there"))[-1] == {"type": "message_stop"}
    assert translator.done
    assert translator.feed(text_chunk("more", finishReason="SAFETY")) == []
    assert translator.feed({"error": {"message": "late"}}) == []
    assert translator.finish() == []


def test_a_cached_count_alone_leaves_the_estimate_standing():
    message = ended(
        {"usageMetadata": {"cachedContentTokenCount": 5}},
        text_chunk("x", finishReason="STOP"),
        input_estimate=42,
    )
    assert message["usage"]["input_tokens"] == 42
    assert message["usage"]["cache_read_input_tokens"] == 5
