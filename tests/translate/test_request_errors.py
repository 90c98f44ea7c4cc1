"""Bad requests are refused early, in one line that names the field as Anthropic does."""

import msgspec
import pytest

from app.translate.conversation import Conversation
from app.translate.errors import InvalidRequest, client_message
from app.translate.target import Target
from app.translate.validation import load_count, load_messages

GOOD = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
CALL = {
    "role": "assistant",
    "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}],
}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1"}]}
USER = GOOD["messages"][0]
TOOL = {"name": "f", "input_schema": {"type": "object"}}


def image(**source):
    return [
        {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image", **source}]}
    ]


def called(use=(), answer=()):
    use = {"type": "tool_use", "id": "t1", "name": "f", "input": {}, **dict(use)}
    answer = {"type": "tool_result", "tool_use_id": "t1", "content": "x", **dict(answer)}
    return {
        "messages": [
            USER,
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [answer]},
        ]
    }


def refusal(gemini="gemini-3.8-flash", **change):
    body = {key: value for key, value in {**GOOD, **change}.items() if value is not ...}
    with pytest.raises(InvalidRequest) as caught:
        target = Target("gemini", gemini)
        Conversation(load_messages(body), gemini).render(target, {})
    assert str(caught.value) == caught.value.message
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": ...}, "max_tokens: Field required"),
        ({"model": ...}, "model: Field required"),
        ({"messages": ...}, "messages: Field required"),
        ({"max_tokens": "x"}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": True}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": 1.5}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": -1}, "max_tokens: Input should be greater than or equal to 1"),
        ({"model": 7}, "model: Input should be a valid string"),
        ({"messages": "hi"}, "messages: Input should be a valid list"),
        ({"messages": ["hi"]}, "messages.0: Input should be an object"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": [{"content": "x"}]}, "messages.0.role: Field required"),
        (
            {"messages": [{"role": "robot", "content": "x"}]},
            "messages.0.role: Input should be 'user' or 'assistant'",
        ),
        ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
        (
            {"messages": [{"role": "user", "content": 7}]},
            "messages.0.content: Input should be a valid string or list",
        ),
        (
            {"messages": [{"role": "user", "content": ""}]},
            "messages.0: all messages must have non-empty content except for the optional final "
            "assistant message",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "hologram"}]}]},
            "messages: nothing in them can be sent to Gemini",
        ),
        ({"stream": "yes"}, "stream: Input should be a valid boolean"),
        (called({"id": 1}), "messages.1.content.0.id: Input should be a valid string"),
        (called({"name": None}), "messages.1.content.0.name: Field required"),
        (called({"input": "x"}), "messages.1.content.0.input: Input should be an object"),
        (
            called(answer={"tool_use_id": 1}),
            "messages.2.content.0.tool_use_id: Input should be a valid string",
        ),
        (
            called(answer={"is_error": 1}),
            "messages.2.content.0.is_error: Input should be a valid boolean",
        ),
        (
            called(answer={"content": 1}),
            "messages.2.content.0.content: Input should be a valid string or list",
        ),
        (
            called(answer={"content": [{"type": "image", "source": 1}]}),
            "messages.2.content.0.content.0.source: Input should be an object",
        ),
        ({"temperature": 9}, "temperature: Input should be between 0 and 1"),
        ({"temperature": "warm"}, "temperature: Input should be a valid number"),
        ({"top_p": -0.1}, "top_p: Input should be between 0 and 1"),
        ({"top_k": -1}, "top_k: Input should be greater than or equal to 0"),
        (
            {"stop_sequences": ["x", " "]},
            "stop_sequences.1: each stop sequence must contain non-whitespace",
        ),
        ({"stop_sequences": "x"}, "stop_sequences: Input should be a valid list"),
        ({"stop_sequences": [1]}, "stop_sequences.0: Input should be a valid string"),
        ({"system": 7}, "system: Input should be a valid string or list"),
        (
            {"messages": image(source={"type": "base64", "media_type": "image/png"})},
            "messages.0.content.1.source.data: Field required",
        ),
        (
            {"messages": image(source={"type": "base64", "media_type": "image/png", "data": "?"})},
            "messages.0.content.1.source.data: Input is not valid base64",
        ),
        (
            {
                "messages": image(
                    source={"type": "base64", "media_type": "image/GIF", "data": "QQ=="}
                )
            },
            "messages.0.content.1.source.media_type: Gemini takes no image/gif; "
            "send png, jpeg or webp",
        ),
        (
            {"messages": image(source={"type": "url", "url": "https://x.example/a.gif"})},
            "messages.0.content.1.source.url: Gemini takes no image/gif; send png, jpeg or webp",
        ),
        (
            {"messages": image(source={"type": "base64", "media_type": "image/png", "data": ""})},
            "messages.0.content.1.source.data: Input is not valid base64",
        ),
        ({"messages": image()}, "messages.0.content.1.source: Field required"),
        (
            {"messages": image(source={"type": "file", "file_id": "f"})},
            "messages.0.content.1.source.type: files are not kept by this gateway; "
            "send base64 or url",
        ),
        (
            {"messages": [USER, CALL], "tools": [TOOL]},
            "messages.1: `tool_use` ids were found without `tool_result` blocks immediately "
            "after: t1. Each `tool_use` block must have a corresponding `tool_result` block in the "
            "next message.",
        ),
        (
            {"messages": [USER, CALL, USER], "tools": [TOOL]},
            "messages.1: `tool_use` ids were found without `tool_result` blocks immediately "
            "after: t1. Each `tool_use` block must have a corresponding `tool_result` block in the "
            "next message.",
        ),
        (
            {"messages": [RESULT], "tools": [TOOL]},
            "messages.0.content.0: unexpected `tool_use_id` found in `tool_result` blocks: t1. "
            "Each `tool_result` block must have a corresponding `tool_use` block in the previous "
            "message.",
        ),
        (
            {"messages": [USER, CALL, RESULT, RESULT], "tools": [TOOL]},
            "messages.3.content.0: each tool_use must have a single result. Found multiple "
            "`tool_result` blocks with id: t1",
        ),
        (
            {"messages": [USER, CALL, CALL, RESULT], "tools": [TOOL]},
            "messages.2.content.0: `tool_use` ids must be unique",
        ),
        ({"tools": [{"name": "f"}]}, "tools.0.input_schema: Field required"),
        ({"tools": [{"input_schema": {}}]}, "tools.0.name: Field required"),
        ({"tools": [TOOL, TOOL]}, "tools.1.name: Tool names must be unique: 'f'"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}},
            "tool_choice.name: Tool 'g' is not in tools",
        ),
        (
            {"tools": [TOOL], "tool_choice": {"type": "maybe"}},
            "tool_choice.type: Input should be 'auto', 'any', 'tool' or 'none'",
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1023}, "max_tokens": 2000},
            "thinking.budget_tokens: Input should be greater than or equal to 1024",
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 2000},
            "`max_tokens` must be greater than `thinking.budget_tokens`",
        ),
        (
            {"thinking": {"type": "enabled"}},
            "thinking.enabled.budget_tokens: Field required",
        ),
        (
            {"mcp_servers": [{"name": "x"}]},
            "mcp_servers: MCP servers are not supported by this gateway",
        ),
        (
            {"tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]},
            "tools.0.type: 'mcp_toolset' is not supported by this gateway",
        ),
        (
            {"tools": [{"type": "browser_toolset_20260801"}]},
            "tools.0.type: 'browser_toolset_20260801' is not supported here",
        ),
    ],
)
def test_a_bad_request_names_the_field(change, message):
    assert refusal(**change) == message


def test_server_and_function_tools_together_are_refused_on_older_models():
    search = {"type": "web_search_20250305", "name": "web_search"}
    assert refusal("gemini-2.5-flash", tools=[TOOL, search]) == (
        "tools: gemini-2.5-flash can't combine server tools (web_search) with other tools; "
        "send them in separate requests or use a Gemini 3 or later model"
    )


@pytest.mark.parametrize("body", [None, [], "x", 7])
def test_a_body_is_an_object(body):
    for load in (load_messages, load_count):
        with pytest.raises(InvalidRequest, match="should be a JSON object"):
            load(body)


@pytest.mark.parametrize("innermost", [{}, [], {"a": 1}, [1], [{}], {"a": []}])
@pytest.mark.parametrize("wrap", [lambda inner: {"a": inner}, lambda inner: [1, inner]])
def test_a_body_has_two_hundred_levels_and_no_more(innermost, wrap):
    levels = 2 if any(isinstance(item, dict | list) for item in flat(innermost)) else 1
    deep = innermost
    for _ in range(198 - levels):
        deep = wrap(deep)
    sent = msgspec.json.encode({**GOOD, "metadata": {"of_ours": deep}})
    assert load_messages(msgspec.json.decode(sent))["metadata"] == {"of_ours": deep}
    assert refusal(metadata={"of_ours": wrap(deep)}) == (
        "The request body is nested more than 200 levels deep"
    )


def flat(value):
    return value.values() if isinstance(value, dict) else value


def test_nesting_without_end_is_refused_without_a_crash():
    deep = {}
    for _ in range(5000):
        deep = {"a": deep}
    assert refusal(metadata=deep) == "The request body is nested more than 200 levels deep"


@pytest.mark.parametrize(
    ("google", "client"),
    [
        (
            "The input token count (1250074) exceeds the maximum number of tokens "
            "allowed (1048576).",
            "prompt is too long: 1250074 tokens > 1048576 maximum",
        ),
        (
            "The input token count exceeds the maximum number of tokens allowed 1048576.",
            "The input token count exceeds the maximum number of tokens allowed 1048576.",
        ),
        ("anything else", "anything else"),
    ],
)
def test_googles_wording_becomes_the_one_that_clients_know(google, client):
    assert client_message(google) == client


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:///etc/passwd",
        "gs://the-operators-bucket/x.png",
        "data:image/png;base64,QUJD",
        "https://generativelanguage.googleapis.com/v1beta/files/of-someone-else",
        "http://localhost/x.png",
        "http://metadata.google.internal/x",
        "http://169.254.169.254/latest",
        "http://10.0.0.1/x.png",
        "http://2130706433/x.png",
        "http://[::1]/x.png",
        "https://user:password@x.example/a.png",
    ],
)
def test_a_url_that_only_some_may_read_is_refused(url):
    assert refusal(messages=image(source={"type": "url", "url": url})) == (
        "messages.0.content.1.source.url: Only public http and https URLs are supported"
    )


def test_a_broken_url_is_refused_without_a_crash():
    assert refusal(messages=image(source={"type": "url", "url": "https://[x/a.png"})) == (
        "messages.0.content.1.source.url: Input should be a valid URL"
    )


@pytest.mark.parametrize(
    "user_id", ["[" * 100_000, '{"session_id": "\\ud83d"}', '{"session_id": {}}']
)
def test_any_user_id_makes_a_key_for_the_rotation(user_id):
    request = load_messages({**GOOD, "metadata": {"user_id": user_id}})
    assert Conversation(request, "gemini-3.8-flash").affinity_key.encode()


@pytest.mark.parametrize("length", ["9" * 5000, "\u0663", "-1", "1e3"])
def test_a_signature_that_only_looks_like_ours_is_dropped(length):
    thinking = {"type": "thinking", "thinking": "x", "signature": f"g1.g3a1b2c3d4.a.b.{length}"}
    said = {"role": "assistant", "content": [thinking, {"type": "text", "text": "y"}]}
    request = load_messages({**GOOD, "messages": [USER, said, USER]})
    rendered = Conversation(request, "gemini-3.8-flash").render(
        Target("gemini", "gemini-3.8-flash"), {}
    )
    assert rendered["contents"][1]["parts"] == [{"text": "y"}]
