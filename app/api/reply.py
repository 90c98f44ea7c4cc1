"""Running an exchange into an HTTP answer: status first, then the body as it comes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, cast

from flask import Response, request

from app.api.errors import ApiError
from app.api.hangup import HangupWatch
from app.api.record import Recorder, RequestRecord
from app.relay.errors import ClientGone, RelayError
from app.relay.exchange import KEEPALIVE, Exchange
from app.translate.fold import MessageFold
from app.translate.sse import encode

log = logging.getLogger("gateway.api")

KEEPALIVE_COMMENT = b": keep-alive\n\n"
KEEPALIVE_SPACE = b" "
"""JSON allows white space before a value, so a client that waits for one message stays alive."""

Batch = Any
Last = Callable[[], None]
"""To be called before each piece of a body: says if it is the last one, where that helps."""


class _Pieces:
    """A WSGI body that gives its server the generator itself."""

    def __init__(self, pieces: Iterable[bytes], close: Callable[[], None]) -> None:
        self._pieces = pieces
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)


class _StreamedResponse(Response):
    """An answer to a POST whose pieces are bytes: none goes through Werkzeug's two iterators."""

    def get_app_iter(self, environ: Any) -> Iterable[bytes]:
        """Return what the server sends, and closes in the end."""
        return _Pieces(cast("Iterable[bytes]", self.response), self.close)


class Replier:
    """Turns exchanges into answers, and cleans up after each whatever becomes of it."""

    def __init__(
        self, hangups: HangupWatch, end: Callable[[Exchange], None], recorder: Recorder
    ) -> None:
        self._hangups = hangups
        self._end = end
        self._recorder = recorder

    def stream(self, exchange: Exchange, record: RequestRecord) -> Response:
        """Answer with server-sent events."""
        return self._reply(exchange, record, _as_sse, "text/event-stream; charset=utf-8")

    def message(self, exchange: Exchange, record: RequestRecord) -> Response:
        """Answer with one JSON message, the fold of the same events."""
        return self._reply(exchange, record, _as_json, "application/json")

    def first(self, exchange: Exchange, record: RequestRecord) -> dict[str, Any]:
        """Run a job of one event and return it, for answers that are built elsewhere."""
        finish = self._begin(exchange, record)
        try:
            for batch in exchange.events():
                if batch is not KEEPALIVE:
                    _note(record, 200, "ok")
                    event: dict[str, Any] = batch[0]  # type: ignore[index]
                    return event
            raise ApiError(502, "The upstream gave no answer.")
        except RelayError as error:
            raise _noted(record, error) from None
        except ClientGone:
            raise _hung_up(record) from None
        finally:
            finish()

    def _reply(
        self,
        exchange: Exchange,
        record: RequestRecord,
        render: Callable[[Iterator[Batch], RequestRecord, Last], Iterator[bytes]],
        content_type: str,
    ) -> Response:
        finish = self._begin(exchange, record)
        batches = exchange.events()
        try:
            # Nothing is committed before this returns: a failure still gets its true status.
            first = next(batches, None)
        except RelayError as error:
            answer = _noted(record, error)
            finish()
            raise answer from None
        except ClientGone:
            answer = _hung_up(record)
            finish()
            raise answer from None
        except BaseException:
            _broke(record)
            finish()
            raise
        record.status = 200
        begun = () if first is None else (first,)
        body = render(chain(begun, batches), record, _last_of(exchange))
        response = _StreamedResponse(body, content_type=content_type)
        response.headers["cache-control"] = "no-cache"
        response.headers["x-accel-buffering"] = "no"
        response.call_on_close(finish)
        return response

    def _begin(self, exchange: Exchange, record: RequestRecord) -> Callable[[], None]:
        environ = request.environ
        connection = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
        self._recorder.begin(record)
        forget = self._hangups.watch(connection, exchange.client_gone)

        def finish() -> None:
            forget()
            self._end(exchange)
            if not record.outcome:
                record.outcome = "client gone"
            self._recorder.end(record)

        return finish


def _last_of(exchange: Exchange) -> Last:
    """Return what has our worker send the last piece together with the end of the body."""
    hold_next = getattr(request.environ.get("gunicorn.socket"), "hold_next", None)

    def last() -> None:
        if hold_next and exchange.ended:
            hold_next()

    return last


def _as_sse(batches: Iterator[Batch], record: RequestRecord, last: Last) -> Iterator[bytes]:
    try:
        for batch in batches:
            last()
            if batch is KEEPALIVE:
                yield KEEPALIVE_COMMENT
            elif len(batch) == 1:
                yield encode(batch[0])
            else:
                yield b"".join(map(encode, batch))
        _note(record, 200, "ok")
    except RelayError as error:
        yield encode(_noted(record, error).body(record.request_id))
    except ClientGone:
        pass
    except Exception:
        log.exception("request %s failed for a reason of the gateway's own", record.request_id)
        yield encode(_broke(record).body(record.request_id))


def _as_json(batches: Iterator[Batch], record: RequestRecord, last: Last) -> Iterator[bytes]:
    fold = MessageFold()
    try:
        for batch in batches:
            if batch is KEEPALIVE:
                yield KEEPALIVE_SPACE
                continue
            for event in batch:
                fold.add(event)
        body = fold.message()
        _note(record, 200, "ok")
    except RelayError as error:
        body = _noted(record, error).body(record.request_id)
    except ClientGone:
        return
    except Exception:
        log.exception("request %s failed for a reason of the gateway's own", record.request_id)
        body = _broke(record).body(record.request_id)
    last()
    yield json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _note(record: RequestRecord, status: int, outcome: str) -> None:
    record.status = status
    record.outcome = outcome


def _noted(record: RequestRecord, error: RelayError) -> ApiError:
    answer = ApiError.of(error)
    # After the commit the wire says 200; the record says what it came to.
    _note(record, answer.status, error.failure.value)
    return answer


def _broke(record: RequestRecord) -> ApiError:
    _note(record, 500, "internal")
    return ApiError(500, "The gateway failed on this request; its log says why.")


def _hung_up(record: RequestRecord) -> ApiError:
    _note(record, 499, "client gone")
    return ApiError(499, "The client closed the request.")
