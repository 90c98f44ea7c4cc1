"""A fake of Google's token endpoint (RFC 6749 section 6, RFC 7523), and the tokens it gave out."""

from __future__ import annotations

import json
import threading
import time
from typing import Any
from urllib.parse import parse_qs

from app.simulator.signatures import decode

_PREFIX = "ya29.simulated-"
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class TokenRefused(Exception):
    """The endpoint's 400: an OAuth error code and its description."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error
        self.description = description


class TokenOffice:
    """Gives out access tokens, knows whose they are, and takes them back. Thread-safe.

    The owner of a token is the refresh token, or the e-mail address of the service account, that
    it was given for. Bearer tokens that were not given out here are taken as they are.
    """

    def __init__(self, lifetime: float) -> None:
        self.lifetime = lifetime
        """Seconds that a new token lives; also what ``expires_in`` says."""
        self._lock = threading.Lock()
        self.granted = 0
        """How many tokens were given out."""
        self._tokens: dict[str, tuple[str, float]] = {}
        self._revoked: set[str] = set()

    def grant(self, form: str) -> dict[str, Any]:
        """Answer a form-encoded token request; raises `TokenRefused`."""
        fields = {name: values[0] for name, values in parse_qs(form).items()}
        owner = self._owner(fields)
        with self._lock:
            if owner in self._revoked:
                raise TokenRefused("invalid_grant", "Token has been expired or revoked.")
            self.granted += 1
            token = f"{_PREFIX}{self.granted}"
            self._tokens[token] = (owner, time.monotonic() + self.lifetime)
        return {
            "access_token": token,
            "expires_in": int(self.lifetime),
            "scope": "https://www.googleapis.com/auth/cloud-platform",
            "token_type": "Bearer",
        }

    def owner_of(self, token: str) -> str | None:
        """Return whose ``token`` is; None when it was given out here and is over."""
        if not token.startswith(_PREFIX):
            return token
        with self._lock:
            owner, ends = self._tokens.get(token, ("", 0.0))
        return owner if owner and time.monotonic() < ends else None

    def revoke(self, owner: str) -> None:
        """Refuse ``owner`` from now on, and end the tokens it has."""
        with self._lock:
            self._revoked.add(owner)
            self._end(owner)

    def expire(self, owner: str | None = None) -> None:
        """End the tokens of ``owner``, or all; new ones can be had."""
        with self._lock:
            self._end(owner)

    def _end(self, owner: str | None) -> None:
        ended = [t for t, (whose, _) in self._tokens.items() if owner in (None, whose)]
        for token in ended:
            del self._tokens[token]

    @staticmethod
    def _owner(fields: dict[str, str]) -> str:
        grant = fields.get("grant_type")
        if grant == "refresh_token":
            missing = {"client_id", "client_secret", "refresh_token"} - fields.keys()
            if missing:
                raise TokenRefused("invalid_request", f"Missing parameter: {min(missing)}")
            return fields["refresh_token"]
        if grant == _JWT_BEARER:
            return _issuer(fields.get("assertion", ""))
        raise TokenRefused("unsupported_grant_type", f"Invalid grant_type: {grant}")


def _issuer(assertion: str) -> str:
    """Return the issuer of a JWT whose claims are in order; its RSA signature is not looked at."""
    pieces = assertion.split(".")
    try:
        claims = json.loads(decode(pieces[1]) or b"") if len(pieces) == 3 else {}
    except ValueError:
        claims = {}
    if not isinstance(claims, dict) or not {"iss", "aud", "iat", "exp"} <= claims.keys():
        raise TokenRefused("invalid_grant", "Invalid JWT: Failed audience check.")
    now = time.time()
    if not claims["iat"] - 300 <= now < claims["exp"] <= claims["iat"] + 3600:
        raise TokenRefused(
            "invalid_grant",
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable "
            "timeframe. Check your iat and exp values in the JWT claim.",
        )
    return str(claims["iss"])
