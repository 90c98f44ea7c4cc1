"""Which row of the behaviour table an error of Google's belongs to.

The wording of messages is Google's to change: what decides is the HTTP status, the ``status``
word and the ``reason`` of ``ErrorInfo``; texts are looked at only where Google gives nothing else,
and then only their beginning, since messages may quote the caller.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from app.backend.errors import Fault, UpstreamError
from app.backend.google_error import GoogleError, parse_body, parse_error
from app.backend.quota import exhausted_by, is_quota

LONGEST_MESSAGE = 1000
LONG_SECRET = 12
"""Characters from which a secret is removed wherever it stands; shorter ones only as words."""
SHORTEST_SECRET = 4
"""Anything shorter is no credential, and removing it would make a riddle of every message."""

FAULTS = {
    401: Fault.UNAUTHENTICATED,
    403: Fault.FORBIDDEN,
    404: Fault.NOT_FOUND,
    407: Fault.BROKEN,  # the operator's proxy, not Google
    408: Fault.TIMEOUT,
    499: Fault.UNAVAILABLE,
    503: Fault.UNAVAILABLE,
    504: Fault.TIMEOUT,
}
"""What a status means when nothing in the body says more."""

PROJECT_REASONS = {
    "BILLING_DISABLED",
    "CONSUMER_INVALID",
    "CONSUMER_SUSPENDED",
    "SECURITY_POLICY_VIOLATED",
    "SERVICE_DISABLED",
    "USER_PROJECT_DENIED",
}
"""``ErrorInfo`` reasons that condemn the project that was asked for."""
ACCOUNT_REASONS = {
    "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
    "ACCOUNT_STATE_INVALID",
    "VALIDATION_REQUIRED",
}
"""``ErrorInfo`` reasons that condemn the whole account, as every ``API_KEY_`` reason does."""

_CREDENTIAL_TEXT = re.compile(
    r"API[ _]key (?:not valid|not found|expired|is invalid)"
    r"|Your API key was reported as leaked"
    r"|User location is not supported"
    r"|Method doesn't allow unregistered callers"
    r"|.{0,200}requires a quota project"
    r"|.{0,200}free tier is not available"
    r"|.{0,200}(?:enable|requires?) billing"
    r"|invalid_grant",
    re.I | re.S,
)
_PROJECT_TEXT = re.compile(
    r".{0,100}has not been used in project \S+ before or it is disabled", re.I
)
_SIGNATURE_TEXT = re.compile(r"thought[ _-]?signature", re.I)
_SECRETS = re.compile(
    r"(?<=[?&]key=)[^&\s\"']+"
    r"|(?<=Bearer )\S+"
    r"|\bAIza[\w-]{20,}"
    r"|\bya29\.[\w.-]+"
    r"|\bAQ\.[\w.-]{10,}"
    r"|\b1//[\w-]{20,}",
    re.I,
)


def classify(
    status: int,
    body: bytes,
    headers: Mapping[str, str],
    *,
    keyed: bool,
    now: float,
    secrets: Collection[str] = (),
) -> UpstreamError:
    """Return the error that an HTTP answer other than 200 means.

    ``headers`` must be case-insensitive or lower-case; ``keyed`` tells whether the account has a
    key, which no refresh can mend; ``now`` is in epoch seconds; ``secrets`` are never shown.
    """
    return _classified(parse_body(status, body), headers, keyed, now, secrets)


def classify_object(
    error: Mapping[str, Any], *, keyed: bool, now: float, secrets: Collection[str] = ()
) -> UpstreamError:
    """Return the error that an ``error`` object inside a stream means."""
    return _classified(parse_error(error), {}, keyed, now, secrets)


def one_line(text: str, secrets: Collection[str] = ()) -> str:
    """Return ``text`` as one bounded line without any credential."""
    for secret in secrets:
        if len(secret) >= LONG_SECRET:
            text = text.replace(secret, "[removed]")
        elif len(secret) >= SHORTEST_SECRET:
            text = re.sub(rf"(?<![\w-]){re.escape(secret)}(?![\w-])", "[removed]", text)
    text = " ".join(_SECRETS.sub("[removed]", text).split())
    return text if len(text) <= LONGEST_MESSAGE else f"{text[: LONGEST_MESSAGE - 1]}…"


def _classified(
    error: GoogleError,
    headers: Mapping[str, str],
    keyed: bool,
    now: float,
    secrets: Collection[str],
) -> UpstreamError:
    text = error.message or f"The upstream answered HTTP {error.code} without saying why."
    if "VALIDATION_REQUIRED" in error.reasons and error.links:
        text = f"{text} {error.links[0]}"
    message = one_line(text, secrets)
    reason = one_line(error.word, secrets)
    if is_quota(error, headers):
        exhausted = exhausted_by(error, headers, now)
        return UpstreamError(
            Fault.QUOTA, message, status=error.code, reason=reason, exhausted=exhausted
        )
    if 400 <= error.code < 500:
        if error.reasons & PROJECT_REASONS or _PROJECT_TEXT.match(error.message):
            return UpstreamError(
                Fault.CREDENTIAL, message, status=error.code, reason=reason, per_project=True
            )
        if _condemns_account(error):
            return UpstreamError(Fault.CREDENTIAL, message, status=error.code, reason=reason)
    return UpstreamError(_fault(error, keyed), message, status=error.code, reason=reason)


def _condemns_account(error: GoogleError) -> bool:
    if error.code not in (400, 401, 403):
        return False
    return (
        not ACCOUNT_REASONS.isdisjoint(error.reasons)
        or any(reason.startswith("API_KEY_") for reason in error.reasons)
        or error.status == "invalid_grant"
        or bool(_CREDENTIAL_TEXT.match(error.message))
    )


def _fault(error: GoogleError, keyed: bool) -> Fault:
    if error.code == 401 and keyed:
        return Fault.CREDENTIAL
    if error.code == 400 and _SIGNATURE_TEXT.search(error.message):
        return Fault.SIGNATURE
    other = Fault.REJECTED if 400 <= error.code < 500 else Fault.BROKEN
    return FAULTS.get(error.code, other)
