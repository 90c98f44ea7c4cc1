"""What is said at the start, word for word."""

import pytest

from app import __version__
from app.config import load_settings
from app.ops.start_screen import missing, start_screen
from app.pool.sources import load_accounts

NO_ACCOUNT = (
    "NO ACCOUNT IS CONFIGURED: answers come from the built-in simulator. "
    "Set GEMINI_API_KEYS or write accounts.toml to serve from Gemini."
)


def said(folder, **environ):
    settings = load_settings(environ, root=folder)
    accounts = load_accounts(settings)
    return start_screen(settings, accounts, "http://h:1"), missing(settings, accounts)


def test_a_first_start(tmp_path):
    assert said(tmp_path) == (
        [
            f"claude-gemini-gateway {__version__} serves http://h:1 with 1 worker(s)",
            "  accounts:    none; the built-in simulator answers",
            "  state:       sqlite:///var/state.db",
            "  clients:     anybody on this machine; CLIENT_API_KEYS is not set",
            "  dashboard:   http://h:1/admin/, open to this machine",
            "  Claude Code: ANTHROPIC_BASE_URL=http://h:1 ANTHROPIC_AUTH_TOKEN=any claude",
        ],
        [NO_ACCOUNT],
    )


def test_a_service_for_many(tmp_path):
    screen, lacking = said(
        tmp_path,
        HOST="0.0.0.0",
        WEB_CONCURRENCY="4",
        CLIENT_API_KEYS="one-secret,two-secret",
        GEMINI_API_KEYS="AIza-secret-a,AIza-secret-b",
        STATE_URL="redis://user:pass-secret@store:6379/2",
    )
    assert screen == [
        f"claude-gemini-gateway {__version__} serves http://h:1 with 4 worker(s)",
        "  accounts:    key-1 (api_key), key-2 (api_key)",
        "  state:       redis://…@store:6379/2",
        "  clients:     2 key(s)",
        "  dashboard:   closed",
        "  Claude Code: ANTHROPIC_BASE_URL=http://h:1 ANTHROPIC_AUTH_TOKEN=YOUR-KEY claude",
    ]
    assert lacking == ["The dashboard is closed: set ADMIN_API_KEY to open it."]
    assert "secret" not in str(screen + lacking)


@pytest.mark.parametrize(("count", "shown"), [(12, "key-12 (api_key)"), (13, "13: 13 api_key")])
def test_many_accounts_are_counted(tmp_path, count, shown):
    keys = ",".join(f"AIza{number}" for number in range(count))
    screen, _ = said(tmp_path, GEMINI_API_KEYS=keys, ADMIN_API_KEY="x" * 20)
    assert screen[1].endswith(shown)
    assert screen[4] == "  dashboard:   http://h:1/admin/, with ADMIN_API_KEY"


def test_memory_is_not_shared(tmp_path):
    _, lacking = said(tmp_path, GEMINI_API_KEYS="a", STATE_URL="memory://", WEB_CONCURRENCY="2")
    assert lacking == [
        "STATE_URL=memory:// with several workers: each goes by its own view of the accounts; "
        "leave STATE_URL out to share it."
    ]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0?password=hush", "redis://127.0.0.1:6379/0?…"),
        ("rediss://me:hush@store?username=hush", "rediss://…@store?…"),
        ("redis://store/1", "redis://store/1"),
        ("sqlite:///var/a?b@c.db", "sqlite:///var/a?b@c.db"),
        ("memory://", "memory://"),
    ],
)
def test_the_store_is_shown_without_its_secrets(tmp_path, url, shown):
    screen, _ = said(tmp_path, STATE_URL=url)
    assert screen[2] == f"  state:       {shown}"
