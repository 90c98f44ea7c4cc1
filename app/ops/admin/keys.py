"""Where the history lies in the state store, and for how long; times in seconds.

Every process writes under a name of its own, so that none overwrites another's, and readers merge.
"""

from __future__ import annotations

from dataclasses import dataclass

HEADS = "history-head/"
"""Per process: the number of its last page."""
PAGES = "history-page/"
"""Requests that have ended, a list of records a page; a process reuses its pages in turn."""
LIVE = "history-live/"
"""Per process: the requests under way, while somebody looks."""
WATCHED = "history-watched"
"""There while somebody looks."""

PAGE = 50
PAGES_KEPT = 40
"""Pages of one process: with `PAGE` records each, 2000 requests."""
KEPT = 86_400.0
LIVE_TTL = 6.0
WATCHED_TTL = 15.0


@dataclass(frozen=True)
class Span:
    """One resolution of the series: buckets of ``width`` seconds, each kept for ``kept``."""

    prefix: str
    width: int
    kept: float

    def start(self, at: float) -> int:
        """Return the beginning of the bucket that ``at`` falls into."""
        return int(at // self.width) * self.width


MINUTES = Span("history-minute/", 60, 7500.0)
TENS = Span("history-ten/", 600, 90_000.0)
SPANS = (MINUTES, TENS)
