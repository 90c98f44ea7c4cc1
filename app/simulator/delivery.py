"""How bytes leave: at their pace, or broken off, held back or garbled as a fault wants it."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from app.simulator.faults import Fault
from app.simulator.spoiling import cut_after, raw_interruption

_DRIP_BYTES = 16
_DRIP_PAUSE = 0.005
"""Seconds between the drops of a slow answer."""

HTML = b"<!DOCTYPE html><html><head><title>Error</title></head><body>Sorry.</body></html>"
GARBAGE = b"\x00\xff this is neither JSON nor an event stream {{{"


class Hangup(Exception):
    """The connection is to be closed here and now; with ``reset``, by a TCP RST.

    ``by_client``: because the client has closed it.
    """

    def __init__(self, *, reset: bool = False, by_client: bool = False) -> None:
        super().__init__("the connection is to be closed")
        self.reset = reset
        self.by_client = by_client


class Link(Protocol):
    """What the server knows about the client's connection (``environ["simulator.link"]``)."""

    def gone(self, timeout: float | None) -> bool:
        """Wait ``timeout`` seconds (None: for ever); True as soon as the client hangs up."""


class BlindLink:
    """The link under a WSGI server that can't tell: it only waits."""

    def gone(self, timeout: float | None) -> bool:
        """Sleep."""
        threading.Event().wait(timeout)
        return timeout is None


@dataclass(frozen=True)
class Outgoing:
    """An answer that is ready to leave. ``pieces`` leave one by one, ``pace`` seconds apart."""

    status: int
    headers: list[tuple[str, str]]
    pieces: list[bytes]
    pace: float = 0.0
    streams: bool = False


def dress(outgoing: Outgoing, fault: Fault | None) -> Outgoing:  # noqa: PLR0911
    """Return ``outgoing`` with the headers and bytes that a fault wants."""
    kind = fault.kind if fault else ""
    if kind == "html":
        return Outgoing(200, [("Content-Type", "text/html; charset=UTF-8")], [HTML])
    if kind == "garbage":
        return Outgoing(200, outgoing.headers, [GARBAGE])
    if kind == "redirect":
        headers = [("Location", "/_simulator/redirected"), ("Content-Type", "text/html")]
        return Outgoing(302, headers, [HTML])
    if kind == "wrong-type":
        headers = [("Content-Type", "text/plain; charset=UTF-8")]
        return replace(outgoing, headers=headers)
    if kind == "gzip":
        headers = [*outgoing.headers, ("Content-Encoding", "gzip")]
        return Outgoing(outgoing.status, headers, _gzipped(outgoing.pieces), outgoing.pace, True)
    if kind == "slow":
        whole = b"".join(outgoing.pieces)
        drops = [whole[n : n + _DRIP_BYTES] for n in range(0, len(whole), _DRIP_BYTES)]
        pace = max(outgoing.pace, _DRIP_PAUSE)
        return Outgoing(outgoing.status, outgoing.headers, drops, pace, True)
    if fault and raw_interruption(fault) is not None:
        return replace(outgoing, streams=True)
    return outgoing


def _gzipped(pieces: list[bytes]) -> list[bytes]:
    """Return one gzip stream in pieces of which each can be read at once."""
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    packed = [packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]
    packed[-1] += packer.flush()
    return packed


def before_headers(fault: Fault | None, link: Link) -> None:
    """Let a fault strike before anything is sent; raises `Hangup`."""
    kind = fault.kind if fault else ""
    if fault and kind == "reset" and fault.number < 0:
        raise Hangup(reset=True)
    if kind == "hang":
        raise Hangup(by_client=link.gone(None))
    if fault and kind == "delay" and link.gone(max(fault.number, 0) / 1000):
        raise Hangup(by_client=True)


def deliver(
    outgoing: Outgoing, fault: Fault | None, link: Link, ended: Callable[[bool], None]
) -> Iterator[bytes]:
    """Yield the body; raises `Hangup` to break it off.

    ``ended`` is told just before the last byte leaves, so that a client that has read everything
    never sees itself still counted; with True, when the client hung up first.
    """
    pieces, strike = _until_strike(outgoing.pieces, fault)
    for number, piece in enumerate(pieces):
        if number and outgoing.pace and link.gone(outgoing.pace):
            ended(True)
            raise Hangup(by_client=True)
        if strike is None and number == len(pieces) - 1:
            ended(False)
        yield piece
    if strike == "silence":
        ended(link.gone(None))
        raise Hangup(by_client=True)
    ended(False)
    if strike in ("cut", "reset"):
        raise Hangup(reset=strike == "reset")


def _until_strike(  # noqa: PLR0911
    pieces: list[bytes], fault: Fault | None
) -> tuple[list[bytes], str | None]:
    """Return the pieces that leave and what follows: silence, cut, reset, end or nothing."""
    if fault is None:
        return pieces, None
    if len(pieces) == 1 and fault.kind in ("cut", "half-event", "silent-after", "reset"):
        middle = len(pieces[0]) // 2
        pieces = [pieces[0][:middle], pieces[0][middle:]]
    count = cut_after(fault, len(pieces))
    match fault.kind:
        case "silent":
            return [], "silence"
        case "silent-after":
            return pieces[:count], "silence"
        case "cut":
            return pieces[:count], "cut"
        case "reset":
            return pieces[:count], "reset"
        case "half-event":
            half = pieces[count][: len(pieces[count]) // 2]
            return [*pieces[:count], half], "cut"
        case "cut-bytes":
            return [b"".join(pieces)[: max(fault.number, 0)]], "cut"
    raw = raw_interruption(fault)
    return (pieces, None) if raw is None else ([*pieces[:count], raw], "end")
