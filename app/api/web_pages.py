"""Pages in a browser that ask by themselves: who may, and what a browser must be told for it.

As with Anthropic's API, a page says that it means it: SDKs with ``dangerouslyAllowBrowser`` send
the header `DIRECT`. The key it then shows is what lets it in. Where no key is asked for, any page
that somebody opens on this machine could ask behind their back, so only this machine's own may.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from flask import Flask, Response, request

from app.api.errors import ApiError

DIRECT = "anthropic-dangerous-direct-browser-access"
API = "/v1/"
_PREFLIGHTS_KEPT = "600"
"""Seconds for which a browser need not ask again."""


def guard_pages(app: Flask, *, keyed: bool) -> None:
    """Let pages use the API of ``app``; ``keyed``: clients must show a key."""

    @app.before_request
    def _refuse() -> None:
        if keyed or not request.path.startswith(API):
            return
        origin = request.environ.get("HTTP_ORIGIN")
        if origin is not None and _of_a_site(origin):
            raise ApiError(403, "Web pages may not ask while CLIENT_API_KEYS is not set.")

    @app.after_request
    def _allow(response: Response) -> Response:
        origin = request.environ.get("HTTP_ORIGIN")
        if origin is None or not request.path.startswith(API) or not _meant():
            return response
        headers = response.headers
        if keyed:
            headers["access-control-allow-origin"] = "*"
        elif not _of_a_site(origin):
            headers["access-control-allow-origin"] = origin
            headers.add("vary", "origin")
        else:
            return response
        headers["access-control-expose-headers"] = "*"
        if request.method == "OPTIONS":
            headers["access-control-allow-methods"] = "GET, POST"
            headers["access-control-allow-headers"] = _wanted()
            headers["access-control-max-age"] = _PREFLIGHTS_KEPT
        return response


def _meant() -> bool:
    """Tell whether the page says that it asks on purpose, or is about to say so."""
    return DIRECT in request.headers or DIRECT in _wanted().lower()


def _wanted() -> str:
    return request.headers.get("access-control-request-headers", "")


def _of_a_site(origin: str) -> bool:
    """Tell whether ``origin`` is a page from elsewhere, or one that hides where it is from."""
    try:
        parts = urlsplit(origin)
        host = parts.hostname or ""
    except ValueError:
        return True
    if parts.scheme not in ("http", "https"):
        # Extensions and programs have schemes of their own: they were installed on purpose.
        return not parts.scheme
    if host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True
