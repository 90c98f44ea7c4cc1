"""Tokens that google-auth fetches. Imported only for accounts that have them: it takes its time."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC
from pathlib import Path
from typing import Any

import requests
from google.auth import exceptions
from google.oauth2 import credentials as user_credentials

from app.backend.credentials import TokenTransport, default_credentials, read_credentials
from app.backend.errors import Fault, UpstreamError
from app.backend.google_errors import one_line
from app.backend.session import UpstreamSession
from app.backend.token_shelf import TokenShelf
from app.pool.account import Account

EARLY = 300.0
"""Seconds before its end from which a token is replaced, by one of those who need it."""
TOKEN_TIMEOUT = 30.0
"""Seconds for the token endpoint to answer."""
PAUSE = 30.0
"""Seconds between tries to replace a token that is still good, while the endpoint fails."""

PERMANENT = {
    "access_denied",
    "admin_policy_enforced",
    "deleted_client",
    "disabled_client",
    "invalid_client",
    "invalid_grant",
    "invalid_scope",
    "org_internal",
    "unauthorized_client",
}
"""OAuth error codes that only an operator can mend; the others pass."""


@dataclass(frozen=True)
class _Token:
    value: str
    headers: dict[str, str]
    refresh_at: float
    expires_at: float


class TokenAuth:
    """Tokens of one account, shared by all its requests and renewed by one of them at a time.

    ``file_types`` are the ``type`` values that the credentials file may have, all if empty.
    Without a file, Application Default Credentials are used. ``shelf`` shares the tokens of a
    file with other processes.
    """

    keyed = False

    def __init__(
        self,
        account: Account,
        session: UpstreamSession,
        *,
        file_types: Collection[str],
        connect_timeout: float,
        shelf: TokenShelf | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._account = account
        self._path = Path(account.credentials) if account.credentials else None
        self._file_types = file_types
        self._transport = TokenTransport(session, (connect_timeout, TOKEN_TIMEOUT))
        self._shelf = shelf
        self._wall = wall
        self._lock = threading.Lock()
        self._credentials: Any = None
        self._project = ""
        self._secret = b""
        self._stamp: tuple[int, int] | None = None
        self._token: _Token | None = None
        self._refused: _Token | None = None
        self._tries = 0
        self._failure: UpstreamError | None = None

    @property
    def secrets(self) -> Collection[str]:
        """The token in use."""
        token = self._token
        return (token.value,) if token else ()

    @property
    def project(self) -> str:
        """The project of the service account, or a user's quota project; raises `UpstreamError`."""
        self._loaded()
        return self._project

    @property
    def quota_project(self) -> str:
        """The file's ``quota_project_id``; raises `UpstreamError`."""
        return getattr(self._loaded(), "quota_project_id", None) or ""

    def headers(self) -> dict[str, str]:
        """Return the headers of a valid token; raises `UpstreamError`.

        A token that ends soon is replaced by the first who comes, while the others go on with it;
        one that ended, or was refused, is waited for by all.
        """
        token = self._token
        now = self._wall()
        if token is None or now >= token.expires_at or token is self._refused:
            return self._next(token).headers
        if now >= token.refresh_at and self._lock.acquire(blocking=False):
            try:
                if self._token is token:
                    self._token = token = self._fetched()
            except UpstreamError as error:
                if error.fault is Fault.CREDENTIAL:
                    raise
                self._token = replace(token, refresh_at=now + PAUSE)
            finally:
                self._lock.release()
        return token.headers

    def refused(self, headers: Mapping[str, str]) -> None:
        """Take note of a 401, unless it was for a token that has been replaced since."""
        token = self._token
        if token is not None and token.headers is headers:
            self._refused = token

    def renew(self) -> None:
        """Get a new token now; those who ask for it because of the same refusal share one.

        Raises `UpstreamError`: CREDENTIAL when only an operator can help.
        """
        token = self._token
        if self._refused is None or token is self._refused:
            self._next(token)

    def outdated(self) -> bool:
        """Tell whether the credentials file is another one than was read."""
        return self._credentials is not None and self._stamp != self._file_stamp()

    def _next(self, token: _Token | None) -> _Token:
        """Return the token after ``token``, fetched once for all who wait, failures included."""
        tries = self._tries
        with self._lock:
            if self._token is not None and self._token is not token:
                return self._token
            failure = self._failure
            if failure is not None and self._tries != tries:
                raise UpstreamError(failure.fault, failure.message, reason=failure.reason)
            try:
                self._token = self._fetched()
                self._failure = None
            except UpstreamError as error:
                self._failure = error
                raise
            finally:
                self._tries += 1
            return self._token

    def _fetched(self) -> _Token:
        """Return a new token; the caller holds the lock."""
        self._load()
        began = self._wall()
        if self._shelf and self._secret:
            stale = self._token.value if self._token else ""
            value, lasts = self._shelf.get(self._secret, stale, self._refreshed)
        else:
            value, lasts = self._refreshed()
        headers = {"Authorization": f"Bearer {value}"}
        return _Token(value, headers, began + lasts - min(EARLY, lasts / 2), began + lasts)

    def _refreshed(self) -> tuple[str, float]:
        """Return a token from Google, and the seconds it is good for."""
        began = self._wall()
        try:
            self._credentials.refresh(self._transport)
        except exceptions.TransportError as error:
            fault = Fault.TIMEOUT if _timed_out(error) else Fault.BROKEN
            text = "Google's token endpoint could not be reached."
            raise UpstreamError(fault, text, reason="token endpoint") from None
        except exceptions.GoogleAuthError as error:
            raise self._judged(error) from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            text = f"the token endpoint's answer makes no sense ({type(error).__name__})"
            raise UpstreamError(Fault.BROKEN, text, reason="token endpoint") from None
        expiry = self._credentials.expiry
        lasts = expiry.replace(tzinfo=UTC).timestamp() - began if expiry else 3600.0
        return str(self._credentials.token), lasts

    def _judged(self, error: exceptions.GoogleAuthError) -> UpstreamError:
        """Return what a refused refresh means."""
        text = one_line(str(error.args[0] if error.args else error), self._file_secrets())
        # google-auth writes "invalid_grant: why" and, for federated ones, "Error code x: why".
        words = text.partition(":")[0].split()
        code = words[-1] if words else ""
        skewed = "iat" in text and "exp" in text
        final = (code in PERMANENT or "Reauthentication" in text) and not skewed
        code = code if len(words) in (1, 3) and code.isidentifier() else "refresh"
        if skewed:
            hint = "check this machine's clock"
        elif isinstance(self._credentials, user_credentials.Credentials) and self._path:
            hint = f"run `flask accounts login {self._account.name}`"
        else:
            hint = f"check {self._path or 'the application default credentials'}"
        if final:
            text = f"Google refused the credential ({text}); {hint}"
            return UpstreamError(Fault.CREDENTIAL, text, reason=code)
        text = f"no token came ({text})" + (f"; {hint}" if skewed else "")
        return UpstreamError(Fault.UNAVAILABLE, text, reason=code)

    def _file_secrets(self) -> Collection[str]:
        names = ("refresh_token", "client_secret")
        return [value for name in names if (value := getattr(self._credentials, name, None))]

    def _file_stamp(self) -> tuple[int, int] | None:
        if self._path is None:
            return None
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size

    def _loaded(self) -> Any:
        if self._credentials is None:
            with self._lock:
                self._load()
        return self._credentials

    def _load(self) -> None:
        """Read the credentials if they are new or have changed; the caller holds the lock."""
        stamp = self._file_stamp()
        if self._credentials is not None and (stamp == self._stamp or stamp is None):
            return
        if self._path is None:
            self._credentials, self._project = default_credentials(self._transport)
        else:
            self._credentials, self._project = read_credentials(
                self._account, self._file_types, self._transport
            )
            # Whoever has the file may read the tokens that others got with it.
            with suppress(OSError):
                self._secret = hashlib.sha256(self._path.read_bytes()).digest()
        self._stamp = stamp


def _timed_out(error: BaseException) -> bool:
    return any(isinstance(cause, requests.Timeout) for cause in (error.__cause__, *error.args))
