"""``/admin/api/…``: the dashboard's facts and actions as JSON (docs/dashboard.md)."""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, Response, jsonify, request

from app.api.errors import ApiError
from app.ops.account_fields import account_fields
from app.ops.admin.actions import UnknownAction
from app.ops.admin.parts import Parts
from app.ops.admin.reading import RANGES
from app.ops.admin.series import TOTAL, Bucket, Counts

MOST = 500


def add_api(blueprint: Blueprint, parts: Parts) -> None:
    """Add the JSON routes to ``blueprint``."""

    @blueprint.get("/api/accounts")
    def api_accounts() -> Response:
        counts = parts.reader.total("1h").by_account()
        return _tagged(
            {
                "serving": parts.readiness()[1]["serving"],
                "accounts": [
                    account_fields(view) | {"last_hour": counts.get(view.name, Counts()).as_dict()}
                    for view in parts.pool.snapshot()
                ],
            }
        )

    @blueprint.post("/api/accounts/<path:name>/<action>")
    def api_act(name: str, action: str) -> Response:
        try:
            done = parts.actions.run(action, name)
        except UnknownAction as error:
            raise ApiError(404, str(error)) from None
        view = next((view for view in parts.pool.snapshot() if view.name == name), None)
        account = account_fields(view) if view else None
        return jsonify({"ok": done.ok, "message": done.message, "account": account})

    @blueprint.get("/api/requests")
    def api_requests() -> Response:
        found = parts.reader.search(
            text=request.args.get("search", ""),
            account=request.args.get("account", ""),
            failed=request.args.get("failed", "") in ("1", "true"),
            most=_number("limit", 100),
        )
        return _tagged({"live": parts.reader.live(), "requests": found})

    @blueprint.get("/api/requests/<request_id>")
    def api_request(request_id: str) -> Response:
        record = parts.reader.find(request_id)
        if record is None:
            raise ApiError(404, f"There is no request {request_id}, or it is no longer kept.")
        return jsonify(record)

    @blueprint.get("/api/series")
    def api_series() -> Response:
        name = request.args.get("range", "1h")
        if name not in RANGES:
            raise ApiError(400, f"range: must be one of {', '.join(RANGES)}")
        series = parts.reader.series(name)
        return _tagged(
            {
                "range": name,
                "seconds": RANGES[name][0].width,
                **columns(series, request.args.get("account", TOTAL)),
            }
        )


def columns(series: list[tuple[int, Bucket]], account: str) -> dict[str, Any]:
    """Return ``series`` of ``account`` by columns: ``starts`` in epoch seconds, then each figure.

    ``first_event_ms`` has one column for each percentile, None where nothing came.
    """
    rows = [bucket.of(account) for _, bucket in series]
    figures = ("requests", "ok", "refused", "failed", "other")
    tokens = ("input_tokens", "cached_tokens", "output_tokens")
    return {
        "account": account or None,
        "starts": [start for start, _ in series],
        **{name: [getattr(row, name) for row in rows] for name in figures + tokens},
        "first_event_ms": {
            name: [row.percentile(share) for row in rows]
            for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
        },
    }


def _tagged(content: dict[str, Any]) -> Response:
    response = jsonify(content)
    response.add_etag()
    response.make_conditional(request)
    response.headers["x-now"] = f"{time.time():.3f}"
    return response


def _number(name: str, default: int) -> int:
    text = request.args.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST:
        raise ApiError(400, f"{name}: must be a whole number from 1 to {MOST}")
    return int(text)
