"""A plain client that writes down what it sees, and the official SDK beside it."""

from __future__ import annotations

import json
import re
from typing import Any

import anthropic
import requests

from tests.chaos.cells import Seen
from tests.chaos.recorded import REQUEST

SECRET = "chaos-secret-"
"""Every account's key begins with it: it must never be seen."""
PATIENCE = 45
"""Seconds of silence after which a gateway is given up; none of them is that slow."""
_MESSAGE_ID = re.compile(r"msg_[0-9a-f]{22}")
_TOOL_ID = re.compile(r"toolu_\S{22,}")


def ask(session: requests.Session, url: str, model: str, mode: str, request=REQUEST) -> Seen:
    """Send the request of ``mode`` and return what comes back."""
    body = {"model": model, **request}
    if mode == "count":
        del body["max_tokens"]
    elif mode != "message":
        body["stream"] = True
    path = "/v1/messages/count_tokens" if mode == "count" else "/v1/messages"
    seen = Seen(0)
    try:
        answer = session.post(url + path, json=body, stream=True, timeout=PATIENCE)
        seen = Seen(answer.status_code, retry_after="retry-after" in answer.headers)
        content = answer.content
    except requests.RequestException as error:
        seen.note = f"no whole answer: {type(error).__name__}"
        return seen
    if SECRET.encode() in content:
        seen.note = "a key was shown"
    elif not answer.headers.get("request-id", "").startswith("req_"):
        seen.note = "no request-id"
    elif answer.headers["content-type"].startswith("text/event-stream"):
        _read_events(content.decode(), seen)
    else:
        _read_object(content, seen)
    return seen


def _read_events(text: str, seen: Seen) -> None:
    seen.retry_after = False
    for block in text.split("\n\n")[:-1]:
        if block == ": keep-alive":
            seen.keepalives = True
            continue
        name, _, data = block.partition("\n")
        event = json.loads(data.removeprefix("data: "))
        if seen.error:
            seen.note = "more after the error"
        elif name != f"event: {event['type']}":
            seen.note = f"{name!r} with {event['type']}"
        elif event["type"] == "error":
            _read_error(event, seen)
        else:
            seen.events.append(_plain(event))
    if not text.endswith("\n\n"):
        seen.note = "half an event"


def _read_object(content: bytes, seen: Seen) -> None:
    seen.keepalives = content.startswith(b" ")
    value = json.loads(content)
    if value.get("type") == "error":
        _read_error(value, seen)
    else:
        seen.message = _plain(value)


def _read_error(body: dict[str, Any], seen: Seen) -> None:
    seen.error = body["error"]["type"]
    if not (body["error"]["message"] and body["request_id"].startswith("req_")):
        seen.note = f"no proper error: {body}"


def _plain(value: Any, key: str = "") -> Any:
    """Return ``value`` with one name for each of the things that are different every time."""
    if isinstance(value, dict):
        return {name: _plain(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if key == "model":
        return "MODEL"
    if key == "signature" and value:
        return "SIGNATURE"
    if key == "id" and _MESSAGE_ID.fullmatch(value):
        return "msg"
    if key == "id" and _TOOL_ID.fullmatch(value):
        return "toolu"
    return value


def ask_sdk(client: anthropic.Anthropic, model: str, mode: str) -> tuple[str, int | None, str]:
    """Return what the official SDK makes of it: (text, status raised, error type raised)."""
    text = ""
    try:
        if mode == "message":
            return _text(client.messages.create(model=model, **REQUEST)), None, ""
        with client.messages.stream(model=model, **REQUEST) as stream:
            for piece in stream.text_stream:
                text += piece
            return _text(stream.get_final_message()), None, ""
    except anthropic.APIStatusError as error:
        return text, error.status_code, error.type


def _text(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")
