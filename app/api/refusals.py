"""Requests of the API that are refused before they are let in: they are told of, too."""

from __future__ import annotations

import time

from flask import Flask, Response, g, request

from app.api.record import Recorder

API = "/v1/"
"""What else is refused (scanners ask for all kinds of things) is not worth a line each."""
LONGEST_PATH = 200
OUTCOMES = {
    400: "invalid",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    429: "limited",
}
"""By status; what is not here is `invalid`, too, or a fault of ours."""


def tell_refusals(app: Flask, recorder: Recorder) -> None:
    """Tell ``recorder`` of each request that ``app`` refuses by itself.

    Those that were let in have a trace; their record tells of them.
    """

    @app.after_request
    def _tell(response: Response) -> Response:
        status = response.status_code
        if status >= 400 and "trace" not in g and request.path.startswith(API):
            recorder.refused(
                {
                    "request_id": g.request_id,
                    "at": round(time.time(), 3),
                    "client": g.get("client", ""),
                    "method": request.method,
                    "path": request.path[:LONGEST_PATH],
                    "status": status,
                    "outcome": OUTCOMES.get(status, "invalid" if status < 500 else "internal"),
                }
            )
        return response
