"""Client keys: who may call the gateway."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Iterable

from flask import Request

from app.api.errors import ApiError
from app.api.guesses import Guesses

log = logging.getLogger("gateway.api")

HASH_PREFIX = "sha256:"


class ClientKeys:
    """The keys that open the API; none configured means open to all (loopback only).

    A key may be given as ``sha256:<hex digest>`` so that the configuration holds no secret; the
    settings have checked its form.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple(_digest_of(key) for key in keys)
        self._guesses = Guesses("client")
        self._proxy_told = False

    def check(self, request: Request) -> str:
        """Return the label of the key that ``request`` shows, by either header.

        The label is eight hex digits of the key's digest, "" when no key is needed. Raises
        `ApiError` 401 unless the key is valid.
        """
        if not self._digests:
            self._look_for_a_proxy(request)
            return ""
        shown = shown_keys(request)
        for key in shown:
            digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
            # No early end: how long it takes must not tell which key came close.
            if sum(hmac.compare_digest(digest, known) for known in self._digests):
                return digest.hex()[:8]
        if shown:
            self._guesses.wrong(request.remote_addr or "an unknown address")
        raise ApiError(401, "invalid x-api-key" if shown else "x-api-key header is required")

    def _look_for_a_proxy(self, request: Request) -> None:
        # On loopback nobody else is let in, unless a proxy on this machine lets them through.
        if not self._proxy_told and "x-forwarded-for" in request.headers:
            self._proxy_told = True
            log.warning(
                "requests come through a proxy (X-Forwarded-For), and without CLIENT_API_KEYS "
                "whoever reaches it is let in: set them"
            )


def shown_keys(request: Request) -> list[str]:
    """Return the keys in ``x-api-key`` and ``Authorization: Bearer``, in that order."""
    environ = request.environ  # of which `Request.headers` is a slow view
    scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    candidates = (
        environ.get("HTTP_X_API_KEY", ""),
        token if scheme.lower() == "bearer" else "",
    )
    return [key.strip() for key in candidates if key.strip()]


def _digest_of(key: str) -> bytes:
    if key.startswith(HASH_PREFIX):
        return bytes.fromhex(key.removeprefix(HASH_PREFIX))
    return hashlib.sha256(key.encode()).digest()
