"""``GET /healthz`` (the process lives), ``GET /readyz`` (it can serve), and the root."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, jsonify, request


def health_blueprint(readiness: Callable[[], tuple[bool, dict[str, Any]]]) -> Blueprint:
    """Return the blueprint of the health checks.

    ``readiness`` returns whether requests can be served, and the facts to show.
    """
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/healthz")
    def healthz() -> Response:
        return jsonify({"status": "ok"})

    @blueprint.get("/readyz")
    def readyz() -> tuple[Response, int]:
        ready, facts = readiness()
        # Without its store a gateway goes on by its own view: a load balancer may prefer that.
        fit = ready or (request.args.get("degraded") == "ok" and facts["degraded"])
        return jsonify({"ready": ready, **facts}), 200 if fit else 503

    @blueprint.get("/")
    def root() -> Response:
        return jsonify({"service": "claude-gemini-gateway", "messages": "/v1/messages"})

    return blueprint
