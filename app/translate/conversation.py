"""One validated Messages request, ready to be written for any target."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from app.translate.contents import Block, ContentsWriter, blocks_of
from app.translate.errors import InvalidRequest
from app.translate.gemini_models import model_facts
from app.translate.generation import (
    answer_schema,
    generation_config,
    stop_sequences,
    thinking_shown,
)
from app.translate.reply import ReplyContext
from app.translate.resume import resumed_body
from app.translate.signatures import (
    newest_account,
    result_key,
    text_key,
    tool_key,
    unpack_tool_id,
)
from app.translate.target import Target, model_family
from app.translate.tools import read_tools
from app.translate.usage import LateCount

MOST_STORE_KEYS = 400
BILLING_MARK = "x-anthropic-billing-header:"
IMAGE_TOKENS = 1200
GO_ON = (
    "Your last message was cut off. Go on with it from exactly where it ends, without repeating "
    "any of it and without a comment."
)


class Conversation:
    """``body`` is what `app.translate.validation` returned; ``model`` the Gemini id it means.

    Immutable. Raises `InvalidRequest` for tools that can't be. ``asked`` is the client's own
    request where this one asks for the rest of its answer.
    """

    def __init__(
        self, body: Mapping[str, Any], model: str, *, asked: Conversation | None = None
    ) -> None:
        self._asked = asked
        self._body = body
        self.model = model
        self.requested_model: str = body["model"]
        self.stream = bool(body.get("stream"))
        self._facts = model_facts(model)
        self._tools = read_tools(body)

    def resumed(self, text: str) -> Conversation:
        """Return the request to go on after ``text``, which the client has already."""
        return Conversation(resumed_body(self._body, text), self.model, asked=self._asked or self)

    def render(self, target: Target, notes: Mapping[str, str]) -> dict[str, Any]:
        """Return the GenerateContentRequest for ``target``; ``notes`` as asked by `store_keys`."""
        body = self._shared(target, notes)
        body["generationConfig"] = generation_config(
            self._body, self._facts, json_mode=self._json_mode
        )
        return body

    def render_count(self, target: Target, notes: Mapping[str, str]) -> dict[str, Any]:
        """Return the CountTokensRequest for ``target``."""
        body = self._shared(target, notes)
        config = body.pop("toolConfig", {})
        if target.flavour == "vertex":
            return body
        if config.get("includeServerSideToolInvocations"):
            # Without it Google takes no tools of its own beside functions, here neither.
            body["toolConfig"] = {"includeServerSideToolInvocations": True}
        if target.flavour == "gemini":
            return {"generateContentRequest": {"model": f"models/{self.model}", **body}}
        contents = [
            {**content, "parts": parts}
            for content in body["contents"]
            if (parts := [part for part in content["parts"] if not part.get("thought")])
        ]
        # Code Assist counts contents alone: what else the model reads goes in as text.
        rest = json.dumps([body.get("systemInstruction"), body.get("tools")], ensure_ascii=False)
        contents.insert(0, {"role": "user", "parts": [{"text": rest}]})
        return {"request": {"model": f"models/{self.model}", "contents": contents}}

    def reply_context(self, target: Target) -> ReplyContext:
        """Return what the answer's translator must know."""
        thinking: Any = thinking_shown(self._body)
        return ReplyContext(
            model=self.requested_model,
            target=target,
            thinking=thinking,
            tool_names=self._tools.client_names,
            known_tools=frozenset(self._tools.names),
            one_call_only=bool(self._tools.choice.get("disable_parallel_tool_use")),
            server_tools=self._tools.server,
            stop_sequences=stop_sequences(self._body),
            json_answer=answer_schema(self._body) is not None,
            input_estimate=LateCount(self.estimate),
            resumed=self._asked is not None,
            prefill=(self._asked or self)._unwanted_prefill,
        )

    @cached_property
    def affinity_key(self) -> str:
        """The same for all turns of one conversation, "" when nothing tells."""
        user = (self._body.get("metadata") or {}).get("user_id") or ""
        try:
            session = json.loads(user).get("session_id", "")
        except (ValueError, AttributeError, RecursionError):
            session = user.rpartition("_session_")[2] if "_session_" in user else ""
        if session:
            return str(session).encode("utf-8", "replace").decode()  # may hold half an emoji
        first = next((m for m in self._body["messages"] if m["role"] == "user"), None)
        start = json.dumps(
            [
                [_without_billing(text) for text in _texts(self._body.get("system"))],
                _texts(first and first.get("content")),
            ]
        )
        return hashlib.sha256(start.encode()).hexdigest()[:32]

    @cached_property
    def preferred_account(self) -> str:
        """Tag of the account whose tool calls the last turn answers, "" if it answers none."""
        answered = [
            block.get("tool_use_id", "")
            for block in self._last_user_blocks()
            if block.get("type") == "tool_result"
        ]
        return newest_account(answered)

    @cached_property
    def store_keys(self) -> list[str]:
        """Keys of the notes that rendering may need, newest first, bounded."""
        keys: list[str] = []
        for message in reversed(self._body["messages"]):
            if message["role"] != "assistant":
                continue
            for block in blocks_of(message.get("content")):
                kind = block.get("type")
                if kind == "text" and block.get("text"):
                    keys.append(text_key(block["text"]))
                elif kind in ("tool_use", "server_tool_use"):
                    ref = unpack_tool_id(block.get("id") or "")
                    if ref:
                        keys.append(result_key(ref.nonce))
                        if not ref.signed or kind == "server_tool_use":
                            keys.append(tool_key(ref.nonce))
            if len(keys) >= MOST_STORE_KEYS:
                break
        return list(dict.fromkeys(keys))[:MOST_STORE_KEYS]

    def estimate(self) -> int:
        """Return the prompt's tokens, estimated offline, rather over than under."""
        return self._estimate

    @cached_property
    def _estimate(self) -> int:
        characters = sum(map(len, _strings(self._body.get("system"))))
        media = 0
        for message in self._body["messages"]:
            for block in _walk(message.get("content")):
                if block.get("type") in ("image", "document") and isinstance(
                    block.get("source"), dict
                ):
                    data = str(block["source"].get("data") or "")
                    if block["source"].get("type") == "text":
                        characters += len(data)
                    else:
                        media += IMAGE_TOKENS if block["type"] == "image" else len(data) // 40 + 258
                else:
                    for key in ("text", "input", "content", "name"):
                        characters += sum(map(len, _strings(block.get(key), deep=key == "input")))
        characters += self._tools.size
        return characters // 3 + media + 3 * len(self._body["messages"]) + 1

    @property
    def _json_mode(self) -> bool:
        # Gemini 2 refuses JSON answers together with tools; the schema is told in words there.
        tools = self._tools.declarations or self._tools.built_in
        return not (tools and model_family(self.model) in "12")

    @cached_property
    def _unwanted_prefill(self) -> str:
        """What to take off if an answer to this request begins with it.

        A resumed request takes its client's: what was sent to the client before a cut ends this
        request like a prefill, but `app.translate.resume` takes off what repeats of that, and two
        that do would take off twice. A model that goes on by itself may well begin with the same
        letter again.
        """
        return "" if self._facts.prefill and len(self._prefill) < 8 else self._prefill

    @cached_property
    def _prefill(self) -> str:
        said = (
            m for m in reversed(self._body["messages"]) if m["role"] != "system" or m["content"]
        )
        last = next(said, None)
        if last is None or last["role"] != "assistant":
            return ""
        blocks = blocks_of(last.get("content"))
        if any(block.get("type") not in ("text", "thinking") for block in blocks):
            return ""
        text = "".join(block["text"] for block in blocks if block.get("type") == "text")
        return text.rstrip()

    def _shared(self, target: Target, notes: Mapping[str, str]) -> dict[str, Any]:
        writer = ContentsWriter(target, notes, self._tools.names)
        contents = writer.write(self._body["messages"])
        if contents and contents[-1]["role"] == "model" and not self._facts.prefill:
            wanted = GO_ON if self._prefill else "(continue)"
            contents.append({"role": "user", "parts": [{"text": wanted}]})
        if not contents:
            raise InvalidRequest("messages: nothing in them can be sent to Gemini")
        body: dict[str, Any] = {"contents": contents}
        system = [
            {"text": text}
            for text in map(_without_billing, _texts(self._body.get("system")))
            if text.strip()
        ]
        schema = answer_schema(self._body)
        if schema is not None and not self._json_mode:
            told = json.dumps(schema, ensure_ascii=False)
            system.append({"text": f"Answer with nothing but JSON that fits this schema: {told}"})
        if system:
            body["systemInstruction"] = {"parts": system}
        self._tools.write(body, target)
        return body

    def _last_user_blocks(self) -> Iterator[Block]:
        for message in reversed(self._body["messages"]):
            if message["role"] == "assistant":
                return
            if message["role"] == "user":
                yield from blocks_of(message.get("content"))


def _texts(content: Any) -> list[str]:
    return [block["text"] for block in blocks_of(content) if block.get("type") == "text"]


def _without_billing(text: str) -> str:
    """Return ``text`` without Claude Code's billing line, which changes from turn to turn."""
    return text.partition("\n")[2] if text.startswith(BILLING_MARK) else text


def _walk(content: Any) -> Iterator[Block]:
    """Yield blocks and the blocks within; unknown kinds may hold anything."""
    for block in blocks_of(content):
        if isinstance(block, Mapping):
            yield block
            if isinstance(block.get("content"), list):
                yield from _walk(block["content"])


def _strings(value: Any, *, deep: bool = True) -> Iterator[str]:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif deep and isinstance(item, Mapping):
            waiting += [*item.keys(), *item.values()]
        elif deep and isinstance(item, list):
            waiting += item
