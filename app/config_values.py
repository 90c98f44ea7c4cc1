"""From the text of a variable to its value, or a refusal that says what to write instead."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from urllib.parse import urlsplit


class SettingsError(ValueError):
    """A variable's value can't be right; the message is one line that names the variable."""


def plain(value: str) -> str:
    """Return the text as it is."""
    return value


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return the reader of a whole number within these bounds."""

    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise SettingsError(f"must be a whole number from {low} to {high}") from None
        if not low <= number <= high:
            raise SettingsError(f"must be a whole number from {low} to {high}")
        return number

    return parse


def seconds(low: float, high: float = 86_400.0) -> Callable[[str], float]:
    """Return the reader of a duration within these bounds."""
    example = 2.5 if low <= 2.5 <= high else low + 2.5
    return _within(low, high, f"must be seconds, {low:g} to {high:g}, e.g. {example:g}")


def decimal(low: float, high: float) -> Callable[[str], float]:
    """Return the reader of a number within these bounds."""
    return _within(low, high, f"must be a number, {low:g} to {high:g}, e.g. 0.5")


def _within(low: float, high: float, refusal: str) -> Callable[[str], float]:
    def parse(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan  # which is within no bounds
        if not low <= number <= high:
            raise SettingsError(refusal)
        return number

    return parse


def boolean(value: str) -> bool:
    """Return what a word for yes or no says."""
    word = value.lower()
    if word in ("true", "1", "yes", "on"):
        return True
    if word in ("false", "0", "no", "off"):
        return False
    raise SettingsError("must be true or false")


def one_of(*choices: str) -> Callable[[str], str]:
    """Return the reader of a word that must be one of these, in any case."""

    def parse(value: str) -> str:
        if value.lower() not in choices:
            raise SettingsError(f"must be one of {', '.join(choices)}")
        return value.lower()

    return parse


def items(value: str) -> tuple[str, ...]:
    """Return what stands between the commas; empty pieces are none."""
    return tuple(item for item in (piece.strip() for piece in value.split(",")) if item)


def gemini_keys(value: str) -> tuple[str, ...]:
    """Return API keys, refused for what the accounts file refuses them for."""
    keys = items(value)
    if any(sign.isspace() or not sign.isprintable() for key in keys for sign in key):
        raise SettingsError(
            "has a key with a space or a control character in it; "
            "copy it again, with commas between keys"
        )
    return keys


def client_keys(value: str) -> tuple[str, ...]:
    """Return the keys of clients, plain or hashed."""
    keys = items(value)
    for key in keys:
        digest = key.removeprefix("sha256:")
        if digest != key and not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
            raise SettingsError("has a hashed key that is not sha256: and 64 hex digits")
    return keys


def is_url(text: str) -> bool:
    """Tell whether it can be taken apart; a port must be a number."""
    try:
        return urlsplit(text).port != 0
    except ValueError:
        return False


def base_url(value: str) -> str:
    """Return the base of an API, without a slash at its end."""
    if not value:
        return ""
    parts = urlsplit(value) if is_url(value) else urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise SettingsError("must be a base such as https://host or http://127.0.0.1:9999")
    base = value.rstrip("/")
    if base.rsplit("/", 1)[-1] in ("v1", "v1beta", "v1beta1"):
        raise SettingsError("must be a base without a version, such as https://host")
    return base


def aliases(value: str) -> tuple[tuple[str, str], ...]:
    """Return pairs of a glob and a model."""
    pairs = []
    for item in items(value):
        glob, equals, model = (piece.strip() for piece in item.partition("="))
        if not glob or not equals or not model:
            raise SettingsError(
                f"has {item!r}, which is not a glob=model pair such as claude-*=gemini-3.8-flash"
            )
        pairs.append((glob, model))
    return tuple(pairs)


def state_url(value: str) -> str:
    """Return the address of the state store, taken apart by who opens it."""
    if value == "memory://" or (value.startswith("sqlite:///") and len(value) > 10):
        return value
    scheme, _, rest = value.partition("://")
    # Not repeated: the address may hold a password.
    if scheme not in ("redis", "rediss") or not rest or not is_url(value):
        raise SettingsError("must be memory://, sqlite:///PATH, redis://HOST:PORT/DB or rediss://…")
    parts = urlsplit(value)
    # redis-py takes what it can't read for database 0, and drops what follows a #.
    if not re.fullmatch(r"(/\d*)?", parts.path) or parts.fragment:
        raise SettingsError("must end in a database's number, as in redis://HOST:PORT/0")
    return value
