"""Real Claude Code requests become valid Gemini requests, whole."""

import json
from pathlib import Path

import pytest

from app.translate.conversation import Conversation
from app.translate.target import Target
from app.translate.validation import load_count, load_messages
from tests.translate.google_schemas import check

FOLDER = Path(__file__).resolve().parents[1] / "recordings" / "claude-code"
TARGETS = [
    Target("gemini", "gemini-3.8-flash"),
    Target("gemini", "gemini-2.5-flash"),
    Target("vertex", "gemini-4-hydrogen"),
    Target("code_assist", "gemini-3.6-flash"),
]


def load(name):
    recorded = json.loads((FOLDER / f"{name}.request.json").read_text())
    return recorded.get("body", recorded)


NAMES = sorted(path.name.removesuffix(".request.json") for path in FOLDER.iterdir())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.flavour}-{target.model}")
def test_a_claude_code_request_is_valid_for_google(name, target):
    body = load(name)
    checked = load_count(body) if "count" in name else load_messages(body)
    rendered = Conversation(checked, target.model).render(target, {})
    check(rendered)
    roles = [content["role"] for content in rendered["contents"]]
    assert roles == ["user", "model"] * (len(roles) // 2) + ["user"]
    texts = json.dumps(rendered, ensure_ascii=False)
    for message in checked["messages"]:
        for block in message["content"]:
            if block["type"] == "text":
                assert json.dumps(block["text"], ensure_ascii=False)[1:-1] in texts
    assert "x-anthropic-billing-header" not in texts


def test_deferred_tools_are_declared_once_loaded():
    def names(recording):
        checked = load_messages(load(recording))
        rendered = Conversation(checked, "gemini-3.8-flash").render(TARGETS[0], {})
        return [tool["name"] for tool in rendered["tools"][0]["functionDeclarations"]]

    before, after = names("v2.1.330.deferred-tools.1"), names("v2.1.330.deferred-tools.2")
    assert "DeferredToolPlaceholder" not in before
    assert set(after) - set(before) == {"WebFetch", "WebSearch"}


def test_the_separate_search_request_asks_google():
    checked = load_messages(load("v2.1.330.deferred-tools.3"))
    conversation = Conversation(checked, "gemini-3.8-flash")
    assert conversation.render(TARGETS[0], {})["tools"] == [{"googleSearch": {}}]
    assert conversation.reply_context(TARGETS[0]).server_tools == {"web_search"}


def test_a_loaded_tool_and_a_picture_are_answers_of_their_calls():
    checked = load_messages(load("v2.1.330.image-in-tool-result"))
    contents = Conversation(checked, "gemini-3.8-flash").render(TARGETS[0], {})["contents"]
    calls = [p["functionCall"] for c in contents for p in c["parts"] if "functionCall" in p]
    responses = [
        p["functionResponse"] for c in contents for p in c["parts"] if "functionResponse" in p
    ]
    assert [(r["name"], r["id"]) for r in responses] == [(c["name"], c["id"]) for c in calls]
    assert all(response["response"]["output"] or "parts" in response for response in responses)
    pictures = [part for response in responses for part in response.get("parts", [])]
    assert [part["inlineData"]["mimeType"] for part in pictures] == ["image/png"]
    older = Target("gemini", "gemini-2.5-flash")
    contents = Conversation(checked, older.model).render(older, {})["contents"]
    assert not any("parts" in p.get("functionResponse", {}) for c in contents for p in c["parts"])
    assert sum("inlineData" in p for c in contents for p in c["parts"]) == 1


def test_a_conversation_keeps_its_key_over_its_turns():
    keys = {
        Conversation(load_messages(load(name)), "gemini-3.8-flash").affinity_key
        for name in ("v2.1.330.tool.turn1", "v2.1.330.tool.turn2")
    }
    assert len(keys) == 1
