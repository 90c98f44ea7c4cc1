"""The API's methods: a request that has found its way in, and the answer that goes out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from app.simulator import chunks, fields
from app.simulator.answers import Ask, compose
from app.simulator.checks import check_contents, check_generate, check_tools
from app.simulator.delivery import Outgoing
from app.simulator.errors import GoogleError, bad_request, no_publisher_model, no_such_model
from app.simulator.faults import Fault
from app.simulator.models import MODELS, Model, find_model, split_fault
from app.simulator.routes import Route
from app.simulator.shapes import Obj, read
from app.simulator.signatures import Signer
from app.simulator.spoiling import spoil
from app.simulator.state import Record, SimulatorState
from app.simulator.tokens import details, prompt_tokens, prompt_units, unit_tokens

JSON = ("Content-Type", "application/json; charset=UTF-8")
SSE = ("Content-Type", "text/event-stream")
_PAGE = 50
_PROJECT = "simulated-project"


def json_answer(body: object, status: int = 200) -> Outgoing:
    """Return a JSON answer, printed as Google prints."""
    return Outgoing(status, [JSON], [json.dumps(body, indent=2, ensure_ascii=False).encode()])


def call_model(
    state: SimulatorState, route: Route, record: Record, fault: Fault | None
) -> Outgoing:
    """Answer generate, stream and count calls; raises `GoogleError`."""
    body, model_name = _unwrapped(route, record)
    base, _ = split_fault(model_name)
    model = find_model(base)
    if model is None:
        if route.flavour == "vertex":
            raise no_publisher_model(route.project, route.location, base)
        raise no_such_model(base, route.version, route.call)
    if route.call == "countTokens":
        return _count(route, body, model)
    state.quotas.charge(tuple({record.key, record.project} - {""}), base)
    signer = Signer(
        route.flavour,
        model.generation,
        record.key,
        strict=state.strict_signatures,
        size=state.signature_bytes,
    )
    check_generate(body, model, route.flavour, signer)
    ask = Ask(route.flavour, model, body, signer)
    return _generate(state, route, record, ask, fault)


def _unwrapped(route: Route, record: Record) -> tuple[dict[str, Any], str]:
    """Return the normalised body and the model that it or the path names."""
    if route.flavour == "code_assist":
        envelope = read(record.body, fields.envelope_shape(route.call))
        inner = envelope.get("request")
        if inner is None:
            raise bad_request("Request is missing.")
        name = str(envelope.get("model") or inner.pop("model", "models/gemini-3.8-flash"))
        record.project = record.project or envelope.get("project", "")
        record.model = name.removeprefix("models/")
        return inner, record.model
    count = route.call == "countTokens"
    shape: Obj = (fields.count_shape if count else fields.generate_shape)(route.flavour)
    body: dict[str, Any] = read(record.body, shape)
    whole = body.get("generateContentRequest")
    if whole is not None:
        if "contents" in body or not whole.get("model"):
            raise bad_request(
                "Exactly one of contents and generate_content_request must be set, the latter "
                "with its model."
            )
        return whole, route.model
    return body, route.model


def _count(route: Route, body: Mapping[str, Any], model: Model) -> Outgoing:
    contents = body.get("contents", ())
    check_contents(contents, model, route.flavour)
    check_tools(body, model, route.flavour)
    if route.flavour == "code_assist" and any(
        part.get("thought") for content in contents for part in content["parts"]
    ):
        raise bad_request("Request contains an invalid argument.")
    counts = prompt_tokens(body, model)
    answer: dict[str, Any] = {"totalTokens": counts.total()}
    if route.flavour == "vertex":
        texts = (part.get("text", "") for content in contents for part in content["parts"])
        answer["totalBillableCharacters"] = sum(len("".join(text.split())) for text in texts)
    if route.flavour != "code_assist":
        answer["promptTokensDetails"] = details(counts)
    return json_answer(answer)


def _generate(
    state: SimulatorState, route: Route, record: Record, ask: Ask, fault: Fault | None
) -> Outgoing:
    frame = chunks.Frame(
        model_version=ask.model.id,
        response_id=hashlib.sha256(f"{state.served}".encode()).hexdigest()[:22],
        prompt=prompt_tokens(ask.body, ask.model),
        cached=_cached(state, record, ask),
        vertex=route.flavour == "vertex",
        create_time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    )
    answer = compose(ask)
    streams = route.call == "streamGenerateContent"
    made = chunks.stream(answer, frame) if streams else [chunks.whole(answer, frame)]
    if fault:
        made = spoil(made, fault)
    if route.flavour == "code_assist":
        made = [
            each if "error" in each else {"response": each, "traceId": frame.response_id}
            for each in made
        ]
    if not streams:
        if "error" in made[0]:
            raise GoogleError(503, made[0]["error"]["message"])
        return json_answer(made[0])
    lines = [json.dumps(each, ensure_ascii=False) for each in made]
    if record.query.get("alt") == "sse":
        pieces = [f"data: {line}\r\n\r\n".encode() for line in lines]
        return Outgoing(200, [SSE], pieces, state.pace, streams=True)
    pieces = [(",\r\n" if n else "[").encode() + line.encode() for n, line in enumerate(lines)]
    pieces[-1] += b"\n]\n"
    return Outgoing(200, [JSON], pieces, state.pace, streams=True)


def _cached(state: SimulatorState, record: Record, ask: Ask) -> int:
    """Return the tokens of the longest prefix that this account's model has seen before."""
    digest = hashlib.sha256()
    digests, totals = [], [0]
    for kind, unit in prompt_units(ask.body):
        digest.update(json.dumps([kind, unit], sort_keys=True).encode())
        digests.append((record.key, record.project, ask.model.id, digest.hexdigest()))
        totals.append(totals[-1] + unit_tokens(kind, unit, ask.model).total())
    tokens = totals[state.remember_prefixes(digests)]
    threshold = state.cache_threshold
    return (
        tokens if tokens >= (ask.model.cache_threshold if threshold is None else threshold) else 0
    )


def list_models(route: Route, query: Mapping[str, str]) -> Outgoing:
    """Answer ``models.list`` and ``models.get``; raises `GoogleError`."""
    if route.model:
        model = find_model(split_fault(route.model)[0])
        if model is None:
            raise no_such_model(route.model, route.version, "getModel")
        return json_answer(model.listed())
    try:
        size = int(query.get("pageSize", _PAGE)) or _PAGE
        start = int(query.get("pageToken", "0") or 0)
    except ValueError:
        raise bad_request("Invalid page token or page size.") from None
    page = list(MODELS.values())[start : start + size]
    if route.flavour == "vertex":
        listed = [
            {
                "name": f"publishers/google/models/{model.id}",
                "versionId": "default",
                "launchStage": "GA",
            }
            for model in page
        ]
        answer: dict[str, Any] = {"publisherModels": listed}
    else:
        answer = {"models": [model.listed() for model in page]}
    if start + size < len(MODELS):
        answer["nextPageToken"] = str(start + size)
    return json_answer(answer)


def code_assist(state: SimulatorState, route: Route, record: Record) -> Outgoing:
    """Answer Code Assist's methods around a user's project and tier."""
    asked = record.body if isinstance(record.body, Mapping) else {}
    project = asked.get("cloudaicompanionProject") or _PROJECT
    tier = {"id": "standard-tier", "name": "Gemini Code Assist Standard"}
    done = {
        "name": "operations/onboarding",
        "done": True,
        "response": {"cloudaicompanionProject": {"id": project}},
    }
    if route.call == "operations":
        state.onboarded(record.key)
        return json_answer(done)
    if route.call == "onboardUser":
        if state.is_new_to_code_assist(record.key):
            return json_answer({"name": "operations/onboarding"})
        return json_answer(done)
    if state.is_new_to_code_assist(record.key):
        return json_answer({"allowedTiers": [{**tier, "isDefault": True}]})
    return json_answer(
        {
            "currentTier": tier,
            "allowedTiers": [{**tier, "isDefault": True}],
            "cloudaicompanionProject": project,
        }
    )
