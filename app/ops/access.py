"""Who may look at the gateway's insides: the holder of the admin key, or anybody on loopback."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress

from flask import Request

from app.api.auth import shown_keys
from app.api.errors import ApiError
from app.api.guesses import Guesses
from app.ops.throttle import Throttle

CLOSED = "The admin pages are closed: set ADMIN_API_KEY to open them."
NOT_LOCAL = "Without ADMIN_API_KEY the admin pages answer only to a loopback address."


class AdminAccess:
    """Decides by ``admin_key``; without one they are open if and only if ``on_loopback``.

    The key comes as ``x-api-key`` or ``Authorization: Bearer``; the dashboard's session is the
    dashboard's own business. ``throttle`` slows down who guesses, wherever the key is asked for.
    """

    def __init__(self, admin_key: str, *, on_loopback: bool, throttle: Throttle) -> None:
        self.admin_key = admin_key
        self._digest = hashlib.sha256(admin_key.encode()).digest() if admin_key else b""
        self._on_loopback = on_loopback
        self._guesses = Guesses("admin")
        self._throttle = throttle

    @property
    def open(self) -> bool:
        """Whether no key is needed."""
        return not self._digest and self._on_loopback

    def check(self, request: Request) -> None:
        """Raise `ApiError` 401, 403 or 429 unless ``request`` may look."""
        if self.open:
            self.check_host(request)
        elif not self._digest:
            raise ApiError(403, CLOSED)
        elif not self.try_keys(request, shown_keys(request)):
            raise ApiError(401, "The admin key is required, as x-api-key or Bearer.")

    def try_keys(self, request: Request, shown: list[str]) -> bool:
        """Tell whether one of ``shown`` is the admin key, and count a wrong guess.

        Raises `ApiError` 429 after too many of them, whatever is shown now.
        """
        if not shown:
            return False
        address = request.remote_addr or ""
        wait = self._throttle.wait(address)
        if wait > 0:
            raise ApiError(429, "Too many wrong keys; try again in a minute.", retry_after=wait)
        if any(map(self.is_key, shown)):
            self._throttle.right(address)
            return True
        self._guesses.wrong(address or "an unknown address")
        self._throttle.wrong(address)
        return False

    def is_key(self, shown: str) -> bool:
        """Tell whether ``shown`` is the admin key, in the same time for every wrong one."""
        digest = hashlib.sha256(shown.encode("utf-8", "surrogateescape")).digest()
        return bool(self._digest) and hmac.compare_digest(digest, self._digest)

    @staticmethod
    def check_host(request: Request) -> None:
        """Raise `ApiError` 403 for a name that merely points to this machine.

        A page on the web may have its own name resolved to 127.0.0.1 (DNS rebinding) and would
        then read what is open on loopback.
        """
        host = request.host.rpartition(":")[0] if ":" in request.host else request.host
        host = (request.host if request.host.endswith("]") else host).strip("[]")
        if host == "localhost" or host.endswith(".localhost"):
            return
        try:
            if ipaddress.ip_address(host).is_loopback:
                return
        except ValueError:
            pass
        raise ApiError(403, NOT_LOCAL)
