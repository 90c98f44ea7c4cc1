"""The exact events of key recordings, chunk by chunk."""

import pytest
from answers import TARGET, chunks, context, nonces

from app.translate.signatures import pack_thinking, pack_tool_id, text_key, text_note
from app.translate.stream import StreamTranslator


def nonce(number):
    return f"{number:0>22}"


def steps(name, **fields):
    """Return what each chunk makes and what the end makes, and all notes."""
    translator = StreamTranslator(context(**fields), nonces())
    made, notes = [], {}
    for chunk in chunks(name):
        made.append(translator.feed(chunk))
        notes |= translator.notes
    made.append(translator.finish())
    return made, notes | translator.notes


def start(input_tokens=0, cached=0, output=1):
    return {
        "type": "message_start",
        "message": {
            "id": f"msg_{nonce(1)}",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-5",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "container": None,
            "usage": {
                "input_tokens": input_tokens,
                "output_tokens": output,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": cached,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": 0,
                    "ephemeral_1h_input_tokens": 0,
                },
                "output_tokens_details": {"thinking_tokens": 0},
                "server_tool_use": None,
                "service_tier": "standard",
                "inference_geo": None,
                "speed": None,
            },
        },
    }


def opened(index, block):
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index, kind, **fields):
    return {
        "type": "content_block_delta",
        "index": index,
        "delta": {"type": kind} | fields,
    }


def closed(index):
    return {"type": "content_block_stop", "index": index}


def end(reason, input_tokens, output, thinking=0, cached=0, **fields):
    usage = {
        "input_tokens": input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": output,
        "output_tokens_details": {"thinking_tokens": thinking},
    }
    usage |= {k: fields.pop(k) for k in ["server_tool_use"] if k in fields}
    delta = {"stop_reason": reason, "stop_sequence": None} | fields
    return [
        {"type": "message_delta", "delta": delta, "usage": usage},
        {"type": "message_stop"},
    ]


PING = {"type": "ping"}
TEXT = {"type": "text", "text": ""}
THINKING = {"type": "thinking", "thinking": "", "signature": ""}


def tool(index, tool_id, name, arguments, kind="tool_use"):
    block = {"type": kind, "id": tool_id, "name": name, "input": {}}
    return [
        opened(index, block),
        delta(index, "input_json_delta", partial_json=arguments),
        closed(index),
    ]


def test_plain_text():
    made, notes = steps("stream-usage-live-mid-stream")
    texts = [c["candidates"][0]["content"]["parts"][0]["text"] for c in chunks(_LIVE)]
    assert made == [
        [start(18), PING, opened(0, TEXT), delta(0, "text_delta", text=texts[0])],
        [delta(0, "text_delta", text=texts[1])],
        [delta(0, "text_delta", text="0")],
        [closed(0), *end("end_turn", 18, 115, 35)],
    ]
    assert notes == {}


_LIVE = "stream-usage-live-mid-stream"


def test_cached_tokens():
    made, _ = steps("unary-cached-content")
    assert made == [
        [start(8, 3512), PING, opened(0, TEXT), delta(0, "text_delta", text="Paris.")],
        [closed(0), *end("end_turn", 8, 44, 42, 3512)],
    ]


def test_thinking_then_text_signed_late():
    name = "stream-thoughts-array"
    first, second, third = (c["candidates"][0]["content"]["parts"][0] for c in chunks(name))
    made, notes = steps(name, thinking="shown")
    assert made == [
        [
            start(11),
            PING,
            opened(0, THINKING),
            delta(0, "thinking_delta", thinking=first["text"]),
        ],
        [
            delta(0, "signature_delta", signature=pack_thinking("", "", TARGET)),
            closed(0),
            opened(1, TEXT),
            delta(1, "text_delta", text="Scoop"),
        ],
        [],
        [closed(1), *end("end_turn", 11, 293, 291)],
    ]
    assert second["text"] == "Scoop"
    assert notes == {text_key("Scoop"): text_note([(5, 5, third["thoughtSignature"])], TARGET)}


@pytest.mark.parametrize("mode", ["shown", "omitted", "off"])
def test_thinking_then_a_signed_call(mode):
    name = "stream-tool-thoughts-array-three-turns.turn1"
    thought, call = (c["candidates"][0]["content"]["parts"][0] for c in chunks(name))
    signature = call["thoughtSignature"]
    carried = delta(0, "signature_delta", signature=pack_thinking("", signature, TARGET))
    tool_id, _ = pack_tool_id(nonce(2), "", signature, TARGET)
    use = tool(int(mode != "off"), tool_id, "pelican_name_generator", "{}")
    ended = end("tool_use", 32, 54, 42)
    made, notes = steps(name, thinking=mode)
    assert (
        made
        == {
            "shown": [
                [
                    start(32),
                    PING,
                    opened(0, THINKING),
                    delta(0, "thinking_delta", thinking=thought["text"]),
                ],
                [carried, closed(0), *use],
                ended,
            ],
            "omitted": [
                [],
                [start(32), PING, opened(0, THINKING), carried, closed(0), *use],
                ended,
            ],
            "off": [[], [start(32), PING, *use], ended],
        }[mode]
    )
    assert notes == {}


def test_parallel_calls_in_two_chunks():
    name = "stream-parallel-tools-split-events"
    signature = chunks(name)[0]["candidates"][0]["content"]["parts"][0]["thoughtSignature"]
    first, _ = pack_tool_id(nonce(2), "dv8szvqe", signature, TARGET)
    second, _ = pack_tool_id(nonce(3), "j80tal12", "", TARGET)
    made, notes = steps(name)
    assert made == [
        [start(71), PING, *tool(0, first, "get_weather", '{"location":"Boston"}')],
        tool(1, second, "get_weather", '{"location":"New Delhi"}'),
        [],
        end("tool_use", 71, 126, 93),
    ]
    assert notes == {}


def test_arguments_that_stream():
    name = "fx-stream-partial-args"
    signature = chunks(name)[0]["candidates"][0]["content"]["parts"][0]["thoughtSignature"]
    first, _ = pack_tool_id(nonce(2), "", signature, TARGET)
    second, _ = pack_tool_id(nonce(3), "", "", TARGET)
    made, _ = steps(name, input_estimate=30)
    assert made == [
        [],
        [],
        [],
        [start(30), PING, *tool(0, first, "getWeather", '{"location":"Boston"}')],
        [],
        [],
        [],
        tool(1, second, "getWeather", '{"location":"San Francisco"}'),
        end("tool_use", 26, 155, 132),
    ]


def test_code_execution():
    name = "stream-code-execution-gemini3"
    recorded = [c["candidates"][0]["content"]["parts"][0] for c in chunks(name)]
    code, result, *texts, last = recorded
    call_id, _ = pack_tool_id(
        nonce(2), "8xju7mua", code["thoughtSignature"], TARGET, prefix="srvtoolu_"
    )
    made, notes = steps(name, server_tools=frozenset({"code_execution"}))
    shown = {
        "type": "code_execution_tool_result",
        "tool_use_id": call_id,
        "content": {
            "type": "code_execution_result",
            "stdout": result["codeExecutionResult"]["output"],
            "stderr": "",
            "return_code": 0,
            "content": [],
        },
    }
    source = '{"code":"result = 65465 - 6544 * 65464 - 6 + 1.02255\\nprint(result)"}'
    assert made == [
        [start(46), PING, *tool(0, call_id, "code_execution", source, "server_tool_use")],
        [opened(1, shown), closed(1)],
        [opened(2, TEXT), delta(2, "text_delta", text=texts[0]["text"])],
        [delta(2, "text_delta", text=texts[1]["text"])],
        [delta(2, "text_delta", text=texts[2]["text"])],
        [],
        [closed(2), *end("end_turn", 507, 276, 168)],
    ]
    whole = "".join(part["text"] for part in texts)
    mark = (len(whole), len(whole), last["thoughtSignature"])
    assert notes == {text_key(whole): text_note([mark], TARGET)}


def test_web_search():
    name = "stream-web-search-two-turns.turn1"
    (recorded,) = chunks(name)
    text = recorded["candidates"][0]["content"]["parts"][0]["text"]
    (page,) = recorded["candidates"][0]["groundingMetadata"]["groundingChunks"]
    call_id, _ = pack_tool_id(nonce(2), "", "", TARGET, prefix="srvtoolu_")
    found = {
        "type": "web_search_tool_result",
        "tool_use_id": call_id,
        "content": [
            {
                "type": "web_search_result",
                "url": page["web"]["uri"],
                "title": "morningstar.com",
                "encrypted_content": "",
                "page_age": None,
            }
        ],
    }
    citation = {
        "type": "web_search_result_location",
        "url": page["web"]["uri"],
        "title": "morningstar.com",
        "encrypted_index": "0",
        "cited_text": text,
    }
    query = '{"query":"bitcoin price January 1 2026"}'
    made, notes = steps(name, server_tools=frozenset({"web_search"}))
    assert made == [
        [],
        [
            start(285),
            PING,
            *tool(0, call_id, "web_search", query, "server_tool_use"),
            opened(1, found),
            closed(1),
            opened(2, TEXT),
            delta(2, "text_delta", text=text),
            delta(2, "citations_delta", citation=citation),
            closed(2),
            *end(
                "end_turn",
                285,
                479,
                430,
                server_tool_use={"web_search_requests": 1, "web_fetch_requests": 0},
            ),
        ],
    ]
    assert notes == {}


def test_a_refusal_in_mid_answer():
    details = {
        "type": "refusal",
        "category": None,
        "explanation": "Gemini stopped the answer: SAFETY.",
    }
    made, _ = steps("fx-stream-finish-safety")
    assert made == [
        [start(10), PING, opened(0, TEXT), delta(0, "text_delta", text="<redacted>")],
        [closed(0), *end("refusal", 10, 66, stop_details=details)],
    ]


def test_a_blocked_prompt():
    details = {
        "type": "refusal",
        "category": None,
        "explanation": "Gemini blocked the prompt: MODEL_ARMOR: The prompt violated Prompt "
        "Injection and Jailbreak filters.",
    }
    made, _ = steps("unary-prompt-blocked-model-armor-vertex", input_estimate=12)
    assert made == [
        [],
        [start(12, output=0), PING, *end("refusal", 12, 0, stop_details=details)],
    ]


def test_a_limit_that_thinking_used_up():
    made, _ = steps("unary-max-tokens-empty")
    assert made == [[], [start(15, output=0), PING, *end("max_tokens", 15, 2, 2)]]
