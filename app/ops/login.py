"""Logging a user in with the browser: OAuth 2.0 for installed apps, with PKCE.

https://developers.google.com/identity/protocols/oauth2/native-app
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import secrets
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import requests

from app.ops.private_files import write_private

SCOPES = (
    "https://www.googleapis.com/auth/cloud-platform",
    "https://www.googleapis.com/auth/userinfo.email",
    "https://www.googleapis.com/auth/userinfo.profile",
)
PATIENCE = 300.0
"""Seconds that the person has for the browser."""
TIMEOUT = 30.0


class LoginError(Exception):
    """The login came to nothing; the message is one line for people, without a secret."""


def log_in(client_file: Path, credentials: Path, *, show: Callable[[str], Any]) -> None:
    """Have the person consent in a browser, and write an authorized-user file.

    ``client_file`` is the OAuth client's JSON from the Google console, ``credentials`` the file
    to write (0600, atomically); ``show`` prints a line. Raises `LoginError`.
    """
    client = _client(client_file)
    state, verifier = secrets.token_urlsafe(24), secrets.token_urlsafe(64)
    with _Receiver(state) as receiver:
        redirect = f"http://127.0.0.1:{receiver.server_port}/"
        digest = hashlib.sha256(verifier.encode()).digest()
        query = {
            "client_id": client["client_id"],
            "redirect_uri": redirect,
            "response_type": "code",
            "scope": " ".join(SCOPES),
            "state": state,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
            "access_type": "offline",
            "prompt": "consent",
        }
        show("Open this address in a browser on this machine and log in:")
        show(f"{client['auth_uri']}?{urlencode(query)}")
        code = receiver.wait()
    token = _exchange(client, code, redirect, verifier)
    written = {
        "type": "authorized_user",
        "client_id": client["client_id"],
        "client_secret": client["client_secret"],
        "refresh_token": token,
        "token_uri": client["token_uri"],
    }
    _write(credentials, json.dumps(written, indent=2) + "\n")


def _client(path: Path) -> dict[str, str]:
    try:
        document = json.loads(path.read_text("utf-8"))
        client = document.get("installed") or document["web"]
        return {
            name: str(client[name])
            for name in ("client_id", "client_secret", "auth_uri", "token_uri")
        }
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise LoginError(
            f"{path} is no OAuth client file; download it from the Google console "
            "(Credentials, OAuth client ID, Desktop app)"
        ) from None


class _Receiver(HTTPServer):
    """Waits on loopback for the one redirect that carries ``state``."""

    def __init__(self, state: str) -> None:
        self._state = state
        self._answer: dict[str, str] = {}
        self.timeout = PATIENCE
        super().__init__(("127.0.0.1", 0), _Redirect)

    def wait(self) -> str:
        """Return the code; raises `LoginError`."""
        while not self._answer:
            before = self._answer
            self.handle_request()
            if self._answer is before and self._timed_out:
                raise LoginError(f"nobody logged in within {PATIENCE:.0f} seconds; try again")
        if "code" not in self._answer:
            raise LoginError(f"Google refused the login: {self._answer.get('error', 'no reason')}")
        return self._answer["code"]

    _timed_out = False

    def handle_timeout(self) -> None:
        self._timed_out = True

    def take(self, query: dict[str, str]) -> bool:
        """Take a redirect's query; returns False for one that is not ours."""
        if not secrets.compare_digest(query.get("state", "").encode(), self._state.encode()):
            return False
        self._answer = {name: query[name] for name in ("code", "error") if name in query}
        return bool(self._answer)


class _Redirect(BaseHTTPRequestHandler):
    server: _Receiver

    def do_GET(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        ours = self.server.take(query)
        text = "You can close this page." if ours else "This is not the page you are looking for."
        body = f"<!doctype html><title>Login</title><p>{html.escape(text)}".encode()
        self.send_response(200 if ours else 404)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the code out of the terminal."""


def _exchange(client: dict[str, str], code: str, redirect: str, verifier: str) -> str:
    """Return the refresh token for ``code``."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "client_id": client["client_id"],
        "client_secret": client["client_secret"],
        "redirect_uri": redirect,
        "code_verifier": verifier,
    }
    try:
        answer = requests.post(
            client["token_uri"], data=form, timeout=TIMEOUT, allow_redirects=False
        )
        body = answer.json()
    except (requests.RequestException, ValueError):
        raise LoginError("the token endpoint gave no answer that makes sense; try again") from None
    token = body.get("refresh_token") if isinstance(body, dict) else None
    if not token:
        reason = body.get("error", "no refresh token") if isinstance(body, dict) else "no answer"
        raise LoginError(f"Google gave no refresh token ({reason}); try again")
    return str(token)


def _write(path: Path, text: str) -> None:
    try:
        write_private(path, text)
    except OSError as error:
        raise LoginError(f"{path} can't be written: {error.strerror}") from None
