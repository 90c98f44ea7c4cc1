"""The short way of reading heads gives what ``http.client`` gives, for every kind of head."""

from __future__ import annotations

import http.client
import socket
from typing import Any

import pytest

from app.backend.answer_head import MOST_INTERIM, AnswerHead

GOOGLE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Content-Disposition: attachment\r\nVary: Origin\r\nVary: X-Origin\r\nVary: Referer\r\n"
    b"Transfer-Encoding: chunked\r\nDate: Wed, 25 Nov 2026 09:12:09 GMT\r\nServer: scaffolding\r\n"
    b"X-XSS-Protection: 0\r\nX-Frame-Options: SAMEORIGIN\r\nX-Content-Type-Options: nosniff\r\n"
    b'Server-Timing: gfet4t7; dur=612\r\nAlt-Svc: h3=":443"; ma=2592000\r\n\r\n'
)
CHUNK = b"5\r\nhello\r\n0\r\n\r\n"
HEADS = {
    "cut": GOOGLE[:100],
    "Google's": GOOGLE + CHUNK,
    "without a reason": b"HTTP/1.1 200 \r\ntransfer-encoding: chunked\r\n\r\n" + CHUNK,
    "a value in Latin-1": b"HTTP/1.1 200 OK\r\ntransfer-encoding: CHUNKED\r\nx: \xe9\t\r\n\r\n"
    + CHUNK,
    "an empty value": b"HTTP/1.1 200 OK\r\nx:\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNK,
    "closing": b"HTTP/1.1 200 OK\r\nconnection: close\r\n"
    b"transfer-encoding: chunked\r\n\r\n" + CHUNK,
    "of two encodings": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n"
    b"transfer-encoding: chunked\r\n\r\n" + CHUNK,
    "of the two in turn": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
    b"transfer-encoding: gzip\r\n\r\n" + CHUNK,
    "with a length": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "to its end": b"HTTP/1.1 200 OK\r\n\r\nhello",
    "of HTTP/1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNK,
    "of an error": b"HTTP/1.1 429 Too Many\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNK,
    "after a 100": b"HTTP/1.1 100 Continue\r\n\r\n" + GOOGLE + CHUNK,
    "folded": b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNK,
    "with bare line ends": b"HTTP/1.1 200 OK\nx: a\ntransfer-encoding: chunked\n\n" + CHUNK,
    "half bare": b"HTTP/1.1 200 OK\r\nx: a\ntransfer-encoding: chunked\r\n\r\n" + CHUNK,
    "a spaced name": b"HTTP/1.1 200 OK\r\nx : a\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNK,
    "longer than the buffer": b"HTTP/1.1 200 OK\r\nx: %b\r\ntransfer-encoding: chunked\r\n\r\n"
    % (b"y" * 20_000)
    + CHUNK,
    "of 99 fields": b"HTTP/1.1 200 OK\r\n%btransfer-encoding: chunked\r\n\r\n" % (b"x: y\r\n" * 98)
    + CHUNK,
}
FAULTS = {
    "nothing": b"",
    "not HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "of 101 fields": b"HTTP/1.1 200 OK\r\n%b\r\n" % (b"x: y\r\n" * 101),
    "a line without end": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000,
}


def read(kind: type[http.client.HTTPResponse], *pieces: bytes, method: str = "POST") -> Any:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5)
        first, *rest = pieces
        theirs.sendall(first)
        response = kind(ours, method=method)
        if rest:
            response.fp.peek()  # so that the first piece is there without the others
            theirs.sendall(b"".join(rest))
        theirs.shutdown(socket.SHUT_WR)
        try:
            response.begin()
        except (http.client.HTTPException, ConnectionError) as error:
            return type(error), str(error)
        said = {
            name: getattr(response, name)
            for name in ("status", "code", "reason", "version", "chunked", "will_close")
        }
        said["length"] = response.length
        said["fields"] = response.headers.items()
        said["msg"] = response.msg is response.headers
        said["body"] = response.read()
        said["closed"] = response.isclosed()
        return said


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("method", ["POST", "HEAD"])
def test_heads_read_as_by_the_standard_library(name: str, method: str) -> None:
    expected = read(http.client.HTTPResponse, HEADS[name], method=method)
    assert read(AnswerHead, HEADS[name], method=method) == expected
    assert expected["status"] in (200, 429)


@pytest.mark.parametrize("at", [1, 12, 40, len(GOOGLE) - 3, len(GOOGLE) - 1, len(GOOGLE)])
def test_a_head_in_two_pieces(at: int) -> None:
    whole = read(http.client.HTTPResponse, GOOGLE + CHUNK)
    assert whole["body"] == b"hello"
    assert read(AnswerHead, (GOOGLE + CHUNK)[:at], (GOOGLE + CHUNK)[at:]) == whole


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_those_of_the_standard_library(name: str) -> None:
    expected = read(http.client.HTTPResponse, FAULTS[name])
    assert isinstance(expected, tuple)
    assert read(AnswerHead, FAULTS[name]) == expected


HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
INTERIM = {
    "100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "102": b"HTTP/1.1 102 Processing\r\n\r\n",
    "103": HINTS,
    "with bare line ends": b"HTTP/1.1 103 Early Hints\nlink: </x>\n\n",
    "without a reason": b"HTTP/1.1 199\r\n\r\n",
    "of all kinds": b"HTTP/1.1 100 Continue\r\n\r\n" + HINTS + b"HTTP/1.1 102 P\r\n\r\n" + HINTS,
    "as many as may be": HINTS * (MOST_INTERIM - 1),
}
FINAL = ["Google's", "closing", "with a length", "to its end", "of HTTP/1.0", "of an error"]


@pytest.mark.parametrize("name", INTERIM)
@pytest.mark.parametrize("final", FINAL)
def test_interim_heads_leave_no_trace(name: str, final: str) -> None:
    expected = read(http.client.HTTPResponse, HEADS[final])
    assert read(AnswerHead, INTERIM[name] + HEADS[final]) == expected
    assert read(AnswerHead, INTERIM[name], HEADS[final]) == expected


def test_an_interim_head_may_be_cut_anywhere() -> None:
    expected = read(http.client.HTTPResponse, GOOGLE + CHUNK)
    wire = HINTS + GOOGLE + CHUNK
    for at in range(1, len(HINTS) + 40):
        assert read(AnswerHead, wire[:at], wire[at:]) == expected


@pytest.mark.parametrize(
    ("wire", "what"),
    [
        (HINTS * MOST_INTERIM + GOOGLE + CHUNK, "got 100 interim answers"),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n" + GOOGLE, "protocol"),
        (HINTS + b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "protocol"),
        (HINTS, "nothing came behind"),
        (HINTS[:-9], "nothing came behind"),
    ],
)
def test_interim_heads_without_an_answer_are_errors(wire: bytes, what: str) -> None:
    kind, text = read(AnswerHead, wire)
    assert kind is http.client.HTTPException
    assert what in text


def test_an_interim_head_that_is_taken_as_final_costs_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(AnswerHead, "_read_status")
    found = read(AnswerHead, HINTS + GOOGLE + CHUNK)
    assert (found["status"], found["will_close"]) == (103, True)


def test_the_usual_head_takes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> None:
        raise AssertionError("the long way was taken")

    monkeypatch.setattr(http.client.HTTPResponse, "begin", refuse)
    assert read(AnswerHead, GOOGLE + CHUNK)["body"] == b"hello"
