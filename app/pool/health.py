"""Whether one account still answers for one model: ejection and return."""

from __future__ import annotations

from dataclasses import dataclass

FAILURES_IN_A_ROW = 5
FIRST_EJECTION = 10.0
LONGEST_EJECTION = 300.0
LONGEST_TRIAL = 30.0


@dataclass
class Health:
    """Failures in a row of one (account, model). Not locked: its owner's lock guards it.

    After `FAILURES_IN_A_ROW` the account is ejected for the model, for ten seconds and twice as
    long each next time. Its return begins with one trial request, and only when that succeeds
    does the rest follow. Times are epoch seconds.
    """

    failures: int = 0
    ejections: int = 0
    until: float = 0.0
    trial: str = ""
    """Token of the lease that is the trial under way, "" when there is none."""
    since: float = 0.0
    """When it was ejected last."""

    def ejected_until(self, now: float) -> float:
        """Return when the account may be tried again; 0.0 when it may now.

        An end further away than any ejection lasts is a clock set back, and counts as passed.
        """
        ejected = self.ejections and now < self.until <= now + LONGEST_EJECTION
        return self.until if ejected else 0.0

    def chosen(self, token: str, now: float) -> None:
        """Note that lease ``token`` was given; after an ejection the first one is the trial.

        The others wait for its verdict, but no longer than `LONGEST_TRIAL`: it may be an answer
        of many minutes.
        """
        if self.ejections and not self.ejected_until(now):
            self.trial = token
            self.until = now + LONGEST_TRIAL

    def failed(self, token: str, now: float) -> bool:
        """Count a failure; returns True when it ejects the account.

        Requests that were under way when the ejection came do not prolong it.
        """
        if self.ejections:
            if token != self.trial:
                return False
            self.trial = ""
        else:
            self.failures += 1
            if self.failures < FAILURES_IN_A_ROW:
                return False
        until = now + min(LONGEST_EJECTION, FIRST_EJECTION * 2.0 ** min(self.ejections, 16))
        self.ejected(until, self.ejections + 1, now)
        return True

    def ejected(self, until: float, ejections: int, at: float) -> None:
        """Eject it, by another process' word or one's own."""
        self.until, self.ejections, self.since = until, ejections, at

    def released(self, token: str) -> None:
        """Note that lease ``token`` is back; a trial without a verdict makes room for the next."""
        if token == self.trial:
            self.trial = ""
            self.until = 0.0
