"""What a request to the dashboard may do: the admin key, the session, and where it comes from."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Request

from app.api.auth import shown_keys
from app.api.errors import ApiError
from app.ops.access import AdminAccess
from app.ops.admin.session import Session, Sessions

FOREIGN = "This request comes from another site and was not carried out."
STALE = "The form is out of date; reload the page and try again."
FORM_FIELD = "token"
FORM_HEADER = "x-form-token"


class Guard:
    """Lets in who shows the admin key, has a session, or needs neither.

    With a key in a header no browser is at work that another site could have lured; everybody
    else's changes must come from the dashboard's own pages and bring their token along.
    """

    def __init__(self, access: AdminAccess, sessions: Sessions) -> None:
        self.access = access
        self.sessions = sessions

    def let_in(self, request: Request, session: Session) -> None:
        """Raise `ApiError` 401, 403 or 429 unless ``request`` may go on."""
        if self.access.open:
            self.access.check_host(request)
            if request.method == "POST" and not _is_script(request):
                self.check_form(request, session)
        elif shown_keys(request):
            self.access.check(request)
        elif session.logged_in and self.access.admin_key:
            if request.method == "POST":
                self.check_form(request, session)
        else:
            self.access.check(request)

    def log_in(self, request: Request, session: Session) -> Session | None:
        """Return the session of who has shown the key in the log-in form, None for a wrong key.

        Raises `ApiError` 403 for a form from elsewhere and 429 after too many wrong keys.
        """
        self.check_form(request, session)
        if self.access.try_keys(request, [request.form.get("key", "").strip()]):
            return self.sessions.fresh(logged_in=True)
        return None

    def check_form(self, request: Request, session: Session) -> None:
        """Raise `ApiError` 403 unless ``request`` comes from a page that we gave ``session``."""
        if not _same_site(request):
            raise ApiError(403, FOREIGN)
        token = request.headers.get(FORM_HEADER) or request.form.get(FORM_FIELD, "")
        if session.new or not self.sessions.is_form_token(session, token):
            raise ApiError(403, STALE)


def is_https(request: Request) -> bool:
    """Tell whether the browser speaks https, to us or to the proxy before us."""
    return request.is_secure or request.headers.get("x-forwarded-proto", "").lower() == "https"


def _is_script(request: Request) -> bool:
    """Tell whether no browser sent it: they all say where a POST comes from."""
    return "origin" not in request.headers and "sec-fetch-site" not in request.headers


def _same_site(request: Request) -> bool:
    """Tell whether the page that sent it is one of ours, by what its browser says."""
    site = request.headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        return False
    origin = request.headers.get("origin")
    if origin is None:
        return True  # the token decides
    # No other site can have a browser send x-forwarded-host without asking us first.
    hosts = (request.host, request.headers.get("x-forwarded-host", ""))
    return urlsplit(origin).netloc in hosts and origin != "null"
