"""Events on the wire: ``event: NAME``, one ``data:`` line of JSON, a blank line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

_dumps = msgspec.json.Encoder().encode
_TEXT_DELTA = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":%d,"delta":{"type":"text_delta","text":%b}}\n\n'
)


def encode(event: Mapping[str, Any]) -> bytes:
    """Return ``event`` as UTF-8 server-sent event bytes."""
    try:
        if event["type"] == "content_block_delta":
            delta = event["delta"]
            if delta["type"] == "text_delta":  # by far the most frequent event
                return _TEXT_DELTA % (event["index"], _dumps(delta["text"]))
        return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), _dumps(event))
    except UnicodeEncodeError:
        # Half of a surrogate pair, which Gemini's JSON can hold, has no UTF-8: escape it.
        data = json.dumps(event, separators=(",", ":"))
        return f"event: {event['type']}\ndata: {data}\n\n".encode()
