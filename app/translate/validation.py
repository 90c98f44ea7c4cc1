"""Is this a Messages request? Errors in Anthropic's wording.

A tolerant reader: unknown fields and blocks from the future pass; what is known must be right.
Source: https://docs.anthropic.com/en/api/messages and the official SDK's types.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import Any

from marshmallow import Schema

from app.translate.contents import blocks_of
from app.translate.errors import InvalidRequest
from app.translate.media import check_base64, check_url
from app.translate.schemas import COUNT, MESSAGES, THINKING, TOOL_CHOICE, load
from app.translate.sent_body import SentTools

DEEPEST = 200
"""Levels of lists and objects in a request."""
MOST_MESSAGES = 100_000
MOST_BLOCKS = 100_000
"""Content blocks of one message."""
MOST_TOOLS = 10_000
"""Tools in a request, most of them deferred; `app.translate.tools` says how many may be in use."""


_Path = tuple[str | int, ...]
"""Where a value is in the request; made into text when something is wrong there."""

_REFUSED = {
    "mcp_servers": "MCP servers are not supported by this gateway",
    "compaction": "compaction is not supported by this gateway",
}


def load_messages(body: object) -> dict[str, Any]:
    """Return ``body`` as a Messages request; raises `InvalidRequest`."""
    request = _loaded(MESSAGES, body)
    thinking = request.get("thinking") or {}
    if thinking.get("type") == "enabled":
        budget = thinking.get("budget_tokens")
        if budget is None:
            raise InvalidRequest("thinking.enabled.budget_tokens: Field required")
        if budget >= request["max_tokens"]:
            raise InvalidRequest("`max_tokens` must be greater than `thinking.budget_tokens`")
    for number, stop in enumerate(request.get("stop_sequences") or ()):
        if not stop.strip():
            raise InvalidRequest(
                f"stop_sequences.{number}: each stop sequence must contain non-whitespace"
            )
    return request


def load_count(body: object) -> dict[str, Any]:
    """Return ``body`` as a count_tokens request; raises `InvalidRequest`."""
    return _loaded(COUNT, body)


def _loaded(schema: Schema, body: object) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise InvalidRequest("The request body should be a JSON object")
    given = body.get("tools")
    sent = given if isinstance(given, SentTools) else None
    known = sent is not None and sent.checked
    # Without what was found right before, or as a plain list: of ours, the class is a level, too.
    _check_depth(body if sent is None else {**body, "tools": None if known else [*sent]})
    request: dict[str, Any] = load(schema, body, "")
    for name, reason in _REFUSED.items():
        if request.get(name):
            raise InvalidRequest(f"{name}: {reason}")
    thread = request.get("thread")
    if isinstance(thread, dict) and thread.get("type") == "continue":
        raise InvalidRequest(
            "thread: threads are not kept by this gateway; send all messages",
            code="thread_not_found",  # Anthropic's SDKs then do so by themselves
        )
    _check_output(request)
    if request.get("thinking"):
        load(THINKING, request["thinking"], "thinking.")
    if request.get("tool_choice"):
        load(TOOL_CHOICE, request["tool_choice"], "tool_choice.")
    tools = request.get("tools") or ()
    if len(tools) > MOST_TOOLS:
        raise InvalidRequest(f"tools: at most {MOST_TOOLS} tools are allowed")
    if not known:
        for number, tool in enumerate(tools):
            _check_tool(tool, ("tools", number))
        if sent is not None:
            sent.checked = True
    _check_content(request.get("system"), ("system",))
    request["messages"] = _checked_messages(request["messages"])
    return request


def _check_output(request: Mapping[str, Any]) -> None:
    output = request.get("output_config") or {}
    _check_fields(output, ("output_config",), (), (("effort", str), ("format", dict)))
    _check_format(output.get("format") or {}, ("output_config", "format"))
    _check_format(request.get("output_format") or {}, ("output_format",))
    _check_fields(request.get("metadata") or {}, ("metadata",), (), (("user_id", str),))


def _check_depth(body: Any) -> None:
    if _shallow(body):
        return
    level = [body]
    for _ in range(DEEPEST):
        level = [
            item
            for value in level
            for item in (value.values() if type(value) is dict else value)
            if type(item) is dict or type(item) is list
        ]
        if not level:
            return
    raise InvalidRequest(f"The request body is nested more than {DEEPEST} levels deep")


def _shallow(body: Any) -> bool:
    """Return True if ``body`` is not too deep for certain; False leaves it open.

    A request has thousands of values: the collector's functions go through them four times as fast
    as a loop. What they leave out holds nothing, so that it is at most one level more.
    """
    level = [body]
    for _ in range(DEEPEST - 1):
        level = list(filter(gc.is_tracked, gc.get_referents(*level)))
        if not level:
            return True
    return False


def _check_tool(tool: dict[str, Any], path: _Path) -> None:
    # Not by a schema: a coding agent sends dozens of tools with every request.
    _check_fields(tool, path, (), _TOOL)
    kind = tool.get("type") or "custom"
    if kind == "custom":
        if not tool.get("name"):
            raise _wrong(path, "name", reason="Field required")
        if tool.get("input_schema") is None:
            raise _wrong(path, "input_schema", reason="Field required")
    elif kind.startswith(("mcp_toolset", "advisor_")):
        raise _wrong(path, "type", reason=f"{kind!r} is not supported by this gateway")


def _checked_messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not messages:
        raise InvalidRequest("messages: at least one message is required")
    if len(messages) > MOST_MESSAGES:
        raise InvalidRequest(f"messages: at most {MOST_MESSAGES} messages are allowed")
    pairing = _Pairing()
    kept: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        role = message.get("role")
        if role not in ("user", "assistant", "system"):
            reason = "Field required" if role is None else "Input should be 'user' or 'assistant'"
            raise InvalidRequest(f"messages.{number}.role: {reason}")
        if "output_config" in message:
            _check_effort(message, ("messages", number))
        if "content" not in message and role != "system":
            raise InvalidRequest(f"messages.{number}.content: Field required")
        content = message.get("content")
        _check_content(content, ("messages", number, "content"))
        blocks = [
            block
            for block in blocks_of(content)
            if block.get("type") != "text" or (block.get("text") or "").strip()
        ]
        if role == "assistant":
            pairing.assistant(blocks, number)
        elif role == "user":
            pairing.user(blocks, number)
        kept.append({**message, "content": blocks})
    pairing.end()
    if not any(message["content"] for message in kept if message["role"] != "assistant"):
        raise InvalidRequest(
            "messages.0: all messages must have non-empty content except for the optional final "
            "assistant message"
        )
    return kept


def _check_effort(message: dict[str, Any], path: _Path) -> None:
    _check_fields(message, path, (), (("output_config", dict),))
    effort = message["output_config"] or {}
    _check_fields(effort, (*path, "output_config"), (), (("effort", str),))


class _Pairing:
    """Checks that calls and results match, as Anthropic does; neighbours of a role are one turn."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}
        self._known: set[str] = set()
        self._answering = False

    def assistant(self, blocks: list[Mapping[str, Any]], number: int) -> None:
        if self._answering:
            self.end()
            self._known.clear()
            self._answering = False
        for place, block in enumerate(blocks):
            if block.get("type") != "tool_use":
                continue
            if block["id"] in self._known:
                raise InvalidRequest(
                    f"messages.{number}.content.{place}: `tool_use` ids must be unique"
                )
            self._known.add(block["id"])
            self._open[block["id"]] = number

    def user(self, blocks: list[Mapping[str, Any]], number: int) -> None:
        self._answering = self._answering or bool(blocks)
        for place, block in enumerate(blocks):
            if block.get("type") != "tool_result":
                continue
            tool_id = block["tool_use_id"]
            if tool_id not in self._known:
                raise InvalidRequest(
                    f"messages.{number}.content.{place}: unexpected `tool_use_id` found in "
                    f"`tool_result` blocks: {tool_id}. Each `tool_result` block must have a "
                    "corresponding `tool_use` block in the previous message."
                )
            if self._open.pop(tool_id, None) is None:
                raise InvalidRequest(
                    f"messages.{number}.content.{place}: each tool_use must have a single result. "
                    f"Found multiple `tool_result` blocks with id: {tool_id}"
                )

    def end(self) -> None:
        if self._open:
            ids = ", ".join(self._open)
            raise InvalidRequest(
                f"messages.{min(self._open.values())}: `tool_use` ids were found without "
                f"`tool_result` blocks immediately after: {ids}. Each `tool_use` block must have a "
                "corresponding `tool_result` block in the next message."
            )


_Fields = tuple[tuple[str, type], ...]
_REQUIRED: Mapping[str, _Fields] = {
    "text": (("text", str),),
    "image": (("source", dict),),
    "document": (("source", dict),),
    "tool_use": (("id", str), ("name", str), ("input", dict)),
    "server_tool_use": (("id", str), ("name", str)),
    "mcp_tool_use": (("id", str),),
    "tool_result": (("tool_use_id", str),),
    "tool_reference": (("tool_name", str),),
    "tool_addition": (("tool", dict),),
    "tool_removal": (("tool", dict),),
}
_OPTIONAL: Mapping[str, _Fields] = {
    "document": (("title", str), ("context", str)),
    "search_result": (("source", str), ("title", str)),
    "thinking": (("thinking", str), ("signature", str)),
    "server_tool_use": (("input", dict),),
    "compaction": (("content", str),),
    "mcp_tool_use": (("name", str), ("server_name", str), ("input", dict)),
    "tool_result": (("is_error", bool),),
}
_TOOL: _Fields = (("name", str), ("type", str), ("description", str), ("input_schema", dict))
_NAMES = {str: "a valid string", dict: "an object", bool: "a valid boolean"}


def _check_fields(
    value: Mapping[str, Any], path: _Path, required: _Fields, optional: _Fields
) -> None:
    for name, wanted in required:
        held = value.get(name)
        if held is None:
            raise _wrong(path, name, reason="Field required")
        if not isinstance(held, wanted):
            raise _wrong(path, name, reason=f"Input should be {_NAMES[wanted]}")
    for name, wanted in optional:
        held = value.get(name)
        if held is not None and not isinstance(held, wanted):
            raise _wrong(path, name, reason=f"Input should be {_NAMES[wanted]}")


def _check_format(value: Mapping[str, Any], path: _Path) -> None:
    _check_fields(value, path, (), (("type", str), ("schema", dict)))


def _check_content(content: Any, path: _Path) -> None:
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        raise _wrong(path, reason="Input should be a valid string or list")
    if len(content) > MOST_BLOCKS:
        raise _wrong(path, reason=f"at most {MOST_BLOCKS} content blocks are allowed")
    for number, block in enumerate(content):
        if not isinstance(block, dict):
            raise _wrong(path, number, reason="Input should be an object")
        kind = block.get("type")
        if _usual(kind, block.get):
            continue
        where = (*path, number)
        if not isinstance(kind, str):
            raise _wrong(where, "type", reason="Field required")
        _check_fields(block, where, _REQUIRED.get(kind, ()), _OPTIONAL.get(kind, ()))
        if kind in ("image", "document"):
            _check_source(block["source"], (*where, "source"))
        elif kind in ("tool_result", "search_result", "mcp_tool_result"):
            _check_content(block.get("content"), (*where, "content"))
        elif kind in ("tool_addition", "tool_removal"):
            _check_tool_change(block["tool"], (*where, "tool"))
        if kind.endswith("_tool_result"):
            _check_fields(block, where, (), (("tool_use_id", str),))


def _usual(kind: object, get: Callable[[str], object]) -> bool:
    """Return True if a block is for certain what most are; what is right at a glance."""
    if kind == "text":
        return type(get("text")) is str
    if kind == "tool_use":
        return type(get("id")) is type(get("name")) is str and type(get("input")) is dict
    if kind == "tool_result":
        flag = get("is_error")
        plain = type(get("content")) is str and (flag is None or type(flag) is bool)
        return plain and type(get("tool_use_id")) is str
    return False


def _check_tool_change(tool: dict[str, Any], path: _Path) -> None:
    _check_fields(tool, path, (("type", str),), (("name", str), ("definition", dict)))
    if tool["type"] == "tool_definition":
        _check_tool(tool.get("definition") or {}, (*path, "definition"))


def _check_source(source: dict[str, Any], path: _Path) -> None:
    _check_fields(source, path, (("type", str),), (("media_type", str),))
    kind = source["type"]
    needed = {"base64": "data", "text": "data", "url": "url", "content": "content"}
    if kind == "file":
        raise _wrong(path, "type", reason="files are not kept by this gateway; send base64 or url")
    if kind not in needed:
        raise _wrong(path, "type", reason="Input should be 'base64', 'url', 'text' or 'content'")
    value = source.get(needed[kind])
    if value is None:
        raise _wrong(path, needed[kind], reason="Field required")
    if kind != "content" and not isinstance(value, str):
        raise _wrong(path, needed[kind], reason="Input should be a valid string")
    if kind == "base64":
        if not isinstance(source.get("media_type"), str):
            raise _wrong(path, "media_type", reason="Field required")
        check_base64(value, _named((*path, "data")))
    elif kind == "url":
        check_url(value, _named((*path, "url")))
    elif kind == "content":
        _check_content(value, (*path, "content"))


def _wrong(path: _Path, *name: str | int, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{_named((*path, *name))}: {reason}")


def _named(path: _Path) -> str:
    return ".".join(map(str, path))
