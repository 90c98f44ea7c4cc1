"""One account's way to its upstream: requests out, answers or `UpstreamError` back."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
import requests
import urllib3
from urllib3.exceptions import NameResolutionError, NewConnectionError

from app.backend.auth import Auth
from app.backend.connection import Aborted, Call, tracked
from app.backend.errors import Fault, UpstreamError
from app.backend.google_errors import classify, classify_object
from app.backend.session import UpstreamSession, prepared
from app.backend.stalls import StallWatch
from app.backend.stream import garbage, parse_chunks, read_lines

ERROR_BODY = 65_536
"""Bytes of an error's body that are looked at."""
ERROR_WAIT = 3.0
"""Seconds at most for an error's whole body: another account's answer must not wait for it."""
ANSWER_BODY = 32 << 20
"""Bytes of an answer that is not streamed."""
ASK_TIMEOUT = 60.0
"""Seconds at most for what is not an answer of the model: counts, listings, discovery."""

NETWORK_ERRORS = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
    UnicodeError,
)


@dataclass(frozen=True)
class Outgoing:
    """A request as an API surface writes it, without what proves who asks."""

    method: str
    url: str
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Link:
    """Sends one account's requests with its credential, and judges what comes back."""

    def __init__(
        self,
        auth: Auth,
        session: UpstreamSession,
        *,
        connect_timeout: float,
        read_timeout: float,
        stalls: StallWatch,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.auth = auth
        self._session = session
        self._headers = {**session.headers, "Accept-Encoding": "identity"}
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._stalls = stalls
        self._wall = wall

    def stream(
        self, outgoing: Outgoing, call: Call
    ) -> Generator[dict[str, Any] | None, None, None]:
        """Yield the objects of the answer as they arrive; raises `UpstreamError`, `Aborted`.

        Yields None where ``call`` pauses, whose owner then waits. A closed generator closes the
        connection; one read to the end leaves it for others.
        """
        with (
            self._stalls.watching(call),
            self._opened(outgoing, call, self._read_timeout) as response,
        ):
            del outgoing  # a stream may last long, and the request be large
            try:
                for chunk in parse_chunks(read_lines(response, call)):
                    if chunk and chunk.get("error"):
                        raise self._refused(chunk["error"])
                    yield chunk
            except NETWORK_ERRORS as error:
                raise _failure(error, call, "The connection to the upstream broke") from None
            except UpstreamError:
                call.check()  # an aborted read may end in half an event
                raise
            call.check()

    def ask(self, outgoing: Outgoing, call: Call) -> dict[str, Any]:
        """Return the one JSON object of the answer; raises `UpstreamError`, `Aborted`."""
        timeout = min(ASK_TIMEOUT, self._read_timeout)
        with (
            self._stalls.watching(call, timeout),
            self._opened(outgoing, call, timeout) as response,
        ):
            try:
                body = b"".join(_pieces(response, ANSWER_BODY))
            except NETWORK_ERRORS as error:
                raise _failure(error, call, "The connection to the upstream broke") from None
            call.check()
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            raise garbage("sent something that is not JSON") from None
        if isinstance(answer, list) and len(answer) == 1:
            answer = answer[0]
        if not isinstance(answer, dict):
            raise garbage("sent a JSON value that is not an object")
        if answer.get("error"):
            raise self._refused(answer["error"])
        return answer

    def _opened(self, outgoing: Outgoing, call: Call, read_timeout: float) -> requests.Response:
        """Return the answer with its body unread, if it is a success."""
        credential = self.auth.headers()
        headers = {**self._headers, **outgoing.headers, **credential}
        body = None
        if outgoing.body is not None:
            headers["Content-Type"] = "application/json"
            body = _encode(outgoing.body)
        try:
            request = prepared(outgoing.method, outgoing.url, headers, body)
            response = self._send(request, call, read_timeout)
        except NETWORK_ERRORS as error:
            raise _failure(error, call, "The upstream could not be reached") from None
        if 200 <= response.status_code < 300:
            # It would be kept, with its body, to the end of the stream.
            response.request = None  # type: ignore[assignment]
            return response
        with response:
            text = self._error_body(response, call)
        call.check()
        refusal = classify(
            response.status_code,
            text,
            response.headers,
            keyed=self.auth.keyed,
            now=self._wall(),
            secrets=self.auth.secrets,
        )
        if refusal.fault is Fault.UNAUTHENTICATED:
            self.auth.refused(credential)
        raise refusal

    def _error_body(self, response: requests.Response, call: Call) -> bytes:
        """Return what comes of the body in a short time: the status says enough."""
        pieces: list[bytes] = []
        call.waiting = True  # all the time, however it trickles
        try:
            with (
                self._stalls.watching(call, min(ERROR_WAIT, self._read_timeout)),
                suppress(*NETWORK_ERRORS),
            ):
                pieces.extend(_pieces(response, ERROR_BODY))
        finally:
            call.waiting = False
        return b"".join(pieces)

    def _send(
        self, request: requests.PreparedRequest, call: Call, read_timeout: float
    ) -> requests.Response:
        timeout = (self._connect_timeout, read_timeout)
        with tracked(call):
            call.check()
            try:
                return self._session.open(request, timeout)
            except requests.ConnectionError as error:
                ours = call.aborted or call.stalled
                if ours or not call.stale or not _hung_up(error):
                    raise
            # Google closed an idle connection while the request was on its way to it.
            call.fresh_only = True
            return self._session.open(request, timeout)

    def _refused(self, error: Any) -> UpstreamError:
        value = error if isinstance(error, dict) else {"message": str(error)}
        return classify_object(
            value, keyed=self.auth.keyed, now=self._wall(), secrets=self.auth.secrets
        )


def _encode(body: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        # A lone surrogate (half an emoji, cut by a client) has no UTF-8 form; Google refuses it.
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")


def _pieces(response: requests.Response, limit: int) -> Iterator[bytes]:
    """Yield the body as it arrives, at most about ``limit`` bytes of it."""
    size = 0
    while size < limit and (piece := response.raw.read1(65_536, decode_content=True)):
        yield piece
        size += len(piece)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and everything that it wraps, as requests and urllib3 wrap things."""
    waiting: list[Any] = [error]
    seen: set[int] = set()
    while waiting:
        cause = waiting.pop(0)
        if not isinstance(cause, BaseException) or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]


def _hung_up(error: BaseException) -> bool:
    """Tell whether the connection was closed before a byte of an answer had come."""
    # http.client.RemoteDisconnected is a ConnectionResetError.
    hangups = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError, ssl.SSLEOFError)
    return any(isinstance(cause, hangups) for cause in _causes(error))


def _is_timeout(cause: BaseException) -> bool:
    # urllib3 derives "refused" and "name not known" from its timeout.
    timeouts = (TimeoutError, urllib3.exceptions.TimeoutError, requests.Timeout)
    return isinstance(cause, timeouts) and not isinstance(cause, NewConnectionError)


def _failure(error: BaseException, call: Call, what: str) -> UpstreamError:
    """Return what a failed transfer means; raises `Aborted` when it was our own doing.

    The text is our own: what requests says may hold a proxy's password.
    """
    if call.aborted:
        raise Aborted from None
    causes = list(_causes(error))
    if call.stalled or any(_is_timeout(cause) for cause in causes):
        return UpstreamError(
            Fault.TIMEOUT, "The upstream did not answer in time.", reason="timeout"
        )
    detail, reason = "", "connection"
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            detail, reason = cause.reason or "TLS failed", "tls"
        elif isinstance(cause, NameResolutionError):
            detail, reason = "its name is not known", "dns"
        elif isinstance(cause, OSError) and cause.strerror and not detail:
            detail = cause.strerror
    return UpstreamError(Fault.BROKEN, f"{what}{f' ({detail})' if detail else ''}.", reason=reason)
