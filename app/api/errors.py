"""The Anthropic error envelope, for everything that can go wrong.

Shape, types and statuses: https://docs.anthropic.com/en/api/errors
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from app.relay.errors import Failure, RelayError
from app.translate.errors import InvalidRequest, client_message

log = logging.getLogger("gateway.api")

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}

STATUSES = {
    Failure.QUOTA: 429,
    Failure.NO_ACCOUNT: 503,
    Failure.BUSY: 503,
    Failure.FORBIDDEN: 403,
    Failure.TIMEOUT: 504,
    Failure.OVERLOADED: 529,
    Failure.BROKEN: 502,
    Failure.NOT_FOUND: 404,
    Failure.REJECTED: 400,
    Failure.STOPPING: 503,
    Failure.INTERNAL: 500,
}

PATIENCE = 60
"""Seconds of ``retry-after`` beyond which SDKs are told not to wait: they obey it however long."""

_STATUS_LINES = {499: "499 CLIENT CLOSED REQUEST", 529: "529 OVERLOADED"}
"""Statuses that HTTP has no phrase for."""


class ApiError(Exception):
    """An answer in the error envelope; ``retry_after`` in seconds."""

    def __init__(self, status: int, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after
        self.headers: Mapping[str, str] = {}
        """More headers of the answer."""
        self.code = ""
        """Anthropic's ``error.details.error_code``; "" for none."""

    @classmethod
    def of(cls, error: RelayError) -> ApiError:
        """Return the client's view of a request that failed for good."""
        status = STATUSES[error.failure]
        if error.failure is Failure.REJECTED and error.status in (413, 422):
            status = error.status
        retry_after = error.retry_after
        if retry_after is None and status in (429, 503, 529):
            retry_after = 1.0
        return cls(status, client_message(error.message), retry_after=retry_after)

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the envelope, also the payload of an ``error`` event."""
        body = envelope(self.status, self.message, request_id)
        if self.code:
            body["error"]["details"] = {"error_code": self.code}
        return body

    def response(self) -> Response:
        """Return the whole HTTP answer."""
        response = Response(
            json.dumps(self.body(g.request_id), ensure_ascii=False) + "\n",
            status=_STATUS_LINES.get(self.status, self.status),
            content_type="application/json",
        )
        response.headers.update(self.headers)
        if self.retry_after is not None:
            seconds = max(1, math.ceil(self.retry_after))
            response.headers["retry-after"] = str(seconds)
            if seconds > PATIENCE:
                response.headers["x-should-retry"] = "false"
        return response


def envelope(status: int, message: str, request_id: str) -> dict[str, Any]:
    """Return the error envelope for an HTTP status."""
    kind = TYPES.get(status) or TYPES[400 if status < 500 else 500]
    return {
        "type": "error",
        "error": {"type": kind, "message": message},
        "request_id": request_id,
    }


def install(app: Flask) -> None:
    """Answer every exception of ``app``'s views in the envelope."""

    @app.errorhandler(ApiError)
    def _api_error(error: ApiError) -> Response:
        return error.response()

    @app.errorhandler(InvalidRequest)
    def _invalid(error: InvalidRequest) -> Response:
        answer = ApiError(400, error.message)
        answer.code = error.code
        return answer.response()

    @app.errorhandler(HTTPException)
    def _http(error: HTTPException) -> Response:
        status = error.code or 500
        message = _not_found() if status == 404 else _HTTP_MESSAGES.get(status, error.name)
        response = ApiError(status, message).response()
        for name, value in error.get_headers():
            if name.lower() == "allow":
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def _fault(error: Exception) -> Response:
        log.exception("request %s failed for a reason of the gateway's own", g.request_id)
        return ApiError(500, "The gateway failed on this request; its log says why.").response()


_HTTP_MESSAGES = {
    400: "The request is not valid HTTP or not valid JSON.",
    405: "This method is not allowed here.",
    413: "The request is too large.",
}


def _not_found() -> str:
    """Tell the path that was asked for: clients seldom show what they made of the base URL."""
    asked = quote(request.path)[:_LONGEST_PATH]
    return (
        f"Not found: {asked}. This gateway serves /v1/messages, /v1/messages/count_tokens "
        "and /v1/models."
    )


_LONGEST_PATH = 100
