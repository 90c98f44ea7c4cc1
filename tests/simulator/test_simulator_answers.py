"""What the simulated model says, and how it is counted, signed and cut."""

import jsonschema
import pytest

from app.simulator.filling import Filler
from app.simulator.tools import choose_calls

OLD, NEW = "gemini-2.5-flash", "gemini-3.8-flash"


def declare(*names, **schemas):
    declarations = [{"name": name} for name in names]
    declarations += [{"name": n, "parametersJsonSchema": s} for n, s in schemas.items()]
    return [{"functionDeclarations": declarations}]


def user(text):
    return {"role": "user", "parts": [{"text": text}]}


def called(text, tools, **config):
    body = {"contents": [user(text)], "tools": tools}
    if config:
        body["toolConfig"] = {"functionCallingConfig": config}
    return [(call["name"], call["args"]) for call in choose_calls(body, with_ids=False)]


TWO = declare("look_up", "write_down")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("please look_up the word", ["look_up"]),
        ("write_down and look_up", ["write_down", "look_up"]),
        ("use a tool", ["look_up"]),
        ("use both tools", ["look_up", "write_down"]),
        ("look_up then write_down", ["look_up"]),
        ("how are you?", []),
        ("relook_up", []),
        ("Answer in text. Do NOT call any tools, not look_up either.", []),
        ("<system-reminder>look_up</system-reminder>hello", []),
    ],
)
def test_which_tools_are_called(text, names):
    assert [name for name, _ in called(text, TWO)] == names


def test_tools_that_are_words_need_to_be_spoken_of_as_tools():
    tools = declare("Read", "edit")
    assert called("Read this and edit it", tools) == []
    assert called("Use Read please", tools) == [("Read", {})]


def test_modes():
    assert called("look_up", TWO, mode="NONE") == []
    assert called("hello", TWO, mode="ANY") == [("look_up", {})]
    only = {"mode": "ANY", "allowedFunctionNames": ["write_down"]}
    assert called("look_up", TWO, **only) == [("write_down", {})]
    assert called("hello", TWO, mode="VALIDATED", allowedFunctionNames=["write_down"]) == []


def test_arguments_can_be_dictated():
    assert called('call look_up with {"word": "naïve", "n": [1]} now', TWO) == [
        ("look_up", {"word": "naïve", "n": [1]})
    ]


def test_quoted_words_become_arguments():
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "required": ["a", "b"],
    }
    assert called("look_up 'one' please", declare(look_up=schema)) == [
        ("look_up", {"a": "one", "b": "sample b"})
    ]


TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 30},
                "next": {"$ref": "#/$defs/node"},
            },
            "required": ["name"],
        }
    },
    "type": "object",
    "properties": {"root": {"$ref": "#/$defs/node"}},
    "required": ["root"],
}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        TREE,
        {"type": ["null", "integer"], "minimum": 7},
        {"type": "integer", "exclusiveMaximum": -3, "multipleOf": 5},
        {"type": "number", "exclusiveMinimum": 0.5},
        {"enum": [3, "x"]},
        {"const": None},
        {
            "anyOf": [
                {"type": "null"},
                {"type": "array", "items": {"type": "boolean"}, "minItems": 3},
            ]
        },
        {"oneOf": [{"type": "string", "format": "date-time"}, {"type": "integer"}]},
        {
            "allOf": [
                {"type": "object"},
                {"required": ["other"], "properties": {"other": {"type": "null"}}},
            ]
        },
        {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}]},
        {"type": "array", "maxItems": 0, "items": {"type": "string"}},
        {"type": "string", "maxLength": 3},
        {"type": "object", "minProperties": 1, "properties": {"a": {"type": "number"}}},
        {"type": "string", "format": "uuid"},
    ],
)
def test_values_satisfy_their_schema(schema):
    jsonschema.Draft202012Validator(schema).validate(Filler(schema).value())


def test_googles_own_schema_is_filled_too():
    schema = {
        "type": "OBJECT",
        "properties": {"a": {"type": "ARRAY", "items": {"type": "STRING", "enum": ["x"]}}},
        "required": ["a"],
    }
    assert Filler(schema).value() == {"a": ["x"]}


def test_the_system_instruction_is_told_on_request(ask):
    system = {"parts": [{"text": "Be brief."}]}
    question = "What is your system prompt?"
    assert ask.text(question, systemInstruction=system) == "My system instruction is: Be brief."
    assert ask.text(question) == "I have no system instruction."


def test_media_are_acknowledged(ask):
    parts = [
        {"inlineData": {"mimeType": "image/png", "data": "AAAAAAA="}},
        {"fileData": {"mimeType": "application/pdf", "fileUri": "https://example.com/a.pdf"}},
        {"text": "look"},
    ]
    assert ask.text([{"role": "user", "parts": parts}]) == (
        "I was given image/png (5 bytes), application/pdf at https://example.com/a.pdf.\n\n"
        "You said: look"
    )


def test_any_number_of_words(ask):
    assert len(ask.text("write 5000 words").split()) == 5000
    assert len(ask.chunks("write 5000 words")) == 386


def test_stop_sequences_are_not_shown(ask):
    answer = ask.whole("one END two", generationConfig={"stopSequences": ["two", "END"]})
    candidate = answer["candidates"][0]
    assert (candidate["content"]["parts"][0]["text"], candidate["finishReason"]) == (
        "You said: one ",
        "STOP",
    )


def test_the_limit_is_kept_thoughts_included(ask):
    answer = ask.whole("write 100 words", generationConfig={"maxOutputTokens": 20})
    usage = answer["usageMetadata"]
    assert answer["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert usage["candidatesTokenCount"] + usage["thoughtsTokenCount"] == 20


@pytest.mark.parametrize(
    ("model", "config", "thoughts"),
    [
        (NEW, {}, 2),
        (NEW, {"thinkingLevel": "LOW"}, 1),
        ("gemini-4-neon", {"thinkingLevel": "XHIGH"}, 4),
        ("gemini-3.6-flash", {"thinkingLevel": "MINIMAL"}, 0),
        (OLD, {"thinkingBudget": 0}, 0),
        (OLD, {"thinkingBudget": 1000}, 1),
        ("gemini-2.5-flash-lite", {}, 0),
    ],
)
def test_how_much_a_model_thinks(ask, model, config, thoughts):
    config = {"thinkingConfig": {"includeThoughts": True, **config}}
    made = ask.chunks("a", model=model, generationConfig=config)
    parts = [part for chunk in made for part in chunk["candidates"][0]["content"]["parts"]]
    assert sum(part.get("thought", False) for part in parts) == thoughts
    assert bool(made[-1]["usageMetadata"].get("thoughtsTokenCount")) == bool(thoughts)
    hidden = ask.chunks("a", model=model, generationConfig={"thinkingConfig": {}})
    assert not any("thought" in c["candidates"][0]["content"]["parts"][0] for c in hidden)


def signed(made):
    """For each chunk, its parts as (what it is, whether it is signed)."""
    return [
        [
            (part.get("text", next(iter(part))), "thoughtSignature" in part)
            for part in chunk["candidates"][0]["content"]["parts"]
        ]
        for chunk in made
    ]


def test_where_2_5_signs(ask):
    assert signed(ask.chunks("a", model=OLD)) == [
        [("You ", False)],
        [("said: ", False)],
        [("a", False)],
    ]
    assert signed(ask.chunks("a", model=OLD, tools=TWO))[0] == [("You ", True)]
    made = ask.chunks("use both tools", model=OLD, tools=TWO)
    assert signed(made) == [[("functionCall", True), ("functionCall", False)]]
    assert made[0]["candidates"][0]["finishMessage"] == "Model generated function call(s)."
    off = {"thinkingConfig": {"thinkingBudget": 0}}
    assert signed(ask.chunks("a", model=OLD, tools=TWO, generationConfig=off))[0] == [
        ("You ", False)
    ]


def test_where_3_and_later_sign(ask):
    assert signed(ask.chunks("a"))[-2:] == [[("a", False)], [("", True)]]
    made = ask.chunks("use both tools", tools=TWO)
    assert signed(made) == [[("functionCall", True)], [("functionCall", False)], [("", False)]]
    ids = [
        chunk["candidates"][0]["content"]["parts"][0]["functionCall"]["id"] for chunk in made[:2]
    ]
    assert len(set(ids)) == 2
    code = ask.chunks("compute 6*7", tools=[{"codeExecution": {}}])
    assert signed(code)[:2] == [[("executableCode", True)], [("codeExecutionResult", False)]]


def test_whole_answers_are_the_stream_put_together(ask):
    parts = ask.parts("explain, and use both tools", tools=TWO)
    assert [next(iter(part)) for part in parts] == ["text", "functionCall", "functionCall"]
    assert ["thoughtSignature" in part for part in parts] == [False, True, False]
    (only,) = ask.parts("a")
    assert only["text"] == "You said: a"
    assert "thoughtSignature" in only


def test_steps_are_told_apart_by_ids_and_signatures(ask):
    contents = [user("look_up then write_down then look_up")]
    tools = declare("look_up", "write_down")
    seen = []
    for _ in range(3):
        parts = ask.parts(contents, tools=tools)
        call = parts[0]["functionCall"]
        seen.append((call["name"], call["id"], parts[0]["thoughtSignature"]))
        reply = {"name": call["name"], "id": call["id"], "response": {"output": len(seen)}}
        contents += [
            {"role": "model", "parts": parts},
            {"role": "user", "parts": [{"functionResponse": reply}]},
        ]
    assert [name for name, _, _ in seen] == ["look_up", "write_down", "look_up"]
    assert len({call_id for _, call_id, _ in seen}) == len({sign for _, _, sign in seen}) == 3
    assert ask.text(contents, tools=tools) == (
        "The tool look_up returned: 1. The tool write_down returned: 2. "
        "The tool look_up returned: 3."
    )


def test_failed_tools_are_told(ask):
    contents = [
        user("look_up"),
        {"role": "model", "parts": ask.parts("look_up", tools=TWO)},
        {
            "role": "user",
            "parts": [{"functionResponse": {"name": "look_up", "response": {"error": "no net"}}}],
        },
    ]
    assert ask.text(contents, tools=TWO) == "The tool look_up failed: no net."


def test_sources_point_at_the_bytes_they_support(ask):
    made = ask.chunks("über Gemini", tools=[{"googleSearch": {}}])
    texts = (chunk["candidates"][0]["content"]["parts"][0]["text"] for chunk in made)
    text = "".join(texts).encode()
    grounding = made[-1]["candidates"][0]["groundingMetadata"]
    assert all("groundingMetadata" not in chunk["candidates"][0] for chunk in made[:-1])
    assert grounding["webSearchQueries"] == ["über Gemini"]
    for support in grounding["groundingSupports"]:
        segment = support["segment"]
        assert text[segment["startIndex"] : segment["endIndex"]].decode() == segment["text"]
        assert support["groundingChunkIndices"][0] < len(grounding["groundingChunks"])
    assert made[-1]["usageMetadata"]["toolUsePromptTokenCount"] == 102


def test_a_search_can_be_shown_as_it_ran(ask):
    config = {"includeServerSideToolInvocations": True}
    tools = [{"googleSearch": {}}, *declare("look_up")]
    parts = ask.parts("weather", tools=tools, toolConfig=config)
    assert [next(iter(part)) for part in parts] == ["toolCall", "toolResponse", "text"]
    assert parts[0]["toolCall"]["args"] == {"queries": ["weather"]}
    assert parts[0]["toolCall"]["id"] == parts[1]["toolResponse"]["id"]
    contents = [user("weather"), {"role": "model", "parts": parts}, user("thanks")]
    ask.whole(contents, tools=tools, toolConfig=config)


def test_pages_are_read(ask):
    answer = ask.whole("read https://example.com/a", tools=[{"urlContext": {}}])
    assert answer["candidates"][0]["urlContextMetadata"]["urlMetadata"] == [
        {
            "retrievedUrl": "https://example.com/a",
            "urlRetrievalStatus": "URL_RETRIEVAL_STATUS_SUCCESS",
        }
    ]


def test_sums_are_computed(ask):
    parts = ask.parts("compute 12 * -3", model=OLD, tools=[{"codeExecution": {}}])
    assert parts[:3] == [
        {"executableCode": {"language": "PYTHON", "code": "print(12 * -3)"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "-36\n"}},
        {"text": "The result is -36."},
    ]


def cached(answer):
    return answer["usageMetadata"].get("cachedContentTokenCount", 0)


def test_a_prefix_seen_before_is_cached_per_key_and_model(ask):
    turns = [user("a" * 20_000)]
    assert cached(ask.whole(turns)) == 0
    turns += [{"role": "model", "parts": [{"text": "b"}]}, user("c")]
    again = ask.whole(turns)
    assert cached(again) == 5000
    assert again["usageMetadata"]["promptTokenCount"] == 5002
    assert cached(ask.whole(turns, key="key-b")) == 0
    assert cached(ask.whole(turns, model="gemini-3.6-flash")) == 0
    assert cached(ask.whole([user("d"), *turns])) == 0


def test_short_prefixes_are_not_cached_unless_asked_for(simulator, ask):
    ask.whole("short")
    assert cached(ask.whole("short")) == 0
    simulator.cache_threshold = 1
    assert cached(ask.whole("short")) == 2


def test_routed_models_say_what_served(ask):
    assert ask.whole(model="gemini-3.5-flash")["modelVersion"] == "gemini-3.6-flash"
