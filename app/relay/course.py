"""What happens after a failed attempt: the behaviour table, one row per fault.

| fault             | pool                     | retry    | next attempt                      |
|-------------------|--------------------------|----------|-----------------------------------|
| QUOTA             | cools down               | no       | next project, then next account   |
| CREDENTIAL        | marks account or project | no       | another account                   |
| UNAUTHENTICATED   | marks it the second time | consumed | same account with a new token     |
| SIGNATURE         | -                        | no       | same account, once, own ones only |
| FORBIDDEN         | -                        | consumed | another account, the same one     |
|                   |                          |          | only when there is no other       |
| TIMEOUT,          | counts a failure         | consumed | likewise                          |
| UNAVAILABLE,      |                          |          |                                   |
| BROKEN            |                          |          |                                   |
| UNSUITED          | -                        | no       | another account                   |
| LOST              | -                        | consumed | any account                       |
| NOT_FOUND,        | -                        | -        | none: to the client               |
| REJECTED          |                          |          |                                   |
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, field

from app.backend.errors import Fault, UpstreamError
from app.pool.pool import Lease
from app.relay.budget import RetryBudget
from app.relay.errors import Failure, RelayError

log = logging.getLogger("gateway.relay")

FAILURES = {
    Fault.QUOTA: Failure.QUOTA,
    Fault.CREDENTIAL: Failure.NO_ACCOUNT,
    Fault.UNAUTHENTICATED: Failure.BROKEN,
    Fault.SIGNATURE: Failure.REJECTED,
    Fault.FORBIDDEN: Failure.FORBIDDEN,
    Fault.TIMEOUT: Failure.TIMEOUT,
    Fault.UNAVAILABLE: Failure.OVERLOADED,
    Fault.BROKEN: Failure.BROKEN,
    Fault.LOST: Failure.OVERLOADED,
    Fault.UNSUITED: Failure.REJECTED,
    Fault.NOT_FOUND: Failure.NOT_FOUND,
    Fault.REJECTED: Failure.REJECTED,
}
_FAILED = (Fault.TIMEOUT, Fault.UNAVAILABLE, Fault.BROKEN)
"""The server could not answer; the other faults are an answer."""


@dataclass
class Next:
    """How the next attempt is made.

    ``lease`` is kept for the same account, None to rotate; ``refresh`` gets a new token first;
    ``prefer`` is the tag of the account whose next project comes before other accounts;
    ``afresh`` asks for a new connection, as kept ones may lead to the same server that failed.
    """

    lease: Lease | None = None
    refresh: bool = False
    prefer: str = ""
    afresh: bool = False


@dataclass
class Course:
    """One request's way through the pool: what was tried, what is still allowed."""

    retries_left: int
    switch_on_quota: bool
    budget: RetryBudget
    tried: set[tuple[str, str]] = field(default_factory=set)
    """(account, project) pairs that are out for this request."""
    avoid: set[str] = field(default_factory=set)
    """Accounts that failed: chosen again only when there is no other."""
    trust_foreign: bool = True
    failures: int = 0
    retry_refused: bool = False
    """Whether the budget had no retry left."""
    _refreshed: set[str] = field(default_factory=set)

    def after(self, error: UpstreamError, lease: Lease) -> Next:
        """Return how to go on after ``error`` on ``lease``; raises `RelayError` when not at all."""
        account = lease.account
        match error.fault:
            case Fault.QUOTA:
                if not self.switch_on_quota:
                    raise self.ended(error)
                self.tried.add((account.name, lease.project))
                return Next(prefer=account.tag)
            case Fault.CREDENTIAL | Fault.UNSUITED:
                self.tried.update((account.name, project) for project in self._out(error, lease))
                return Next()
            case Fault.SIGNATURE if self.trust_foreign:
                self.trust_foreign = False
                return Next(lease)
            case Fault.UNAUTHENTICATED if account.name in self._refreshed:
                self.tried.update((account.name, project) for project in account.quota_projects)
                return Next()
            case Fault.UNAUTHENTICATED:
                self._refreshed.add(account.name)
                self._consume(error)
                return Next(lease, refresh=True)
            case Fault.FORBIDDEN | Fault.TIMEOUT | Fault.UNAVAILABLE | Fault.BROKEN | Fault.LOST:
                self._consume(error)
                if error.fault is not Fault.LOST:
                    self.avoid.add(account.name)
                return Next(afresh=error.fault in _FAILED)
            case _:
                raise self.ended(error)

    def was_refreshed(self, account: str) -> bool:
        """Tell whether this request already got ``account`` a new token."""
        return account in self._refreshed

    def backoff(self, lease: Lease) -> float:
        """Seconds to wait before an attempt: only when a failed account has to be asked again."""
        if lease.account.name not in self.avoid:
            return 0.0
        return min(8.0, 0.25 * 2.0 ** (self.failures - 1)) * random.uniform(0.5, 1.0)  # noqa: S311

    def ended(self, error: UpstreamError) -> RelayError:
        """Return what the client gets when ``error`` is the last word."""
        exhausted = error.exhausted
        return RelayError(
            FAILURES[error.fault],
            error.message,
            status=error.status,
            retry_after=exhausted.retry_after if exhausted else None,
        )

    def _consume(self, error: UpstreamError) -> None:
        if self.retries_left <= 0:
            raise self.ended(error)
        if not self.budget.spend():
            self.retry_refused = True
            log.warning("no retry: this worker has used up its share of retries (RETRY_BUDGET)")
            raise self.ended(error)
        self.retries_left -= 1
        self.failures += 1

    @staticmethod
    def _out(error: UpstreamError, lease: Lease) -> tuple[str, ...]:
        return (lease.project,) if error.per_project else lease.account.quota_projects
