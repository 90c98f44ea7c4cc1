"""The pages at ``/admin/``, and the guard before them and before the JSON API."""

from __future__ import annotations

import hashlib
import time
from functools import cache
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, g, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from app.api.errors import ApiError
from app.ops.admin import present
from app.ops.admin.actions import UnknownAction, has_token
from app.ops.admin.api import add_api
from app.ops.admin.guard import is_https
from app.ops.admin.parts import Parts
from app.ops.admin.series import TOTAL

STATIC = Path(__file__).parent / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # With "no-referrer" browsers hide the origin of our own forms, too.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
PART = "x-part"
"""Header by which the page's own script asks for its main part only."""
FREE = ("admin.static", "admin.log_in")
"""Endpoints that ask for nothing: the log-in page and what it needs."""


def admin_blueprint(parts: Parts) -> Blueprint:
    """Return the blueprint of the dashboard and its JSON API."""
    blueprint = Blueprint(
        "admin",
        __name__,
        url_prefix="/admin",
        template_folder="templates",
        static_folder="static",
        static_url_path="/static",
    )
    _guard(blueprint, parts)
    _add_pages(blueprint, parts)
    _add_entrance(blueprint, parts)
    add_api(blueprint, parts)
    for function in (present.instant, present.clock, present.percent, present.compact):
        blueprint.add_app_template_filter(function, f"admin_{function.__name__}")
    blueprint.add_app_template_filter(present.duration, "admin_duration")
    blueprint.add_app_template_filter(present.way, "admin_way")
    return blueprint


def _guard(blueprint: Blueprint, parts: Parts) -> None:
    sessions = parts.guard.sessions

    @blueprint.before_request
    def check() -> None:
        g.session = sessions.read(request)
        if request.endpoint not in FREE:
            parts.guard.let_in(request, g.session)

    @blueprint.after_request
    def secure(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if request.endpoint == "admin.static":
            # Addresses carry the content's digest.
            response.headers["cache-control"] = "public, max-age=31536000, immutable"
            return response
        response.headers["cache-control"] = "no-store"
        if g.get("show_session"):
            sessions.write(response, g.session, secure=is_https(request))
        return response

    @blueprint.errorhandler(ApiError)
    def refused(error: ApiError) -> AnyResponse:
        if request.path.startswith("/admin/api/") or not _wants_page():
            return error.response()
        if error.status == 401:
            return _page("login.html", parts, status=401, next=request.full_path.rstrip("?"))
        response = _page("notice.html", parts, status=error.status, message=error.message)
        if error.retry_after is not None:
            response.headers["retry-after"] = str(max(1, round(error.retry_after)))
        return response


def _add_pages(blueprint: Blueprint, parts: Parts) -> None:
    reader = parts.reader

    @blueprint.get("/")
    def overview() -> AnyResponse:
        return _page(
            "overview.html",
            parts,
            cards=_cards(parts),
            total=reader.total("1h").of(TOTAL),
            live=reader.live(),
            recent=reader.recent(12),
        )

    @blueprint.get("/accounts/<path:name>")
    def account(name: str) -> AnyResponse:
        found = [card for card in _cards(parts) if card.view.name == name]
        if not found:
            raise ApiError(404, f"There is no account called {name}.")
        return _page(
            "account.html",
            parts,
            card=found[0],
            recent=reader.search(account=name, most=25),
        )

    @blueprint.post("/accounts/<path:name>/<action>")
    def act(name: str, action: str) -> AnyResponse:
        try:
            done = parts.actions.run(action, name)
        except UnknownAction as error:
            raise ApiError(404, str(error)) from None
        return _page("notice.html", parts, status=200, message=done.message)

    @blueprint.get("/requests")
    def requests() -> AnyResponse:
        search = request.args.get("search", "").strip()
        account = request.args.get("account", "")
        failed = request.args.get("failed", "") == "1"
        if search and reader.find(search):
            return redirect(url_for("admin.request_page", request_id=search))
        return _page(
            "requests.html",
            parts,
            search=search,
            account=account,
            failed=failed,
            accounts=[known.name for known in parts.pool.accounts()],
            live=[] if search or account or failed else reader.live(),
            recent=reader.search(text=search, account=account, failed=failed, most=100),
        )

    @blueprint.get("/requests/<request_id>")
    def request_page(request_id: str) -> AnyResponse:
        record = reader.find(request_id)
        if record is None:
            raise ApiError(404, f"There is no request {request_id}, or it is no longer kept.")
        return _page("request.html", parts, record=record)


def _add_entrance(blueprint: Blueprint, parts: Parts) -> None:
    guard, sessions = parts.guard, parts.guard.sessions

    @blueprint.route("/login", methods=["GET", "POST"])
    def log_in() -> AnyResponse:
        if guard.access.open:
            return redirect(url_for("admin.overview"))
        if not guard.access.admin_key:
            guard.access.check(request)
        after = _inside(request.values.get("next", ""))
        if request.method == "GET":
            return _page("login.html", parts, next=after)
        session = guard.log_in(request, g.session)
        if session is None:
            return _page("login.html", parts, status=401, next=after, wrong=True)
        response = redirect(after, 303)
        sessions.write(response, session, secure=is_https(request))  # type: ignore[arg-type]
        return response

    @blueprint.post("/logout")
    def log_out() -> AnyResponse:
        response = redirect(url_for("admin.log_in"), 303)
        sessions.forget(response, secure=is_https(request))  # type: ignore[arg-type]
        return response


def _page(template: str, parts: Parts, *, status: int = 200, **content: Any) -> Response:
    """Return a page, or its main part alone when the page's script asks for it."""
    alone = request.headers.get(PART) == "main" and status == 200
    access = parts.guard.access
    inside = access.open or g.session.logged_in
    facts = parts.readiness()[1] if inside else {}
    g.show_session = g.session.new
    response = make_response(
        render_template(
            f"admin/{template}",
            layout="admin/part.html" if alone else "admin/layout.html",
            inside=inside,
            can_log_out=inside and not access.open,
            facts=facts,
            form_token=parts.guard.sessions.form_token(g.session),
            asset=_asset,
            headline=present.headline,
            **content,
        ),
        status,
    )
    response.headers["vary"] = f"cookie, {PART}"
    response.headers["x-now"] = f"{time.time():.3f}"
    if alone:
        response.add_etag()
        response.make_conditional(request)
    return response


def _cards(parts: Parts) -> list[present.Card]:
    series = parts.reader.series("1h")
    return present.cards(parts.pool.snapshot(), parts.pool.accounts(), series, has_token)


def _wants_page() -> bool:
    """Tell whether the caller is a browser that shows pages, and no script."""
    return "text/html" in request.headers.get("accept", "")


def _inside(path: str) -> str:
    """Return ``path`` if it is one of the dashboard's pages, else its first one."""
    plain = path.isprintable() and "\\" not in path and path.startswith("/admin/")
    return path if plain else url_for("admin.overview")


def _asset(name: str) -> str:
    return url_for("admin.static", filename=name, v=_digest(name))


@cache
def _digest(name: str) -> str:
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
