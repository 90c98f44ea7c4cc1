"""Wrong keys leave a line in the log: who, how many, never which; and no flood of them."""

import pytest

from app import create_app
from app.api.guesses import MOST, OTHERS, WINDOW, Guesses
from app.config import load_settings


def warnings(caplog):
    return [
        (one.name, one.levelname, one.getMessage())
        for one in caplog.records
        if "a wrong" in one.getMessage()
    ]


def line(kind, address, count):
    said = f"a wrong {kind} key from {address}, {count} in the last minute"
    return ("gateway.api", "WARNING", said)


@pytest.fixture
def client(tmp_path):
    settings = {
        "ADMIN_API_KEY": "right-admin-key",
        "CLIENT_API_KEYS": "right-client-key",
        "GEMINI_API_KEYS": "k",
        "STATE_URL": "memory://",
    }
    return create_app(load_settings(settings, root=tmp_path)).test_client()


@pytest.mark.parametrize(
    ("kind", "path"),
    [("client", "/v1/models"), ("admin", "/metrics"), ("admin", "/admin/api/accounts")],
)
def test_a_wrong_key_is_told_and_a_missing_one_is_not(client, caplog, kind, path):
    at = {"REMOTE_ADDR": "10.0.0.1"}
    assert client.get(path, environ_base=at).status_code == 401
    right = {"x-api-key": f"right-{kind}-key"}
    assert client.get(path, environ_base=at, headers=right).status_code == 200
    assert warnings(caplog) == []
    wrong = {"x-api-key": "guessed-secret"}
    assert client.get(path, environ_base=at, headers=wrong).status_code == 401
    assert warnings(caplog) == [line(kind, "10.0.0.1", 1)]
    assert "guessed-secret" not in caplog.text


def test_lines_get_rare_and_begin_anew_after_a_minute(caplog):
    now = [5.0]
    guesses = Guesses("client", lambda: now[0])
    for _ in range(100):
        guesses.wrong("10.0.0.1")
    guesses.wrong("10.0.0.2")
    now[0] += WINDOW
    guesses.wrong("10.0.0.1")
    assert warnings(caplog) == [
        line("client", "10.0.0.1", 1),
        line("client", "10.0.0.1", 8),
        line("client", "10.0.0.1", 64),
        line("client", "10.0.0.2", 1),
        line("client", "10.0.0.1", 1),
    ]


def test_who_has_many_addresses_fills_neither_memory_nor_log(caplog):
    guesses = Guesses("admin", lambda: 0.0)
    for number in range(MOST + 20):
        guesses.wrong(f"10.0.0.{number}")
    lines = warnings(caplog)
    assert lines[:MOST] == [line("admin", f"10.0.0.{number}", 1) for number in range(MOST)]
    assert lines[MOST:] == [line("admin", OTHERS, 1), line("admin", OTHERS, 8)]
