"""Every recorded answer comes out whole, in order, and the same through the official SDK."""

import json
import re
from itertools import pairwise

import anthropic
import httpx2 as httpx
import pytest
from answers import (
    NO_ANSWER,
    TARGET,
    answers,
    check_grammar,
    chunks,
    context_for,
    fold,
    good_answers,
    nonces,
    text_of,
    translate,
)

from app.translate import signatures as sig
from app.translate.errors import BadAnswer
from app.translate.sse import encode
from app.translate.stream import StreamTranslator

NAMES = good_answers()
MODES = ["shown", "omitted", "off"]


def parts_of(some_chunks):
    for chunk in some_chunks:
        for candidate in chunk.get("candidates", []):
            yield from candidate.get("content", {}).get("parts", [])


def put(holder, path, value):
    """Set one streamed argument: a slow and plain second opinion on JSON paths."""
    steps = re.findall(r"[A-Za-z_]+|\d+", path)
    for step, following in pairwise(steps):
        fresh = [] if following.isdigit() else {}
        if step.isdigit():
            if int(step) == len(holder):
                holder.append(fresh)
            holder = holder[int(step)]
        else:
            holder = holder.setdefault(step, fresh)
    last = steps[-1]
    if last.isdigit():
        if int(last) == len(holder):
            holder.append("")
        holder[int(last)] += value
    else:
        holder[last] = holder.get(last, "") + value


def calls_of(some_chunks):
    calls = []
    for part in parts_of(some_chunks):
        call = part.get("functionCall")
        if call is None:
            continue
        if "name" in call:
            calls.append([call["name"], call.get("id", ""), call.get("args", {})])
        for piece in call.get("partialArgs", []):
            put(calls[-1][2], piece["jsonPath"], piece["stringValue"])
    return calls


def usage_of(some_chunks, context):
    last = {}
    for chunk in some_chunks:
        last |= chunk.get("usageMetadata", {})
    cached = last.get("cachedContentTokenCount", 0)
    thoughts = last.get("thoughtsTokenCount", 0)
    return {
        "input_tokens": last.get("promptTokenCount", context.input_estimate())
        - cached
        + last.get("toolUsePromptTokenCount", 0),
        "cache_read_input_tokens": cached,
        "output_tokens": last.get("candidatesTokenCount", 0) + thoughts,
        "output_tokens_details": {"thinking_tokens": thoughts},
    }


def stop_of(some_chunks, calls):
    reason = ""
    for chunk in some_chunks:
        if "blockReason" in chunk.get("promptFeedback", {}):
            return "refusal"
        for candidate in chunk.get("candidates", []):
            reason = candidate.get("finishReason", reason)
    if reason == "STOP":
        return "tool_use" if calls else "end_turn"
    return {"MAX_TOKENS": "max_tokens", "SAFETY": "refusal", "RECITATION": "refusal"}[reason]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_all_of_the_answer_comes_out(name, mode):
    context = context_for(name, thinking=mode, input_estimate=7)
    recorded = chunks(name)
    events, _, translator = translate(recorded, context)
    check_grammar(events)
    message = fold(events)
    recorded = chunks(name)

    texts = [p["text"] for p in parts_of(recorded) if "text" in p]
    visible = [p["text"] for p in parts_of(recorded) if "text" in p and not p.get("thought")]
    thoughts = [p["text"] for p in parts_of(recorded) if p.get("thought")]
    assert len(texts) == len(visible) + len(thoughts)
    assert text_of(message) == "".join(visible)
    thinking = [b["thinking"] for b in message["content"] if b["type"] == "thinking"]
    assert "".join(thinking) == ("".join(thoughts) if mode == "shown" else "")
    assert bool(thinking) >= (bool(thoughts) and mode != "off")
    if mode == "off":
        assert thinking == []

    calls = calls_of(recorded)
    uses = [b for b in message["content"] if b["type"] == "tool_use"]
    assert [[b["name"], sig.unpack_tool_id(b["id"]).call_id, b["input"]] for b in uses] == calls

    assert message["stop_reason"] == stop_of(recorded, calls)
    assert (message["stop_details"] is not None) == (message["stop_reason"] == "refusal")
    expected = usage_of(recorded, context)
    assert {name: message["usage"][name] for name in expected} == expected
    assert {name: translator.usage[name] for name in expected} == expected
    served = [c["modelVersion"] for c in recorded if "modelVersion" in c]
    assert translator.served_model == (served[-1] if served else "")
    assert message["model"] == "claude-sonnet-5"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_every_signature_comes_back_on_its_part(name, mode):
    """What a client keeps, with the notes, holds each signature at its own part."""
    events, notes, _ = translate(chunks(name), context_for(name, thinking=mode))
    content = fold(events)["content"]
    origin = sig.Origin.of(TARGET)
    came_back = []
    for at, block in enumerate(content):
        tail = "".join(b["text"] for b in content[at:] if b["type"] == "text")
        if block["type"] == "text":
            for mark in sig.read_text_note(notes.get(sig.text_key(block["text"]), "")):
                assert mark.signed.origin == origin
                came_back.append(("text", tail[mark.start : mark.end], mark.signed.signature))
        elif block["type"] == "tool_use":
            ref = sig.unpack_tool_id(block["id"])
            signed = ref.signed or sig.read_note(notes.get(sig.tool_key(ref.nonce), ""))
            if signed:
                assert signed.origin == origin
                came_back.append(("functionCall", block["name"], signed.signature))
        elif block["type"] == "server_tool_use":
            ref = sig.unpack_tool_id(block["id"])
            raw = sig.read_part_note(notes.get(sig.tool_key(ref.nonce), ""))
            if raw:
                came_back.append(("toolCall", raw[0]["toolCall"], raw[0]["thoughtSignature"]))
                assert ref.signed.signature == raw[0]["thoughtSignature"]
            elif ref.signed:
                code = block["input"]["code"]
                came_back.append(("executableCode", code, ref.signed.signature))
        elif block["type"] == "web_search_tool_result":
            ref = sig.unpack_tool_id(block["tool_use_id"])
            raw = sig.read_part_note(notes.get(sig.result_key(ref.nonce), ""))
            if raw:
                response = raw[0]["toolResponse"]
                came_back.append(("toolResponse", response, raw[0]["thoughtSignature"]))

    identity = {
        "text": lambda text: text,
        "functionCall": lambda call: call["name"],
        "executableCode": lambda code: code["code"],
        "toolCall": lambda call: call,
        "toolResponse": lambda response: response,
    }
    sent = []
    for part in parts_of(chunks(name)):
        if "thoughtSignature" in part:
            kind = next(kind for kind in identity if kind in part)
            sent.append((kind, identity[kind](part[kind]), part["thoughtSignature"]))
    assert came_back == sent


@pytest.mark.parametrize("mode", ["shown", "omitted"])
@pytest.mark.parametrize(
    "name", ["stream-thoughts-then-text-gemini25pro", "fx-stream-thoughts-signed-call"]
)
def test_a_thinking_block_alone_carries_the_signature_of_the_part_behind(name, mode):
    events, _, _ = translate(chunks(name), context_for(name, thinking=mode))
    first = fold(events)["content"][0]
    (part,) = [p for p in parts_of(chunks(name)) if "thoughtSignature" in p]
    assert sig.unpack_thinking(first["signature"]) == sig.ThinkingRef(
        own=None,
        following=sig.Signed(part["thoughtSignature"], sig.Origin.of(TARGET)),
        length=len(part.get("text", "")),
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_official_sdk_reads_the_same_message(name):
    events, _, _ = translate(chunks(name), context_for(name, thinking="shown"))
    body = b"".join(map(encode, events))

    def answer(request):
        headers = {"content-type": "text/event-stream; charset=utf-8"}
        return httpx.Response(200, headers=headers, content=body)

    client = anthropic.Anthropic(
        api_key="any",
        base_url="http://gateway.test",
        http_client=httpx.Client(transport=httpx.MockTransport(answer)),
    )
    with client.messages.stream(
        model="claude-sonnet-5",
        max_tokens=100,
        messages=[{"role": "user", "content": "hello"}],
    ) as stream:
        final = stream.get_final_message()
    ours = fold(events)
    theirs = json.loads(json.dumps(final.to_dict(mode="json"), default=str))
    for block in (*theirs["content"], *ours["content"]):
        block.pop("parsed_output", None)
        if block["type"] == "text" and block.get("citations") is None:
            block["citations"] = None
    assert theirs == ours
    anthropic.types.Message.model_validate(ours)  # every block is one the SDK knows


@pytest.mark.parametrize("name", sorted(NO_ANSWER & set(answers())))
def test_an_answer_that_is_none_is_never_shown_as_a_good_end(name):
    with pytest.raises(BadAnswer) as caught:
        translate(chunks(name), context_for(name, thinking="off"))
    assert caught.value.retryable


@pytest.mark.parametrize("name", NAMES)
def test_text_leaves_with_its_chunk_unless_a_search_holds_it(name):

    context = context_for(name)
    if "web_search" in context.server_tools:
        return
    translator = StreamTranslator(context, nonces())
    for chunk in chunks(name):
        wanted = "".join(
            p["text"] for p in parts_of([chunk]) if "text" in p and not p.get("thought")
        )
        events = translator.feed(chunk)
        came = [e["delta"]["text"] for e in events if "text" in e.get("delta", {})]
        assert "".join(came) == wanted
