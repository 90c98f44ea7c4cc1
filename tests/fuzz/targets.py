"""What is fuzzed: each function takes bytes that decide everything, and lets only faults through.

The bytes choose a good request, schema, stream or event and then places in it to spoil, so that
coverage guides them deep into the code rather than into a JSON parser.
"""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from urllib3 import HTTPResponse

from app.backend.connection import Call
from app.backend.errors import UpstreamError
from app.backend.stream import _PAUSE, parse_chunks, read_lines
from app.translate.conversation import Conversation
from app.translate.errors import BadAnswer, InvalidRequest
from app.translate.fold import MessageFold
from app.translate.json_schema import clean
from app.translate.sse import encode
from app.translate.stream import StreamTranslator
from app.translate.target import Target
from app.translate.validation import load_count, load_messages

RECORDINGS = Path(__file__).resolve().parents[1] / "recordings"
MODELS = ("gemini-2.0-flash", "gemini-2.5-flash", "gemini-3.8-flash", "gemini-flash-latest")
TARGETS = [
    Target(flavour, model) for flavour in ("gemini", "vertex", "code_assist") for model in MODELS
]
WORDS = (
    *("type", "text", "thinking", "signature", "tool_use", "tool_result", "id", "name", "input"),
    *("content", "source", "base64", "url", "data", "media_type", "image", "document", "role"),
    *("user", "assistant", "system", "tools", "tool_choice", "$ref", "#/$defs/a", "$defs", "allOf"),
    *("anyOf", "items", "properties", "required", "enum", "const", "object", "array", "string"),
    *("parts", "functionCall", "args", "thoughtSignature", "thought", "finishReason", "STOP"),
    *("MAX_TOKENS", "SAFETY", "candidates", "usageMetadata", "partialArgs", "jsonPath", "$.a[0]"),
    *("groundingMetadata", "executableCode", "codeExecutionResult", "toolCall", "", "a", "\ud800"),
)


class Choices:
    """Decisions out of ``data``; zeros once it is used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> bool:
        """Whether there is anything left to decide by."""
        return self._at < len(self._data)

    def number(self, most: int) -> int:
        """Return a number from 0 to ``most``."""
        width = 1 if most < 256 else 3
        piece = self._data[self._at : self._at + width]
        self._at += width
        return int.from_bytes(piece, "little") % (most + 1)

    def one_of(self, values: Any) -> Any:
        """Return one of ``values``."""
        return values[self.number(len(values) - 1)]

    def rest(self) -> bytes:
        """Return the bytes that have decided nothing yet."""
        return self._data[self._at :]


def made(choices: Choices, depth: int = 0) -> Any:
    """Return any JSON value."""
    kind = choices.number(9 if depth < 4 else 6)
    if kind <= 2:
        return choices.one_of(WORDS)
    if kind <= 6:
        return choices.one_of((None, True, False, 0, -1, 1, 2**70, 0.5, 1e300, "0", [], {}))
    size = choices.number(3)
    if kind == 7:
        return [made(choices, depth + 1) for _ in range(size)]
    return {choices.one_of(WORDS): made(choices, depth + 1) for _ in range(size)}


def spoiled(value: Any, choices: Choices) -> Any:
    """Return ``value`` with a few of its places changed."""
    value = copy.deepcopy(value)
    for _ in range(12):
        if not choices.left:
            break
        holder = value
        while isinstance(holder, (dict, list)) and holder:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            key = choices.one_of(keys)
            inner = holder[key]
            if isinstance(inner, (dict, list)) and inner and choices.number(5):
                holder = inner
                continue
            match choices.number(4):
                case 0:
                    del holder[key]
                case 1 if isinstance(holder, list):
                    holder.append(copy.deepcopy(inner))
                case 2 if isinstance(holder, dict):
                    holder[choices.one_of(WORDS)] = made(choices)
                case _:
                    holder[key] = made(choices)
            break
    return value


def _requests() -> list[dict[str, Any]]:
    files = sorted((RECORDINGS / "claude-code").rglob("*.json"))
    found = [json.loads(path.read_text()) for path in files]
    bodies = [one.get("body", one) for one in found if isinstance(one, dict)]
    small = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}
    return [small, *(body for body in bodies if isinstance(body, dict) and "messages" in body)]


def _streams() -> list[list[dict[str, Any]]]:
    found = []
    for path in sorted(RECORDINGS.glob("*.response.sse")):
        try:
            chunks = list(parse_chunks(path.read_bytes().splitlines()))
        except UpstreamError:
            continue
        found.append(chunks[:20])
    return found


REQUESTS, STREAMS = _requests(), _streams()
WIRES = [path.read_bytes()[:4000] for path in sorted(RECORDINGS.glob("*.response.sse"))]
SCHEMAS = [
    tool["input_schema"]
    for body in REQUESTS
    for tool in body.get("tools") or ()
    if isinstance(tool.get("input_schema"), dict)
] or [{"type": "object"}]


def said(message: str) -> None:
    """Check that an error says something."""
    assert message.strip()


def validator(data: bytes) -> None:
    """Any request is refused with a reason, or can be written for every target."""
    choices = Choices(data)
    body = spoiled(choices.one_of(REQUESTS), choices)
    try:
        load_count(copy.deepcopy(body))
        conversation = Conversation(load_messages(body), choices.one_of(MODELS))
        for target in TARGETS:
            json.dumps(conversation.render(target, {}))
            conversation.reply_context(target)
    except InvalidRequest as error:
        said(str(error))


def schema(data: bytes) -> None:
    """Any schema becomes one, and once more changes nothing of substance."""
    choices = Choices(data)
    value = spoiled(choices.one_of(SCHEMAS), choices)
    json.dumps(clean(value) if isinstance(value, dict) else None)


def reader(data: bytes) -> None:
    """Any bytes in any pieces give objects, or one error that says why not."""
    choices = Choices(data)
    wire = bytearray(choices.one_of(WIRES))
    for _ in range(choices.number(4)):
        at = choices.number(len(wire))
        wire[at : at + choices.number(30)] = bytes([choices.number(255)]) * choices.number(3)
    wire += choices.rest()
    response = requests.Response()
    # The fuzzer sees what bytes are compared with; no upstream knows this process' secret mark.
    wire = wire.replace(_PAUSE, b"")
    response.raw = HTTPResponse(io.BytesIO(wire), preload_content=False)
    try:
        for chunk in parse_chunks(read_lines(response, Call())):
            assert isinstance(chunk, dict)
    except UpstreamError as error:
        said(error.message)


def translator(data: bytes) -> None:
    """Any chunks give a message in the right order, or one error that says why not."""
    choices = Choices(data)
    conversation = Conversation(load_messages(copy.deepcopy(REQUESTS[-1])), MODELS[2])
    translating = StreamTranslator(
        conversation.reply_context(choices.one_of(TARGETS)), lambda: "n" * 22
    )
    chunks = spoiled(choices.one_of(STREAMS), choices)
    fold = MessageFold()
    try:
        for chunk in chunks if isinstance(chunks, list) else []:
            if isinstance(chunk, dict):
                for event in translating.feed(chunk):
                    encode(event)
                    fold.add(event)
        for event in translating.finish():
            encode(event)
            fold.add(event)
    except BadAnswer as bad:
        said(bad.message)
    else:
        assert fold.message()["type"] == "message"


ALL: dict[str, Callable[[bytes], None]] = {
    each.__name__: each for each in (validator, schema, reader, translator)
}
