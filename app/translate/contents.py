"""Messages → ``contents``: turns, parts, tool results and the signatures that go with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from app.translate.media import media_part
from app.translate.signatures import (
    PLACEHOLDER,
    Signed,
    ToolRef,
    read_note,
    read_part_note,
    read_text_note,
    result_key,
    text_key,
    tool_key,
    unpack_thinking,
    unpack_tool_id,
)
from app.translate.target import Target
from app.translate.tool_names import google_name

Part = dict[str, Any]
Block = Mapping[str, Any]


def blocks_of(content: Any) -> list[Block]:
    """Return message content as blocks; a string is one text block."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return content or []


@dataclass
class ContentsWriter:
    """Writes one conversation for one target. ``names`` maps the client's tool names."""

    target: Target
    notes: Mapping[str, str]
    names: Mapping[str, str]
    contents: list[dict[str, Any]] = field(default_factory=list)
    _calls: dict[str, tuple[str, str]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)
    _rank: dict[str, int] = field(default_factory=dict)
    _ranks: dict[int, int] = field(default_factory=dict)
    _signed_call: bool = False
    _shown: list[Part] = field(default_factory=list)
    _elsewhere: dict[str, Block] = field(default_factory=dict)

    def write(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return ``contents`` for validated ``messages``."""
        for number, message in enumerate(messages):
            blocks = blocks_of(message.get("content"))
            path = f"messages.{number}.content"
            if message["role"] == "assistant":
                self._add("model", self._model_parts(blocks, path))
            elif message["role"] == "system":
                text = "\n".join(block["text"] for block in blocks if block.get("type") == "text")
                if text.strip():
                    self._add("user", [{"text": f"<system>\n{text}\n</system>"}])
            else:
                self._hand_over_shown()
                self._add("user", self._user_parts(blocks, path))
        self._hand_over_shown()
        if self.contents and self.contents[0]["role"] == "model":
            self.contents.insert(0, {"role": "user", "parts": [{"text": "(continue)"}]})
        return self.contents

    def _hand_over_shown(self) -> None:
        """Put what the assistant showed into the user's turn: Gemini's own turns are words."""
        self._add("user", self._shown)
        self._shown = []

    def _add(self, role: str, parts: list[Part]) -> None:
        if not parts:
            return
        if self.contents and self.contents[-1]["role"] == role:
            before = self.contents[-1]["parts"]
            if role == "user" and any("functionResponse" in part for part in parts):
                responses = [part for part in (*before, *parts) if "functionResponse" in part]
                responses.sort(key=lambda part: self._ranks.get(id(part), 0))
                others = [part for part in (*before, *parts) if "functionResponse" not in part]
                before[:] = [*responses, *others]
            else:
                before += parts
        else:
            self.contents.append({"role": role, "parts": parts})
        if role == "user":
            self._signed_call = False

    # Model turns

    def _model_parts(self, blocks: list[Block], path: str) -> list[Part]:
        parts: list[Part] = []
        following: Signed | None = None
        length = 0
        for number, block in enumerate(blocks):
            kind = block.get("type")
            if kind == "thinking":
                ref = unpack_thinking(block.get("signature") or "")
                if ref and ref.own and ref.own.origin.valid_for(self.target):
                    part = {"text": block.get("thinking") or "", "thought": True}
                    parts.append(part | {"thoughtSignature": ref.own.signature})
                if ref:
                    following, length = ref.following, ref.length
                continue
            if kind == "text" and block.get("text"):
                parts += self._text(block["text"], following, length)
            elif kind == "tool_use":
                # A length is a text's: one that was dropped since, as empty ones are.
                part = self._call(block, None if length else following)
                if not self._signed_call and self.target.family not in "12":
                    part.setdefault("thoughtSignature", PLACEHOLDER)
                self._signed_call = True  # of the calls of one turn, only the first needs one
                parts.append(part)
                parts += self._behind(block)
            elif kind in ("image", "document", "search_result"):
                for part in self._plain(block, f"{path}.{number}"):
                    (parts if "text" in part else self._shown).append(part)
            else:
                parts += self._server_parts(block)
            following, length = None, 0
        return parts

    def _server_parts(self, block: Block) -> list[Part]:
        """Return what a block of the server's own making is to Gemini."""
        match block.get("type"):
            case "server_tool_use":
                return self._server_call(block)
            case "compaction":
                return [{"text": block["content"]}] if block.get("content") else []
            case "mcp_tool_use":
                self._elsewhere[block["id"]] = block
            case "mcp_tool_result":
                self._shown.append(self._from_elsewhere(block))
            case str(kind) if kind.endswith("_tool_result"):
                return self._server_result(block)
        return []

    def _text(self, text: str, following: Signed | None, length: int) -> list[Part]:
        if not self.notes and following is None:
            return [{"text": text}]
        marks = {
            (mark.start, mark.end): mark.signed
            for mark in read_text_note(self.notes.get(text_key(text), ""))
            if mark.signed.origin.valid_for(self.target)
        }
        held = following if following and following.origin.valid_for(self.target) else None
        if held and all(signed.signature != held.signature for signed in marks.values()):
            # The client's own word counts: the note may be of another answer with this text.
            marks.clear()
            marks[(0, min(length or len(text), len(text)))] = held
        parts: list[Part] = []
        at = 0
        for (first, last), signed in sorted(marks.items(), key=lambda item: item[0]):
            start, end = max(first, at), min(last, len(text))
            if start > at:
                parts.append({"text": text[at:start]})
            parts.append({"text": text[start:end], "thoughtSignature": signed.signature})
            at = max(end, at)
        if at < len(text):
            parts.append({"text": text[at:]})
        return parts

    def _call(self, block: Block, following: Signed | None) -> Part:
        ref = unpack_tool_id(block["id"])
        name = self.names.get(block["name"]) or google_name(block["name"])
        call_id = self._call_id(block["id"], ref)
        self._calls[block["id"]] = (name, call_id)
        self._rank[block["id"]] = next(self._numbers)
        call: dict[str, Any] = {"name": name, "args": block.get("input") or {}}
        if call_id:
            call["id"] = call_id
        signed = self._signed(ref) or following
        part: Part = {"functionCall": call}
        if signed and signed.origin.valid_for(self.target):
            part["thoughtSignature"] = signed.signature
        return part

    def _call_id(self, client_id: str, ref: ToolRef | None) -> str:
        if ref and ref.call_id:
            return ref.call_id
        if self.target.family in "12":
            return ""
        return hashlib.sha256(client_id.encode("utf-8", "replace")).hexdigest()[:12]

    def _signed(self, ref: ToolRef | None) -> Signed | None:
        if ref is None:
            return None
        return ref.signed or read_note(self.notes.get(tool_key(ref.nonce), ""))

    def _behind(self, block: Block) -> list[Part]:
        """Return the signed empty text that stood right behind a call."""
        ref = unpack_tool_id(block["id"])
        signed = read_note(self.notes.get(result_key(ref.nonce), "")) if ref else None
        if signed and signed.origin.valid_for(self.target):
            return [{"text": "", "thoughtSignature": signed.signature}]
        return []

    def _server_call(self, block: Block) -> list[Part]:
        ref = unpack_tool_id(block["id"])
        if ref is None:
            return []
        kept = read_part_note(self.notes.get(tool_key(ref.nonce), ""))
        if kept:
            part, origin = kept
            return (
                [part] if origin.valid_for(self.target) and self.target.flavour == "gemini" else []
            )
        code = (block.get("input") or {}).get("code")
        if block.get("name") != "code_execution" or not isinstance(code, str):
            return []
        rebuilt: Part = {"executableCode": {"language": "PYTHON", "code": code}}
        if ref.call_id:
            rebuilt["executableCode"]["id"] = ref.call_id
        signed = self._signed(ref)
        if signed and signed.origin.valid_for(self.target):
            rebuilt["thoughtSignature"] = signed.signature
        return [rebuilt]

    def _server_result(self, block: Block) -> list[Part]:
        ref = unpack_tool_id(block.get("tool_use_id") or "")
        if ref is None:
            return []
        value = self.notes.get(result_key(ref.nonce), "")
        kept = read_part_note(value)
        if kept:
            part, origin = kept
            return (
                [part] if origin.valid_for(self.target) and self.target.flavour == "gemini" else []
            )
        content = block.get("content")
        if block["type"] != "code_execution_tool_result" or not isinstance(content, Mapping):
            return []
        outcome, output = _code_outcome(content)
        rebuilt: Part = {"codeExecutionResult": {"outcome": outcome, "output": output}}
        if ref.call_id:
            rebuilt["codeExecutionResult"]["id"] = ref.call_id
        signed = read_note(value)
        if signed and signed.origin.valid_for(self.target):
            rebuilt["thoughtSignature"] = signed.signature
        return [rebuilt]

    def _from_elsewhere(self, block: Block) -> Part:
        """Return what a tool answered that Anthropic called: Gemini has none to take it for."""
        call = self._elsewhere.get(block.get("tool_use_id") or "", {})
        asked = json.dumps(call.get("input") or {}, ensure_ascii=False)
        name = f"{call.get('server_name') or 'MCP'}: {call.get('name') or 'a tool'} {asked}"
        found = "\n".join(
            part["text"] for part in blocks_of(block.get("content")) if part.get("type") == "text"
        )
        return {"text": f"{name}\n{found}"}

    # User turns

    def _user_parts(self, blocks: list[Block], path: str) -> list[Part]:
        responses: dict[str, tuple[Part, list[Part]]] = {}
        others: list[Part] = []
        for number, block in enumerate(blocks):
            where = f"{path}.{number}"
            if block.get("type") == "tool_result":
                responses[block["tool_use_id"]] = self._response(block, where)
            else:
                others += self._plain(block, where)
        answers: list[Part] = []
        siblings: list[Part] = []
        for tool_id in sorted(responses, key=self._rank.__getitem__):
            answer, media = responses[tool_id]
            self._ranks[id(answer)] = self._rank[tool_id]
            answers.append(answer)
            siblings += media
        return answers + siblings + others

    def _response(self, block: Block, path: str) -> tuple[Part, list[Part]]:
        name, call_id = self._calls[block["tool_use_id"]]
        texts: list[str] = []
        media: list[Part] = []
        content = block.get("content")
        if isinstance(content, str):  # the usual one
            texts, content = [content], None
        for number, inner in enumerate(blocks_of(content)):
            if inner.get("type") == "tool_reference":
                texts.append(f"Tool loaded: {inner.get('tool_name')}")
                continue
            for part in self._plain(inner, f"{path}.content.{number}"):
                if "text" in part:
                    texts.append(part["text"])
                else:
                    media.append(part)
        key = "error" if block.get("is_error") else "output"
        response: dict[str, Any] = {"name": name, "response": {key: "\n".join(texts)}}
        if call_id:
            response["id"] = call_id
        if media and self.target.family not in "12":
            response["parts"] = media
            media = []
        return {"functionResponse": response}, media

    def _plain(self, block: Block, path: str) -> list[Part]:
        match block.get("type"):
            case "text":
                return [{"text": block["text"]}] if block.get("text") else []
            case "image":
                return [media_part(block, path, self.target)]
            case "document":
                return self._document(block, path)
            case "search_result":
                found = blocks_of(block.get("content"))
                inner = "\n".join(part["text"] for part in found if part.get("type") == "text")
                return [{"text": f"{block.get('title')} ({block.get('source')})\n{inner}"}]
            case _:
                return []

    def _document(self, block: Block, path: str) -> list[Part]:
        source = block["source"]
        head = "\n".join(
            f"{label}: {block[key]}"
            for key, label in (("title", "Document"), ("context", "Context"))
            if block.get(key)
        )
        parts: list[Part] = [{"text": head}] if head else []
        if source.get("type") == "text":
            return [*parts, {"text": source.get("data") or " "}]
        if source.get("type") == "content":
            for number, inner in enumerate(blocks_of(source.get("content"))):
                parts += self._plain(inner, f"{path}.source.content.{number}")
            return parts
        return [*parts, media_part(block, path, self.target)]


def _code_outcome(content: Mapping[str, Any]) -> tuple[str, str]:
    """Return the outcome and the output of a code execution, as Gemini names them."""
    if content.get("error_code") == "execution_time_exceeded":
        return "OUTCOME_DEADLINE_EXCEEDED", ""
    failed = bool(content.get("return_code") or content.get("error_code"))
    output = (
        (content.get("stderr") or content.get("error_code")) if failed else content.get("stdout")
    )
    return (
        "OUTCOME_FAILED" if failed else "OUTCOME_OK",
        output if isinstance(output, str) else "",
    )
