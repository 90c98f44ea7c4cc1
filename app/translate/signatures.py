"""How Gemini's thought signatures travel through a format that has no field for them.

Gemini wants every ``thoughtSignature`` back on the very part that carried it. Three carriers, in
order of preference; the first two live in the client, so any worker can serve the next turn:

1. a ``thinking`` block's ``signature``:
   ``g1.<origin>.<of the thought part>.<of the part behind>.<characters of text that one covers>``;
2. a tool call's id: ``toolu_<nonce><payload>`` (``srvtoolu_…`` for Google-run tools), for
   signatures up to `ID_BUDGET` characters;
3. a note for the state store, under the tool id's nonce or a digest of the text that was signed.

Everything here is pure; notes are handed out and taken in as plain dicts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from app.translate.target import Target

ID_BUDGET = 1800
"""Longest signature (characters) that rides in a tool id; longer ones go to the state store.

Recorded function-call signatures run from 300 to 1,600 characters with a few above 3,000; ids of
4,200 characters came back whole from Claude Code.
"""

PLACEHOLDER = "skip_thought_signature_validator"
"""Google's documented stand-in for calls that carry no valid signature (Gemini 3 and later)."""

NONCE_LENGTH = 22
TOOL_PREFIX = "toolu_"
SERVER_TOOL_PREFIX = "srvtoolu_"
_THINKING_MARK = "g1"
_LENGTH = re.compile(r"[0-9]{1,12}")
_FLAVOUR_CODES = {"gemini": "G", "vertex": "V", "code_assist": "C"}
_FLAVOURS = {code: flavour for flavour, code in _FLAVOUR_CODES.items()}
_OLD_FLAVOURS = {code.lower(): flavour for code, flavour in _FLAVOURS.items()}
"""Of words without a model, which conversations begun before still hold."""
_WORD, _OLD_WORD = 14, 10
_STANDARD, _VERBATIM = b"s", b"x"


@dataclass(frozen=True)
class Origin:
    """Which API surface, model generation, account and model (a digest) a signature came from."""

    flavour: str
    family: str
    account: str
    model: str = ""

    @classmethod
    def of(cls, target: Target) -> Origin:
        """Return the origin of signatures that ``target`` produces."""
        return cls(target.flavour, target.family, target.account, _digest(target.model))

    def valid_for(self, target: Target) -> bool:
        """Tell whether a signature from here may be sent to ``target``.

        Never across API surfaces or model generations; across accounts and models only while the
        target still trusts foreign ones.
        """
        if self.flavour != target.flavour or self.family != target.family or not target.trust_own:
            return False
        return target.trust_foreign or (
            self.account == target.account and self.model == _digest(target.model)
        )

    def encode(self) -> str:
        """Return the origin as one word of ``[A-Za-z0-9]``, e.g. ``G3a1b2c3d45e6f``."""
        code = _FLAVOUR_CODES[self.flavour]
        return f"{code}{self.family[:1]}{self.account[:8]:0>8}{self.model:0>4}"

    @classmethod
    def decode(cls, word: str) -> Origin | None:
        """Return the origin that `encode` wrote, None when the word is not one."""
        if len(word) == _WORD and word[0] in _FLAVOURS:
            return cls(_FLAVOURS[word[0]], word[1], word[2:10], word[10:])
        if len(word) == _OLD_WORD and word[0] in _OLD_FLAVOURS:
            return cls(_OLD_FLAVOURS[word[0]], word[1], word[2:])
        return None


@lru_cache(maxsize=256)
def _digest(model: str) -> str:
    return hashlib.sha256(model.encode("utf-8", "surrogatepass")).hexdigest()[:4]


@dataclass(frozen=True)
class Signed:
    """A signature with the place it came from."""

    signature: str
    origin: Origin


@dataclass(frozen=True)
class ToolRef:
    """What a tool id that the gateway gave out says about Gemini's call.

    ``nonce`` is the key of its notes in the state store; ``call_id`` is Gemini's own id for the
    call ("" when it gave none); ``account`` the tag of the account that made the call.
    """

    nonce: str
    call_id: str = ""
    account: str = ""
    signed: Signed | None = None


@dataclass(frozen=True)
class ThinkingRef:
    """What a ``thinking`` block's signature carries: for its own part, and for the part behind.

    ``length`` counts the characters of a following text block that ``following`` signed, from its
    start; 0 means the whole part (a call).
    """

    own: Signed | None = None
    following: Signed | None = None
    length: int = 0


@dataclass(frozen=True)
class TextMark:
    """A stretch of a text block that was one signed part; start == end is an empty text part."""

    start: int
    end: int
    signed: Signed


def pack_tool_id(
    nonce: str, call_id: str, signature: str, target: Target, *, prefix: str = TOOL_PREFIX
) -> tuple[str, dict[str, str]]:
    """Return the client's id of a tool call, and the note to store when it can't hold all.

    ``nonce`` is `NONCE_LENGTH` characters of ``[A-Za-z0-9]``, unique per call. The id matches
    ``^[a-zA-Z0-9_-]+$``. The note maps a store key to a value; empty when the id holds everything.
    """
    if len(nonce) != NONCE_LENGTH:
        raise ValueError(f"a tool id's nonce has {NONCE_LENGTH} characters, not {len(nonce)}")
    call = call_id.encode()[:64]
    inline = len(signature) <= ID_BUDGET
    payload = (
        Origin.of(target).encode().encode()
        + bytes([len(call)])
        + call
        + (_pack(signature) if inline else b"")
    )
    kept = {} if inline else {tool_key(nonce): note(signature, target)}
    return prefix + nonce + _b64(payload), kept


@lru_cache(maxsize=2048)  # an id is asked for several times a turn, and again every turn
def unpack_tool_id(tool_id: str) -> ToolRef | None:
    """Return what `pack_tool_id` wrote, None for an id that is not ours."""
    for prefix in (TOOL_PREFIX, SERVER_TOOL_PREFIX):
        if tool_id.startswith(prefix):
            nonce_end = len(prefix) + NONCE_LENGTH
            nonce, packed = tool_id[len(prefix) : nonce_end], tool_id[nonce_end:]
            break
    else:
        return None
    try:
        payload = _unb64(packed)
        width = _WORD if chr(payload[0]) in _FLAVOURS else _OLD_WORD
        origin = Origin.decode(payload[:width].decode())
        start = width + 1
        end = start + payload[width]
        call_id = payload[start:end].decode()
        signature = _unpack(payload[end:])
    except (ValueError, IndexError):
        return None
    if origin is None or end > len(payload):
        return None
    signed = Signed(signature, origin) if signature else None
    return ToolRef(nonce, call_id, origin.account, signed)


def pack_thinking(own: str, following: str, target: Target, *, length: int = 0) -> str:
    """Return the ``signature`` of a thinking block; never "", since clients want one."""
    origin = Origin.of(target).encode()
    return ".".join((_THINKING_MARK, origin, _escape(own), _escape(following), str(length)))


def unpack_thinking(signature: str) -> ThinkingRef | None:
    """Return what `pack_thinking` wrote, None for a signature that is not ours (Claude's own)."""
    fields = signature.split(".")
    if len(fields) != 5 or fields[0] != _THINKING_MARK or not _LENGTH.fullmatch(fields[4]):
        return None
    origin = Origin.decode(fields[1])
    if origin is None:
        return None
    own, following = (Signed(_unescape(text), origin) if text else None for text in fields[2:4])
    return ThinkingRef(own, following, int(fields[4]))


def tool_key(nonce: str) -> str:
    """Return the store key of the note on a tool call's signature."""
    return f"sig:tool:{nonce}"


def result_key(nonce: str) -> str:
    """Return the store key of the note on the part that answered a Google-run tool call."""
    return f"sig:result:{nonce}"


def text_key(text: str) -> str:
    """Return the store key of the note on a text block with this whole text."""
    return f"sig:text:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def note(signature: str, target: Target) -> str:
    """Return the value to store for one signature that the client can't hold."""
    return f"{Origin.of(target).encode()}.{signature}"


def read_note(value: str) -> Signed | None:
    """Return the signature that `note` wrote, None when the value is not one."""
    word, _, signature = value.partition(".")
    origin = Origin.decode(word)
    return Signed(signature, origin) if signature and origin else None


def text_note(marks: Sequence[tuple[int, int, str]], target: Target) -> str:
    """Return the value to store for a text block: (start, end, signature) of each signed part."""
    return note(json.dumps(marks, separators=(",", ":")), target)


def read_text_note(value: str) -> list[TextMark]:
    """Return the marks that `text_note` wrote, [] when the value is not one."""
    kept = read_note(value)
    if kept is None:
        return []
    try:
        return [
            TextMark(int(start), int(end), Signed(str(signature), kept.origin))
            for start, end, signature in json.loads(kept.signature)
        ]
    except (ValueError, TypeError):
        return []


def part_note(part: Mapping[str, Any], target: Target) -> str:
    """Return the value to store for a part to echo verbatim (``toolCall``, ``toolResponse``)."""
    return note(json.dumps(part, separators=(",", ":")), target)


def read_part_note(value: str) -> tuple[dict[str, Any], Origin] | None:
    """Return the part that `part_note` wrote and where it came from, None when it is not one."""
    kept = read_note(value)
    try:
        part = json.loads(kept.signature) if kept else None
    except ValueError:
        return None
    return (part, kept.origin) if kept and isinstance(part, dict) else None


def newest_account(tool_ids: Iterable[str]) -> str:
    """Return the account tag of the last of these tool ids that is ours, "" when none is."""
    tag = ""
    for tool_id in tool_ids:
        ref = unpack_tool_id(tool_id)
        tag = ref.account if ref else tag
    return tag


def _escape(signature: str) -> str:
    return signature.replace("%", "%25").replace(".", "%2E")


def _unescape(text: str) -> str:
    return text.replace("%2E", ".").replace("%25", "%")


def _pack(signature: str) -> bytes:
    """Pack as raw bytes when standard base64 gives the same text back, else verbatim."""
    if not signature:
        return b""
    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if raw and base64.b64encode(raw).decode() == signature:
        return _STANDARD + raw
    return _VERBATIM + signature.encode()


def _unpack(packed: bytes) -> str:
    if not packed:
        return ""
    if packed[:1] == _STANDARD:
        return base64.b64encode(packed[1:]).decode()
    if packed[:1] == _VERBATIM:
        return packed[1:].decode()
    raise ValueError("unknown signature packing")


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
