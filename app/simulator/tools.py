"""Which declared functions the simulated model calls, and with what arguments."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from app.simulator.checks import turn_start
from app.simulator.filling import Filler

_REMINDER = re.compile(r"<system-reminder>.*?</system-reminder>", re.DOTALL)
_QUOTED = re.compile(r"[\"'“]([^\"'”\n]{1,200})[\"'”]")
_ASKS = re.compile(r"\b(use|call|run|invoke|tools?|function)\b", re.IGNORECASE)
_A_TOOL = re.compile(r"\b(use|call) (a|any|the|some|your) (tools?|function)s?\b", re.IGNORECASE)
_NO_TOOL = re.compile(r"\bdo not (use|call) (a|any) tools?\b", re.IGNORECASE)
_BOTH = re.compile(r"\bboth\b", re.IGNORECASE)
_IN_TURN = re.compile(r"\b(then|after that|afterwards)\b", re.IGNORECASE)
_ID_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"

Call = dict[str, Any]


def user_text(content: Mapping[str, Any]) -> str:
    """Return what the user wrote in ``content``, without reminders that clients slip in."""
    texts = [part["text"] for part in content.get("parts", ()) if part.get("text")]
    return _REMINDER.sub("", "\n".join(texts)).strip()


def choose_calls(body: Mapping[str, Any], *, with_ids: bool) -> list[Call]:
    """Return the ``functionCall`` values of the next answer, none when it is to be text.

    A call is made when the turn's text names a declared function or asks for "a tool"; several at
    once when it names several or says "both", one after the other when it says "then", none when
    it says "do not call any tools". Mode ANY forces one, NONE forbids all.
    ``call NAME with {json}`` gives the arguments.
    """
    declared = {
        declaration["name"]: declaration
        for tool in body.get("tools", ())
        for declaration in tool.get("functionDeclarations", ())
    }
    calling = body.get("toolConfig", {}).get("functionCallingConfig", {})
    mode = calling.get("mode", "AUTO")
    allowed = calling.get("allowedFunctionNames")
    names = [name for name in declared if not allowed or name in allowed]
    if mode == "NONE" or not names:
        return []
    contents = body["contents"]
    start = turn_start(contents)
    text = user_text(contents[start])
    done = sum(
        any("functionCall" in part for part in content["parts"]) for content in contents[start:]
    )
    named = [] if _NO_TOOL.search(text) else _named(text, names)
    wanted = _next_step(named, text, done)
    if not wanted and mode == "ANY":
        wanted = names[:1]
    hints = [match[1] for match in _QUOTED.finditer(text) if match[1] not in declared]
    calls: list[Call] = []
    for name in wanted:
        schema = declared[name].get("parametersJsonSchema") or declared[name].get("parameters")
        call: Call = {"name": name, "args": _given(text, name)}
        if call["args"] is None:
            call["args"] = Filler(schema or {"type": "object"}, hints).value()
        if with_ids:
            call["id"] = _call_id(contents, len(calls), name)
        calls.append(call)
    return calls


def _named(text: str, names: Sequence[str]) -> list[str]:
    asks = bool(_ASKS.search(text))
    found: list[tuple[int, str]] = []
    for name in names:
        # "Read" and "edit" are words too: they mean the tool only where tools are spoken of.
        if name.isalpha() and name[1:].islower() and not asks:
            continue
        named = re.finditer(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", text)
        found += [(match.start(), name) for match in named]
    if found:
        return [name for _, name in sorted(found)]
    if _BOTH.search(text) and asks:
        return list(names[:2])
    return list(names[:1]) if _A_TOOL.search(text) else []


def _next_step(named: list[str], text: str, done: int) -> list[str]:
    if _IN_TURN.search(text):
        return named[done : done + 1]
    return [] if done else list(dict.fromkeys(named))


def _given(text: str, name: str) -> dict[str, Any] | None:
    """Return the arguments that the text spells out for ``name``."""
    match = re.search(rf"{re.escape(name)}\s+with\s+(?=\{{)", text)
    if match is None:
        return None
    try:
        args, _ = json.JSONDecoder().raw_decode(text, match.end())
    except ValueError:
        return None
    return args if isinstance(args, dict) else None


def _call_id(contents: Sequence[Mapping[str, Any]], index: int, name: str) -> str:
    """Return an id of eight characters, different for every call of a conversation."""
    seed = json.dumps([contents, index, name], sort_keys=True)
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")
    letters = []
    for _ in range(8):
        number, digit = divmod(number, len(_ID_ALPHABET))
        letters.append(_ID_ALPHABET[digit])
    return "".join(letters)


def tool_results(content: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each function response in ``content``."""
    sentences = []
    for part in content.get("parts", ()):
        if "functionResponse" in part:
            answer = part["functionResponse"]
            media = "".join(f" with {describe_media(m)}" for m in answer.get("parts", ()))
            sentences.append(
                f"The tool {answer['name']} {_outcome(answer.get('response', {}))}{media}."
            )
    return sentences


def _outcome(response: Mapping[str, Any]) -> str:
    if "error" in response:
        return f"failed: {_plain(response['error'])}"
    return f"returned: {_plain(response.get('output', response))}"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def describe_media(part: Mapping[str, Any]) -> str:
    """Return what a media part holds: its MIME type and its size or address."""
    if "inlineData" in part:
        data = part["inlineData"].get("data", "")
        size = len(data.rstrip("=")) * 3 // 4
        return f"{part['inlineData'].get('mimeType')} ({size} bytes)"
    file = part["fileData"]
    return f"{file.get('mimeType', 'a file')} at {file.get('fileUri')}"
