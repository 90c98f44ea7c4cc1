"""What is sent upstream: whole, with fields of its own, whatever was prepared before."""

import hashlib
import subprocess
import sys

import pytest
import requests
from raw_servers import serving, sse, text_chunk

from app.backend.session import prepared

URL = "https://one.example.com/v1/models/m:streamGenerateContent?alt=sse"
FIELDS = {"x-goog-api-key": "key-1", "Content-Type": "application/json"}


def test_requests_alike_share_no_fields():
    first = prepared("POST", URL, FIELDS, b"12345")
    first.headers["X-Own"] = "1"
    second = prepared("POST", URL, FIELDS, b"123")
    assert first.headers is not second.headers
    assert dict(first.headers) == FIELDS | {"X-Own": "1", "Content-Length": "5"}
    assert dict(second.headers) == FIELDS | {"Content-Length": "3"}
    assert (second.method, second.url, second.body) == ("POST", URL, b"123")


def test_fields_are_found_however_they_are_written():
    headers = prepared("GET", URL, FIELDS, None).headers
    assert (headers["X-GOOG-API-KEY"], headers["content-type"]) == ("key-1", "application/json")
    copied = headers.copy()
    del copied["CONTENT-TYPE"]
    assert sorted(copied.items()) == [("x-goog-api-key", "key-1")]
    assert sorted(headers) == sorted(FIELDS)


def test_another_key_is_another_request():
    keys = [prepared("POST", URL, FIELDS | {"x-goog-api-key": key}, b"").headers for key in "ab"]
    assert [headers["x-goog-api-key"] for headers in keys] == ["a", "b"]


def test_a_password_in_the_url_is_sent_as_a_field():
    request = prepared("GET", "https://user:word@one.example.com/", {}, None)
    assert dict(request.headers) == {"Authorization": "Basic dXNlcjp3b3Jk"}


@pytest.mark.parametrize("value", ["a\r\nx-other: b", "a\nb", " a"])
def test_a_value_that_would_be_another_field_is_refused_each_time(value):
    for _ in range(2):
        with pytest.raises(requests.exceptions.InvalidHeader):
            prepared("POST", URL, {"x-goog-api-key": value}, b"")


SENDER = """
from gevent import monkey
monkey.patch_all()
import sys
from app.backend.bell import new_bell
from app.backend.connection import Call
from app.backend.rests import Rests
from app.backend.upstream import Upstream, UpstreamSettings
from app.pool.account import Account
account = Account("a", "api_key", api_key="k", base_url=sys.argv[1])
upstream = Upstream(UpstreamSettings())
for text in ("short", "0123456789abcdef" * 2_000_000, "short"):
    body = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
    call = Call(new_bell(), Rests())
    for item in upstream.generate(account, "", "gemini-3.8-flash", body, call):
        if item is None:
            call.wait()
"""


def test_a_body_larger_than_any_buffer_arrives_whole_on_a_kept_connection():
    def handler(visit):
        while visit.request():
            visit.chunked(sse(text_chunk("ok")))

    with serving(handler) as server:
        subprocess.run([sys.executable, "-c", SENDER, server.url], check=True, timeout=60)
    short = b'{"contents":[{"role":"user","parts":[{"text":"short"}]}]}'
    large = short.replace(b"short", b"0123456789abcdef" * 2_000_000)
    got = [hashlib.sha256(body).hexdigest() for _, _, body in server.requests]
    assert got == [hashlib.sha256(body).hexdigest() for body in (short, large, short)]
    assert [headers["content-length"] for _, headers, _ in server.requests] == [
        str(len(body)) for body in (short, large, short)
    ]
