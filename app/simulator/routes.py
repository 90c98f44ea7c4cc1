"""The URLs of Google's three API surfaces, and who is asking."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from app.simulator.errors import bad_request, credentials_missing, token_expired, unregistered
from app.simulator.oauth import TokenOffice
from app.simulator.signatures import Flavour

_CALL = r"(?P<call>generateContent|streamGenerateContent|countTokens)"
_VERSION = r"/(?P<version>v1|v1beta|v1beta1)"
_PUBLISHER = r"publishers/google/models"
_ROUTES: tuple[tuple[str, Flavour, re.Pattern[str]], ...] = tuple(
    (method, flavour, re.compile(pattern + r"\Z"))  # type: ignore[misc]
    for method, flavour, pattern in (
        ("POST", "gemini", rf"{_VERSION}/models/(?P<model>[^/:]+):{_CALL}"),
        ("GET", "gemini", rf"{_VERSION}/(?P<call>models)"),
        ("GET", "gemini", rf"{_VERSION}/(?P<call>models)/(?P<model>[^/:]+)"),
        (
            "POST",
            "vertex",
            rf"{_VERSION}/projects/(?P<project>[^/]+)/locations/(?P<location>[^/]+)/"
            rf"{_PUBLISHER}/(?P<model>[^/:]+):{_CALL}",
        ),
        ("POST", "vertex", rf"{_VERSION}/{_PUBLISHER}/(?P<model>[^/:]+):{_CALL}"),
        ("GET", "vertex", rf"{_VERSION}/publishers/google/(?P<call>models)"),
        ("POST", "code_assist", rf"/(?P<version>v1internal):{_CALL}"),
        ("POST", "code_assist", r"/(?P<version>v1internal):(?P<call>loadCodeAssist|onboardUser)"),
        ("GET", "code_assist", r"/(?P<version>v1internal)/(?P<call>operations)/.+"),
    )
)
_SERVICES: dict[Flavour, str] = {
    "gemini": "generativelanguage.googleapis.com",
    "vertex": "aiplatform.googleapis.com",
    "code_assist": "cloudcode-pa.googleapis.com",
}


@dataclass(frozen=True)
class Route:
    """What a URL asks for. ``location`` and ``project`` are Vertex AI's, from the path."""

    flavour: Flavour
    call: str
    version: str
    model: str = ""
    project: str = ""
    location: str = ""


def find_route(method: str, path: str) -> Route | None:
    """Return what ``method path`` asks for, None if nothing of Google's is there."""
    for wanted, flavour, pattern in _ROUTES:
        match = pattern.match(path) if method == wanted else None
        if match:
            found = {name: unquote(value) for name, value in match.groupdict().items() if value}
            return Route(flavour=flavour, **found)
    return None


def caller(
    route: Route, headers: Mapping[str, str], query: Mapping[str, str], tokens: TokenOffice
) -> str:
    """Return who asks: the API key, or the owner of the token; raises `GoogleError`."""
    key = headers.get("x-goog-api-key", "") or query.get("key", "")
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    if key and bearer:
        raise bad_request("Multiple authentication credentials received. Please pass only one.")
    service = _SERVICES[route.flavour]
    if key:
        express = route.flavour == "vertex" and not route.project
        if route.flavour == "gemini" or express:
            return key
        raise credentials_missing(
            service,
            "API keys are not supported by this API. Expected OAuth2 access token or other "
            "authentication credentials that assert a principal.",
        )
    if not bearer:
        raise unregistered() if route.flavour == "gemini" else credentials_missing(service)
    owner = tokens.owner_of(bearer)
    if owner is None:
        raise token_expired(service)
    return owner
