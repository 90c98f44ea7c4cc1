"""The address to listen on, tried before gunicorn does, whose refusal names no variable."""

from __future__ import annotations

import socket

from app.config import SettingsError

# Nothing that imports urllib3 may be imported here: gunicorn.conf.py goes without it.


def check_host(host: str) -> None:
    """Raise `SettingsError` when ``host`` is no address of this machine."""
    try:
        _bind(host, 0)
    except (OSError, UnicodeError) as error:
        raise SettingsError(
            f"HOST must be an address of this machine, such as 127.0.0.1, not {host!r} "
            f"({_reason(error)})"
        ) from None


def check_port(host: str, port: int) -> None:
    """Raise `SettingsError` when ``port`` can't be taken at ``host``, which has been checked."""
    try:
        _bind(host, port)
    except OSError as error:
        raise SettingsError(
            f"PORT={port} can't be taken at {host} ({_reason(error)}): "
            "set another PORT, or end what holds it"
        ) from None


def _bind(host: str, port: int) -> None:
    name = host.strip("[]")
    family, kind, _, _, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        # As gunicorn does: connections that have just ended hold nobody up.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def _reason(error: OSError | UnicodeError) -> str:
    return getattr(error, "strerror", None) or "it is no name"
