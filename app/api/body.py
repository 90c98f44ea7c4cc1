"""Reading a request's body: bounded, decompressed, parsed, without a crash on any bytes."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Mapping
from typing import Any, NoReturn

from flask import Request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.wsgi import get_content_length

from app.api.deadline import BodyDeadline
from app.api.errors import ApiError
from app.translate.sent_body import parse

_LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(request: Request, limit: int, deadline: BodyDeadline) -> Any:
    """Return the parsed JSON body of at most ``limit`` bytes, also after decompression.

    Raises `ApiError` 413 when it is larger, 408 when it takes too long to come, 400 when it is
    cut short or not JSON.
    """
    raw = _received(request, limit, deadline)
    encoding = request.environ.get("HTTP_CONTENT_ENCODING", "identity").strip().lower()
    if encoding == "gzip":
        raw = _gunzip(raw, limit)
    elif encoding not in ("", "identity"):
        raise ApiError(400, f"content-encoding {encoding!r} is not supported; send gzip or none.")
    if not raw.strip():
        raise ApiError(400, "The request has no body; send a JSON object.")
    try:
        return parse(raw)
    except (ValueError, RecursionError):
        return _decoded(raw)


def _received(request: Request, limit: int, deadline: BodyDeadline) -> bytes:
    """Return the body as it was sent; raises `ApiError` as `read_json` does."""
    environ = request.environ
    connection = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    length = get_content_length(environ)
    if length is None:
        # One more than allowed: Werkzeug cuts a chunked body off at its limit, and says nothing.
        request.max_content_length = limit + 1
    elif length > limit:
        raise too_large(limit)
    cut = False
    with deadline.reading(connection, length) as reading:
        try:
            if length is None:
                raw = request.get_data(cache=False)
            else:  # in one piece, where Werkzeug puts it together
                raw = environ["wsgi.input"].read(length)
        except RequestEntityTooLarge:
            raise too_large(limit) from None
        except (OSError, ClientDisconnected):
            raw, cut = b"", True
        except ParseException:
            _close_behind(environ)
            raise ApiError(400, "The request body is not valid chunked encoding.") from None
    if reading.over:
        _close_behind(environ)
        raise ApiError(408, "The request body took too long to arrive.")
    if cut or (length is not None and len(raw) < length):
        raise ApiError(400, "The request body is cut short.")
    if length is None and len(raw) > limit:
        raise too_large(limit)
    return raw


def _decoded(raw: bytes) -> Any:
    """Return what the fast decoder refuses and clients send nevertheless; raises `ApiError`."""
    try:
        body = json.loads(raw, parse_constant=_not_json, parse_float=_finite)
    except RecursionError:
        raise ApiError(400, "The request body is nested too deeply.") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise ApiError(400, f"The request body is not valid JSON: {error}") from None
    # Truncated emoji in a client's history must not break it: the wire is UTF-8.
    return _repaired(body) if _LONE_SURROGATE.search(raw) else body


def _close_behind(environ: Mapping[str, Any]) -> None:
    """End the connection behind the answer: where the next request would begin is not known."""
    close = getattr(environ.get("gunicorn.socket"), "close_behind", None)
    if close is not None:
        close()


def too_large(limit: int) -> ApiError:
    """Return the 413 that names the limit (in bytes)."""
    return ApiError(413, f"Request exceeds the maximum size of {limit} bytes.")


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON value")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _not_json(text)


def _gunzip(raw: bytes, limit: int) -> bytes:
    inflater = zlib.decompressobj(wbits=31)
    try:
        data = inflater.decompress(raw, limit + 1)
    except zlib.error:
        raise ApiError(400, "The request body is not valid gzip.") from None
    if len(data) > limit:
        raise too_large(limit)
    if not inflater.eof:
        raise ApiError(400, "The gzip body of the request is cut short.")
    return data


def _repaired(value: Any) -> Any:
    """Return ``value`` with lone surrogates replaced, as UTF-8 has no form for them."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_repaired(item) for item in value]
    if isinstance(value, dict):
        return {_repaired(key): _repaired(item) for key, item in value.items()}
    return value
