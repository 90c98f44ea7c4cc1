"""``GET /openapi.json``: the surface that clients see, as an OpenAPI 3.1 document.

What validation demands is stated; what it passes on untouched is left open, since clients may send
fields and blocks that are newer than the gateway.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from app import __version__
from app.api.errors import TYPES
from app.api.models import DEFAULT_LIMIT, MAX_LIMIT
from app.translate.validation import MOST_BLOCKS, MOST_MESSAGES, MOST_TOOLS

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_FLAG: Json = {"type": ["boolean", "null"]}
_OPEN: Json = {"type": "object"}
_COUNT: Json = {"type": "integer", "minimum": 0}

_WHEN = {
    400: "The request is not valid; the message names the field.",
    401: "The key is missing or wrong.",
    403: "Google does not allow this to the account, e.g. from its location; or a web page asked, "
    "and no client keys are set.",
    404: "There is no such model or path.",
    405: "The path exists, but not with this method.",
    408: "The request's body came too slowly.",
    413: "The request is larger than MAX_REQUEST_BYTES, or than Google takes.",
    429: "The client's own limit is reached, or all accounts are out of quota; see retry-after.",
    500: "A fault of the gateway's own; its log says more.",
    502: "Google's answers made no sense, on all accounts that were tried.",
    503: "No account can serve the model now, or the gateway is shutting down.",
    504: "Google did not answer in time, on all accounts that were tried.",
    529: "Google is overloaded.",
}


def openapi_blueprint(max_request_bytes: int) -> Blueprint:
    """Return the blueprint that serves the document."""
    blueprint = Blueprint("openapi", __name__)
    found = document(max_request_bytes)

    @blueprint.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(found)

    return blueprint


def document(max_request_bytes: int) -> Json:
    """Return the document; requests may have ``max_request_bytes`` bytes."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Claude-compatible gateway to Gemini",
            "version": __version__,
            "description": "The Anthropic Messages API, answered by a pool of Gemini accounts. "
            f"Requests may have {max_request_bytes} bytes. Unknown fields are let through; "
            "[compatibility.md](compatibility.md) says what becomes of each known one.",
        },
        "security": [{"key": []}, {"bearer": []}, {}],
        "paths": {
            "/v1/messages": {"post": _messages()},
            "/v1/messages/count_tokens": {"post": _count_tokens()},
            "/v1/models": {"get": _models()},
            "/v1/models/{model_id}": {"get": _model()},
            "/healthz": {"get": _check("healthz", "Whether the process lives", [200])},
            "/readyz": {"get": _ready()},
            "/openapi.json": {"get": _check("openapi", "This document", [200])},
        },
        "components": {
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
            "schemas": _schemas(),
            "responses": {
                f"E{status}": {
                    "description": _WHEN[status],
                    "headers": {"request-id": {"schema": _TEXT}, **_more_headers(status)},
                    "content": _json(_error(status)),
                }
                for status in _WHEN
            },
        },
    }


def _messages() -> Json:
    return {
        "operationId": "create_message",
        "summary": "Answer a conversation, at once or as server-sent events",
        "requestBody": {"required": True, "content": _json(_ref("MessagesRequest"))},
        "responses": {
            "200": {
                "description": "The message; with `stream`, the events message_start, "
                "content_block_start, content_block_delta, content_block_stop, message_delta, "
                "message_stop and, if it fails after all, error. Lines that begin with a colon "
                "keep the connection alive.",
                "headers": {"request-id": {"schema": _TEXT}},
                "content": {
                    **_json(_ref("Message")),
                    "text/event-stream": {"schema": _TEXT},
                },
            },
            **_errors(400, 401, 403, 404, 408, 413, 429, 500, 502, 503, 504, 529),
        },
    }


def _count_tokens() -> Json:
    return {
        "operationId": "count_tokens",
        "summary": "Count the tokens of a request, as Google counts them",
        "requestBody": {"required": True, "content": _json(_ref("CountRequest"))},
        "responses": {
            "200": _ok("The count", _object({"input_tokens": _COUNT}, "input_tokens")),
            **_errors(400, 401, 403, 404, 408, 413, 429, 500, 502, 503, 504, 529),
        },
    }


def _models() -> Json:
    text = {"type": "string"}
    return {
        "operationId": "list_models",
        "summary": "List the models that can be served now, and the names that stand for them",
        "parameters": [
            _query(
                "limit",
                {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": MAX_LIMIT,
                    "default": DEFAULT_LIMIT,
                },
            ),
            _query("after_id", text),
            _query("before_id", text),
            _query("lifecycle", text),
        ],
        "responses": {"200": _ok("A page", _ref("ModelPage")), **_errors(400, 401, 403, 405)},
    }


def _model() -> Json:
    return {
        "operationId": "get_model",
        "summary": "Say what a model's name stands for",
        "parameters": [{"name": "model_id", "in": "path", "required": True, "schema": _TEXT}],
        "responses": {"200": _ok("The model", _ref("Model")), **_errors(401, 403, 404, 405)},
    }


def _ready() -> Json:
    return {
        **_check("readyz", "Whether requests can be served", [200, 503]),
        "parameters": [_query("degraded", {"type": "string", "enum": ["ok"]})],
    }


def _check(name: str, summary: str, statuses: list[int]) -> Json:
    answers: Json = {str(status): _ok(summary, _OPEN) for status in statuses}
    return {
        "operationId": name,
        "summary": summary,
        "security": [],
        "responses": {**answers, **_errors(405)},
    }


def _schemas() -> Json:
    request = {
        "model": {"type": "string", "minLength": 1},
        "messages": {
            "type": "array",
            "minItems": 1,
            "maxItems": MOST_MESSAGES,
            "items": _ref("InputMessage"),
        },
        "system": {"anyOf": [_TEXT, {"type": "null"}, _array(_ref("TextBlock"))]},
        "tools": {
            "type": ["array", "null"],
            "maxItems": MOST_TOOLS,
            "items": _ref("Tool"),
        },
        "tool_choice": {"anyOf": [{"type": "null"}, _ref("ToolChoice")]},
        "thinking": {"anyOf": [{"type": "null"}, _ref("Thinking")]},
        "output_config": {"anyOf": [{"type": "null"}, _ref("OutputConfig")]},
        "metadata": {
            "anyOf": [{"type": "null"}, _object({"user_id": {"type": ["string", "null"]}})]
        },
    }
    return {
        "CountRequest": _object(request, "model", "messages"),
        "MessagesRequest": _object(
            {
                **request,
                "max_tokens": {"type": "integer", "minimum": 0},
                "stream": _FLAG,
                "stop_sequences": {
                    "type": ["array", "null"],
                    "items": {"type": "string", "pattern": r"\S"},
                },
                "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
                "top_p": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
                "top_k": {"type": ["integer", "null"], "minimum": 0},
            },
            *("model", "messages", "max_tokens"),
        ),
        "InputMessage": _object(
            {
                "role": {"enum": ["user", "assistant", "system"]},
                "content": {
                    "anyOf": [
                        _TEXT,
                        {
                            "type": "array",
                            "maxItems": MOST_BLOCKS,
                            "items": _ref("InputBlock"),
                        },
                    ]
                },
            },
            *("role", "content"),
        ),
        "InputBlock": {
            **_object({"type": _TEXT}, "type"),
            "anyOf": [
                _ref("TextBlock"),
                _block("image", source=_ref("Source")),
                _block("document", source=_ref("Source")),
                _block("tool_use", id=_TEXT, name=_TEXT, input=_OPEN),
                _block("tool_result", tool_use_id=_TEXT),
                _block("thinking", thinking=_TEXT),
                _block("redacted_thinking"),
                _block("search_result"),
                _block("server_tool_use", id=_TEXT, name=_TEXT),
                _object({"type": {"pattern": "_tool_result$"}}, "type"),
            ],
        },
        "TextBlock": _block("text", text=_TEXT),
        "Source": {
            "anyOf": [
                _block("base64", media_type=_TEXT, data=_TEXT),
                _block("url", url=_TEXT),
                _block("text", data=_TEXT),
                _block("content", content={"anyOf": [_TEXT, _array(_ref("InputBlock"))]}),
            ]
        },
        "Tool": {
            **_object(
                {
                    "name": {"type": ["string", "null"]},
                    "type": {"type": ["string", "null"]},
                    "description": {"type": ["string", "null"]},
                    "input_schema": {"type": ["object", "null"]},
                }
            ),
        },
        "ToolChoice": _object(
            {
                "type": {"enum": ["auto", "any", "tool", "none"]},
                "name": _TEXT,
                "disable_parallel_tool_use": _FLAG,
            },
            "type",
        ),
        "Thinking": _object(
            {"type": _TEXT, "budget_tokens": {"type": ["integer", "null"], "minimum": 1024}},
            "type",
        ),
        "OutputConfig": _object(
            {"effort": {"type": ["string", "null"]}, "format": {"type": ["object", "null"]}}
        ),
        "Message": _object(
            {
                "id": _TEXT,
                "type": {"const": "message"},
                "role": {"const": "assistant"},
                "model": _TEXT,
                "content": _array(_object({"type": _TEXT}, "type")),
                "stop_reason": {"type": ["string", "null"]},
                "stop_sequence": {"type": ["string", "null"]},
                "usage": _object(
                    {
                        "input_tokens": _COUNT,
                        "output_tokens": _COUNT,
                        "cache_read_input_tokens": {"type": ["integer", "null"]},
                        "cache_creation_input_tokens": {"type": ["integer", "null"]},
                    },
                    *("input_tokens", "output_tokens"),
                ),
            },
            *("id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"),
        ),
        "Model": _object(
            {
                "id": _TEXT,
                "type": {"const": "model"},
                "display_name": _TEXT,
                "created_at": {"type": "string", "format": "date-time"},
            },
            *("id", "type", "display_name", "created_at"),
        ),
        "ModelPage": _object(
            {
                "data": _array(_ref("Model")),
                "has_more": {"type": "boolean"},
                "first_id": {"type": ["string", "null"]},
                "last_id": {"type": ["string", "null"]},
            },
            *("data", "has_more", "first_id", "last_id"),
        ),
    }


def _error(status: int) -> Json:
    inner = _object({"type": {"const": TYPES.get(status, TYPES[400])}, "message": _TEXT},
                    *("type", "message"))  # fmt: skip
    return _object(
        {"type": {"const": "error"}, "error": inner, "request_id": _TEXT},
        *("type", "error", "request_id"),
    )


def _more_headers(status: int) -> Json:
    if status not in (429, 503):
        return {}
    return {"retry-after": {"description": "Seconds", "schema": {"type": "integer"}}}


def _errors(*statuses: int) -> Json:
    return {str(status): {"$ref": f"#/components/responses/E{status}"} for status in statuses}


def _ok(description: str, schema: Json) -> Json:
    return {"description": description, "content": _json(schema)}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _array(items: Json) -> Json:
    return {"type": "array", "items": items}


def _object(properties: Json, *required: str) -> Json:
    found: Json = {"type": "object", "properties": properties}
    return {**found, "required": list(required)} if required else found


def _block(kind: str, **fields: Json) -> Json:
    return _object({"type": {"const": kind}, **fields}, "type", *fields)


def _query(name: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "required": False, "schema": schema}
