"""An account as plain values, the same for the command line and for the admin API."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from app.pool.snapshot import AccountView


def account_fields(view: AccountView) -> dict[str, Any]:
    """Return what is to be shown of ``view`` in JSON; instants in epoch seconds."""
    return {
        "name": view.name,
        "kind": view.kind,
        "state": view.state,
        "reasons": list(view.reasons),
        "projects": list(view.projects),
        "models": list(view.models),
        "priority": view.priority,
        "weight": view.weight,
        "concurrency": view.concurrency,
        "in_flight": view.in_flight,
        "cooldowns": [
            {
                "project": cooldown.project,
                "model": cooldown.model,
                "since": cooldown.since,
                "until": cooldown.until,
                "window": cooldown.window,
                "reason": cooldown.reason,
            }
            for cooldown in view.cooldowns
        ],
        "ejections": [
            {"model": ejection.model, "until": ejection.until} for ejection in view.ejections
        ],
        "forecasts": [asdict(forecast) for forecast in view.forecasts],
    }
