"""Settings: read once from the environment and ``.env``, validated, immutable.

`VARIABLES` is the whole public configuration contract; ``.env.example`` is its print-out.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from app.config_values import (
    SettingsError,
    aliases,
    base_url,
    boolean,
    client_keys,
    decimal,
    gemini_keys,
    one_of,
    plain,
    seconds,
    state_url,
    whole,
)
from app.dotenv_file import read_dotenv

__all__ = [
    "DEFAULT_ALIASES",
    "VARIABLES",
    "LogFormat",
    "Rotation",
    "Settings",
    "SettingsError",
    "Variable",
    "example_env",
    "is_loopback",
    "load_settings",
    "log_format",
]

Rotation = Literal["round_robin", "fill_first", "least_busy", "sticky"]
LogFormat = Literal["text", "json"]

DEFAULT_ALIASES = (
    "claude-*haiku*=gemini-3.5-flash-lite,"
    "claude-*sonnet*=gemini-3.8-flash,"
    "claude-*opus*=gemini-4-hydrogen,"
    "claude-*fable*=gemini-4-hydrogen,"
    "claude-*mythos*=gemini-4-hydrogen,"
    "claude-*=gemini-3.8-flash"
)


@dataclass(frozen=True)
class Settings:
    """The gateway's configuration; durations in seconds, sizes in bytes.

    Field names are the variables' names in lower case. Secrets never show in the repr.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    web_concurrency: int = 1
    gemini_api_keys: tuple[str, ...] = field(default=(), repr=False)
    gemini_base_url: str = field(default="", repr=False)
    accounts_file: str = ""
    accounts_toml: str = field(default="", repr=False)
    client_api_keys: tuple[str, ...] = field(default=(), repr=False)
    admin_api_key: str = field(default="", repr=False)
    request_retry: int = 3
    quota_switch_project: bool = True
    rotation: Rotation = "round_robin"
    pool_wait_timeout: float = 30.0
    keepalive_interval: float = 10.0
    connect_timeout: float = 10.0
    read_timeout: float = 600.0
    stream_resume: bool = False
    model_aliases: tuple[tuple[str, str], ...] = ()
    state_url: str = field(default="sqlite:///var/state.db", repr=False)
    lease_ttl: float = 15.0
    retry_budget: float = 0.5
    body_timeout: float = 30.0
    client_requests_per_minute: int = 0
    client_input_tokens_per_minute: int = 0
    client_output_tokens_per_minute: int = 0
    drain_timeout: float = 30.0
    metrics_open: bool = False
    gateway_debug_headers: bool = False
    max_request_bytes: int = 33_554_432
    log_level: str = "info"
    log_format: LogFormat = "text"
    root: Path = field(default_factory=Path.cwd)
    """Folder that relative paths (accounts file, sqlite state) start from."""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Source of ``${NAME}`` in the accounts file; nothing else reads it."""

    @property
    def on_loopback(self) -> bool:
        """Tell whether only this machine can reach the gateway."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Tell whether binding to ``host`` (name or address) keeps other machines out."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Variable:
    """One environment variable: its default as text, how it is read, what it means."""

    name: str
    default: str
    parse: Callable[[str], Any]
    help: str


VARIABLES = (
    Variable("HOST", "127.0.0.1", plain, "Address to listen on; 0.0.0.0 for all."),
    Variable("PORT", "8080", whole(0, 65535), "Port to listen on."),
    Variable("WEB_CONCURRENCY", "1", whole(1, 256), "Worker processes."),
    Variable(
        "GEMINI_API_KEYS",
        "",
        gemini_keys,
        "Comma-separated Gemini API keys; each becomes an account key-1, key-2, ...",
    ),
    Variable(
        "GEMINI_BASE_URL",
        "",
        base_url,
        "Base of the Gemini API for accounts that set none; empty is Google's own.",
    ),
    Variable(
        "ACCOUNTS_FILE",
        "",
        plain,
        "The accounts; empty takes accounts.toml if present. Re-read when it changes.",
    ),
    Variable("ACCOUNTS_TOML", "", plain, "The same text inline, for hosts without files."),
    Variable(
        "CLIENT_API_KEYS",
        "",
        client_keys,
        "Comma-separated keys that clients show, plain or sha256:HEX; empty only on loopback.",
    ),
    Variable(
        "CLIENT_REQUESTS_PER_MINUTE",
        "0",
        whole(0, 10**9),
        "Requests that each client key may make in a minute; 0 is no limit.",
    ),
    Variable(
        "CLIENT_INPUT_TOKENS_PER_MINUTE",
        "0",
        whole(0, 10**12),
        "Input tokens (cached ones too) that each client key may send in a minute; 0 is no limit.",
    ),
    Variable(
        "CLIENT_OUTPUT_TOKENS_PER_MINUTE",
        "0",
        whole(0, 10**12),
        "Output tokens that each client key may get in a minute; 0 is no limit.",
    ),
    Variable(
        "ADMIN_API_KEY", "", plain, "Opens /admin/ and /metrics; empty closes them off loopback."
    ),
    Variable("REQUEST_RETRY", "3", whole(0, 100), "Retries per request; 0 is none."),
    Variable(
        "RETRY_BUDGET",
        "0.5",
        decimal(0, 100),
        "Retries that a worker makes per request on average, beyond a reserve of a hundred.",
    ),
    Variable(
        "QUOTA_SWITCH_PROJECT",
        "true",
        boolean,
        "On a quota error, go on to another project or account.",
    ),
    Variable(
        "ROTATION",
        "round_robin",
        one_of("round_robin", "fill_first", "least_busy", "sticky"),
        "round_robin, fill_first, least_busy, or sticky (a conversation stays on its account).",
    ),
    Variable("POOL_WAIT_TIMEOUT", "30", seconds(0), "Seconds to wait for a free account."),
    Variable(
        "KEEPALIVE_INTERVAL",
        "10",
        seconds(0.05),
        "Seconds of silence before a keep-alive comment, and before the status is committed.",
    ),
    Variable("CONNECT_TIMEOUT", "10", seconds(0.05), "Seconds to connect to Gemini."),
    Variable(
        "READ_TIMEOUT",
        "600",
        seconds(0.05),
        "Seconds of silence from Gemini that count as a failure.",
    ),
    Variable(
        "BODY_TIMEOUT",
        "30",
        seconds(1, 3600),
        "Seconds for a request body to arrive, and one more for every 16 KiB of it.",
    ),
    Variable(
        "STREAM_RESUME", "false", boolean, "Resume on another account after a mid-stream failure."
    ),
    Variable(
        "MODEL_ALIASES",
        DEFAULT_ALIASES,
        aliases,
        "Comma-separated glob=gemini-model pairs for claude-* names; the first match wins.",
    ),
    Variable(
        "STATE_URL",
        "sqlite:///var/state.db",
        state_url,
        "What the workers share: sqlite:///PATH (one machine, survives restarts), "
        "redis://HOST:PORT/DB or rediss://… (many machines), memory:// (one process).",
    ),
    Variable(
        "LEASE_TTL",
        "15",
        seconds(5, 30),
        "Seconds after which the accounts that a killed or frozen worker held are free again.",
    ),
    Variable(
        "DRAIN_TIMEOUT", "30", seconds(0, 3600), "Seconds that open streams get after SIGTERM."
    ),
    Variable("METRICS_OPEN", "false", boolean, "Serve /metrics without the admin key."),
    Variable(
        "GATEWAY_DEBUG_HEADERS",
        "false",
        boolean,
        "Tell clients which accounts were asked, in the header x-gateway-attempts.",
    ),
    Variable(
        "MAX_REQUEST_BYTES",
        "33554432",
        whole(1024, 1 << 31),
        "Larger request bodies are refused with 413.",
    ),
    Variable(
        "LOG_LEVEL",
        "info",
        one_of("debug", "info", "warning", "error"),
        "debug, info, warning or error.",
    ),
    Variable("LOG_FORMAT", "text", one_of("text", "json"), "text for people, json for shippers."),
)


def load_settings(
    environ: Mapping[str, str],
    root: Path | None = None,
    check_host: Callable[[str], None] = lambda _: None,
) -> Settings:
    """Read the settings from ``environ``, and from ``.env`` in ``root`` for what it lacks.

    An empty value is an absent one, as PaaS dashboards write it. ``check_host`` refuses what is no
    address of this machine, before keys are asked for on its account. Raises `SettingsError` whose
    message names the variable, its value's fault and what to write instead; secrets are not
    repeated in it.
    """
    root = (root or Path.cwd()).resolve()
    merged, fault = _with_dotenv(environ, root)
    if fault:
        raise SettingsError(fault)
    values: dict[str, Any] = {}
    for variable in VARIABLES:
        text = merged.get(variable.name, "").strip() or variable.default
        try:
            values[variable.name.lower()] = variable.parse(text)
        except SettingsError as error:
            shown = "" if repr(text) in str(error) else _shown(variable, text)
            raise SettingsError(f"{variable.name} {error}{shown}") from None
    settings = Settings(root=root, environ=merged, **values)
    check_host(settings.host)
    if not settings.on_loopback and not settings.client_api_keys:
        raise SettingsError(
            f"CLIENT_API_KEYS must be set when HOST={settings.host} lets other machines in: "
            "write the keys that your clients will show, or set HOST=127.0.0.1"
        )
    return settings


def log_format(environ: Mapping[str, str], root: Path | None = None) -> LogFormat:
    """Return the format of the line that refuses a start, for when there are no settings."""
    merged, _ = _with_dotenv(environ, (root or Path.cwd()).resolve())
    return "json" if merged.get("LOG_FORMAT", "").strip().lower() == "json" else "text"


_SECRET = frozenset(
    {
        "GEMINI_API_KEYS",
        "GEMINI_BASE_URL",  # addresses may hold a password
        "CLIENT_API_KEYS",
        "ADMIN_API_KEY",
        "ACCOUNTS_TOML",
        "STATE_URL",
    }
)


def _shown(variable: Variable, text: str) -> str:
    return "" if variable.name in _SECRET else f", not {text!r}"


def _with_dotenv(environ: Mapping[str, str], root: Path) -> tuple[dict[str, str], str]:
    """Return both together, and what is wrong with the file, if anything."""
    folders = [root]
    if environ.get("FLASK_RUN_FROM_CLI") == "true":
        # Flask's command line has taken in the next one above, but not the lines with a slip.
        folders += root.parents
    paths = [folder / ".env" for folder in folders]
    values, fault = read_dotenv(next((path for path in paths if path.is_file()), paths[0]))
    return values | dict(environ), fault


def example_env() -> str:
    """Return the text of ``.env.example``: every variable with its line and its default."""
    lines = ["# Copy to .env and change what you need. Every line shows the default."]
    for variable in VARIABLES:
        lines += ["", f"# {variable.help}", f"# {variable.name}={variable.default}"]
    return "\n".join(lines) + "\n"
