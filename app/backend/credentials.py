"""Google credentials: from a file, or from the environment, as google-auth's objects."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import google.auth
import requests
from google.auth import exceptions, transport
from google.oauth2 import credentials as user_credentials
from google.oauth2 import service_account

from app.backend.errors import Fault, UpstreamError
from app.backend.google_errors import one_line
from app.backend.session import UpstreamSession
from app.pool.account import Account

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address

_NEEDED = {
    "authorized_user": ("client_id", "client_secret", "refresh_token"),
    "service_account": ("client_email", "private_key", "token_uri"),
}


class TokenTransport(transport.Request):
    """Lets google-auth talk through a session of ours.

    Its own one closes the session when it is collected, under the requests that share it.
    """

    def __init__(self, session: UpstreamSession, timeout: tuple[float, float]) -> None:
        self._session = session
        self._timeout = timeout

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> _Answer:
        """Make one request as google-auth wants it; raises its ``TransportError``."""
        try:
            answer = self._session.request(
                method, url, data=body, headers=headers, timeout=timeout or self._timeout
            )
        except requests.RequestException as error:
            raise exceptions.TransportError(error) from error  # type: ignore[no-untyped-call]
        return _Answer(answer)


class _Answer(transport.Response):
    def __init__(self, response: requests.Response) -> None:
        self._response = response

    @property
    def status(self) -> int:
        return self._response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    @property
    def data(self) -> bytes:
        return self._response.content


def default_credentials(request: TokenTransport) -> tuple[Any, str]:
    """Return the Application Default Credentials and their project; may ask the network.

    Raises `UpstreamError` CREDENTIAL when there are none.
    """
    try:
        found, project = google.auth.default(scopes=SCOPES, request=request)
    except exceptions.GoogleAuthError as error:
        raise UpstreamError(Fault.CREDENTIAL, one_line(str(error))) from None
    return found, project or ""


def read_credentials(
    account: Account, file_types: Collection[str], request: TokenTransport
) -> tuple[Any, str]:
    """Return what is in ``account``'s credentials file, and the project it names ("" if none).

    Raises `UpstreamError` CREDENTIAL with the path and the reason; never anything of the content.
    """
    path = Path(account.credentials)
    try:
        info = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise _unreadable(path, error.strerror or "can't be read") from None
    except (ValueError, RecursionError):
        raise _unreadable(path, "is not JSON") from None
    if not isinstance(info, dict):
        raise _unreadable(path, "is not a JSON object")
    if "installed" in info or "web" in info:
        hint = f"run `flask accounts login {account.name}`"
        raise _unreadable(path, f"is an OAuth client, not a login; {hint}")
    kind = str(info.get("type") or "authorized_user")
    if file_types and kind not in file_types:
        wanted = " or ".join(sorted(file_types))
        raise _unreadable(path, f"is of type {kind}, but kind {account.kind} needs {wanted}")
    missing = [name for name in _NEEDED.get(kind, ()) if not info.get(name)]
    if missing:
        raise _unreadable(path, f"lacks {', '.join(missing)}")
    try:
        return _built(kind, info, request)
    except (ValueError, TypeError, KeyError, exceptions.GoogleAuthError) as error:
        # What a parser of keys says may quote the key.
        raise _unreadable(path, f"can't be used ({type(error).__name__})") from None


def _built(kind: str, info: dict[str, Any], request: TokenTransport) -> tuple[Any, str]:
    if kind == "authorized_user":
        # Not from_authorized_user_info, which ignores the file's token_uri.
        found = user_credentials.Credentials(  # type: ignore[no-untyped-call]
            None,
            refresh_token=info["refresh_token"],
            token_uri=info.get("token_uri") or TOKEN_URI,
            client_id=info["client_id"],
            client_secret=info["client_secret"],
            quota_project_id=info.get("quota_project_id"),
        )
        return found, str(info.get("quota_project_id") or "")
    if kind == "service_account":
        factory: Any = service_account.Credentials.from_service_account_info
        return factory(info, scopes=SCOPES), str(info.get("project_id") or "")
    load: Any = google.auth.load_credentials_from_dict
    other, project = load(info, scopes=SCOPES, request=request)
    return other, project or ""


def _unreadable(path: Path, why: str) -> UpstreamError:
    return UpstreamError(Fault.CREDENTIAL, f"credentials file {path}: {why}", reason="credentials")
