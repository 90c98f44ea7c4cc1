"""What ran out: Google's quota errors in the pool's words.

Google names it in four places, in this order of trust: the id of the quota that was violated
(``QuotaFailure``, ``ErrorInfo``), the instant or delay until the reset, the text of the message,
the ``Retry-After`` header.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from app.backend.google_error import GoogleError, Violation
from app.pool.cooldown import Exhausted, Window

CAPACITY = {"MODEL_CAPACITY_EXHAUSTED", "MODEL_CAPACITY_EXCEEDED"}
CREDITS = "INSUFFICIENT_G1_CREDITS_BALANCE"
REASONS = {
    *CAPACITY,
    CREDITS,
    "QUOTA_EXHAUSTED",
    "RATE_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "RESOURCE_QUOTA_EXCEEDED",
}
DAILY = "dailyLimitExceeded"
LEGACY_REASONS = {
    DAILY,
    "limitExceeded",
    "quotaExceeded",
    "rateLimitExceeded",
    "userRateLimitExceeded",
}

_LENGTH = {"unknown": 0, "capacity": 0, "minute": 1, "day": 2, "never": 3}
_UNITS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|us|ns|[dhms])")
_IN_MESSAGE = re.compile(
    r"(?:retry in|reset after|reset in|try again in)\s+((?:\d+(?:\.\d+)?(?:ms|[dhms])\s*)+)", re.I
)
_NO_QUOTA = re.compile(r"\blimit:\s*0(?!\.?\d)", re.I)
_LIMIT = re.compile(r"\blimit:\s*(\d{1,15})\b", re.I)
_QUOTA_TEXT = re.compile(r"quota exceeded for (?:quota )?metric\b([^\n]{1,300})", re.I)
_NO_CAPACITY = re.compile(r"no capacity available|model capacity", re.I)
_TOO_LARGE = re.compile(
    r"message larger than max"
    r"|\b(?:payload|size|length|token count)\b[^.\n]{0,80}\bexceeds (?:the )?(?:maximum|limit)",
    re.I,
)
_RATE = re.compile(r"\bper[ _-]?(?:second|minute|hour|day)", re.I)


def is_quota(error: GoogleError, headers: Mapping[str, str]) -> bool:
    """Tell whether ``error`` means that something ran out, in whatever status it came."""
    if error.code not in (400, 403, 429, 499) and error.code < 500:
        return False
    if _TOO_LARGE.search(error.message) and not _names_rate(error, headers):
        return False  # gRPC says RESOURCE_EXHAUSTED of a request that is too large, too
    return (
        error.code == 429
        or error.status == "RESOURCE_EXHAUSTED"
        or bool(error.violations)
        or not REASONS.isdisjoint(error.reasons)
        or not LEGACY_REASONS.isdisjoint(error.legacy_reasons)
    )


def _names_rate(error: GoogleError, headers: Mapping[str, str]) -> bool:
    """Tell whether anything says that the same request may pass later."""
    return bool(
        error.violations
        or error.infos
        or error.retry_delay
        or "retry-after" in headers
        or _IN_MESSAGE.search(error.message)
        or _RATE.search(error.message)
    )


def exhausted_by(error: GoogleError, headers: Mapping[str, str], now: float) -> Exhausted:
    """Return what the quota error ``error`` says is out; ``now`` in epoch seconds."""
    until, retry_after = _reset(error, headers, now)
    if not CAPACITY.isdisjoint(error.reasons) or (
        not error.violations and _NO_CAPACITY.search(error.message)
    ):
        return Exhausted("capacity", retry_after, until, per_project=False, reason="model capacity")
    if CREDITS in error.reasons:
        return Exhausted(
            "unknown", retry_after, until, per_project=False, per_model=False, reason="credits"
        )
    quotas = [_judged(violation) for violation in _named(error)]
    if not quotas:
        # The text is for people: its window is taken from it, but not a name for the forecast.
        texts = _QUOTA_TEXT.findall(error.message)
        quotas = [(_window(text), None, "") for text in texts]
    if DAILY in error.legacy_reasons:
        quotas.append(("day", None, ""))
    window, limit, metric = max(quotas, key=_length, default=("unknown", None, ""))
    if _NO_QUOTA.search(error.message):
        window, limit = "never", 0
    elif limit is None and (match := _LIMIT.search(error.message)):
        limit = int(match[1])
    return Exhausted(
        window, retry_after, until, reason=_described(window, metric), limit=limit, metric=metric
    )


def duration(text: str) -> float | None:
    """Return the seconds in "26s", "0.5s", "900ms" or "161h39m41.3s"; None for anything else."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != re.sub(r"\s", "", text):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


_Quota = tuple[Window, int | None, str]


def _named(error: GoogleError) -> list[Violation]:
    classic = (
        Violation(
            metadata.get("quota_limit", ""),
            metadata.get("quota_metric", ""),
            metadata.get("quota_limit_value", ""),
        )
        for _, metadata in error.infos
    )
    return [quota for quota in (*error.violations, *classic) if quota.quota_id or quota.metric]


def _judged(quota: Violation) -> _Quota:
    name = quota.quota_id or quota.metric
    value = quota.value
    limit = int(value) if value.isascii() and value.isdigit() and len(value) < 16 else None
    return "never" if limit == 0 else _window(name), limit, name


def _window(name: str) -> Window:
    words = re.sub(r"[_\s]", "", name).lower()
    if "perday" in words or "daily" in words:
        return "day"
    return "minute" if "perminute" in words else "unknown"


def _length(quota: _Quota) -> int:
    return _LENGTH[quota[0]]


def _described(window: Window, metric: str) -> str:
    words = metric.replace("_", "").lower()
    what = "input tokens" if "token" in words else "requests" if "request" in words else "quota"
    match window:
        case "never":
            return "no quota for this model"
        case "day" | "minute":
            return f"per-{window} {what}"
        case _:
            return what if metric else "quota"


def _reset(
    error: GoogleError, headers: Mapping[str, str], now: float
) -> tuple[float | None, float | None]:
    """Return the instant and the delay that were named."""
    until = None
    delay = duration(error.retry_delay)
    for _, metadata in error.infos:
        until = until or _instant(metadata.get("quotaResetTimeStamp", ""))
        if delay is None:
            delay = duration(metadata.get("quotaResetDelay", ""))
    if match := _IN_MESSAGE.search(error.message):
        # RetryInfo is rounded down to whole seconds, and one that comes back early is refused.
        delay = max(delay or 0.0, duration(match[1]) or 0.0)
    if delay is None and until is not None:
        delay = max(0.0, until - now)
    if delay is None:
        delay = _header_delay(headers, now)
    return until, delay


def _instant(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _header_delay(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds of ``Retry-After``: a number or a date (RFC 9110, section 10.2.3)."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the latter for a zone that no clock has
        return None
    return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now)
