"""What keeps an account (or one of its projects) out until somebody acts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Mark:
    """A lasting verdict on a project of an account; project `app.pool.cooling.ANY` is all of it.

    ``unusable`` is Google's verdict on the credential and ends when the account's definition
    changes (``definition`` is its digest); ``disabled`` is an operator's and ends by an
    operator; ``usable`` takes back what was said before ``at`` (epoch seconds).
    """

    project: str
    state: Literal["unusable", "disabled", "usable"]
    reason: str
    at: float
    definition: str
