"""What Google refuses, the simulator refuses, in the same words."""

import base64
import json
from pathlib import Path

import pytest

from app.simulator.signatures import Signer

RECORDINGS = Path(__file__).parents[1] / "recordings"
PRO, OLD, NEW = "gemini-4-neon", "gemini-2.5-flash", "gemini-3.8-flash"
PREVIEW = "gemini-3-flash-preview"
TOOL = {"functionDeclarations": [{"name": "look_up"}]}


def user(*parts):
    return {"role": "user", "parts": [{"text": p} if isinstance(p, str) else p for p in parts]}


def model(*parts):
    return {**user(*parts), "role": "model"}


def call(name="look_up", signature="skip_thought_signature_validator", **more):
    part = {"functionCall": {"name": name, "args": {}, **more}}
    return {**part, "thoughtSignature": signature} if signature else part


def result(name="look_up", **more):
    return {"functionResponse": {"name": name, "response": {"output": "x"}, **more}}


def thinking(**config):
    return {"generationConfig": {"thinkingConfig": config}}


def parameters(**schema):
    return {"tools": [{"functionDeclarations": [{"name": "f", "parameters": schema}]}]}


UNKNOWN = 'Invalid JSON payload received. Unknown name "{}"{}: Cannot find field.'
UNPAIRED = (
    "Please ensure that the number of function response parts is equal to the number of function "
    "call parts of the function call turn."
)
IMAGE = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frob": 1}, UNKNOWN.format("frob", "")),
        ({"labels": {"a": "b"}}, UNKNOWN.format("labels", "")),
        (
            {"generationConfig": {"maxTokens": 1}},
            UNKNOWN.format("maxTokens", " at 'generation_config'"),
        ),
        (
            {"contents": [{"parts": [{"text": "a", "cache_control": {}}]}]},
            UNKNOWN.format("cache_control", " at 'contents[0].parts[0]'"),
        ),
        (
            parameters(type="object", additionalProperties=False),
            UNKNOWN.format(
                "additionalProperties", " at 'tools[0].function_declarations[0].parameters'"
            ),
        ),
        (
            parameters(type=["string", "null"]),
            'Invalid JSON payload received. Unknown name "type" at '
            "'tools[0].function_declarations[0].parameters': Proto field is not repeating, cannot "
            "start list.",
        ),
        (
            {"contents": [user({"text": "a", **IMAGE})]},
            "Invalid value at 'contents[0].parts[0]' (oneof), oneof field 'data' is already set. "
            "Cannot set 'inlineData'",
        ),
        (
            {"generationConfig": {"maxOutputTokens": "many"}},
            "Invalid value at 'generation_config.max_output_tokens' (TYPE_INT32), \"many\"",
        ),
        (
            {"contents": [user({"inlineData": {"mimeType": "image/png", "data": "%"}})]},
            "Invalid value at 'contents[0].parts[0].inline_data.data' (TYPE_BYTES), Base64 "
            'decoding failed for "%"',
        ),
        (
            {"contents": []},
            "* GenerateContentRequest.contents: contents is not specified\n",
        ),
        (
            {"contents": [{"role": "user", "parts": []}]},
            "* GenerateContentRequest.contents[0].parts: contents.parts must not be empty.\n",
        ),
        (
            {"contents": [user({"thought": True})]},
            "* GenerateContentRequest.contents[0].parts[0].data: required oneof field 'data' must "
            "have one initialized field\n",
        ),
        (
            {"contents": [{"role": "assistant", "parts": [{"text": "a"}]}]},
            "Please use a valid role: user, model.",
        ),
        (
            {"contents": [user({"inlineData": {"mimeType": "image/gif", "data": "AAAA"}})]},
            "Unsupported MIME type: image/gif",
        ),
        ({"systemInstruction": user(IMAGE)}, "Only text is supported in system_instruction."),
        (
            {"contents": [user("a"), model("b")]},
            "Requests ending with a model turn are not supported.",
        ),
        ({"contents": [user("a"), model(call()), user("b")]}, UNPAIRED),
        ({"contents": [user("a"), model(call()), user(result(), result())]}, UNPAIRED),
        (
            {"contents": [user("a", result())]},
            "Please ensure that function response turn comes immediately after a function call "
            "turn.",
        ),
        (
            {"contents": [user("a"), model("b"), model(call()), user(result())]},
            "Please ensure that function call turn comes immediately after a user turn or after a "
            "function response turn.",
        ),
        (
            {"contents": [user("a"), model(call()), user(result("other"))]},
            "Please ensure that the name of each function response matches its function call.",
        ),
        (
            {"contents": [user("a"), model(call(id="1")), user(result(id="2"))]},
            "Please ensure that the id of each function response matches its function call.",
        ),
        (
            {"contents": [user("a"), model(call(signature=None)), user(result())]},
            "Function call is missing a thought_signature in functionCall parts. This is required "
            "for tools to work correctly, and missing thought_signature may lead to degraded model "
            "performance. Additional data, function call `default_api:look_up` , position 2. "
            "Please refer to https://ai.google.dev/gemini-api/docs/thought-signatures for more "
            "details.",
        ),
        (
            {"contents": [user("a"), model(call(signature="AAAA")), user(result())]},
            "Corrupted thought signature.",
        ),
        (
            thinking(thinkingLevel="LOW", thinkingBudget=100),
            "You can only set only one of thinking budget and thinking level.",
        ),
        (
            thinking(thinkingLevel="MINIMAL"),
            "Thinking level MINIMAL is not supported for this model.",
        ),
        (
            thinking(thinkingBudget=0),
            "Budget 0 is invalid. This model only works in thinking mode.",
        ),
        (
            {"model": PRO, **thinking(thinkingBudget=100)},
            "Thinking budget is not supported for this model.",
        ),
        (
            {"model": OLD, **thinking(thinkingLevel="LOW")},
            "Thinking level is not supported for this model.",
        ),
        (
            {"model": "gemini-2.5-pro", **thinking(thinkingBudget=100)},
            "The thinking budget 100 is invalid. Please choose a value between 128 and 32768.",
        ),
        (
            {"generationConfig": {"maxOutputTokens": 65537}},
            "Unable to submit request because it has a maxOutputTokens value of 65537 but the "
            "supported range is from 1 (inclusive) to 65537 (exclusive). Update the value and try "
            "again.",
        ),
        (
            {"generationConfig": {"stopSequences": list("abcdef")}},
            "* GenerateContentRequest.generation_config.stop_sequences: the number of stop "
            "sequences must not exceed 5.\n",
        ),
        (
            {"generationConfig": {"presencePenalty": 0.5}},
            "Penalty is not enabled for models/gemini-3.8-flash",
        ),
        (
            {"generationConfig": {"candidateCount": 2}},
            "Multiple candidates is not enabled for this model",
        ),
        (
            {"generationConfig": {"responseJsonSchema": {}}},
            "* GenerateContentRequest.generation_config.response_schema: only allowed when "
            "response_mime_type is `application/json`.\n",
        ),
        (
            {"model": OLD, "tools": [{"googleSearch": {}}, TOOL]},
            "Tool use with function calling is unsupported",
        ),
        (
            {"tools": [{"googleSearch": {}}, TOOL]},
            "Please enable tool_config.include_server_side_tool_invocations to use Built-in tools "
            "with Function calling.",
        ),
        (
            {
                "model": OLD,
                "tools": [TOOL],
                "generationConfig": {"responseMimeType": "application/json"},
            },
            "Function calling with a response mime type: 'application/json' is unsupported",
        ),
        ({"tools": [TOOL, TOOL]}, "Duplicate function declaration found: look_up"),
        (
            {
                "tools": [TOOL],
                "toolConfig": {"functionCallingConfig": {"allowedFunctionNames": ["look_up"]}},
            },
            "Allowed function names can only be set when the mode is ANY.",
        ),
        (
            {"toolConfig": {"functionCallingConfig": {"mode": "AUTO"}}},
            "Function calling config is set without function_declarations.",
        ),
        (
            parameters(type="OBJECT", properties={"a": {"type": "ARRAY"}}),
            "* GenerateContentRequest.tools[0].function_declarations[0].parameters.properties[a]"
            ".items: missing field.\n",
        ),
        (
            parameters(type="OBJECT", properties={"a": {"type": "STRING"}}, required=["b"]),
            "* GenerateContentRequest.tools[0].function_declarations[0].parameters.required[0]: "
            "property is not defined\n",
        ),
        (
            {"contents": [user("a" * 4_194_305)]},
            "The input token count (1048577) exceeds the maximum number of tokens allowed "
            "(1048576).",
        ),
    ],
)
def test_refused(ask, options, message):
    assert ask.refusal(**{"contents": "use look_up", **options}) == (400, message)


@pytest.mark.parametrize(
    "options",
    [
        {"contents": {"parts": {"text": "one object for a list of one"}}},
        {"generation_config": {"max_output_tokens": "50"}, "system_instruction": user("snake")},
        {"generationConfig": None, "tools": []},
        {"model": PREVIEW, "contents": [user("a"), model("prefill")]},
        {"contents": [user("a"), model(call(), call(signature=None)), user(result(), result())]},
        {"contents": [user("a"), model(call(signature=None)), user(result()), user("new turn")]},
        {"model": OLD, "contents": [user("a"), model(call(signature=None)), user(result())]},
        {"model": OLD, **thinking(thinkingBudget=0)},
        {"model": NEW, **thinking(thinkingBudget=-1)},
        {"model": PREVIEW, **thinking(thinkingLevel="minimal")},
        {"model": PRO, **thinking(thinkingLevel="XHIGH", includeThoughts=True)},
        {"tools": [TOOL], "generationConfig": {"responseMimeType": "application/json"}},
        {"contents": [user("a"), model(call(id="1")), user(result(id="1"))]},
        {"model": "gemini-3.6-flash", "serviceTier": "flex", "store": False},
        {"model": "gemini-9-quark"},
        {"model": "gemini-of-my-own"},
    ],
)
def test_accepted(ask, options):
    ask.whole(**{"contents": "use look_up", **options})


@pytest.mark.parametrize("name", ["gemini-2.0-flash", "gemini-1.5-pro", "claude-sonnet-5"])
def test_models_that_are_not_there(ask, name):
    assert ask.refusal(model=name) == (
        404,
        f"models/{name} is not found for API version v1beta, or is not supported for "
        "generateContent. Call ListModels to see the list of available models and their supported "
        "methods.",
    )


@pytest.mark.parametrize(
    "raw", [b"{", b"[" * 100_000, b'{"contents": NaN}', b"\xff\xfe", b"[1]", b'"text"', b"null"]
)
def test_bodies_that_are_no_request(ask, raw):
    address = f"{ask.simulator.base_url}/v1beta/models/{NEW}:generateContent?key=k"
    answer = ask.session.post(address, data=raw)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("Invalid JSON payload received.")


def test_the_error_names_the_field(ask):
    error = ask.post(generationConfig={"maxTokens": 1}).json()["error"]
    description = UNKNOWN.format("maxTokens", " at 'generation_config'")
    assert error["details"] == [
        {
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{"field": "generation_config", "description": description}],
        }
    ]


def test_signatures_belong_where_they_came_from():
    here = Signer("gemini", 3, "key-a", strict=False, size=100)
    part = call("look_up", None)
    part["thoughtSignature"] = here.sign(part, "seed")
    here.check(part)
    here.check({**part, "thoughtSignature": part["thoughtSignature"].replace("+", "-").rstrip("=")})
    Signer("gemini", 3, "key-b", strict=False, size=100).check(part)
    flipped = bytearray(base64.b64decode(part["thoughtSignature"]))
    flipped[-20] ^= 1
    wrong = [
        (here, {**part, "thoughtSignature": base64.b64encode(flipped).decode()}, "Corrupted"),
        (here, {**part, "thoughtSignature": part["thoughtSignature"] * 2}, "Corrupted"),
        (here, {**part, **call("other", None)}, "Invalid"),
        (here, {"text": "", "thoughtSignature": part["thoughtSignature"]}, "Invalid"),
        (Signer("gemini", 4, "key-a", strict=False, size=100), part, "Invalid"),
        (Signer("vertex", 3, "key-a", strict=False, size=100), part, "Invalid"),
        (Signer("gemini", 3, "key-b", strict=True, size=100), part, "Invalid"),
    ]
    for signer, moved, word in wrong:
        with pytest.raises(Exception, match=f"{word} thought signature"):
            signer.check(moved)


@pytest.mark.parametrize(
    "placeholder",
    [
        "skip_thought_signature_validator",
        "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I=",
        "context_engineering_is_the_way_to_go",
    ],
)
def test_placeholders_pass_on_3_and_later_only(ask, placeholder):
    turns = [user("a"), model(call(signature=placeholder)), user(result())]
    ask.whole(turns, model=NEW)
    assert ask.refusal(turns, model=OLD) == (400, "Corrupted thought signature.")


RECORDED = [
    entry.name.removesuffix(".request.json")
    for entry in sorted(RECORDINGS.glob("*.request.json"))
    if not entry.name.startswith(("error-", "count-"))
]


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_requests_are_read(ask, name):
    """Real bodies hold no field that the simulator doesn't know; later rules may refuse them."""
    body = json.loads((RECORDINGS / f"{name}.request.json").read_text())
    if "vertex" in name or "labels" in body or "cachedContent" in body:
        path = "/v1beta1/publishers/google/models/gemini-3-flash-preview:generateContent"
        answer = ask.post(body=body, path=path)
    else:
        answer = ask.post(body=body, model="gemini-3-flash-preview")
    assert "Unknown name" not in answer.text
    assert "Invalid value" not in answer.text
    assert answer.status_code in (200, 400, 403)
