"""Events on the wire: ``event: NAME``, one ``data:`` line of JSON, a blank line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Any

_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_TEXT_DELTA = (
    "event: content_block_delta\n"
    'data: {"type":"content_block_delta","index":%d,"delta":{"type":"text_delta","text":%s}}\n\n'
)


def encode(event: Mapping[str, Any]) -> bytes:
    """Return ``event`` as UTF-8 server-sent event bytes."""
    try:
        if event["type"] == "content_block_delta":
            delta = event["delta"]
            if delta["type"] == "text_delta":  # by far the most frequent event
                text = encode_basestring(delta["text"])
                return (_TEXT_DELTA % (event["index"], text)).encode()
        return f"event: {event['type']}\ndata: {_dumps(event)}\n\n".encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair, which Gemini's JSON can hold, has no UTF-8: escape it.
        data = json.dumps(event, separators=(",", ":"))
        return f"event: {event['type']}\ndata: {data}\n\n".encode()
