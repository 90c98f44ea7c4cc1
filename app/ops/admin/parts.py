"""What the dashboard is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.ops.admin.actions import Actions
from app.ops.admin.guard import Guard
from app.ops.admin.reading import Reader
from app.pool.pool import ClientPool


@dataclass(frozen=True)
class Parts:
    """Handed from the composition root to the routes; ``readiness`` as for ``/readyz``."""

    pool: ClientPool
    reader: Reader
    actions: Actions
    guard: Guard
    readiness: Callable[[], tuple[bool, dict[str, Any]]]
