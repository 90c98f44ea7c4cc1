"""The reader: bytes in any pieces, the same chunks out."""

import io
import json
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_servers import text_chunk
from urllib3 import HTTPResponse

from app.backend import stream
from app.backend.connection import Call
from app.backend.errors import Fault, UpstreamError
from app.backend.stream import parse_chunks, read_lines

RECORDINGS = Path(__file__).parents[1] / "recordings"
INDEX = json.loads((RECORDINGS / "index.json").read_text())


def wire_of(name):
    for suffix in ("sse", "json"):
        path = RECORDINGS / f"{name}.response.{suffix}"
        if path.exists():
            data = path.read_bytes()
            if data.startswith(b'{"method":'):  # a test's transcript around the array
                data = json.dumps(json.loads(data)["response"]).encode()
            return data
    raise AssertionError(name)


def independent(data):
    """What a wire holds, read in the plainest way: whole, and with a JSON parser that searches."""
    text = data.decode()
    text = text.replace("\r\n", "\n").replace("\ndata: ", "\n").removeprefix("data: ")
    decoder = json.JSONDecoder()
    found, at = [], 0
    while (start := text.find("{", at)) >= 0:
        item, at = decoder.raw_decode(text, start)
        found.append(item)
    return found


STREAMS = {
    entry["name"]: wire_of(entry["name"])
    for entry in INDEX
    if entry["status"] == 200 and entry["stream"]
}


class Pieces(io.RawIOBase):
    """A socket that gives ``data`` in the pieces that ``cuts`` make."""

    def __init__(self, data, cuts):
        edges = [0, *sorted(cuts), len(data)]
        self._pieces = [data[a:b] for a, b in pairwise(edges) if a < b]

    def readable(self):
        return True

    def read1(self, amount=-1):
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        if 0 <= amount < len(piece):
            self._pieces.insert(0, piece[amount:])
            piece = piece[:amount]
        return piece


def read(data, cuts=()):
    response = requests.Response()
    response.raw = HTTPResponse(Pieces(data, cuts), preload_content=False)
    return list(parse_chunks(read_lines(response, Call())))


def failure(data, cuts=()):
    with pytest.raises(UpstreamError) as caught:
        read(data, cuts)
    return caught.value.fault, caught.value.message


@pytest.mark.parametrize("name", STREAMS)
def test_every_recording(name):
    expected = independent(STREAMS[name])
    assert expected
    assert read(STREAMS[name]) == expected


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_recording_in_any_pieces(data):
    name = data.draw(st.sampled_from(sorted(STREAMS)))
    wire = STREAMS[name]
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=60))
    if data.draw(st.booleans()):
        wire = wire.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    assert read(wire, cuts) == independent(wire)


def test_bytes_one_at_a_time():
    for name in ("fx-stream-utf8", "fx-stream-error-mid-stream", "stream-thoughts-array"):
        wire = STREAMS[name][:20_000]
        if wire != STREAMS[name]:
            wire = wire[: wire.rfind(b"\n\n") + 2]
        assert read(wire, range(len(wire))) == independent(wire)


FORMS = {
    "comments and fields": b': hi\nevent: x\nid: 1\nretry: 5\ndata: {"a": 1}\n\n',
    "no space": b'data:{"a": 1}\n\n',
    "carriage returns": b'data: {"a": 1}\r\rdata: [DONE]\r\r',
    "several data lines": b'data: {"a":\ndata:  1\ndata: }\n\n',
    "indented, without blank line": b'data: {\ndata: "a": 1}',
    "done": b'data: {"a": 1}\n\ndata: [DONE]\n\n',
    "byte order mark": b'\xef\xbb\xbfdata: {"a": 1}\n\n',
    "byte order mark, bare": b'\xef\xbb\xbf{"a": 1}',
    "array in an event": b'data: [{"a": 1}]\n\n',
    "one object": b'{\n  "a": 1\n}\n',
    "empty events": b'data:\n\ndata: {"a": 1}\n\n\n\n',
    "an object after an event": b'data: \n{"a":\n1}\n',
}


@pytest.mark.parametrize("wire", FORMS.values(), ids=FORMS)
def test_every_form(wire):
    assert read(wire) == [{"a": 1}]
    assert read(wire, range(len(wire))) == [{"a": 1}]


def test_braces_and_quotes_in_strings_do_not_count():
    tricky = {"a": '}{]["\\', "b": ["}", {"c": "\\"}], "d": "\u2028\x85"}
    wire = json.dumps([tricky, tricky], indent=1, ensure_ascii=False).encode()
    assert read(wire, range(len(wire))) == [tricky, tricky]


def test_line_ends_that_only_unicode_knows_are_text():
    value = {"text": "a\u2028b\x85c\x0bd\x1ce"}
    wire = b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\r\n\r\n"
    assert read(wire, range(len(wire))) == [value]


GARBAGE = {
    b"<!DOCTYPE html><html>\n": "sent something that is not JSON",
    b"Service Unavailable\n": "sent something that is not JSON",
    b"data: <html>\n\n": "sent an event that is not JSON",
    b"data: 5\n\n": "sent a JSON value that is not an object",
    b'data: ["x"]\n\n': "sent a JSON value that is not an object",
    b'data: {"a": "\xff"}\n\n': "sent an event that is not JSON",
    b"data: " + b"[" * 100_000 + b"\n\n": "sent an event that is not JSON",
    b'data: {"a": \n\n': "sent an event that is not JSON",
    b'{"a": {"b": 1}': "ended in the middle of an object",
    b'{"a": 1}}': "sent something that is not JSON",
    b'{"a": 1} oops': "sent something that is not JSON",
    b"{'a': 1}": "sent an event that is not JSON",
    b"\x00\x01\x02": "sent something that is not JSON",
}


@pytest.mark.parametrize("wire", GARBAGE, ids=lambda wire: repr(wire[:20]))
def test_garbage(wire):
    assert failure(wire) == (Fault.BROKEN, f"The upstream {GARBAGE[wire]}.")


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_any_bytes_end_in_objects_or_one_kind_of_error(wire, cuts):
    try:
        chunks = read(wire, [cut for cut in cuts if cut <= len(wire)])
    except UpstreamError as error:
        assert error.fault is Fault.BROKEN  # noqa: PT017
    else:
        assert all(isinstance(item, dict) for item in chunks)


@pytest.mark.parametrize(
    "wire",
    [b"data: " + b"x" * 3000, b"data: xxxxx\n" * 400, b'{"a":\n' + b" 1,\n" * 700],
    ids=["a line", "data lines", "an object"],
)
def test_an_event_is_bounded(wire, monkeypatch):
    monkeypatch.setattr(stream, "LONGEST_EVENT", 2000)
    cuts = range(0, len(wire), 100)
    assert failure(wire, cuts) == (Fault.BROKEN, "The upstream sent an event of more than 0 MiB.")


def test_a_long_line_costs_no_more_than_its_length():
    """20 MB in 16 KB pieces; time quadratic in the length would be minutes."""
    picture = {"data": "A" * 20_000_000}
    wire = b"data: " + json.dumps(picture).encode() + b"\r\n\r\n"
    assert read(wire) == [picture]


def test_an_event_that_waits_for_a_slow_client_is_held_three_times():
    """As the piece that was read, as a line, and as what it says."""
    size = 4_000_000
    data = b"data: " + json.dumps(text_chunk("x" * size)).encode() + b"\r\n\r\n"
    response = requests.Response()
    response.raw = HTTPResponse(io.BytesIO(data * 2), preload_content=False)
    tracemalloc.start()
    try:
        chunks = parse_chunks(read_lines(response, Call()))
        first = next(chunks)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert first == text_chunk("x" * size)
    assert 2.9 * size < held < 3.1 * size
