"""The fault matrix: which cells there are, and what the client must see in each.

`KINDS` is the table. `expected` is a pure function of a cell; with the recorded answer beside it
(`tests.chaos.recorded`) it says every byte that matters to a client.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.recorded import (
    ANSWER,
    COUNT,
    COUNTED,
    ESTIMATE,
    MESSAGE,
    STARTS,
    Event,
    events_after,
    whole_lines,
    whole_values,
)

HEADERS = "before headers"
FIRST = "before the first event"
PLACES = {
    HEADERS: -1,
    FIRST: 0,
    "in thinking": STARTS[1],
    "in text": STARTS[3],
    "in a tool call": STARTS[6],
    "at the end": STARTS[7],
    "behind the end": STARTS[8],
}
"""Where a fault strikes: bytes of the answer's body that were sent before it."""
COUNT_PLACES = {HEADERS: -1, FIRST: 0, "in the number": len(COUNTED) - 2}
MODES = ("stream", "resume", "message", "count")
"""Streaming, the same with ``STREAM_RESUME=true``, not streaming, ``count_tokens``."""
STORES = ("memory", "sqlite", "redis")


@dataclass(frozen=True)
class Effect:
    """What a fault comes to when it is the last word; ``final``: no other account is asked."""

    status: int
    error: str
    retry_after: bool = False
    final: bool = False


UNREACHED = ("refused", "deaf", "alien")
"""Accounts whose fault lies in reaching their upstream."""

BROKEN = Effect(502, "api_error")
TIMEOUT = Effect(504, "timeout_error")
OVERLOADED = Effect(529, "overloaded_error", retry_after=True)
FORBIDDEN = Effect(403, "permission_error")
QUOTA = Effect(429, "rate_limit_error", retry_after=True)
NO_ACCOUNT = Effect(503, "overloaded_error", retry_after=True)
INVALID = Effect(400, "invalid_request_error", final=True)
HARMLESS = None

STATUSES: dict[int, Effect] = {
    **dict.fromkeys((300, 301, 302, 303, 304, 307, 308), BROKEN),
    **dict.fromkeys((400, 402, 405, 406, 409, 410, 411, 412, 415, 418, 428, 431), INVALID),
    401: NO_ACCOUNT,
    403: FORBIDDEN,
    404: Effect(404, "not_found_error", final=True),
    407: BROKEN,
    408: TIMEOUT,
    413: Effect(413, "request_too_large", final=True),
    422: Effect(422, "invalid_request_error", final=True),
    429: QUOTA,
    499: OVERLOADED,
    **dict.fromkeys((500, 501, 502, 505, 507, 520, 524, 529, 599), BROKEN),
    503: OVERLOADED,
    504: TIMEOUT,
}


@dataclass(frozen=True)
class Kind:
    """One fault. ``places``: where it can strike; ``why``: why not elsewhere."""

    effect: Effect | None
    places: tuple[str, ...] = tuple(PLACES)
    why: str = ""
    gateway: str = ""
    """The kind of gateway it needs: one with short time limits, or with early keep-alives."""
    accounts: str = "main"
    """The accounts it needs: of an upstream of their own, or such that the fault uses up."""
    at_each_byte: bool = field(default=False, kw_only=True)
    counts: bool = field(default=True, kw_only=True)
    committed: bool = field(default=False, kw_only=True)
    """The 200 has gone out with keep-alives before the fault shows."""


_BODY = tuple(PLACES)[1:]
_INSIDE = tuple(PLACES)[1:-1]

KINDS: dict[str, Kind] = {
    "refuse": Kind(BROKEN, (HEADERS,), "no connection, no later", accounts="refused"),
    "connect timeout": Kind(
        TIMEOUT, (HEADERS,), "no connection, no later", gateway="hasty", accounts="deaf"
    ),
    "TLS: unknown authority": Kind(BROKEN, (HEADERS,), "no connection, no later", accounts="alien"),
    "TLS: broken record": Kind(BROKEN, accounts="tls"),
    "reset": Kind(BROKEN, at_each_byte=True),
    "cut": Kind(BROKEN, at_each_byte=True),
    "early end": Kind(BROKEN, _BODY, "an end of the body needs a body", at_each_byte=True),
    "half an event": Kind(BROKEN, _INSIDE, "there is no event there"),
    "garbage": Kind(BROKEN),
    "stall": Kind(TIMEOUT, gateway="hasty"),
    "stall with keep-alives": Kind(
        TIMEOUT,
        (HEADERS, FIRST),
        "later it is a stall",
        gateway="chatty",
        committed=True,
        counts=False,
    ),
    "slow 500": Kind(
        BROKEN,
        (HEADERS,),
        "a status is in the headers",
        gateway="chatty",
        committed=True,
        counts=False,
    ),
    "slow drip": Kind(HARMLESS),
    "wrong content type": Kind(HARMLESS, (HEADERS,), "a type is in the headers"),
    "a page": Kind(BROKEN, (FIRST,), "later it is garbage"),
    "gzip": Kind(HARMLESS, (HEADERS,), "an encoding is in the headers"),
    "gzip, cut": Kind(BROKEN, _BODY, "before the body it is a cut", counts=False),
    "gzip that is none": Kind(BROKEN, (FIRST,), "an encoding is in the headers"),
    "no content": Kind(BROKEN, (HEADERS,), "a status is in the headers"),
    "redirect": Kind(BROKEN, (HEADERS,), "a redirect is in the headers"),
    **{
        f"status {status}": Kind(
            effect,
            (HEADERS,),
            "a status is in the headers",
            accounts="spent" if effect is NO_ACCOUNT else "main",
        )
        for status, effect in STATUSES.items()
    },
    **{
        f"error {status} as an event": Kind(
            STATUSES[status],
            _BODY,
            "before the body it is a status",
            accounts="spent" if STATUSES[status] is NO_ACCOUNT else "main",
        )
        for status in (400, 401, 403, 404, 408, 429, 499, 500, 503, 504)
    },
}


@dataclass(frozen=True)
class Cell:
    """One cell; ``offset`` is -1 before the headers, else bytes of the body before the fault."""

    kind: str
    place: str
    mode: str
    left: bool
    """A retry is left: only the first attempt meets the fault. Otherwise both that there are."""
    store: str
    offset: int

    def __str__(self) -> str:
        retry = "retry left" if self.left else "none left"
        return f"{self.kind} | {self.place} | {self.mode} | {retry} | {self.store}"


@dataclass
class Seen:
    """What a client saw: of ``status`` and either events, or a message, or an error."""

    status: int = 200
    events: list[Event] = field(default_factory=list)
    message: dict[str, Any] | None = None
    error: str = ""
    """The error's type, from its own body or from the stream's last event."""
    retry_after: bool = False
    keepalives: bool = False
    note: str = ""
    """What should not be: a body that ends early, an envelope that is none, a secret."""

    def __str__(self) -> str:
        parts = [str(self.status)]
        if self.keepalives:
            parts.append("keep-alives")
        if self.events:
            last = self.events[-1]["type"]
            parts.append("whole" if last == "message_stop" else f"{len(self.events)} events")
        if self.message is not None:
            parts.append("whole")
        if self.error:
            parts.append(self.error)
        if self.retry_after:
            parts.append("retry-after")
        if self.note:
            parts.append(f"({self.note})")
        return " ".join(parts)


def cells(*, full: bool, stores: tuple[str, ...] = STORES) -> Iterator[Cell]:
    """Yield the matrix; not ``full``: a sample of the bytes, and little on further stores.

    What a fault does to a stream has nothing to do with the store; it holds the leases,
    cooldowns and verdicts that a fault changes.
    """
    for store in stores:
        for name, kind in KINDS.items():
            for mode in MODES:
                for place, offset in _places(name, kind, mode, full=full and store == "memory"):
                    for left in (True, False):
                        cell = Cell(name, place, mode, left, store, offset)
                        if full or _in_short_form(cell):
                            yield cell


def _places(name: str, kind: Kind, mode: str, *, full: bool) -> Iterator[tuple[str, int]]:
    if mode == "count":
        if kind.counts:
            for place, offset in COUNT_PLACES.items():
                if place in kind.places or (place not in PLACES and _reaches(kind)):
                    yield place, offset
        return
    for place in kind.places:
        yield place, PLACES[place]
    if kind.at_each_byte:
        for offset in range(len(ANSWER)) if full else _SAMPLE:
            yield f"byte {offset}", offset


def _reaches(kind: Kind) -> bool:
    """Tell whether it can strike in the middle of a body."""
    return len(kind.places) > 2


_SAMPLE = sorted(
    {
        *(end + shift for end in STARTS[1:-1] for shift in (-5, -4, -2, 7)),
        *range(40, len(ANSWER), 401),
    }
)
"""The bytes around each event's end, and some between."""


_TELLING = ("cut", "status 401", "status 429", "status 503", "error 429 as an event")
"""Faults whose consequences are kept in the store."""


def _in_short_form(cell: Cell) -> bool:
    if cell.place.startswith("byte"):
        mode = "stream" if cell.kind == "early end" else "resume"
        return cell.store == "memory" and cell.mode == mode and cell.kind != "reset"
    if cell.store != "memory":
        return cell.kind in _TELLING and cell.place in (HEADERS, "in text")
    if cell.kind.startswith("status"):
        return cell.mode == "stream" or cell.kind in _TELLING
    if cell.kind.startswith("error"):
        return cell.place in (FIRST, "in text") and cell.mode != "count"
    match cell.mode:
        case "resume":
            return cell.place in ("in thinking", "in text", "in a tool call", "at the end")
        case "message":
            return cell.place in (HEADERS, FIRST, "in text", "behind the end")
    return True


def expected(cell: Cell) -> Seen:
    """Return what the client must see in ``cell``."""
    kind = KINDS[cell.kind]
    if kind.effect is HARMLESS or (cell.kind == "early end" and _is_whole(cell)):
        return _whole(cell)
    # The end leaves when the upstream's body has ended in order: until then nothing is whole.
    steps = min(delivered(cell), len(STARTS) - 2)
    sent = events_after(steps) if cell.mode in ("stream", "resume") else []
    goes_on = cell.left and not kind.effect.final
    if not sent:
        if goes_on:
            return _whole(cell, committed=kind.committed)
        if cell.mode == "count" and kind.effect is QUOTA:
            return Seen(message={"input_tokens": ESTIMATE})
        if kind.committed:
            return Seen(error=kind.effect.error, keepalives=True)
        return Seen(
            kind.effect.status, error=kind.effect.error, retry_after=kind.effect.retry_after
        )
    if cell.mode == "resume" and goes_on and in_text(sent):
        return _whole(cell)
    return Seen(events=sent, error=kind.effect.error)


def delivered(cell: Cell) -> int:
    """Return how many events of the upstream's are over before the fault strikes."""
    if cell.offset <= 0 or cell.mode == "count":
        return 0
    # Where the body ends in order, data that are whole need no line end any more.
    ends_in_order = cell.kind in ("early end", "half an event")
    return whole_values(cell.offset) if ends_in_order else whole_lines(cell.offset)


def in_text(sent: list[Event]) -> bool:
    """Tell whether the client holds an open text block and nothing that can't be continued."""
    kinds = [event["type"] for event in sent]
    return kinds[-1] == "content_block_delta" and sent[-1]["delta"]["type"] == "text_delta"


def _is_whole(cell: Cell) -> bool:
    return cell.mode != "count" and whole_values(cell.offset) == len(STARTS) - 1


def _whole(cell: Cell, *, committed: bool = False) -> Seen:
    if cell.mode == "count":
        return Seen(message={"input_tokens": COUNT})
    if cell.mode == "message":
        return Seen(message=MESSAGE, keepalives=committed)
    return Seen(events=events_after(len(STARTS) - 1), keepalives=committed)
