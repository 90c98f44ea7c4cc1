"""``GET /v1/models`` and ``GET /v1/models/{id}``, in Anthropic's shape with its pagination."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, jsonify, request

from app.api.auth import ClientKeys
from app.api.errors import ApiError

DEFAULT_LIMIT = 20
MAX_LIMIT = 1000

Model = dict[str, Any]


def models_blueprint(
    keys: ClientKeys,
    *,
    catalogue: Callable[[], list[Model]],
    lookup: Callable[[str], Model | None],
) -> Blueprint:
    """Return the blueprint of the Models API.

    ``catalogue`` lists what can be served now, in order; ``lookup`` finds one by any name that a
    request could use, listed or not.
    """
    blueprint = Blueprint("models", __name__)

    @blueprint.get("/v1/models")
    def list_models() -> Response:
        keys.check(request)
        return jsonify(_page(catalogue(), request.args))

    @blueprint.get("/v1/models/<path:model_id>")
    def get_model(model_id: str) -> Response:
        keys.check(request)
        model = lookup(model_id)
        if model is None:
            raise ApiError(404, f"model: {model_id}")
        return jsonify(model)

    return blueprint


def _page(models: list[Model], args: Any) -> dict[str, Any]:
    """Return the page that ``limit``, ``after_id`` and ``before_id`` ask for."""
    limit = _limit(args.get("limit"))
    lifecycle = args.get("lifecycle")
    if lifecycle:
        models = [model for model in models if model.get("lifecycle") == lifecycle]
    after, before = args.get("after_id"), args.get("before_id")
    if after and before:
        raise ApiError(400, "after_id, before_id: only one of them can be given")
    if before:
        end = _position(models, before, "before_id")
        start = max(0, end - limit)
        page, more = models[start:end], start > 0
    else:
        start = _position(models, after, "after_id") + 1 if after else 0
        page, more = models[start : start + limit], start + limit < len(models)
    return {
        "data": page,
        "has_more": more,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def _limit(text: str | None) -> int:
    if not text:
        return DEFAULT_LIMIT
    if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= MAX_LIMIT:
        raise ApiError(400, f"limit: Input should be a whole number from 1 to {MAX_LIMIT}")
    return int(text)


def _position(models: list[Model], model_id: str, name: str) -> int:
    for position, model in enumerate(models):
        if model["id"] == model_id:
            return position
    raise ApiError(400, f"{name}: {model_id!r} is not a listed model")
