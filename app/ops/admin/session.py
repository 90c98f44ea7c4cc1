"""Who is logged in: a signed cookie that every worker can read and that dies with the admin key."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from flask import Request, Response
from itsdangerous import BadSignature, URLSafeTimedSerializer

COOKIE = "gateway_admin"
LIFETIME = 12 * 3600
"""Seconds after which one has to log in again."""


@dataclass(frozen=True)
class Session:
    """One browser. ``nonce`` makes its form token its own; before a log-in it may do nothing."""

    nonce: str
    logged_in: bool
    new: bool = False
    """Whether the browser does not have its cookie yet."""


class Sessions:
    """Reads and writes the cookie; ``admin_key`` "" where everybody may look anyway.

    Nothing is stored: the key that signs is derived from the admin key, so sessions outlive
    restarts, hold in all workers, and end when the admin key is changed.
    """

    def __init__(self, admin_key: str) -> None:
        self._secret = hmac.new(
            admin_key.encode("utf-8", "surrogateescape"),
            b"claude-gemini-gateway admin session 1",
            hashlib.sha256,
        ).digest()
        self._signer = URLSafeTimedSerializer(
            self._secret, salt="session", signer_kwargs={"digest_method": hashlib.sha256}
        )

    def read(self, request: Request) -> Session:
        """Return the session of ``request``, a new one if it has none that holds."""
        try:
            content = self._signer.loads(request.cookies.get(COOKIE, ""), max_age=LIFETIME)
        except BadSignature:
            return self.fresh()
        match content:
            case {"nonce": str(nonce), "in": bool(logged_in)}:
                return Session(nonce, logged_in)
        return self.fresh()

    def fresh(self, *, logged_in: bool = False) -> Session:
        """Return a session that no browser has had before."""
        return Session(secrets.token_urlsafe(18), logged_in, new=True)

    def write(self, response: Response, session: Session, *, secure: bool) -> None:
        """Give ``session`` to the browser; ``secure``: it came over https."""
        response.set_cookie(
            COOKIE,
            self._signer.dumps({"nonce": session.nonce, "in": session.logged_in}),
            max_age=LIFETIME,
            path="/admin",
            secure=secure,
            httponly=True,
            samesite="Strict",
        )

    def forget(self, response: Response, *, secure: bool) -> None:
        """Take the cookie away."""
        response.delete_cookie(
            COOKIE, path="/admin", secure=secure, httponly=True, samesite="Strict"
        )

    def form_token(self, session: Session) -> str:
        """Return what forms of ``session`` must bring along."""
        return hmac.new(self._secret, b"form " + session.nonce.encode(), hashlib.sha256).hexdigest()

    def is_form_token(self, session: Session, shown: str) -> bool:
        """Tell whether ``shown`` is the token of ``session``."""
        expected = self.form_token(session).encode()
        return hmac.compare_digest(expected, shown.encode("utf-8", "surrogatepass"))
