"""A Claude-compatible API gateway over a pool of Gemini accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from app.config import Settings

__version__ = "0.1.0"


def create_app(settings: Settings | None = None) -> Flask:
    """Return the gateway as a Flask application, the only composition root.

    Without ``settings`` they are read from the environment and ``.env``. Nothing runs in the
    background before the first request or ``app.extensions["gateway"].start()``. Raises
    `app.config.SettingsError` and `app.pool.accounts_file.AccountsError`.
    """
    # Imported here so that reading the settings does not load the whole gateway.
    from app.factory import build  # noqa: PLC0415

    return build(settings)
