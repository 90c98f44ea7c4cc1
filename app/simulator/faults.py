"""Every fault that can be asked for, by name. ``docs/simulator.md`` lists them for people."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from app.simulator import errors
from app.simulator.errors import GoogleError, error_info, quota_exhausted, retry_info


class UnknownFault(ValueError):
    """No fault has this name."""


@dataclass(frozen=True)
class Fault:
    """A fault and its number: chunks, bytes or seconds, by kind; -1 when none was given."""

    kind: str
    number: int = -1


PER_MINUTE = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"
PER_DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
_DEFAULT_RETRY = 26


def _minute(model: str, number: int) -> GoogleError:
    retry = number if number >= 0 else _DEFAULT_RETRY
    return quota_exhausted(model, PER_MINUTE, 10, retry + 0.3)


def _day(model: str, number: int) -> GoogleError:
    # The delay is as misleading as Google's: the quota id is what counts.
    return quota_exhausted(model, PER_DAY, 250, 47.2)


def _tokens(model: str, number: int) -> GoogleError:
    quota = "GenerateContentPaidTierInputTokensPerModelPerMinute"
    retry = number if number >= 0 else _DEFAULT_RETRY
    return quota_exhausted(model, quota, 1_000_000, retry + 0.3, "paid_tier_input_token_count")


def _none_at_all(model: str, number: int) -> GoogleError:
    return quota_exhausted(model, PER_DAY, 0, 47.2)


def _code_assist(model: str, number: int) -> GoogleError:
    return GoogleError(
        429,
        "You have exhausted your capacity on this model. Your quota will reset after 1h39m41s.",
        error_info(
            "QUOTA_EXHAUSTED",
            "cloudcode-pa.googleapis.com",
            uiMessage="true",
            model=model,
            quotaResetDelay="1h39m41.300432511s",
        ),
        retry_info("5981.300432511s"),
    )


def _capacity(model: str, number: int) -> GoogleError:
    return GoogleError(
        503,
        f"No capacity available for model {model} on the server",
        error_info("MODEL_CAPACITY_EXHAUSTED", "cloudcode-pa.googleapis.com", model=model),
    )


def _plain(
    code: int, message: str, *reason: str, status: str | None = None
) -> Callable[[str, int], GoogleError]:
    details = [error_info(word, service="generativelanguage.googleapis.com") for word in reason]

    def build(model: str, number: int) -> GoogleError:
        return GoogleError(code, message, *details, status=status)

    return build


def _fixed(make: Callable[[], GoogleError]) -> Callable[[str, int], GoogleError]:
    return lambda model, number: make()


_INTERNAL = (
    "An internal error has occurred. Please retry or report in "
    "https://developers.generativeai.google/guide/troubleshooting"
)
_VERTEX_429 = (
    "Resource exhausted. Please try again later. Please refer to "
    "https://cloud.google.com/vertex-ai/generative-ai/docs/error-code-429 for more details."
)

HTTP_ERRORS: dict[str, Callable[[str, int], GoogleError]] = {
    "400": _plain(400, "Request contains an invalid argument."),
    "401": _fixed(errors.token_expired),
    "403": _plain(403, "The caller does not have permission"),
    "404": lambda model, number: errors.no_such_model(model, "v1beta", "generateContent"),
    "408": _plain(408, "The request timed out. Please try again."),
    "413": _plain(413, "Request payload size exceeds the limit: 104857600 bytes."),
    "429": _minute,
    "429-minute": _minute,
    "429-day": _day,
    "429-tokens": _tokens,
    "429-zero": _none_at_all,
    "429-plain": _plain(429, "Resource has been exhausted (e.g. check quota)."),
    "429-vertex": _plain(429, _VERTEX_429),
    "429-code-assist": _code_assist,
    "499": _plain(499, "The operation was cancelled."),
    "500": _plain(500, _INTERNAL),
    "502": _plain(502, "Bad Gateway"),
    "503": _plain(503, "The model is overloaded. Please try again later."),
    "503-capacity": _capacity,
    "504": _plain(504, "The request timed out. Please try again."),
    "key-invalid": _fixed(errors.key_invalid),
    "key-expired": _plain(400, "API key expired. Please renew the API key.", "API_KEY_INVALID"),
    "key-leaked": _plain(403, "Your API key was reported as leaked. Please use another API key."),
    "service-disabled": _fixed(partial(errors.service_disabled, "12345678")),
    "billing": _plain(403, "This API method requires billing to be enabled.", "BILLING_DISABLED"),
    "location": _plain(
        400, "User location is not supported for the API use.", status="FAILED_PRECONDITION"
    ),
    "too-long": _fixed(partial(errors.context_too_long, 1_250_074, 1_048_576)),
    "bad-signature": _plain(400, "Corrupted thought signature."),
}
"""Answered with their own status, before anything of an answer."""

CONNECTION = frozenset(
    {"reset", "hang", "silent", "silent-after", "cut", "cut-bytes", "half-event"}
)
"""The connection breaks or falls silent: see `app.simulator.delivery`."""

DRESS = frozenset(["html", "garbage", "wrong-type", "redirect", "gzip", "slow", "delay"])
"""The bytes or headers are not what they should be, or late."""

ANSWER = frozenset(
    {
        "empty",
        "no-finish",
        "error-mid",
        "error-raw",
        "garbage-mid",
        "safety",
        "blocked",
        "recitation",
        "malformed-call",
        "unexpected-call",
        "thoughts-only",
    }
)
"""The answer itself is bad: see `app.simulator.spoiling`."""

_NUMBERED = frozenset(
    {
        "reset",
        "silent-after",
        "cut",
        "cut-bytes",
        "half-event",
        "error-mid",
        "error-raw",
        "garbage-mid",
        "delay",
        "429",
        "429-minute",
        "429-tokens",
    }
)
_TRAILING = re.compile(r"(.+)-(\d{1,9})\Z")

NAMES = frozenset({*HTTP_ERRORS, *CONNECTION, *DRESS, *ANSWER})


def parse(name: str) -> Fault:
    """Return the fault called ``name``; raises `UnknownFault`."""
    if name in NAMES:
        return Fault(name)
    match = _TRAILING.match(name)
    if match and match[1] in _NUMBERED:
        return Fault(match[1], int(match[2]))
    raise UnknownFault(
        f"the simulator has no fault called {name!r}; there are: {', '.join(sorted(NAMES))}"
    )


def http_error(fault: Fault, model: str) -> GoogleError | None:
    """Return the error to answer with, None for faults of another sort."""
    build = HTTP_ERRORS.get(fault.kind)
    return build(model, fault.number) if build else None
