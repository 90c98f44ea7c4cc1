"""Requests and answers are large: they go with their last reference, not with the collector."""

import gc
import weakref

import pytest

from app.translate.conversation import Conversation
from app.translate.stream import StreamTranslator
from app.translate.target import Target
from app.translate.validation import load_messages

TARGET = Target("gemini", "gemini-3.8-flash")
TOOLS = [{"name": "look", "input_schema": {"type": "object", "properties": {"at": {}}}}]
CHUNKS = [  # with the second one events leave
    {"candidates": [{"content": {"role": "model", "parts": [part]}}]}
    for part in (
        {"text": "Hm.", "thought": True},
        {"text": "So."},
        {"functionCall": {"name": "look", "args": {"at": "it"}}},
    )
]


@pytest.fixture
def _no_collector():
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("read", range(2, len(CHUNKS) + 1))
def test_nothing_waits_for_the_collector(read, resumed):
    body = {
        "model": "claude-x",
        "max_tokens": 100,
        "tools": TOOLS,
        "messages": [{"role": "user", "content": "hi"}],
    }
    conversation = Conversation(load_messages(body), TARGET.model)
    watched = [weakref.ref(conversation)]
    if resumed:
        conversation = conversation.resumed("So")
        watched.append(weakref.ref(conversation))
    conversation.render(TARGET, {})
    translator = StreamTranslator(conversation.reply_context(TARGET), lambda: "n" * 22)
    watched.append(weakref.ref(translator))
    for chunk in CHUNKS[:read]:
        translator.feed(chunk)
    if read == len(CHUNKS):
        translator.feed({"candidates": [{"finishReason": "STOP"}]})
        translator.finish()
    del conversation, translator
    assert [watch() for watch in watched] == [None] * len(watched)


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("usage", [{"promptTokenCount": 5}, {}])
def test_an_answer_that_has_begun_holds_no_request(usage):
    body = {"model": "x", "max_tokens": 9, "messages": [{"role": "user", "content": "hi " * 40}]}
    conversation = Conversation(load_messages(body), TARGET.model)
    estimate = conversation.estimate()
    assert estimate > 20
    watch = weakref.ref(conversation)
    translator = StreamTranslator(conversation.reply_context(TARGET), lambda: "n" * 22)
    start = translator.feed({**CHUNKS[1], "usageMetadata": usage})[0]
    assert start["message"]["usage"]["input_tokens"] == usage.get("promptTokenCount", estimate)
    del conversation
    assert watch() is None
