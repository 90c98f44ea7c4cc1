"""Why the pool has no account to give."""

from __future__ import annotations

from collections.abc import Mapping


class PoolError(Exception):
    """No lease; the message names accounts and reasons and is for the log only."""


class AllCooling(PoolError):
    """Every account that could serve is out of quota (or was tried by this request already).

    ``retry_at``: epoch seconds of the earliest reset; ``retry_after``: seconds from now to it.
    """

    def __init__(self, model: str, retry_at: float, retry_after: float) -> None:
        super().__init__(f"every account for {model} is cooling down, for {retry_after:.0f} s more")
        self.retry_at = retry_at
        self.retry_after = retry_after


class AllBusy(PoolError):
    """Accounts could serve, but no slot came free within the time allowed."""

    def __init__(self, model: str, waited: float) -> None:
        super().__init__(f"every account for {model} stayed busy for {waited:.1f} s")


class AllTried(PoolError):
    """Every account that could serve was tried by this request, and none of them is cooling."""

    def __init__(self, model: str) -> None:
        super().__init__(f"every account for {model} was tried by this request")


class NoneUsable(PoolError):
    """No account can serve at all; ``reasons`` says why, by account name."""

    def __init__(self, model: str, reasons: Mapping[str, str]) -> None:
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        super().__init__(f"no account is usable for {model} ({why or 'none is configured'})")
        self.reasons = dict(reasons)
