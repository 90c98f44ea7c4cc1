"""Thought signatures: made from nothing but their place, and known again when they come back.

Google's are opaque and tied to the API surface and model generation they come from
(https://ai.google.dev/gemini-api/docs/thought-signatures). These are too, and they know which
kind of part they sat on, so that a client that moves one to another part is found out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any, Literal

from app.simulator.errors import GoogleError, bad_request

Flavour = Literal["gemini", "vertex", "code_assist"]

PLACEHOLDER = "skip_thought_signature_validator"
_PLACEHOLDERS: dict[str, frozenset[str]] = {
    "gemini": frozenset({PLACEHOLDER, "context_engineering_is_the_way_to_go"}),
    "vertex": frozenset({PLACEHOLDER}),
    "code_assist": frozenset({PLACEHOLDER}),
}
_MARK = b"\x12\x0bsimulator\x01"
_CHECK_BYTES = 8
_HEAD_BYTES = len(_MARK) + 1 + 1 + 4 + 8
_CODES: dict[str, bytes] = {"gemini": b"g", "vertex": b"v", "code_assist": b"c"}


def part_kind(part: Mapping[str, Any]) -> str:
    """Return what a signature on ``part`` is bound to, e.g. ``call NAME`` or ``text``."""
    if "functionCall" in part:
        return f"call {part['functionCall'].get('name', '')}"
    for name in ("executableCode", "codeExecutionResult", "toolCall", "toolResponse"):
        if name in part:
            return name
    return "text"


class Signer:
    """Makes and checks signatures for one caller on one model generation of one API surface.

    With ``strict``, those of other accounts are refused as well. ``size`` is in bytes before
    base64, 60 at least.
    """

    def __init__(
        self, flavour: Flavour, generation: int, account: str, *, strict: bool, size: int
    ) -> None:
        self._flavour = flavour
        self._origin = _CODES[flavour] + bytes([generation])
        self._account = hashlib.sha256(account.encode()).digest()[:4]
        self._strict = strict
        self._size = size

    def sign(self, part: Mapping[str, Any], seed: str) -> str:
        """Return the signature for ``part``; ``seed`` tells apart the answers it may be part of."""
        head = _MARK + self._origin + self._account + _digest(part_kind(part))
        padding = max(0, self._size - len(head) - _CHECK_BYTES)
        noise = hashlib.shake_256(seed.encode() + head).digest(padding)
        return base64.b64encode(head + noise + _digest(head + noise)).decode()

    def check(self, part: Mapping[str, Any]) -> None:
        """Raise `GoogleError` unless the signature on ``part`` may stand there."""
        text = part["thoughtSignature"]
        blob = decode(text)
        if self._is_placeholder(text, blob):
            return
        if blob is None or not _is_whole(blob):
            raise _refused("Corrupted thought signature.")
        head = blob[len(_MARK) :]
        origin, account, kind = head[:2], head[2:6], head[6:14]
        if origin != self._origin or kind != _digest(part_kind(part)):
            raise _refused("Invalid thought signature.")
        if self._strict and account != self._account:
            raise _refused("Invalid thought signature.")

    def _is_placeholder(self, text: str, blob: bytes | None) -> bool:
        if self._origin[1] < 3:
            return False
        known = _PLACEHOLDERS[self._flavour]
        return text in known or (blob is not None and blob in {word.encode() for word in known})


def decode(text: str) -> bytes | None:
    """Return the bytes of standard or URL-safe base64, padded or not; None if it is neither."""
    plain = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _is_whole(blob: bytes) -> bool:
    if len(blob) < _HEAD_BYTES + _CHECK_BYTES or not blob.startswith(_MARK):
        return False
    return _digest(blob[:-_CHECK_BYTES]) == blob[-_CHECK_BYTES:]


def _digest(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return hashlib.sha256(data).digest()[:_CHECK_BYTES]


def _refused(message: str) -> GoogleError:
    return bad_request(message)
