"""The bytes of events."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.translate.sse import encode


def text_delta(text, index=0):
    delta = {"type": "text_delta", "text": text}
    return {"type": "content_block_delta", "index": index, "delta": delta}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"type": "ping"}, 'event: ping\ndata: {"type":"ping"}\n\n'),
        (
            text_delta('a "b"\n\\ é 🎉\u2028\x00', 7),
            'event: content_block_delta\ndata: {"type":"content_block_delta","index":7,"delta":'
            '{"type":"text_delta","text":"a \\"b\\"\\n\\\\ é 🎉\u2028\\u0000"}}\n\n',
        ),
        (
            {"type": "content_block_stop", "index": 1},
            'event: content_block_stop\ndata: {"type":"content_block_stop","index":1}\n\n',
        ),
        (
            text_delta("half \ud83c"),
            'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":'
            '{"type":"text_delta","text":"half \\ud83c"}}\n\n',
        ),
    ],
)
def test_events_are_written_as_clients_read_them(event, expected):
    assert encode(event) == expected.encode()


@given(st.text(st.characters(exclude_categories=[])), st.integers(0, 99))
def test_any_text_comes_back_on_one_line(text, index):
    event = text_delta(text, index)
    name, data, *rest = encode(event).decode().split("\n")
    assert (name, rest) == ("event: content_block_delta", ["", ""])
    assert json.loads(data.removeprefix("data: ")) == event
