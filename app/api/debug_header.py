"""``x-gateway-attempts``: the way of a request in a header, for whoever looks for a fault.

Only with ``GATEWAY_DEBUG_HEADERS=true``: it names accounts and projects, which clients need not
know.
"""

from __future__ import annotations

import time

from app.relay.trace import AttemptRecord, Trace

HEADER = "x-gateway-attempts"
LONGEST = 1000
"""Characters of the value, at most; proxies refuse long headers."""
_ONE = 160
"""Characters of one attempt, at most: names and reasons are as long as people and Google like."""


def attempts_header(trace: Trace) -> str:
    """Return the attempts so far: ``key-1 429 per-minute requests 180ms; key-2 200 812ms``.

    ``open`` is one that still runs, as when an answer is being streamed; ``none`` says that no
    account was found so far. Printable ASCII; what does not fit is counted at the end.
    """
    told = [_brief(attempt) for attempt in list(trace.attempts)]
    if not told:
        return "none"
    text = "; ".join(told)
    kept = len(told)
    while len(text) > LONGEST:
        kept -= 1
        text = "; ".join([*told[:kept], f"and {len(told) - kept} more"])
    return text


def _brief(attempt: AttemptRecord) -> str:
    where = f"{attempt.account}/{attempt.project}" if attempt.project else attempt.account
    words = [where]
    if attempt.status:
        words.append(str(attempt.status))
    if attempt.outcome != "ok":
        words.append(attempt.outcome or "open")
    ms = attempt.ms if attempt.outcome else round((time.monotonic() - attempt.started) * 1000)
    duration = f"{ms}ms"
    return f"{_safe(' '.join(words))[: _ONE - len(duration) - 1]} {duration}"


def _safe(text: str) -> str:
    """Return ``text`` without what a header can't carry, or would end an attempt."""
    return "".join("," if one == ";" else one if " " <= one <= "~" else "?" for one in text)
