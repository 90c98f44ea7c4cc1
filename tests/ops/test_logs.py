"""The shape of a line, in both formats."""

import json
import logging
import sys

import pytest

from app.config import log_format
from app.ops.logs import formatter, refusal
from app.relay.trace import REQUEST_ID

EVIL = "a\n2026-01-01 00:00:00,000 INFO forged\r\x1b[2J\x9b2J\u2028b"
ESCAPED = r"a\n2026-01-01 00:00:00,000 INFO forged\r\x1b[2J\x9b2J\u2028b"


def record(message, *args, error=None, fields=None):
    made = logging.LogRecord("gateway.x", logging.WARNING, "", 0, message, args, error)
    made.created, made.msecs, made.process = 1_795_487_929.675, 675.0, 7
    if fields:
        made.fields = fields
    return made


@pytest.fixture(autouse=True)
def outside():
    """Whatever another test has asked in this thread."""
    token = REQUEST_ID.set("")
    yield
    REQUEST_ID.reset(token)


@pytest.fixture
def in_request(outside):
    token = REQUEST_ID.set("req_1")
    yield
    REQUEST_ID.reset(token)


def fail():
    raise ValueError(EVIL)


def failed():
    try:
        fail()
    except ValueError:
        return sys.exc_info()


def test_text_is_one_line_whatever_the_message(in_request):
    line = formatter("text").format(record("said %s", EVIL))
    assert line.split(" ", 2)[2] == f"WARNING said {ESCAPED} [req_1]"


def test_text_says_the_request_once(in_request):
    line = formatter("text").format(record("%s /v1/messages", "req_1"))
    assert line.endswith(" WARNING req_1 /v1/messages")


def test_text_outside_a_request_ends_with_the_message():
    assert formatter("text").format(record("ready\n")).endswith(" WARNING ready")


def test_a_traceback_never_begins_at_the_margin():
    first, *rest = formatter("text").format(record("failed", error=failed())).split("\n")
    assert first.endswith(" WARNING failed")
    assert rest[0] == "  Traceback (most recent call last):"
    assert rest[-2:] == [
        "  ValueError: a",
        r"  2026-01-01 00:00:00,000 INFO forged\r\x1b[2J\x9b2J\u2028b",
    ]
    assert all(line.startswith("  ") for line in rest)


def test_json_is_whole(in_request):
    line = formatter("json").format(record("said %s \ud800", EVIL, fields={"ms": 3, "who": {1}}))
    assert line.isascii()
    assert json.loads(line) == {
        "time": "2026-11-24T02:38:49.675+00:00",
        "level": "warning",
        "logger": "gateway.x",
        "pid": 7,
        "message": f"said {EVIL} \ud800",
        "request_id": "req_1",
        "ms": 3,
        "who": "{1}",
    }


def test_json_holds_the_traceback():
    line = json.loads(formatter("json").format(record("failed", error=failed())))
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith(f"ValueError: {EVIL}")
    assert "request_id" not in line


@pytest.mark.parametrize(
    ("environ", "dotenv", "expected"),
    [
        ({}, b"", "text"),
        ({"LOG_FORMAT": " JSON"}, b"", "json"),
        ({}, b"LOG_FORMAT=json\nPORT=many\n", "json"),
        ({}, b"LOG_FORMAT=json\nPORT='1'2\n", "json"),
        ({"LOG_FORMAT": "text"}, b"LOG_FORMAT=json\n", "text"),
        ({"LOG_FORMAT": "yaml"}, b"", "text"),
        ({"LOG_FORMAT": "json"}, b"\xff\xfe\xff", "json"),
    ],
)
def test_the_format_is_known_before_the_settings_are(tmp_path, environ, dotenv, expected):
    (tmp_path / ".env").write_bytes(dotenv)
    assert log_format(environ, tmp_path) == expected


def test_a_refusal_is_one_line_in_both_formats():
    assert refusal("PORT …", "text") == "claude-gemini-gateway can't start: PORT …"
    line = json.loads(refusal("PORT …", "json"))
    assert (line["level"], line["message"]) == (
        "critical",
        "claude-gemini-gateway can't start: PORT …",
    )
    assert "request_id" not in line
