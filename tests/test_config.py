"""Settings: every value that can't be right is refused in one line that names the variable."""

from pathlib import Path

import pytest

from app.config import VARIABLES, Settings, SettingsError, example_env, load_settings

ROOT = Path(__file__).resolve().parents[1]


def test_defaults_are_the_contracts(tmp_path):
    settings = load_settings({}, tmp_path)
    assert settings == Settings(root=tmp_path, environ={}, model_aliases=settings.model_aliases)
    assert settings.model_aliases[-1] == ("claude-*", "gemini-3.8-flash")


def test_the_environment_beats_the_dotenv_file_and_empty_is_absent(tmp_path):
    (tmp_path / ".env").write_text("PORT=9000\nGEMINI_API_KEYS=a, b,\nREQUEST_RETRY=0\n")
    settings = load_settings({"PORT": "9001", "LOG_LEVEL": ""}, tmp_path)
    assert (settings.port, settings.gemini_api_keys) == (9001, ("a", "b"))
    assert (settings.request_retry, settings.log_level) == (0, "info")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PORT", "x", "PORT must be a whole number from 0 to 65535, not 'x'"),
        ("PORT", "70000", "PORT must be a whole number from 0 to 65535, not '70000'"),
        ("WEB_CONCURRENCY", "0", "WEB_CONCURRENCY must be a whole number from 1 to 256, not '0'"),
        (
            "KEEPALIVE_INTERVAL",
            "nan",
            "KEEPALIVE_INTERVAL must be seconds, 0.05 to 86400, e.g. 2.5, not 'nan'",
        ),
        ("LEASE_TTL", "2", "LEASE_TTL must be seconds, 5 to 30, e.g. 7.5, not '2'"),
        ("BODY_TIMEOUT", "x", "BODY_TIMEOUT must be seconds, 1 to 3600, e.g. 2.5, not 'x'"),
        (
            "GEMINI_API_KEYS",
            "a b",
            "GEMINI_API_KEYS has a key with a space or a control character in it; "
            "copy it again, with commas between keys",
        ),
        (
            "GEMINI_API_KEYS",
            "a,b\x7f",
            "GEMINI_API_KEYS has a key with a space or a control character in it; "
            "copy it again, with commas between keys",
        ),
        ("STREAM_RESUME", "maybe", "STREAM_RESUME must be true or false, not 'maybe'"),
        (
            "ROTATION",
            "random",
            "ROTATION must be one of round_robin, fill_first, least_busy, sticky, not 'random'",
        ),
        (
            "STATE_URL",
            "mysql://x",
            "STATE_URL must be memory://, sqlite:///PATH, redis://HOST:PORT/DB or rediss://…",
        ),
        (
            "STATE_URL",
            "redis://host:six/0",
            "STATE_URL must be memory://, sqlite:///PATH, redis://HOST:PORT/DB or rediss://…",
        ),
        (
            "STATE_URL",
            "redis://host/zz",
            "STATE_URL must end in a database's number, as in redis://HOST:PORT/0",
        ),
        (
            "STATE_URL",
            "redis://:12#ss@host/0",
            "STATE_URL must end in a database's number, as in redis://HOST:PORT/0",
        ),
        (
            "GEMINI_BASE_URL",
            "http://[::1",
            "GEMINI_BASE_URL must be a base such as https://host or http://127.0.0.1:9999",
        ),
        (
            "GEMINI_BASE_URL",
            "https://user:sesame@host?x=1",
            "GEMINI_BASE_URL must be a base such as https://host or http://127.0.0.1:9999",
        ),
        (
            "GEMINI_BASE_URL",
            "http://host:port",
            "GEMINI_BASE_URL must be a base such as https://host or http://127.0.0.1:9999",
        ),
        (
            "GEMINI_BASE_URL",
            "localhost:9999",
            "GEMINI_BASE_URL must be a base such as https://host or http://127.0.0.1:9999",
        ),
        (
            "GEMINI_BASE_URL",
            "https://host/v1beta/",
            "GEMINI_BASE_URL must be a base without a version, such as https://host",
        ),
        (
            "MODEL_ALIASES",
            "claude-*",
            "MODEL_ALIASES has 'claude-*', which is not a glob=model pair such as "
            "claude-*=gemini-3.8-flash",
        ),
        ("MAX_REQUEST_BYTES", "-1", None),
        ("REQUEST_RETRY", "-1", None),
        ("LOG_FORMAT", "xml", None),
    ],
)
def test_a_wrong_value_is_named(tmp_path, name, value, message):
    with pytest.raises(SettingsError) as caught:
        load_settings({name: value}, tmp_path)
    assert str(caught.value).startswith(f"{name} must") or str(caught.value) == message
    assert message is None or str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('PORT=9000\n\n# who may come in\nCLIENT_API_KEYS="sekret",second\nREQUEST_RETRY=1\n', 4),
        ('\n\n  GEMINI_API_KEYS="sekret","b"', 3),
        ("CLIENT_API_KEYS sekret\n", 1),
        ("PORT=9000\r\nCLIENT_API_KEYS='sekret\r\n", 2),
        ("CLIENT_API_KEYS\n", 1),
        ("=sekret\n", 1),
    ],
)
def test_a_slip_in_the_dotenv_file_is_refused(tmp_path, caplog, text, line):
    (tmp_path / ".env").write_bytes(text.encode())
    with pytest.raises(SettingsError) as caught:
        load_settings({}, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/.env, line {line}: not NAME=value; put the whole value in quotes or none"
    )
    assert caplog.records == []


def test_what_a_dotenv_file_may_hold(tmp_path):
    (tmp_path / ".env").write_text(
        "# a comment\n\nexport PORT=9000 # the usual one\nGEMINI_API_KEYS='a,b'\n"
        'CLIENT_API_KEYS = "c,\n d"\nADMIN_API_KEY=${PORT}x\nHOST=\n   \n'
    )
    settings = load_settings({}, tmp_path)
    assert (settings.host, settings.port) == ("127.0.0.1", 9000)
    assert (settings.gemini_api_keys, settings.client_api_keys) == (("a", "b"), ("c", "d"))
    assert settings.admin_api_key == "9000x"


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h/",
        "rediss://u:p@h:1/12",
        "redis:///3",
        "redis://h?db=4",
        "redis://h/0?a",
    ],
)
def test_redis_addresses(tmp_path, url):
    assert load_settings({"STATE_URL": url}, tmp_path).state_url == url


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.example"])
def test_off_loopback_client_keys_are_required(tmp_path, host):
    with pytest.raises(SettingsError, match="CLIENT_API_KEYS must be set"):
        load_settings({"HOST": host}, tmp_path)
    assert load_settings({"HOST": host, "CLIENT_API_KEYS": "k"}, tmp_path).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "localhost", "::1"])
def test_on_loopback_they_are_not(tmp_path, host):
    assert load_settings({"HOST": host}, tmp_path).on_loopback


def test_no_secret_shows_in_the_repr(tmp_path):
    secrets = {
        "GEMINI_API_KEYS": "sesame1",
        "CLIENT_API_KEYS": "sesame2",
        "ADMIN_API_KEY": "sesame3",
        "ACCOUNTS_TOML": "sesame4",
        "STATE_URL": "redis://:sesame5@host/0",
        "GEMINI_BASE_URL": "https://sesame6@host",
    }
    assert "sesame" not in repr(load_settings(secrets, tmp_path))


def test_the_example_file_is_the_contract():
    assert (ROOT / ".env.example").read_text() == example_env()
    assert {variable.name.lower() for variable in VARIABLES} == set(
        Settings.__dataclass_fields__
    ) - {"root", "environ"}
