"""Whatever Gemini sends, clients get a sound stream or a plain failure."""

import json

from answers import (
    TARGET,
    check_grammar,
    chunks,
    context,
    context_for,
    fold,
    good_answers,
    nonces,
    translate,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from app.translate.errors import BadAnswer
from app.translate.sse import encode
from app.translate.stream import StreamTranslator

WORDS = st.text(max_size=6) | st.sampled_from(["END", "E", "ND", "Here is", "```json\n", "```"])
SIGNATURES = st.sampled_from(["U0lH", "", "QUJD" * 700])
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)
PATHS = st.sampled_from(["$.a", "$.a.b", "$.l[0]", "$.l[1].x", "$['k']", "$", "x"])
PIECES = st.fixed_dictionaries(
    {"jsonPath": PATHS},
    optional={"stringValue": WORDS, "numberValue": st.integers(), "willContinue": st.booleans()},
)
CALLS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["look", "default_api:look", ""]),
        "id": WORDS,
        "args": st.dictionaries(WORDS, JUNK, max_size=2),
        "partialArgs": st.lists(PIECES, max_size=2),
        "willContinue": st.booleans(),
    },
)
SERVER = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["1", "2"]),
        "toolType": st.sampled_from(["GOOGLE_SEARCH_WEB", "URL_CONTEXT", "GOOGLE_MAPS"]),
        "args": st.fixed_dictionaries({}, optional={"queries": st.lists(WORDS), "urls": JUNK}),
        "code": WORDS,
        "output": WORDS,
        "outcome": st.sampled_from(["OUTCOME_OK", "OUTCOME_FAILED", "OUTCOME_DEADLINE_EXCEEDED"]),
    },
)


def one_of_kind(kind, values):
    return values.map(lambda value: {kind: value})


PARTS = st.builds(
    lambda data, signature, thought: (
        data
        | ({"thoughtSignature": signature} if signature is not None else {})
        | ({"thought": thought} if thought is not None else {})
    ),
    st.one_of(
        one_of_kind("text", WORDS),
        one_of_kind("text", WORDS),
        one_of_kind("functionCall", CALLS),
        *(
            one_of_kind(kind, SERVER)
            for kind in ("executableCode", "codeExecutionResult", "toolCall", "toolResponse")
        ),
        st.dictionaries(
            st.sampled_from(["text", "functionCall", "toolCall", "inlineData", "new"]), JUNK
        ),
    ),
    st.none() | SIGNATURES | JUNK,
    st.none() | st.booleans(),
)
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "webSearchQueries": st.lists(WORDS, max_size=2) | JUNK,
        "groundingChunks": st.lists(
            st.just({"web": {"uri": "https://a.test/", "title": "a"}}) | JUNK, max_size=2
        ),
        "groundingSupports": st.lists(
            st.fixed_dictionaries(
                {"groundingChunkIndices": st.lists(st.integers(-1, 2), max_size=2)},
                optional={
                    "segment": st.fixed_dictionaries(
                        {},
                        optional={
                            "startIndex": st.integers(-1, 9),
                            "endIndex": st.integers(-1, 20),
                            "text": WORDS,
                        },
                    )
                },
            )
            | JUNK,
            max_size=3,
        ),
    },
)
REASONS = ["STOP", "MAX_TOKENS", "SAFETY", "OTHER", "MALFORMED_FUNCTION_CALL", "NEW"]
CANDIDATES = st.fixed_dictionaries(
    {},
    optional={
        "content": st.fixed_dictionaries({"parts": st.lists(PARTS | JUNK, max_size=4)}) | JUNK,
        "finishReason": st.sampled_from(REASONS) | JUNK,
        "finishMessage": JUNK,
        "groundingMetadata": METADATA | JUNK,
        "urlContextMetadata": st.just({"urlMetadata": [{"retrievedUrl": "https://a.test/"}]})
        | JUNK,
        "index": st.just(0) | JUNK,
    },
)
CHUNKS = st.fixed_dictionaries(
    {},
    optional={
        "candidates": st.lists(CANDIDATES, min_size=1, max_size=2) | JUNK,
        "usageMetadata": st.dictionaries(
            st.sampled_from(["promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount"]),
            st.integers(0, 99) | JUNK,
        )
        | JUNK,
        "modelVersion": JUNK,
        "promptFeedback": st.just({}) | st.just({"blockReason": "SAFETY"}) | JUNK,
    },
)
CONTEXTS = st.fixed_dictionaries(
    {
        "thinking": st.sampled_from(["shown", "omitted", "off"]),
        "one_call_only": st.booleans(),
        "json_answer": st.booleans(),
        "prefill": st.sampled_from(["", "Here is"]),
        "stop_sequences": st.sampled_from([(), ("END",), ("END", "E", "x")]),
        "server_tools": st.sampled_from([frozenset(), frozenset({"web_search", "web_fetch"})]),
        "known_tools": st.sampled_from([frozenset(), frozenset({"look"})]),
    }
)


@settings(max_examples=250, deadline=None)
@given(st.lists(CHUNKS, max_size=6), CONTEXTS)
def test_arbitrary_chunks_never_break_the_grammar(some_chunks, fields):
    translator = StreamTranslator(context(**fields), nonces())
    events, complete = [], False
    try:
        for chunk in some_chunks:
            events += translator.feed(chunk)
        events += translator.finish()
        complete = True
    except BadAnswer:
        pass
    check_grammar(events, complete=complete)
    assert translator.done or not complete
    assert all(encode(event).endswith(b"\n\n") for event in events)
    if events:
        message = fold(events)
        assert len(message["content"]) == sum(e["type"] == "content_block_start" for e in events)
        for sequence in fields["stop_sequences"]:
            texts = [b["text"] for b in message["content"] if b["type"] == "text"]
            assert not any(sequence in text for text in texts)
    json.dumps(translator.notes)
    assert translator.usage["output_tokens"] >= 0


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(good_answers()), st.data())
def test_how_text_was_cut_into_chunks_makes_no_difference(name, data):
    """Splitting unsigned text parts anywhere gives the same message."""
    whole = chunks(name)
    cut = []
    for chunk in whole:
        candidates = chunk.get("candidates", [])
        parts = candidates[0].get("content", {}).get("parts", []) if candidates else []
        text = parts[0].get("text", "") if len(parts) == 1 else ""
        if len(text) > 1 and "thoughtSignature" not in parts[0]:
            at = data.draw(st.integers(1, len(text) - 1))
            head = {"content": {"parts": [parts[0] | {"text": text[:at]}]}, "finishReason": None}
            cut.append({"candidates": [candidates[0] | head]})
            parts[0]["text"] = text[at:]
        cut.append(chunk)
    fields = {"thinking": "shown", "target": TARGET}
    expected, expected_notes, _ = translate(chunks(name), context_for(name, **fields))
    events, notes, _ = translate(cut, context_for(name, **fields))
    check_grammar(events)
    assert fold(events) == fold(expected)
    assert notes == expected_notes
