"""Google-run tools: searches with their sources and citations, fetches, code."""

import json
from datetime import UTC, datetime
from functools import reduce

import pytest
from answers import (
    STOP,
    TARGET,
    check_grammar,
    chunk,
    chunks,
    context,
    fold,
    nonces,
    text_chunk,
    text_of,
    translate,
)

from app.translate import signatures as sig
from app.translate.errors import BadAnswer
from app.translate.stream import StreamTranslator

SEARCH = frozenset({"web_search"})
PAGES = [{"web": {"uri": f"https://{n}.test/", "title": n}} for n in ("a", "b", "c")]


def support(text, *numbers, start=None, end=None, **fields):
    segment = {"text": text} | ({"startIndex": start} if start else {})
    segment |= {"endIndex": end} if end else {}
    return {"segment": segment | fields, "groundingChunkIndices": list(numbers)}


def at(whole, text, *numbers):
    """Return a support with the UTF-8 byte offsets of ``text`` in ``whole``."""
    start = whole.encode().index(text.encode())
    return support(text, *numbers, start=start, end=start + len(text.encode()))


def grounding(*supports, queries=("q",), pages=PAGES):
    return {
        "groundingMetadata": {
            "webSearchQueries": list(queries),
            "groundingChunks": pages,
            "groundingSupports": list(supports),
        }
    }


def searched(*some_chunks, **fields):
    events, notes, translator = translate(some_chunks, context(server_tools=SEARCH, **fields))
    check_grammar(events)
    return fold(events), notes, translator


def outline(message):
    """Return text blocks as (text, cited pages), others as their type."""
    return [
        (b["text"], "".join(c["title"] for c in b.get("citations", ())))
        if b["type"] == "text"
        else b["type"]
        for b in message["content"]
    ]


CASES = {
    "one": (
        "Cats purr. Dogs bark!",
        [("Cats purr.", 0)],
        [("Cats purr.", "a"), (" Dogs bark!", "")],
    ),
    "bytes": (
        "Zürich: 20 °C. 今日は晴れ。 Then more.",
        [("今日は晴れ。", 1, 2)],
        [("Zürich: 20 °C. ", ""), ("今日は晴れ。", "bc"), (" Then more.", "")],
    ),
    "neighbours": (
        "One. Two.\n\nThree.",
        [("One.", 0), ("Two.", 1), ("Three.", 2)],
        [("One. ", "a"), ("Two.\n\n", "b"), ("Three.", "c")],
    ),
    "overlap": (
        "abc def ghi jkl",
        [("abc def", 0), ("def ghi", 1)],
        [("abc def ghi", "ab"), (" jkl", "")],
    ),
    "same": ("abc def", [("abc", 0), ("abc", 2)], [("abc", "ac"), (" def", "")]),
    "unordered": (
        "abc def ghi",
        [("ghi", 1), ("abc", 0)],
        [("abc", "a"), (" def ", ""), ("ghi", "b")],
    ),
    "unknown pages": ("abc def", [("abc", 7), ("def", 1)], [("abc ", ""), ("def", "b")]),
}


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(("whole", "supports", "expected"), CASES.values(), ids=CASES.keys())
def test_citations_stand_on_the_text_they_cover(whole, supports, expected, size):
    pieces = [whole[i : i + size] for i in range(0, len(whole), size)]
    placed = [at(whole, *item) for item in supports]
    message, _, _ = searched(
        *map(text_chunk, pieces), chunk(finishReason="STOP", **grounding(*placed))
    )
    assert outline(message) == ["server_tool_use", "web_search_tool_result", *expected]
    for block in message["content"][2:]:
        for citation in block.get("citations", ()):
            assert citation["cited_text"] in whole
            assert citation["url"] == f"https://{citation['title']}.test/"


def test_segments_are_found_by_their_text_when_offsets_count_from_another_part():
    whole = "First part. Second part."
    message, _, _ = searched(
        text_chunk("First part. "),
        text_chunk("Second part."),
        STOP,
        chunk(**grounding(support("Second part.", 1, end=12, partIndex=1))),
    )
    assert outline(message)[2:] == [("First part. ", ""), ("Second part.", "b")]
    assert text_of(message) == whole


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"segment": None, "groundingChunkIndices": [0]},
        {"segment": {"startIndex": 5, "endIndex": 2}, "groundingChunkIndices": [0]},
        {"segment": {"endIndex": 999}, "groundingChunkIndices": [0]},
        {"segment": {"endIndex": 3, "text": "elsewhere"}, "groundingChunkIndices": [0]},
        {"segment": {"endIndex": 3}, "groundingChunkIndices": [-1, "0", None, 9]},
        "not an object",
    ],
)
def test_supports_that_point_nowhere_are_left_out(broken):
    message, _, _ = searched(text_chunk("Some text."), chunk(**grounding(broken)), STOP)
    assert outline(message)[2:] == [("Some text.", "")]


def test_a_segment_may_come_without_its_text():
    message, _, _ = searched(
        text_chunk("äöü. Rest."),
        chunk(**grounding({"segment": {"endIndex": 7}, "groundingChunkIndices": [0]})),
        STOP,
    )
    assert outline(message)[2:] == [("äöü.", "a"), (" Rest.", "")]


def test_offsets_into_another_part_are_no_use_without_the_text():
    nowhere = {"segment": {"partIndex": 1, "endIndex": 7}, "groundingChunkIndices": [0]}
    message, _, _ = searched(
        chunk({"text": "First é. "}, {"text": "Second."}),
        chunk(**grounding(support("Second.", 1, end=7, partIndex=1), nowhere), finishReason="STOP"),
    )
    assert outline(message)[2:] == [("First é. ", ""), ("Second.", "b")]


def test_queries_are_counted_and_each_has_its_blocks():
    message, _, translator = searched(
        text_chunk("x"), chunk(**grounding(queries=["", "one", "two"])), STOP
    )
    calls = [b for b in message["content"] if b["type"] == "server_tool_use"]
    results = [b for b in message["content"] if b["type"] == "web_search_tool_result"]
    assert [b["input"] for b in calls] == [{"query": "one"}, {"query": "two"}]
    assert [b["tool_use_id"] for b in results] == [b["id"] for b in calls]
    assert [[page["url"] for page in b["content"]] for b in results] == [
        ["https://a.test/", "https://b.test/", "https://c.test/"],
        [],
    ]
    expected = {"web_search_requests": 2, "web_fetch_requests": 0}
    assert message["usage"]["server_tool_use"] == expected
    assert translator.usage["server_tool_use"] == expected
    assert message["stop_reason"] == "end_turn"


def test_pages_without_a_query_still_count_as_a_search():
    message, _, _ = searched(text_chunk("x"), chunk(**grounding(queries=[])), STOP)
    assert message["usage"]["server_tool_use"]["web_search_requests"] == 1


def test_no_search_leaves_plain_text():
    message, _, _ = searched(text_chunk("x"), chunk(groundingMetadata={}), text_chunk("y"), STOP)
    assert outline(message) == [("xy", "")]
    assert message["usage"]["server_tool_use"] is None


def test_beside_other_tools_text_flows_until_a_search_shows():
    fields = {"server_tools": SEARCH, "known_tools": frozenset({"Read"})}
    translator = StreamTranslator(context(**fields), nonces())
    assert [e["type"] for e in translator.feed(text_chunk("plain "))][-1] == "content_block_delta"
    assert len(translator.feed(text_chunk("text "))) == 1
    whole = "plain text searched. end"
    assert translator.feed(text_chunk("searched.", groundingMetadata={})) == []
    assert translator.feed(text_chunk(" end")) == []
    assert translator.feed(chunk(**grounding(at(whole, "searched.", 2)), finishReason="STOP")) == []
    translator_events = translator.finish()
    assert translator_events[0] == {"type": "content_block_stop", "index": 0}

    events, _, _ = translate(
        [
            text_chunk("plain "),
            text_chunk("text "),
            text_chunk("searched.", groundingMetadata={}),
            text_chunk(" end"),
            chunk(**grounding(at(whole, "searched.", 2)), finishReason="STOP"),
        ],
        context(**fields),
    )
    check_grammar(events)
    assert outline(fold(events)) == [
        ("plain text ", ""),
        "server_tool_use",
        "web_search_tool_result",
        ("searched.", "c"),
        (" end", ""),
    ]


def test_a_search_that_shows_only_at_the_end_cites_the_open_block():
    whole = "All of this was searched."
    events, _, _ = translate(
        [text_chunk(whole), chunk(**grounding(at(whole, whole, 0)), finishReason="STOP")],
        context(server_tools=SEARCH, known_tools=frozenset({"Read"})),
    )
    check_grammar(events)
    assert outline(fold(events)) == [(whole, "a"), "server_tool_use", "web_search_tool_result"]


def test_a_call_behind_searched_text_stays_behind_it():
    whole = "Found it."
    message, _, _ = searched(
        text_chunk(whole),
        chunk({"functionCall": {"name": "save"}}),
        chunk(**grounding(at(whole, whole, 0)), finishReason="STOP"),
    )
    assert outline(message)[2:] == [(whole, "a"), "tool_use"]
    assert message["stop_reason"] == "tool_use"


def test_searched_text_obeys_prefill_and_stop_sequences():
    whole = "Well: one fact. Another fact. END more"
    message, _, translator = searched(
        text_chunk(whole),
        chunk(
            **grounding(at(whole, "one fact.", 0), at(whole, "Another fact.", 1)),
            finishReason="STOP",
        ),
        prefill="Well: ",
        stop_sequences=("END",),
    )
    assert outline(message)[2:] == [("one fact. ", "a"), ("Another fact.", "b"), (" ", "")]
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "END")
    assert translator.done


def test_a_signed_part_that_citations_split_is_marked_where_it_begins():
    whole = "Intro. Cited. Tail"
    _, notes, _ = searched(
        chunk(
            {"text": whole, "thoughtSignature": "U0lH"},
            {"text": "", "thoughtSignature": "RU5E"},
            finishReason="STOP",
            **grounding(at(whole, "Cited.", 0)),
        )
    )
    assert notes == {
        sig.text_key("Intro. "): sig.text_note([(0, 18, "U0lH")], TARGET),
        sig.text_key(" Tail"): sig.text_note([(5, 5, "RU5E")], TARGET),
    }


def test_gemini_3_search_parts_are_shown_and_noted_verbatim():
    name = "stream-web-search-gemini3-server-parts"
    translator = StreamTranslator(context(server_tools=SEARCH), nonces())
    first, *others = chunks(name)
    events = translator.feed(first)
    assert [e["type"] for e in events] == [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
    ]
    notes = dict(translator.notes)
    for other in others:
        assert translator.feed(other) == []
    events += translator.finish()
    notes |= translator.notes
    check_grammar(events)
    message = fold(events)
    call, result, text = message["content"]
    assert call["input"] == {"query": "largest city in Mexico"}
    assert [page["title"] for page in result["content"]] == [
        "sa.gov",
        "vynmsa.com",
        "worldatlas.com",
        "https://www.google.com/search?q=time+in+Mexico",
    ]
    assert len(text["citations"]) == 4
    nonce = sig.unpack_tool_id(call["id"]).nonce
    origin = sig.Origin.of(TARGET)
    parts = [c["candidates"][0]["content"]["parts"][0] for c in chunks(name)]
    assert sig.read_part_note(notes[sig.tool_key(nonce)]) == (parts[0], origin)
    assert sig.read_part_note(notes[sig.result_key(nonce)]) == (parts[1], origin)
    assert message["usage"]["server_tool_use"]["web_search_requests"] == 1


STATUSES = {
    "URL_RETRIEVAL_STATUS_SUCCESS": None,
    "URL_RETRIEVAL_STATUS_ERROR": "url_not_accessible",
    "URL_RETRIEVAL_STATUS_PAYWALL": "url_not_accessible",
    "URL_RETRIEVAL_STATUS_UNSAFE": "url_not_allowed",
}


@pytest.mark.parametrize(("status", "error"), STATUSES.items())
def test_fetched_pages_are_shown_once(status, error):
    fetched_at = datetime(2026, 11, 25, 9, 30, tzinfo=UTC)
    metadata = {"urlMetadata": [{"retrievedUrl": "https://a.test/", "urlRetrievalStatus": status}]}
    events, _, _ = translate(
        [
            text_chunk("x", urlContextMetadata=metadata),
            text_chunk("y", urlContextMetadata=metadata),
            STOP,
        ],
        context(server_tools=frozenset({"web_fetch"})),
        lambda: fetched_at,
    )
    check_grammar(events)
    message = fold(events)
    assert outline(message) == ["server_tool_use", "web_fetch_tool_result", ("xy", "")]
    call, result, _ = message["content"]
    assert (call["name"], call["input"]) == ("web_fetch", {"url": "https://a.test/"})
    assert result["tool_use_id"] == call["id"]
    page = {
        "type": "web_fetch_result",
        "url": "https://a.test/",
        "retrieved_at": "2026-11-25T09:30:00.000000+00:00",
        "content": {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": ""},
            "title": None,
        },
    }
    failed = {"type": "web_fetch_tool_result_error", "error_code": error}
    assert result["content"] == (failed if error else page)
    assert message["usage"]["server_tool_use"] == {
        "web_search_requests": 0,
        "web_fetch_requests": 1,
    }


def test_a_traced_call_that_is_nested_without_end_is_a_bad_answer():
    args = reduce(lambda inner, _: {"a": inner}, range(200_000), {})
    call = {"toolCall": {"toolType": "GOOGLE_SEARCH_WEB", "args": args}}
    with pytest.raises(BadAnswer, match="nested"):
        searched(chunk(call), STOP)


FETCHED = {"urlMetadata": [{"retrievedUrl": "https://a.test/"}]}
PAGE = ["server_tool_use", "web_fetch_tool_result"]


@pytest.mark.parametrize("again", [FETCHED, {}, {"urlMetadata": []}])
def test_pages_that_are_named_again_part_nothing(again):
    thought = {"thought": True, "text": "hm"}
    events, _, _ = translate(
        [
            chunk(thought, urlContextMetadata=FETCHED),
            chunk(thought, urlContextMetadata=again),
            text_chunk("a EN", urlContextMetadata=again),
            text_chunk("D b", urlContextMetadata=again, finishReason="STOP"),
        ],
        context(thinking="shown", stop_sequences=("END",)),
    )
    check_grammar(events)
    message = fold(events)
    assert outline(message) == [*PAGE, "thinking", ("a ", "")]
    assert message["stop_sequence"] == "END"


@pytest.mark.parametrize("stops", [(), ("END",), ("never",)])
def test_pages_that_are_named_late_do_not_part_the_text(stops):
    events, _, _ = translate(
        [text_chunk("a EN"), text_chunk("D b", urlContextMetadata=FETCHED, finishReason="STOP")],
        context(stop_sequences=stops),
    )
    check_grammar(events)
    message = fold(events)
    assert outline(message) == [("a " if "END" in stops else "a END b", ""), *PAGE]
    assert message["usage"]["server_tool_use"]["web_fetch_requests"] == 1


def test_pages_that_are_named_late_come_before_the_call_behind_the_text():
    call = {"functionCall": {"name": "look"}}
    thought = {"thought": True, "text": "hm"}
    for parts in ([call], [thought, call]):
        events, _, _ = translate(
            [text_chunk("a"), chunk(*parts, urlContextMetadata=FETCHED, finishReason="STOP")],
            context(thinking="shown"),
        )
        check_grammar(events)
        kinds = [block["type"] for block in fold(events)["content"]]
        assert kinds == ["text", *PAGE, *["thinking"] * (len(parts) - 1), "tool_use"]


def test_pages_that_are_named_with_a_search_leave_the_citations_in_place():
    whole = "All of this was searched."
    found = grounding(at(whole, whole, 0)) | {"urlContextMetadata": FETCHED}
    events, _, _ = translate(
        [text_chunk(whole), chunk(**found, finishReason="STOP")],
        context(server_tools=SEARCH, known_tools=frozenset({"Read"})),
    )
    check_grammar(events)
    message = fold(events)
    assert message["content"][0]["citations"][0]["title"] == "a"
    assert outline(message)[1:] == ["server_tool_use", "web_search_tool_result", *PAGE]


@pytest.mark.parametrize(
    ("result", "content"),
    [
        (
            {"outcome": "OUTCOME_OK", "output": "4\n"},
            {"stdout": "4\n", "stderr": "", "return_code": 0},
        ),
        (
            {"outcome": "OUTCOME_FAILED", "output": "Trace"},
            {"stdout": "", "stderr": "Trace", "return_code": 1},
        ),
        (
            {"outcome": "OUTCOME_DEADLINE_EXCEEDED", "output": "slow"},
            {"stdout": "", "stderr": "slow", "return_code": 1},
        ),
        ({}, {"stdout": "", "stderr": "", "return_code": 0}),
    ],
)
def test_code_results_are_whole(result, content):
    parts = [
        {"executableCode": {"language": "PYTHON", "code": "print(4)"}, "thoughtSignature": "QQ=="},
        {"codeExecutionResult": result, "thoughtSignature": "Qg=="},
        {"text": "4"},
    ]
    events, notes, _ = translate([chunk(*parts), STOP])
    check_grammar(events)
    call, answer, _ = fold(events)["content"]
    assert call["input"] == {"code": "print(4)"}
    ref = sig.unpack_tool_id(call["id"])
    assert ref.signed == sig.Signed("QQ==", sig.Origin.of(TARGET))
    assert notes == {sig.result_key(ref.nonce): sig.note("Qg==", TARGET)}
    assert answer == {
        "type": "code_execution_tool_result",
        "tool_use_id": call["id"],
        "content": {"type": "code_execution_result", "content": []} | content,
    }


def test_a_code_run_that_took_too_long_says_so():
    parts = [
        {"executableCode": {"code": "while 1: 0"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_DEADLINE_EXCEEDED"}},
    ]
    events, _, _ = translate([chunk(*parts), STOP])
    assert fold(events)["content"][1]["content"] == {
        "type": "code_execution_tool_result_error",
        "error_code": "execution_time_exceeded",
    }


def test_code_results_find_their_call_by_id():
    parts = [
        {"executableCode": {"code": "1", "id": "one"}},
        {"executableCode": {"code": "2", "id": "two"}},
        {"codeExecutionResult": {"output": "2", "id": "two"}},
        {"codeExecutionResult": {"output": "1", "id": "one"}},
        {"codeExecutionResult": {"output": "3"}},
    ]
    events, _, _ = translate([chunk(*parts), STOP])
    check_grammar(events)
    content = fold(events)["content"]
    code = {b["id"]: b["input"]["code"] for b in content if b["type"] == "server_tool_use"}
    outputs = [
        (code[b["tool_use_id"]], b["content"]["stdout"])
        for b in content
        if b["type"] == "code_execution_tool_result"
    ]
    assert outputs == [("2", "2"), ("1", "1"), ("", "3")]


def test_the_query_of_a_search_streams_as_json():
    events, _, _ = translate(
        [text_chunk("x"), chunk(**grounding(queries=['say "hi"'])), STOP],
        context(server_tools=SEARCH),
    )
    (delta,) = [e["delta"] for e in events if e.get("delta", {}).get("type") == "input_json_delta"]
    assert json.loads(delta["partial_json"]) == {"query": 'say "hi"'}


def test_a_signed_part_behind_a_cited_one_is_marked_in_its_own_block():
    _, notes, _ = searched(
        chunk({"text": "One."}, {"text": "Two", "thoughtSignature": "VFdP"}, finishReason="STOP"),
        chunk(**grounding(at("One.Two", "One.", 0))),
    )
    assert notes == {sig.text_key("Two"): sig.text_note([(0, 3, "VFdP")], TARGET)}


def test_segments_that_only_their_text_places_may_repeat_and_come_in_any_order():
    whole = "Yes. But no. Yes. So."
    message, _, _ = searched(
        text_chunk(whole),
        chunk(**grounding(support("Yes.", 0, end=4), support("Yes.", 1), support("But no.", 2))),
        STOP,
    )
    assert outline(message)[2:] == [("Yes. ", "a"), ("But no. ", "c"), ("Yes.", "b"), (" So.", "")]


def test_a_prompt_that_a_tool_fed_is_a_sign_of_a_search():
    whole = "Found."
    fed = {"usageMetadata": {"toolUsePromptTokenCount": 9}}
    message, _, _ = searched(
        text_chunk(whole) | fed,
        chunk(**grounding(at(whole, whole, 0))),
        STOP,
        known_tools=frozenset({"Read"}),
    )
    assert outline(message) == ["server_tool_use", "web_search_tool_result", (whole, "a")]
