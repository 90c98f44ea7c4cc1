"""What is said once when the service starts: what it serves, on which accounts, what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from urllib.parse import urlsplit

from app import __version__
from app.config import Settings
from app.pool.account import Account

MOST_NAMES = 12


def start_screen(settings: Settings, accounts: Sequence[Account], address: str) -> list[str]:
    """Return the lines to show; ``address`` is what clients reach, e.g. ``http://host:port``."""
    workers = settings.web_concurrency
    return [
        f"claude-gemini-gateway {__version__} serves {address} with {workers} worker(s)",
        f"  accounts:    {_accounts(accounts)}",
        f"  state:       {_without_password(settings.state_url)}",
        f"  clients:     {_clients(settings)}",
        f"  dashboard:   {_dashboard(settings, address)}",
        f"  Claude Code: ANTHROPIC_BASE_URL={address} "
        f"ANTHROPIC_AUTH_TOKEN={'YOUR-KEY' if settings.client_api_keys else 'any'} claude",
    ]


def missing(settings: Settings, accounts: Sequence[Account]) -> list[str]:
    """Return what a person should know is missing, and how to mend it."""
    found = []
    if not accounts:
        found.append(
            "NO ACCOUNT IS CONFIGURED: answers come from the built-in simulator. "
            "Set GEMINI_API_KEYS or write accounts.toml to serve from Gemini."
        )
    if not settings.on_loopback and not settings.admin_api_key:
        found.append("The dashboard is closed: set ADMIN_API_KEY to open it.")
    if settings.state_url == "memory://" and settings.web_concurrency > 1:
        found.append(
            "STATE_URL=memory:// with several workers: each goes by its own view of the accounts; "
            "leave STATE_URL out to share it."
        )
    return found


def _accounts(accounts: Sequence[Account]) -> str:
    if not accounts:
        return "none; the built-in simulator answers"
    if len(accounts) > MOST_NAMES:
        kinds = groupby(sorted(account.kind for account in accounts))
        counts = (f"{len(list(group))} {kind}" for kind, group in kinds)
        return f"{len(accounts)}: {', '.join(counts)}"
    return ", ".join(f"{account.name} ({account.kind})" for account in accounts)


def _clients(settings: Settings) -> str:
    count = len(settings.client_api_keys)
    return f"{count} key(s)" if count else "anybody on this machine; CLIENT_API_KEYS is not set"


def _dashboard(settings: Settings, address: str) -> str:
    if settings.admin_api_key:
        return f"{address}/admin/, with ADMIN_API_KEY"
    return f"{address}/admin/, open to this machine" if settings.on_loopback else "closed"


def _without_password(url: str) -> str:
    """Return the address of a store, without what may be a secret: who asks, and the options."""
    if not url.startswith(("redis://", "rediss://")):
        return url  # memory, or a file, whose name is taken as it is
    parts = urlsplit(url)
    _, at, server = parts.netloc.rpartition("@")
    hidden = f"…@{server}" if at else server
    return f"{parts.scheme}://{hidden}{parts.path}{'?…' if parts.query else ''}"
