"""Until when an (account, project, model) is not chosen, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Window = Literal["minute", "day", "capacity", "never", "unknown"]


@dataclass(frozen=True)
class Exhausted:
    """What Google said ran out, in words that the pool can act on without knowing HTTP.

    ``window``: ``minute`` (a rolling short quota), ``day`` (until midnight in
    America/Los_Angeles, whatever ``retry_after`` says), ``capacity`` (the model itself is short,
    not the account), ``never`` (this project has no quota for the model: limit 0), ``unknown``.
    ``retry_after``: seconds that Google named, or None when it named none.
    ``until``: epoch seconds when Google named an instant (Code Assist), else None.
    ``per_project``: False when the whole account is out, whatever the project.
    ``per_model``: False when every model of it is out.
    ``reason``: one line for logs and the dashboard ("per-minute input tokens").
    """

    window: Window = "unknown"
    retry_after: float | None = None
    until: float | None = None
    per_project: bool = True
    per_model: bool = True
    reason: str = "quota"
    limit: int | None = None
    """The limit Google named for this window, when it did (for the forecast)."""
    metric: str = ""
    """Google's quotaId or quota_limit, verbatim, for logs."""
