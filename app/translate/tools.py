"""Tools, tool choice and tool names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import msgspec

from app.translate.errors import InvalidRequest
from app.translate.json_schema import clean
from app.translate.sent_body import LARGEST_LIST_KEPT, SentTools
from app.translate.target import Target
from app.translate.tool_names import google_name

_SERVER_TOOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "web_search": ("web_search", {"googleSearch": {}}),
    "web_fetch": ("web_fetch", {"urlContext": {}}),
    "code_execution": ("code_execution", {"codeExecution": {}}),
}
_CLIENT_TOOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "bash": (
        "Run a command in a persistent bash session.",
        {
            "type": "object",
            "properties": {"command": {"type": "string"}, "restart": {"type": "boolean"}},
        },
    ),
    "text_editor": (
        "View, create and edit text files.",
        {
            "type": "object",
            "properties": {
                "command": {
                    "type": "string",
                    "enum": ["view", "create", "str_replace", "insert", "undo_edit"],
                },
                "path": {"type": "string"},
                "file_text": {"type": "string"},
                "old_str": {"type": "string"},
                "new_str": {"type": "string"},
                "insert_line": {"type": "integer"},
                "insert_text": {"type": "string"},
                "view_range": {"type": "array", "items": {"type": "integer"}},
            },
            "required": ["command", "path"],
        },
    ),
    "memory": (
        "Read and write files in the memory directory /memories.",
        {
            "type": "object",
            "properties": {
                "command": {
                    "type": "string",
                    "enum": ["view", "create", "str_replace", "insert", "delete", "rename"],
                },
                "path": {"type": "string"},
                "file_text": {"type": "string"},
                "old_str": {"type": "string"},
                "new_str": {"type": "string"},
                "insert_line": {"type": "integer"},
                "insert_text": {"type": "string"},
                "view_range": {"type": "array", "items": {"type": "integer"}},
                "old_path": {"type": "string"},
                "new_path": {"type": "string"},
            },
            "required": ["command"],
        },
    ),
    "computer": (
        "Control the screen, keyboard and mouse.",
        {
            "type": "object",
            "properties": {
                "action": {"type": "string"},
                "coordinate": {"type": "array", "items": {"type": "integer"}},
                "text": {"type": "string"},
                "scroll_direction": {"type": "string"},
                "scroll_amount": {"type": "integer"},
                "duration": {"type": "number"},
            },
            "required": ["action"],
        },
    ),
}


@dataclass(frozen=True)
class Tools:
    """The tools of one request, translated once for every target."""

    declarations: tuple[dict[str, Any], ...]
    built_in: tuple[dict[str, Any], ...]
    names: Mapping[str, str]
    """The client's name → Gemini's."""
    server: frozenset[str]
    choice: Mapping[str, Any]

    @property
    def client_names(self) -> dict[str, str]:
        """Gemini's name → the client's, for names that had to change."""
        return {theirs: ours for ours, theirs in self.names.items() if theirs != ours}

    @property
    def size(self) -> int:
        """Return how many bytes of JSON the declarations are."""
        try:
            return len(msgspec.json.encode(self.declarations))
        except UnicodeEncodeError:
            return len(json.dumps(self.declarations))

    def write(self, body: dict[str, Any], target: Target) -> None:
        """Put ``tools`` and ``toolConfig`` into a request body; raises `InvalidRequest`."""
        tools: list[dict[str, Any]] = []
        if self.declarations:
            tools.append({"functionDeclarations": list(self.declarations)})
        # Gemini has no mode that keeps it from its own tools.
        built_in = () if self.choice.get("type") == "none" else self.built_in
        tools += built_in
        if not tools:
            return
        body["tools"] = tools
        config: dict[str, Any] = {}
        if self.declarations:
            calling = self._calling()
            if calling:
                config["functionCallingConfig"] = calling
            if built_in:
                if target.family in "12":
                    raise InvalidRequest(
                        f"tools: {target.model} can't combine server tools "
                        f"({', '.join(sorted(self.server))}) with other tools; "
                        "send them in separate requests or use a Gemini 3 or later model"
                    )
                if target.flavour == "gemini":
                    config["includeServerSideToolInvocations"] = True
        if config:
            body["toolConfig"] = config

    def _calling(self) -> dict[str, Any]:
        match self.choice.get("type"):
            case "any":
                return {"mode": "ANY"}
            case "none":
                return {"mode": "NONE"}
            case "tool":
                name = self.names[self.choice["name"]]
                return {"mode": "ANY", "allowedFunctionNames": [name]}
            case _:
                return {}


def read_tools(body: Mapping[str, Any]) -> Tools:
    """Return the tools of a validated request; raises `InvalidRequest`."""
    loaded, removed, added = _tool_changes(body["messages"])
    sent = body.get("tools") or ()
    if isinstance(sent, SentTools) and not added:
        read = _known_list(sent.text, frozenset(loaded), frozenset(removed))
    else:
        # A definition on the way replaces the one before it, in its place.
        given = [added.pop(_name(tool), tool) for tool in sent]
        given += added.values()
        read = _read(given, frozenset(loaded), frozenset(removed))
    choice = body.get("tool_choice") or {}
    if choice.get("type") == "tool" and choice.get("name") not in read.names:
        if choice.get("name") not in {entry[0] for entry in _SERVER_TOOLS.values()} & read.server:
            raise InvalidRequest(f"tool_choice.name: Tool {choice.get('name')!r} is not in tools")
        choice = {}
    return replace(read, choice=choice)


def _read(given: list[dict[str, Any]], loaded: frozenset[str], removed: frozenset[str]) -> Tools:
    try:
        text = msgspec.json.encode(given)
    except UnicodeEncodeError:
        return _translated(given, loaded, removed)
    if len(text) > LARGEST_LIST_KEPT:
        return _translated(given, loaded, removed)
    return _known_list(text, loaded, removed)


@lru_cache(maxsize=64)
def _known_list(text: bytes, loaded: frozenset[str], removed: frozenset[str]) -> Tools:
    # Agents send the same tools with every request. Not to be changed: others have them, too.
    return _translated(msgspec.json.decode(text), loaded, removed)


def _translated(
    given: list[dict[str, Any]], loaded: frozenset[str], removed: frozenset[str]
) -> Tools:
    declarations: list[dict[str, Any]] = []
    built_in, names, server = [], dict[str, str](), set[str]()
    search_deferred = any(
        str(tool.get("type") or "").startswith("tool_search_tool") for tool in given
    )
    for position, tool in enumerate(given):
        kind = tool.get("type") or "custom"
        name = _name(tool)
        if (
            name in removed
            or name == "DeferredToolPlaceholder"
            or kind.startswith("tool_search_tool")
        ):
            continue
        if tool.get("defer_loading") and name not in loaded and not search_deferred:
            continue
        base = re.sub(r"(_toolset)?_20\d{6}$", "", kind)
        if base in _SERVER_TOOLS:
            label, entry = _SERVER_TOOLS[base]
            if label not in server:
                server.add(label)
                built_in.append(entry)
            continue
        description, schema = tool.get("description") or "", tool.get("input_schema")
        if kind != "custom" and schema is None:
            if base not in _CLIENT_TOOLS:
                raise InvalidRequest(f"tools.{position}.type: {kind!r} is not supported here")
            description, schema = _CLIENT_TOOLS[base]
        if name in names:
            raise InvalidRequest(f"tools.{position}.name: Tool names must be unique: {name!r}")
        names[name] = google_name(name, names.values())
        if len(declarations) == MOST_DECLARED:
            raise InvalidRequest(
                f"tools: Gemini takes at most {MOST_DECLARED} tools at a time; defer some of them"
            )
        path = f"tools.{position}.input_schema"
        declarations.append(_declaration(names[name], description, schema, path))
    return Tools(tuple(declarations), tuple(built_in), names, frozenset(server), choice={})


MOST_DECLARED = 512
"""Function declarations that Gemini takes in one request (Vertex AI's own schema says so)."""
LARGEST_SCHEMA = 1 << 20
"""Bytes of JSON of one tool's schema."""
LARGEST_KEPT = 16_384
"""Bytes of a schema whose translation is remembered; larger ones are rare and would add up."""


def _declaration(name: str, description: str, schema: Any, path: str) -> dict[str, Any]:
    declaration: dict[str, Any] = {"name": name, "description": description or name}
    try:
        text, plain = msgspec.json.encode(schema), True
    except UnicodeEncodeError:
        text, plain = json.dumps(schema).encode(), False
    if len(text) > LARGEST_SCHEMA:
        raise InvalidRequest(f"{path}: at most {LARGEST_SCHEMA} bytes of JSON are allowed")
    known = plain and len(text) <= LARGEST_KEPT
    parameters = _known(text) if known else _parameters(schema)
    if parameters is not None:
        declaration["parametersJsonSchema"] = parameters
    return declaration


@lru_cache(maxsize=512)
def _known(text: bytes) -> dict[str, Any] | None:
    # One list of tools differs from the next by a few.
    return _parameters(msgspec.json.decode(text))


def _parameters(schema: Any) -> dict[str, Any] | None:
    """Return ``schema`` for Gemini, None if it allows no parameters. Not to be changed."""
    schema = schema if isinstance(schema, Mapping) else {}
    cleaned = clean(schema)
    cleaned.setdefault("type", "object")
    if (
        cleaned.get("properties")
        or isinstance(cleaned.get("additionalProperties"), dict)
        or set(cleaned) - {"type", "properties", "additionalProperties", "description", "title"}
        or cleaned.get("description", "") != (schema.get("description") or "")  # more is told
    ):
        return cleaned
    return None


def _name(tool: Mapping[str, Any]) -> str:
    return str(tool.get("name") or tool.get("type") or "custom")


def _tool_changes(
    messages: list[dict[str, Any]],
) -> tuple[set[str], set[str], dict[str, dict[str, Any]]]:
    """Return the names that the conversation loaded and removed, and the tools it defined."""
    loaded, removed = set[str](), set[str]()
    added: dict[str, dict[str, Any]] = {}
    for message in messages:
        content = message.get("content")
        for block in content if isinstance(content, list) else ():
            kind = block.get("type")
            if kind == "tool_result" and isinstance(block.get("content"), list):
                for inner in block["content"]:
                    if inner.get("type") == "tool_reference":
                        loaded.add(inner["tool_name"])
                        removed.discard(inner["tool_name"])
            elif kind in ("tool_addition", "tool_removal"):
                tool = block.get("tool") or {}
                definition = tool.get("definition") or {}
                defined = tool.get("type") == "tool_definition"
                name = _name(definition) if defined else tool.get("name") or ""
                if kind == "tool_removal":
                    removed.add(name)
                    continue
                removed.discard(name)
                loaded.add(name)
                if defined:
                    added[name] = definition
    return loaded, removed, added
