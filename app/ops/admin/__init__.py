"""The dashboard at ``/admin/``: pages for people, JSON for scripts, and the history behind both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint

from app.backend.upstream import Upstream
from app.ops.access import AdminAccess
from app.ops.admin.actions import Actions
from app.ops.admin.guard import Guard
from app.ops.admin.history import History
from app.ops.admin.pages import admin_blueprint
from app.ops.admin.parts import Parts
from app.ops.admin.reading import Reader
from app.ops.admin.session import Sessions
from app.pool.pool import ClientPool
from app.pool.state import StateStore


class Dashboard:
    """The dashboard of one process; `history` is to be told of every request."""

    def __init__(
        self,
        store: StateStore,
        pool: ClientPool,
        upstream: Upstream,
        access: AdminAccess,
        readiness: Callable[[], tuple[bool, dict[str, Any]]],
    ) -> None:
        self.history = History(store)
        self._parts = Parts(
            pool,
            Reader(store, self.history),
            Actions(pool, upstream),
            Guard(access, Sessions(access.admin_key)),
            readiness,
        )

    def blueprint(self) -> Blueprint:
        """Return the blueprint of its pages and its JSON API."""
        return admin_blueprint(self._parts)
