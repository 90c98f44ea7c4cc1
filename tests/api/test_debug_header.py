"""The short form of a request's attempts: what it says, and that a header can carry it."""

import pytest

from app.api.debug_header import LONGEST, attempts_header
from app.relay.trace import AttemptRecord, Trace


def trace(*attempts):
    return Trace(attempts=[AttemptRecord(*attempt) for attempt in attempts])


@pytest.mark.parametrize(
    ("attempts", "text"),
    [
        ([], "none"),
        ([("key-1", "", "ok", 200, 812)], "key-1 200 812ms"),
        (
            [("key-1", "", "per-minute requests", 429, 120), ("key-2", "", "ok", 200, 812)],
            "key-1 429 per-minute requests 120ms; key-2 200 812ms",
        ),
        ([("team", "proj-1", "broken", 0, 7)], "team/proj-1 broken 7ms"),
        ([("Käse\r\nset-cookie: x", "", "a;b", 500, 1)], "K?se??set-cookie: x 500 a,b 1ms"),
    ],
)
def test_what_it_says(attempts, text):
    assert attempts_header(trace(*attempts)) == text


def test_an_attempt_under_way_is_open():
    words = attempts_header(trace(("key-1", ""))).split()
    assert words[:2] == ["key-1", "open"]
    assert words[2].endswith("ms")


def test_its_length_has_a_bound():
    many = [(f"account-{number}", "p", "x" * 500, 503, 10**6) for number in range(90)]
    text = attempts_header(trace(*many))
    assert len(text) <= LONGEST
    told = text.split("; ")
    assert told[0].startswith("account-0/p 503 xxx")
    assert told[0].endswith("x 1000000ms")
    assert told[-1] == f"and {90 - (len(told) - 1)} more"
