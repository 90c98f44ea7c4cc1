"""What each part of a Messages request becomes, as whole bodies."""

import json

import pytest

from app.translate.conversation import Conversation
from app.translate.signatures import (
    PLACEHOLDER,
    SERVER_TOOL_PREFIX,
    note,
    pack_thinking,
    pack_tool_id,
    result_key,
    text_key,
    text_note,
    tool_key,
)
from app.translate.target import Target
from app.translate.tool_names import google_name
from app.translate.validation import load_count, load_messages
from tests.translate.google_schemas import check

NEW = Target("gemini", "gemini-3.8-flash", "a1b2c3d4")
OLD = Target("gemini", "gemini-2.5-flash", "a1b2c3d4")
COUNTER = Target("code_assist", "gemini-3.8-flash", "a1b2c3d4")
NONCE = "n" * 22
PNG = {"type": "base64", "media_type": "image/png", "data": "QUJD"}
TOOL = {
    "name": "look",
    "description": "Look",
    "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}},
}
DECLARED = {
    "name": "look",
    "description": "Look",
    "parametersJsonSchema": {"type": "object", "properties": {"at": {"type": "string"}}},
}


def user(*blocks):
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks):
    return {"role": "assistant", "content": list(blocks)}


def text(value):
    return {"type": "text", "text": value}


def conversation(target=NEW, **body):
    body = {"model": "claude-x", "max_tokens": 100, "messages": [user(text("hi"))], **body}
    return Conversation(load_messages(body), target.model)


def render(target=NEW, notes=None, **body):
    rendered = conversation(target, **body).render(target, notes or {})
    check(rendered)
    return rendered


def contents(*messages, target=NEW, notes=None, **body):
    return render(target, notes, messages=list(messages), **body)["contents"]


def test_a_plain_request_whole():
    assert render(
        system="Be brief.",
        messages=[{"role": "user", "content": "hi"}],
        temperature=0.5,
        stop_sequences=["END"],
    ) == {
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "generationConfig": {
            "maxOutputTokens": 100,
            "stopSequences": ["END"],
            "thinkingConfig": {"thinkingLevel": "LOW"},
        },
    }


def test_a_plain_request_for_an_older_model_keeps_its_sampling():
    assert render(OLD, temperature=0.5, top_p=0.9, top_k=3)["generationConfig"] == {
        "maxOutputTokens": 100,
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 3,
        "thinkingConfig": {"thinkingBudget": 0},
    }


@pytest.mark.parametrize(("asked", "sent"), [(0, None), (64, 64), (65, 64), (10**30, 64)])
def test_top_k_stays_within_what_gemini_takes(asked, sent):
    assert render(OLD, top_k=asked)["generationConfig"].get("topK") == sent


@pytest.mark.parametrize(
    ("model", "thinking", "effort", "config"),
    [
        ("gemini-3.8-flash", None, None, {"thinkingLevel": "LOW"}),
        ("gemini-3.6-flash", None, None, {"thinkingLevel": "MINIMAL"}),
        ("gemini-4-neon", None, "max", {"thinkingLevel": "XHIGH"}),
        ("gemini-3.8-flash", None, "max", {"thinkingLevel": "HIGH"}),
        ("gemini-2.5-flash", None, None, {"thinkingBudget": 0}),
        ("gemini-2.5-pro", None, None, {"thinkingBudget": 128}),
        ("gemini-3.8-flash", {"type": "disabled"}, None, {"thinkingLevel": "LOW"}),
        ("gemini-3.8-flash", {"type": "disabled"}, "high", {"thinkingLevel": "LOW"}),
        ("gemini-3.6-flash", {"type": "disabled"}, "max", {"thinkingLevel": "MINIMAL"}),
        ("gemini-2.5-flash", {"type": "disabled"}, "high", {"thinkingBudget": 0}),
        ("gemini-2.5-flash", None, "high", {"thinkingBudget": 24576}),
        ("gemini-3.8-flash", {"type": "adaptive"}, None, {"includeThoughts": True}),
        (
            "gemini-3.8-flash",
            {"type": "adaptive"},
            "medium",
            {"includeThoughts": True, "thinkingLevel": "MEDIUM"},
        ),
        (
            "gemini-3.8-flash",
            {"type": "adaptive", "display": "omitted"},
            "high",
            {"thinkingLevel": "HIGH"},
        ),
        (
            "gemini-2.5-flash",
            {"type": "adaptive"},
            None,
            {"includeThoughts": True, "thinkingBudget": -1},
        ),
        *(
            (
                "gemini-3.6-flash",
                {"type": "enabled", "budget_tokens": budget},
                None,
                {"includeThoughts": True, "thinkingLevel": level},
            )
            for budget, level in (
                (1024, "MINIMAL"),
                (1025, "LOW"),
                (8192, "LOW"),
                (16384, "MEDIUM"),
                (31999, "HIGH"),
            )
        ),
        (
            "gemini-3.8-flash",
            {"type": "enabled", "budget_tokens": 1024},
            None,
            {"includeThoughts": True, "thinkingLevel": "LOW"},
        ),
        (
            "gemini-2.5-flash",
            {"type": "enabled", "budget_tokens": 31999},
            None,
            {"includeThoughts": True, "thinkingBudget": 24576},
        ),
        (
            "gemini-2.5-pro",
            {"type": "enabled", "budget_tokens": 31999},
            None,
            {"includeThoughts": True, "thinkingBudget": 31999},
        ),
    ],
)
def test_thinking_is_mapped_for_each_generation(model, thinking, effort, config):
    body = {"max_tokens": 40_000, "output_config": {"effort": effort}}
    if thinking:
        body["thinking"] = thinking
    rendered = render(Target("gemini", model), **body)
    assert rendered["generationConfig"]["thinkingConfig"] == config


@pytest.mark.parametrize(
    ("thinking", "shown"),
    [
        (None, "off"),
        ({"type": "disabled"}, "off"),
        ({"type": "adaptive"}, "shown"),
        ({"type": "adaptive", "display": "summarized"}, "shown"),
        ({"type": "adaptive", "display": "omitted"}, "omitted"),
    ],
)
def test_how_thinking_is_shown(thinking, shown):
    assert conversation(thinking=thinking).reply_context(NEW).thinking == shown


def test_limits_are_clamped_and_more_stops_are_kept_for_the_gateway():
    stops = [f"s{number}" for number in range(7)]
    asked = conversation(max_tokens=128_000, stop_sequences=stops)
    config = asked.render(NEW, {})["generationConfig"]
    assert config["maxOutputTokens"] == 65_536
    assert config["stopSequences"] == stops[:5]
    assert asked.reply_context(NEW).stop_sequences == tuple(stops)


def test_roles_are_merged_and_empty_texts_dropped():
    assert contents(
        user(text("a"), text("")),
        {"role": "user", "content": "b"},
        assistant(text("c")),
        assistant(text("  ")),
        user(text("d")),
    ) == [
        {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]},
        {"role": "model", "parts": [{"text": "c"}]},
        {"role": "user", "parts": [{"text": "d"}]},
    ]


def test_system_messages_stay_where_they_are():
    assert contents(
        user(text("a")),
        {"role": "system", "content": "Environment", "output_config": {"effort": "medium"}},
        assistant(text("b")),
        user(text("c")),
        {"role": "system", "content": []},
    ) == [
        {"role": "user", "parts": [{"text": "a"}, {"text": "<system>\nEnvironment\n</system>"}]},
        {"role": "model", "parts": [{"text": "b"}]},
        {"role": "user", "parts": [{"text": "c"}]},
    ]


def test_images_and_documents():
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "QUJD"}
    assert contents(
        user(
            {"type": "image", "source": PNG, "cache_control": {"type": "ephemeral"}},
            {"type": "image", "source": {"type": "url", "url": "https://x.example/a.webp?b=c"}},
            {"type": "document", "source": pdf, "title": "T", "context": "C"},
            {"type": "document", "source": {"type": "text", "data": "plain"}},
            {"type": "document", "source": {"type": "content", "content": [text("in")]}},
            {
                "type": "search_result",
                "source": "https://s.example",
                "title": "S",
                "content": [text("found")],
            },
        )
    )[0]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": "QUJD"}},
        {"fileData": {"mimeType": "image/webp", "fileUri": "https://x.example/a.webp?b=c"}},
        {"text": "Document: T\nContext: C"},
        {"inlineData": {"mimeType": "application/pdf", "data": "QUJD"}},
        {"text": "plain"},
        {"text": "in"},
        {"text": "S (https://s.example)\nfound"},
    ]


def call(tool_id, name="look", **arguments):
    return {"type": "tool_use", "id": tool_id, "name": name, "input": arguments}


def result(tool_id, content=None, **extra):
    block = {"type": "tool_result", "tool_use_id": tool_id, **extra}
    return block | ({"content": content} if content is not None else {})


def test_results_go_back_in_call_order_before_everything_else():
    one, _ = pack_tool_id("1" * 22, "g1", "QUJD", NEW)
    two, _ = pack_tool_id("2" * 22, "g2", "", NEW)
    assert contents(
        user(text("q")),
        assistant(text("ok"), call(one, at="x"), call(two)),
        user(
            text("and"),
            result(two, [text("b"), {"type": "image", "source": PNG}], is_error=True),
            result(one, "a"),
        ),
        tools=[TOOL],
    )[1:] == [
        {
            "role": "model",
            "parts": [
                {"text": "ok"},
                {
                    "functionCall": {"name": "look", "args": {"at": "x"}, "id": "g1"},
                    "thoughtSignature": "QUJD",
                },
                {"functionCall": {"name": "look", "args": {}, "id": "g2"}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "look", "response": {"output": "a"}, "id": "g1"}},
                {
                    "functionResponse": {
                        "name": "look",
                        "response": {"error": "b"},
                        "id": "g2",
                        "parts": [{"inlineData": {"mimeType": "image/png", "data": "QUJD"}}],
                    }
                },
                {"text": "and"},
            ],
        },
    ]


def test_results_over_several_user_messages_are_one_turn():
    turn = contents(
        user(text("q")),
        assistant(call("t1"), call("t2")),
        user(result("t1", "a"), text("note")),
        {"role": "system", "content": "meanwhile"},
        user(result("t2", "b")),
        tools=[TOOL],
    )[2]["parts"]
    outputs = [part["functionResponse"]["response"]["output"] for part in turn[:2]]
    assert outputs == ["a", "b"]
    assert turn[2:] == [{"text": "note"}, {"text": "<system>\nmeanwhile\n</system>"}]


@pytest.mark.parametrize("target", [NEW, OLD])
def test_results_of_several_messages_go_back_in_call_order(target):
    """Gemini 2 gives no ids: there, the order alone tells which call a result belongs to."""
    asked = [
        user(text("q")),
        assistant(call("t1")),
        assistant(call("t2")),
        user(result("t2", "b")),
        user(result("t1", "a")),
    ]
    for messages in (asked, [*asked, assistant(text("so")), *asked]):  # some clients reuse ids
        for turn in contents(*messages, target=target, tools=[TOOL])[2::4]:
            outputs = [part["functionResponse"]["response"]["output"] for part in turn["parts"][:2]]
            assert outputs == ["a", "b"]


@pytest.mark.parametrize(
    ("target", "signature"),
    [
        (NEW, "QUJD"),
        (Target("gemini", "gemini-3.1-pro-preview", "ffffffff"), "QUJD"),
        (Target("gemini", "gemini-3.8-flash", "ffffffff", trust_foreign=False), PLACEHOLDER),
        (Target("gemini", "gemini-3.1-pro-preview", "a1b2c3d4", trust_foreign=False), PLACEHOLDER),
        (Target("gemini", "gemini-3.8-flash", "a1b2c3d4", trust_foreign=False), "QUJD"),
        (Target("gemini", "gemini-3.8-flash", "a1b2c3d4", trust_own=False), PLACEHOLDER),
        (Target("vertex", "gemini-3.8-flash", "a1b2c3d4"), PLACEHOLDER),
        (Target("gemini", "gemini-4-neon", "a1b2c3d4"), PLACEHOLDER),
        (OLD, None),
    ],
)
def test_a_signature_goes_only_where_it_is_valid(target, signature):
    tool_id, _ = pack_tool_id(NONCE, "", "QUJD", NEW)
    parts = contents(
        user(text("q")),
        assistant(call(tool_id)),
        user(result(tool_id)),
        target=target,
        tools=[TOOL],
    )[1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [signature]


def test_history_without_signatures_gets_one_placeholder_a_turn():
    parts = contents(
        user(text("q")),
        assistant(call("t1"), call("t2")),
        user(result("t1"), result("t2")),
        tools=[TOOL],
    )[1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [PLACEHOLDER, None]
    ids = [part["functionCall"]["id"] for part in parts]
    assert len(set(ids)) == 2


@pytest.mark.parametrize(("target", "signature"), [(OLD, None), (NEW, PLACEHOLDER)])
def test_the_signature_of_a_dropped_text_is_not_moved_to_the_call_behind(target, signature):
    held = pack_thinking("", "QUJD", target, length=1)
    parts = contents(
        user(text("q")),
        assistant({"type": "thinking", "thinking": "", "signature": held}, text("\n"), call("t1")),
        user(result("t1")),
        target=target,
        tools=[TOOL],
    )[1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [signature]


@pytest.mark.parametrize(
    ("content", "returned"),
    [
        ({"stdout": "1", "return_code": 0}, ("OUTCOME_OK", "1")),
        ({"stderr": "no", "return_code": 1}, ("OUTCOME_FAILED", "no")),
        ({"stdout": {"not": "text"}, "return_code": 0}, ("OUTCOME_OK", "")),
        (
            {"type": "code_execution_tool_result_error", "error_code": "execution_time_exceeded"},
            ("OUTCOME_DEADLINE_EXCEEDED", ""),
        ),
        (
            {"type": "code_execution_tool_result_error", "error_code": "unavailable"},
            ("OUTCOME_FAILED", "unavailable"),
        ),
    ],
)
def test_what_code_brought_goes_back_as_it_was(content, returned):
    tool_id, _ = pack_tool_id(NONCE, "", "", NEW, prefix=SERVER_TOOL_PREFIX)
    use = {"id": tool_id, "name": "code_execution", "input": {"code": "1"}}
    blocks = (
        {"type": "server_tool_use", **use},
        {"type": "code_execution_tool_result", "tool_use_id": tool_id, "content": content},
    )
    parts = contents(user(text("q")), assistant(*blocks), user(text("r")))[1]["parts"]
    result = parts[1]["codeExecutionResult"]
    assert (result["outcome"], result["output"]) == returned


def test_what_an_assistant_showed_is_kept():
    """Words stay where they are, pictures go to the user's turn behind: Gemini 3's are words."""
    image = {"type": "image", "source": PNG}
    shown = {"inlineData": {"mimeType": "image/png", "data": "QUJD"}}
    plain = {"type": "document", "source": {"type": "text", "data": "plain"}, "title": "T"}
    turns = contents(
        user(text("q")),
        assistant(text("see"), plain, image, call("t1")),
        user(text("and"), result("t1", "a")),
        assistant(image),
        tools=[TOOL],
    )
    assert [turn["role"] for turn in turns] == ["user", "model", "user"]
    assert turns[1]["parts"][:3] == [{"text": "see"}, {"text": "Document: T"}, {"text": "plain"}]
    assert "functionCall" in turns[1]["parts"][3]
    assert "functionResponse" in turns[2]["parts"][0]
    assert turns[2]["parts"][1:] == [shown, {"text": "and"}, shown]


def test_what_anthropics_own_server_did_is_told_to_gemini():
    sent = contents(
        user(text("q")),
        assistant(
            {"type": "compaction", "content": "Ann asked for the weather."},
            {"type": "compaction", "content": None},
            {
                "type": "mcp_tool_use",
                "id": "m1",
                "name": "look_up",
                "server_name": "weather",
                "input": {"city": "Köln"},
            },
            {
                "type": "mcp_tool_result",
                "tool_use_id": "m1",
                "is_error": False,
                "content": [text("sunny"), text("22 °C")],
            },
            {"type": "mcp_tool_result", "tool_use_id": "unknown", "content": "x"},
            text("It is sunny."),
        ),
        user(text("and now?")),
    )
    assert sent == [
        {"role": "user", "parts": [{"text": "q"}]},
        {
            "role": "model",
            "parts": [{"text": "Ann asked for the weather."}, {"text": "It is sunny."}],
        },
        {
            "role": "user",
            "parts": [
                {"text": 'weather: look_up {"city": "Köln"}\nsunny\n22 °C'},
                {"text": "MCP: a tool {}\nx"},
                {"text": "and now?"},
            ],
        },
    ]


def test_of_two_answers_with_one_text_each_keeps_its_own_signature():
    held = {
        "type": "thinking",
        "thinking": "hm",
        "signature": pack_thinking("", "T25l", NEW, length=4),
    }
    turns = contents(
        user(text("q")),
        assistant(held, text("Done")),
        user(text("r")),
        assistant(text("Done")),
        user(text("s")),
        notes={text_key("Done"): text_note([(0, 4, "VHdv")], NEW)},
    )
    assert turns[1]["parts"] == [{"text": "Done", "thoughtSignature": "T25l"}]
    assert turns[3]["parts"] == [{"text": "Done", "thoughtSignature": "VHdv"}]


@pytest.mark.parametrize(
    ("system", "sent"),
    [
        ("x-anthropic-billing-header: cc_version=1;", None),
        ("x-anthropic-billing-header: cc_version=1;\nBe brief.", "Be brief."),
        ([text("x-anthropic-billing-header: cc_version=1;"), text("Be brief.")], "Be brief."),
    ],
)
def test_the_billing_line_goes_and_nothing_else(system, sent):
    rendered = render(system=system)
    assert rendered.get("systemInstruction") == (sent and {"parts": [{"text": sent}]})
    other = conversation(system=json.loads(json.dumps(system).replace("=1", "=2")))
    assert conversation(system=system).affinity_key == other.affinity_key


def test_calls_in_neighbouring_messages_are_one_turn_with_one_placeholder():
    signed, _ = pack_tool_id(NONCE, "", "QUJD", NEW)
    for first, signature in (("t1", PLACEHOLDER), (signed, "QUJD")):
        parts = contents(
            user(text("q")),
            assistant(call(first)),
            assistant(call("t2")),
            user(result(first), result("t2")),
            tools=[TOOL],
        )[1]["parts"]
        assert [part.get("thoughtSignature") for part in parts] == [signature, None]


def test_signatures_in_the_store_come_back():
    long = "QUJD" * 1000
    tool_id, kept = pack_tool_id(NONCE, "g1", long, NEW)
    notes = kept | {
        text_key("Hello there"): text_note([(0, 5, "Rmlyc3Q="), (11, 11, "TGFzdA==")], NEW),
        result_key(NONCE): note("QmVoaW5k", NEW),
    }
    messages = (
        user(text("q")),
        assistant(text("Hello there"), call(tool_id)),
        user(result(tool_id, "a")),
    )
    asked = conversation(messages=list(messages), tools=[TOOL])
    assert set(asked.store_keys) == {
        text_key("Hello there"),
        result_key(NONCE),
        tool_key(NONCE),
    }
    assert contents(*messages, notes=notes, tools=[TOOL])[1]["parts"] == [
        {"text": "Hello", "thoughtSignature": "Rmlyc3Q="},
        {"text": " there"},
        {"text": "", "thoughtSignature": "TGFzdA=="},
        {"functionCall": {"name": "look", "args": {}, "id": "g1"}, "thoughtSignature": long},
        {"text": "", "thoughtSignature": "QmVoaW5k"},
    ]


def test_a_thinking_block_carries_its_own_signature_and_the_next_parts():
    def thinking(own, following, length=0):
        signature = pack_thinking(own, following, NEW, length=length)
        return {"type": "thinking", "thinking": "hm", "signature": signature}

    assert contents(
        user(text("q")),
        assistant(thinking("T3du", "TmV4dA==", 2), text("ab c")),
        user(text("r")),
        assistant({"type": "thinking", "thinking": "claude's", "signature": "EqQB"}, text("d")),
        assistant({"type": "redacted_thinking", "data": "x"}, text("e")),
        user(text("s")),
    ) == [
        {"role": "user", "parts": [{"text": "q"}]},
        {
            "role": "model",
            "parts": [
                {"text": "hm", "thought": True, "thoughtSignature": "T3du"},
                {"text": "ab", "thoughtSignature": "TmV4dA=="},
                {"text": " c"},
            ],
        },
        {"role": "user", "parts": [{"text": "r"}]},
        {"role": "model", "parts": [{"text": "d"}, {"text": "e"}]},
        {"role": "user", "parts": [{"text": "s"}]},
    ]


@pytest.mark.parametrize(
    ("choice", "calling", "one"),
    [
        (None, None, False),
        ({"type": "auto"}, None, False),
        ({"type": "auto", "disable_parallel_tool_use": True}, None, True),
        ({"type": "any"}, {"mode": "ANY"}, False),
        ({"type": "none"}, {"mode": "NONE"}, False),
        (
            {"type": "tool", "name": "look"},
            {"mode": "ANY", "allowedFunctionNames": ["look"]},
            False,
        ),
    ],
)
def test_tool_choice(choice, calling, one):
    asked = conversation(tools=[TOOL], tool_choice=choice)
    rendered = asked.render(NEW, {})
    check(rendered)
    assert rendered["tools"] == [{"functionDeclarations": [DECLARED]}]
    assert rendered.get("toolConfig", {}).get("functionCallingConfig") == calling
    assert asked.reply_context(NEW).one_call_only is one


def test_names_that_google_refuses_are_mapped_and_mapped_back():
    names = ["9lives", "a" * 100, "a" * 99 + "b", "mcp__x-y", "ok"]
    tools = [{**TOOL, "name": name} for name in names]
    asked = conversation(tools=tools, tool_choice={"type": "tool", "name": "9lives"})
    rendered = asked.render(NEW, {})
    check(rendered)
    theirs = [tool["name"] for tool in rendered["tools"][0]["functionDeclarations"]]
    back = asked.reply_context(NEW).tool_names
    assert [back.get(name, name) for name in theirs] == names
    assert len(set(theirs)) == 5
    assert all(len(name) <= 64 for name in theirs)
    chosen = rendered["toolConfig"]["functionCallingConfig"]["allowedFunctionNames"]
    assert [back[name] for name in chosen] == ["9lives"]


def test_names_stay_apart_even_where_one_is_made_like_anothers_substitute():
    names = [google_name("a b"), "a b", "a/b"]
    asked = conversation(tools=[{**TOOL, "name": name} for name in names])
    declared = asked.render(NEW, {})["tools"][0]["functionDeclarations"]
    theirs = [tool["name"] for tool in declared]
    assert len(set(theirs)) == 3
    back = asked.reply_context(NEW).tool_names
    assert [back.get(name, name) for name in theirs] == names


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ([("addition", "look")], ["at"]),
        ([("removal", "look")], []),
        ([("removal", "look"), ("addition", "look")], ["at"]),
        ([("addition", "new look")], ["how"]),
        ([("removal", "look"), ("addition", "new look")], ["how"]),
        ([("addition", "new look"), ("removal", "look"), ("addition", "look")], ["how"]),
        ([("removal", "new look")], []),
    ],
)
def test_tools_change_on_the_way(changes, fields):
    schema = {"type": "object", "properties": {"how": {"type": "string"}}}
    tools = {
        "look": {"type": "tool_reference", "name": "look"},
        "new look": {
            "type": "tool_definition",
            "definition": {"name": "look", "input_schema": schema, "defer_loading": True},
        },
    }
    blocks = [{"type": f"tool_{change}", "tool": tools[tool]} for change, tool in changes]
    rendered = render(
        messages=[user(text("q")), {"role": "system", "content": blocks}], tools=[TOOL]
    )
    declared = rendered.get("tools", [{"functionDeclarations": []}])[0]["functionDeclarations"]
    assert [field for tool in declared for field in tool["parametersJsonSchema"]["properties"]] == (
        fields
    )


def test_server_tools_and_functions_together():
    search = {"type": "web_search_20260318", "name": "web_search", "max_uses": 3}
    code = {"type": "code_execution_20250825", "name": "code_execution"}
    fetch = {"type": "web_fetch_20250910", "name": "web_fetch"}
    rendered = render(tools=[search, TOOL, code, fetch])
    assert rendered["tools"] == [
        {"functionDeclarations": [DECLARED]},
        {"googleSearch": {}},
        {"codeExecution": {}},
        {"urlContext": {}},
    ]
    assert rendered["toolConfig"] == {"includeServerSideToolInvocations": True}
    vertex = render(Target("vertex", "gemini-3.8-flash"), tools=[search, TOOL])
    assert "toolConfig" not in vertex
    assert render(OLD, tools=[search])["tools"] == [{"googleSearch": {}}]


@pytest.mark.parametrize("target", [NEW, OLD])
def test_no_server_tool_runs_where_the_client_wants_none(target):
    search = {"type": "web_search_20250305", "name": "web_search"}
    none = {"type": "none"}
    assert "tools" not in render(target, tools=[search], tool_choice=none)
    both = render(target, tools=[search, TOOL], tool_choice=none)
    assert both["tools"] == [{"functionDeclarations": [DECLARED]}]
    assert both["toolConfig"] == {"functionCallingConfig": {"mode": "NONE"}}


@pytest.mark.parametrize(
    ("schema", "declared"),
    [
        ({"type": "object", "properties": {}, "additionalProperties": False}, None),
        ({"type": "object", "description": "Nothing"}, None),
        ({"type": "object", "additionalProperties": {"type": "string"}}, ...),
        (
            {"type": "object", "patternProperties": {"^x": {}}},
            {"type": "object", "description": '("patternProperties": {"^x": {}})'},
        ),
    ],
)
def test_only_functions_without_parameters_have_none(schema, declared):
    tools = render(tools=[{"name": "f", "input_schema": schema}])["tools"]
    wanted = schema if declared is ... else declared
    assert tools[0]["functionDeclarations"][0].get("parametersJsonSchema") == wanted


@pytest.mark.parametrize(
    ("kind", "name", "field"),
    [
        ("bash_20250124", "bash", "command"),
        ("text_editor_20250728", "str_replace_based_edit_tool", "path"),
        ("memory_20250818", "memory", "command"),
        ("computer_20250124", "computer", "action"),
    ],
)
def test_anthropics_client_tools_are_functions_of_theirs(kind, name, field):
    declared = render(tools=[{"type": kind, "name": name}])["tools"][0]["functionDeclarations"]
    assert [tool["name"] for tool in declared] == [name]
    assert field in declared[0]["parametersJsonSchema"]["properties"]


def test_structured_output_alone_and_with_tools():
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}
    wanted = {
        "responseMimeType": "application/json",
        "responseJsonSchema": {
            "type": "object",
            "properties": {"a": {"enum": [1]}},
            "required": ["a"],
        },
    }
    for body in (
        {"output_config": {"format": {"type": "json_schema", "schema": schema}}},
        {"output_format": {"type": "json_schema", "schema": schema}},
        {"output_format": {"type": "json_schema", "schema": schema}, "tools": [TOOL]},
    ):
        config = render(**body)["generationConfig"]
        assert {key: config[key] for key in wanted} == wanted
    for tool in (TOOL, {"type": "web_search_20250305", "name": "web_search"}):
        older = render(OLD, output_format={"type": "json_schema", "schema": schema}, tools=[tool])
        assert "responseMimeType" not in older["generationConfig"]
        assert '"const": 1' in older["systemInstruction"]["parts"][-1]["text"]


def test_prefill_is_continued_or_asked_to_be():
    messages = [user(text("q")), assistant(text("It is "))]
    older = conversation(OLD, messages=messages)
    assert older.render(OLD, {})["contents"][-1] == {"role": "model", "parts": [{"text": "It is "}]}
    newer = conversation(messages=messages)
    rendered = newer.render(NEW, {})["contents"]
    assert [content["role"] for content in rendered] == ["user", "model", "user"]
    assert "where it ends" in rendered[-1]["parts"][0]["text"]
    assert newer.reply_context(NEW).prefill == "It is"
    assert older.reply_context(OLD).prefill == ""


@pytest.mark.parametrize(
    ("behind", "end"),
    [
        ({"role": "system", "content": [], "output_config": {"effort": "low"}}, "where it ends"),
        ({"role": "user", "content": " "}, "(continue)"),
        (user({"type": "hologram"}), "(continue)"),
        (assistant({"type": "redacted_thinking", "data": "x"}), "(continue)"),
    ],
)
def test_no_request_to_a_new_model_ends_with_the_model(behind, end):
    turns = contents(user(text("q")), assistant(text("It is")), behind)
    assert [turn["role"] for turn in turns] == ["user", "model", "user"]
    assert end in turns[-1]["parts"][0]["text"]


def test_counting_asks_with_the_whole_request():
    body = {
        "model": "claude-x",
        "system": "S",
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [TOOL],
    }
    hi = [{"role": "user", "parts": [{"text": "hi"}]}]
    rest = {
        "contents": hi,
        "systemInstruction": {"parts": [{"text": "S"}]},
        "tools": [{"functionDeclarations": [DECLARED]}],
    }
    asked = Conversation(load_count(body), "gemini-3.8-flash")
    assert asked.render_count(NEW, {}) == {
        "generateContentRequest": {"model": "models/gemini-3.8-flash", **rest}
    }
    assert asked.render_count(Target("vertex", "gemini-3.8-flash"), {}) == rest
    envelope = asked.render_count(Target("code_assist", "gemini-3.8-flash"), {})
    assert list(envelope) == ["request"]
    assert envelope["request"]["model"] == "models/gemini-3.8-flash"
    assert envelope["request"]["contents"][-1:] == hi
    assert 10 < asked.estimate() < 200
    search = {"type": "web_search_20250305", "name": "web_search"}
    both = Conversation(load_count({**body, "tools": [TOOL, search]}), "gemini-3.8-flash")
    google = {**rest, "tools": [*rest["tools"], {"googleSearch": {}}]}
    flag = {"toolConfig": {"includeServerSideToolInvocations": True}}
    assert both.render_count(NEW, {}) == {
        "generateContentRequest": {"model": "models/gemini-3.8-flash", **google, **flag}
    }
    assert both.render_count(Target("vertex", "gemini-3.8-flash"), {}) == google


def test_code_assist_counts_no_thoughts_and_no_empty_turns():
    thinking = {
        "type": "thinking",
        "thinking": "hm",
        "signature": pack_thinking("T3du", "", COUNTER),
    }
    asked = conversation(messages=[user(text("q")), assistant(thinking), user(text("r"))])
    counted = asked.render_count(COUNTER, {})["request"]["contents"]
    assert [content["parts"][0]["text"] for content in counted[1:]] == ["q", "r"]


def test_the_account_of_a_tool_loop_is_preferred():
    tool_id, _ = pack_tool_id(NONCE, "", "", NEW)
    loop = [user(text("q")), assistant(call(tool_id)), user(result(tool_id))]
    assert conversation(messages=loop, tools=[TOOL]).preferred_account == "a1b2c3d4"
    over = [*loop, assistant(text("done")), user(text("next"))]
    assert conversation(messages=over, tools=[TOOL]).preferred_account == ""


def test_a_resumed_request_ends_with_what_the_client_has():
    resumed = conversation(OLD).resumed("So far")
    assert resumed.render(OLD, {})["contents"][-1] == {
        "role": "model",
        "parts": [{"text": "So far"}],
    }


@pytest.mark.parametrize("target", [OLD, NEW])
def test_only_the_clients_own_prefill_is_taken_off_an_answer(target):
    """What was sent before a cut is the splicer's to find: taken off twice, text would be lost."""
    said = "as it was said before"
    plain = conversation(target)
    assert plain.resumed(said).reply_context(target).prefill == ""
    assert plain.resumed("as it was").resumed(said).reply_context(target).prefill == ""
    prefilled = conversation(target, messages=[user(text("q")), assistant(text("Going on"))])
    assert prefilled.reply_context(target).prefill == "Going on"
    assert prefilled.resumed(said).reply_context(target).prefill == "Going on"
