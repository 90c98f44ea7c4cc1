"""What the pages say of accounts, in the words and shapes that their templates need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.ops.admin.series import Bucket, Counts
from app.pool.account import Account
from app.pool.cooling import ANY
from app.pool.snapshot import AccountView

NONE = "—"

STATES = {
    "ready": "Ready",
    "cooling": "Cooling down",
    "ejected": "Failing",
    "unusable": "Unusable",
    "disabled": "Disabled",
}
KINDS = {
    "api_key": "API key",
    "oauth": "OAuth",
    "service_account": "Service account",
    "vertex": "Vertex AI",
    "code_assist": "Code Assist",
}


@dataclass(frozen=True)
class Out:
    """One thing that an account can't be used for; ``until`` in epoch seconds, None for open."""

    what: str
    why: str
    until: float | None = None


@dataclass(frozen=True)
class Card:
    """One account as the pages show it, with its counts of the last hour."""

    view: AccountView
    counts: Counts
    has_token: bool
    spark: str
    """Points of an SVG polyline 120 wide and 28 high: its requests over the hour, "" if none."""

    @property
    def state(self) -> str:
        """Return the state in words."""
        return STATES[self.view.state]

    @property
    def kind(self) -> str:
        """Return the kind in words."""
        return KINDS[self.view.kind]

    @property
    def out(self) -> list[Out]:
        """Return what it is out for, the longest last."""
        view = self.view
        if view.state in ("disabled", "unusable"):
            return [Out("All requests", reason) for reason in view.reasons]
        found = [
            Out(
                _named(cooldown.model, cooldown.project), _sentence(cooldown.reason), cooldown.until
            )
            for cooldown in view.cooldowns
        ]
        found += [
            Out(_named(ejection.model, ""), "Failed too often in a row", ejection.until)
            for ejection in view.ejections
        ]
        # What is said of single projects, beyond the cooldowns.
        said = [reason for reason in view.reasons if reason.startswith("project ")]
        return [Out("A project", reason) for reason in said] + sorted(found, key=_end)

    @property
    def busy_share(self) -> float:
        """Return the share of its slots that are taken, 0 to 1."""
        return min(1.0, self.view.in_flight / max(1, self.view.concurrency))


def cards(
    views: Sequence[AccountView],
    accounts: Sequence[Account],
    series: Sequence[tuple[int, Bucket]],
    tokens: Any,
) -> list[Card]:
    """Return the cards of ``views``; ``series`` is the last hour, ``tokens`` tells who has one."""
    by_name = {account.name: account for account in accounts}
    total = Bucket()
    for _, bucket in series:
        total.merge(bucket)
    counts = total.by_account()
    return [
        Card(
            view,
            counts.get(view.name, Counts()),
            view.name in by_name and tokens(by_name[view.name]),
            _spark([bucket.of(view.name).requests for _, bucket in series]),
        )
        for view in views
    ]


def headline(found: Sequence[Card]) -> str:
    """Return in one sentence how the pool is."""
    out = [card for card in found if card.view.state != "ready"]
    if not found:
        return "There is no account."
    if not out:
        return (
            "The account is ready." if len(found) == 1 else f"All {len(found)} accounts are ready."
        )
    ready = len(found) - len(out)
    if not ready:
        return "No account is fully ready." if len(found) > 1 else "The account is not fully ready."
    return f"{ready} of {len(found)} accounts {'is' if ready == 1 else 'are'} ready."


def instant(at: float) -> str:
    """Return the epoch second ``at`` as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(at: float) -> str:
    """Return the time of day of ``at`` in UTC, for browsers that run no scripts."""
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S} UTC"


def percent(share: float | None) -> str:
    """Return ``share`` (0 to 1) in per cent; 99.95 % is not 100 %."""
    if share is None:
        return NONE
    value = share * 100
    return f"{value:.0f} %" if value in (0.0, 100.0) else f"{min(value, 99.9):.1f} %"


def compact(number: int | None) -> str:
    """Return ``number`` short: 950, 1.2k, 35k, 1.4M."""
    if number is None:
        return NONE
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            value = number / size
            return f"{value:.1f}{unit}" if value < 10 else f"{value:.0f}{unit}"
    return str(number)


def duration(ms: int | None) -> str:
    """Return milliseconds as people read them: 812 ms, 3.4 s, 2 min 5 s."""
    if ms is None:
        return NONE
    if ms < 1000:
        return f"{ms} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    return f"{ms // 60_000} min {ms % 60_000 // 1000} s"


def way(attempts: Sequence[dict[str, Any]]) -> str:
    """Return the attempts as one phrase: ``key-1 429 per-minute requests → key-2 200, 812 ms``."""
    return " → ".join(
        f"{one['account']} {one['status'] or ''} "
        f"{'' if one['outcome'] == 'ok' else one['outcome'] or 'under way'}".strip()
        + (f", {duration(one['ms'])}" if one["outcome"] else "")
        for one in attempts
    )


def _named(model: str, project: str) -> str:
    name = "All models" if model == ANY else model
    return f"{name} on {project}" if project not in ("", ANY) else name


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _end(out: Out) -> float:
    return out.until or 0.0


def _spark(values: Sequence[int]) -> str:
    most = max(values, default=0)
    if not most:
        return ""
    step = 120 / max(1, len(values) - 1)
    return " ".join(
        f"{index * step:.1f},{26 - value / most * 24:.1f}" for index, value in enumerate(values)
    )
