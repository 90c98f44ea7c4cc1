"""``POST /v1/messages`` and ``POST /v1/messages/count_tokens``."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Request, Response, g, jsonify, request

from app.api.auth import ClientKeys
from app.api.body import read_json
from app.api.deadline import BodyDeadline
from app.api.errors import ApiError
from app.api.record import RequestRecord
from app.api.reply import Replier
from app.relay.counting import CountGate
from app.relay.exchange import Exchange
from app.relay.jobs import AnswerJob
from app.relay.relay import Relay
from app.translate.conversation import Conversation
from app.translate.signatures import NONCE_LENGTH
from app.translate.stream import StreamTranslator
from app.translate.target import Target
from app.translate.validation import load_count, load_messages

if TYPE_CHECKING:
    from app.api.limits import ClientLimits


def new_nonce() -> str:
    """Return what makes an id unique: `NONCE_LENGTH` random characters of ``[0-9a-f]``."""
    return secrets.token_hex(NONCE_LENGTH // 2)


def messages_blueprint(
    relay: Relay,
    replier: Replier,
    keys: ClientKeys,
    *,
    resolve: Callable[[str], str],
    max_request_bytes: int,
    deadline: BodyDeadline,
    limits: ClientLimits | None,
) -> Blueprint:
    """Return the blueprint of the Messages API.

    ``limits``: what each client key may use in a minute. ``resolve`` maps the model name a client
    asks for to the upstream's.
    """
    blueprint = Blueprint("messages", __name__)
    gate = CountGate()

    @blueprint.post("/v1/messages")
    def create_message() -> Response:
        asked, own = _here()
        own.client = keys.check(asked)
        body = load_messages(read_json(asked, max_request_bytes, deadline))
        conversation = Conversation(body, resolve(body["model"]))
        if limits:
            own.allowance = limits.admit(own.client, own.request_id, conversation.estimate)
        job = relay.answer_job(conversation, _translator)
        exchange = relay.exchange(job)
        record = _AnswerRecord.of(asked, own, conversation, exchange)
        answer = replier.stream if conversation.stream else replier.message
        return answer(exchange, record)

    @blueprint.post("/v1/messages/count_tokens")
    def count_tokens() -> Response:
        g.client = keys.check(request)
        body = load_count(read_json(request, max_request_bytes, deadline))
        conversation = Conversation(body, resolve(body["model"]))
        key = _digest(conversation.model, body)
        count = gate.known(key)
        if count is None:
            count = _count(conversation, key)
        return jsonify({"input_tokens": count})

    def _count(conversation: Conversation, key: bytes) -> int:
        if not gate.enter():
            return conversation.estimate()
        counted: int | None = None
        try:
            exchange = relay.exchange(relay.count_job(conversation))
            record = _AnswerRecord.of(*_here(), conversation, exchange)
            counted = int(replier.first(exchange, record)["input_tokens"])
        except ApiError as error:
            if error.status != 429:
                raise
            return conversation.estimate()  # a count is no reason to make a client wait
        finally:
            gate.leave(key, counted)
        return counted

    return blueprint


def _here() -> tuple[Request, Any]:
    """Return the request and what Flask keeps for it, themselves: each use of a proxy costs."""
    return request._get_current_object(), g._get_current_object()  # type: ignore[attr-defined]


def _translator(conversation: Conversation, target: Target) -> StreamTranslator:
    return StreamTranslator(conversation.reply_context(target), new_nonce, _now)


def _now() -> datetime:
    return datetime.now(UTC)


def _digest(model: str, body: dict[str, Any]) -> bytes:
    text = json.dumps([model, body], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class _AnswerRecord(RequestRecord):
    """A record that takes its figures from the answer's translator when it is written."""

    exchange: Exchange | None = None

    @classmethod
    def of(
        cls, asked: Request, own: Any, conversation: Conversation, exchange: Exchange
    ) -> _AnswerRecord:
        record = cls(
            request_id=own.request_id,
            path=asked.path,
            model=conversation.requested_model,
            upstream_model=conversation.model,
            stream=conversation.stream,
            trace=exchange.trace,
            client=own.get("client", ""),
        )
        record.exchange = exchange
        own.trace = exchange.trace
        return record

    def complete(self) -> None:
        job = self.exchange.job if self.exchange else None
        answer = job.answer if isinstance(job, AnswerJob) else None
        if answer:
            self.served_model = answer.served_model
            self.stop_reason = answer.stop_reason or ""
            self.usage = answer.usage
