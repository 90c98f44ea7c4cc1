"""Every quota error that Google is known to send → what cools down, and until which instant.

The bodies are those of the recordings and of the table of known errors; the way is the gateway's
own, from the bytes through the classification into the pool.
"""

import json
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from requests.structures import CaseInsensitiveDict
from test_backend_errors import (
    CODE_ASSIST,
    DAY,
    MINUTE,
    OUT,
    QUOTAS,
    RECORDED,
    RECORDINGS,
    RETRY,
    google,
    info,
    violated,
)

from app.backend.errors import Fault
from app.backend.google_errors import classify
from app.pool.account import Account
from app.pool.pool import ClientPool, Wanted

PACIFIC = ZoneInfo("America/Los_Angeles")
MODEL = "gemini-2.5-flash"
FIRST_BACKOFF = 1.0
A_DAY = 86_400.0


def at(text):
    """Epoch seconds of a wall clock in Los Angeles."""
    return datetime.fromisoformat(text).replace(tzinfo=PACIFIC).timestamp()


NOON = at("2026-11-23T12:00:00")
MIDNIGHT = at("2026-11-24T00:00:00")
ALL = "*"


def cooled(status, body, now=NOON, headers=None):
    """What a pool leaves alone after the answer: {(project, model): until}."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = classify(
        status, data, CaseInsensitiveDict(headers or {}), keyed=True, now=now, secrets=()
    )
    if error.fault is not Fault.QUOTA:
        return error.fault
    account = Account("a", "api_key", api_key="k", projects=("p", "q"))
    pool = ClientPool([account], clock=lambda: now, wall=lambda: now)
    lease = pool.acquire(Wanted(MODEL), timeout=0)
    assert lease.project == "p"
    pool.cool_down(lease, error.exhausted)
    return {(one.project, one.model): one.until for one in pool.snapshot()[0].cooldowns}


def recorded(name):
    body = (RECORDINGS / f"{name}.response.json").read_bytes()
    return json.loads(body)["error"]["code"], body


THIS = ("p", MODEL)
TABLE = {
    "error-429-paid-tier-tokens-per-minute": {THIS: NOON + 48.939935699},
    "fx-429-vertex-errorinfo": {THIS: NOON + A_DAY},
    "per minute": {THIS: NOON + 26.3},
    "per day beats the delay": {THIS: MIDNIGHT},
    "the longest of several": {THIS: MIDNIGHT},
    "limit: 0 in the message": {THIS: NOON + A_DAY},
    "no details": {THIS: NOON + FIRST_BACKOFF},
    "a delay in the message only": {THIS: NOON + 0.3},
    "vertex, shared capacity": {THIS: NOON + FIRST_BACKOFF},
    "classic": {THIS: NOON + FIRST_BACKOFF},
    "code assist, for days": {THIS: NOON + 581_981.300432511},
    "code assist, an instant only": {THIS: NOON + FIRST_BACKOFF},
    "code assist, a short window": {THIS: NOON + 62.0},
    "capacity, 429": {(ALL, MODEL): NOON + 40.0},
    "capacity, 503": {(ALL, MODEL): NOON + FIRST_BACKOFF},
    "credits": {(ALL, ALL): NOON + FIRST_BACKOFF},
    "403 in the older format": {THIS: NOON + FIRST_BACKOFF},
    "403 with the word": {THIS: NOON + FIRST_BACKOFF},
    "400 with the word": {THIS: NOON + FIRST_BACKOFF},
    "503 with the word": {THIS: NOON + FIRST_BACKOFF},
    "not Google's": {THIS: NOON + FIRST_BACKOFF},
    "another gateway's": {THIS: NOON + FIRST_BACKOFF},
}


def test_the_table_has_every_known_quota_error():
    known = {name for name, whole in RECORDED.items() if whole[0] is Fault.QUOTA}
    assert set(TABLE) == known | set(QUOTAS)


@pytest.mark.parametrize("name", TABLE)
def test_what_cools_down_and_until_when(name):
    status, body = QUOTAS[name][:2] if name in QUOTAS else recorded(name)
    assert cooled(status, body) == TABLE[name]


@pytest.mark.parametrize("name", [name for name in RECORDED if name not in TABLE])
def test_what_is_no_quota_cools_nothing(name):
    assert cooled(*recorded(name)) is RECORDED[name][0]


def test_code_assist_says_the_instant():
    body = google(
        429,
        OUT,
        "Out.",
        info("QUOTA_EXHAUSTED", CODE_ASSIST, quotaResetTimeStamp="2026-11-25T20:18:34Z"),
    )
    assert cooled(429, body) == {THIS: datetime.fromisoformat("2026-11-25T20:18:34Z").timestamp()}


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-11-23T23:59:59", "2026-11-24T00:00:00"),
        ("2026-11-24T00:00:00", "2026-11-25T00:00:00"),
        ("2026-03-08T01:30:00", "2026-03-09T00:00:00"),  # a day of 23 hours
        ("2026-03-07T12:00:00", "2026-03-08T00:00:00"),
        ("2026-11-01T00:30:00", "2026-11-02T00:00:00"),  # a day of 25 hours
        ("2026-10-31T12:00:00", "2026-11-01T00:00:00"),
        ("2026-12-31T18:00:00", "2027-01-01T00:00:00"),
    ],
)
def test_days_end_at_midnight_in_los_angeles(now, until):
    body = google(429, OUT, "Out.", violated((DAY, "250")), RETRY)
    assert cooled(429, body, now=at(now)) == {THIS: at(until)}


@pytest.mark.parametrize(
    ("delay", "said", "lasts"),
    [
        ("48s", "48.939935699s", 48.939935699),
        ("26s", "26.3s", 26.3),
        ("27s", "26.3s", 27.0),
        ("0s", "300ms", 0.3),
        ("59.5s", "59.5s", 59.5),
        ("40s", "", 40.0),
    ],
)
def test_it_never_comes_back_before_the_later_of_both_times(delay, said, lasts):
    message = f"Out.\nPlease retry in {said}." if said else "Out."
    body = google(429, OUT, message, violated((MINUTE, "10")), {**RETRY, "retryDelay": delay})
    assert cooled(429, body) == {THIS: pytest.approx(NOON + lasts, abs=1e-6)}


@pytest.mark.parametrize(
    "message",
    ["Quota exceeded for metric: requests, limit: 0.", "limit: 0.\nPlease retry in 26.3s."],
)
def test_a_limit_of_nothing_may_end_a_sentence(message):
    assert cooled(429, google(429, OUT, message)) == {THIS: NOON + A_DAY}


def test_a_limit_below_one_is_no_limit_of_nothing():
    assert cooled(429, google(429, OUT, "limit: 0.5")) == {THIS: NOON + FIRST_BACKOFF}


def test_the_older_format_names_the_day_too():
    body = google(403, "PERMISSION_DENIED", "Daily Limit Exceeded")
    body["error"]["errors"] = [{"reason": "dailyLimitExceeded"}]
    assert cooled(403, body) == {THIS: MIDNIGHT}


@pytest.mark.parametrize(
    ("message", "until"),
    [
        ("Quota exceeded for metric: x.googleapis.com/requests_per_model_per_day\n", MIDNIGHT),
        (
            "Quota exceeded for quota metric 'Generate requests' and limit "
            "'GenerateRequestsPerDayPerProjectPerModel' of service 'x.googleapis.com'.\n",
            MIDNIGHT,
        ),
        ("Quota exceeded for quota metric 'Requests' and limit 'Requests per day'\n", MIDNIGHT),
        ("Quota exceeded for metric: x.googleapis.com/requests_per_minute\n", NOON + 11.0),
        ("Out of what you may ask per day.\n", NOON + 11.0),
    ],
)
def test_the_message_alone_may_name_the_quota(message, until):
    assert cooled(429, google(429, OUT, f"{message}Please retry in 11s.")) == {THIS: until}


@pytest.mark.parametrize(
    ("message", "headers", "lasts"),
    [
        ("The request rate exceeds the limit, retry in 20s", {}, 20.0),
        ("The request rate exceeds the limit", {"Retry-After": "20"}, 20.0),
        ("Requests per minute exceeds limit for this key", {}, FIRST_BACKOFF),
        ("The number of requests exceeds the maximum", {}, FIRST_BACKOFF),
        ("Generate Content API requests exceeds the limit", {}, FIRST_BACKOFF),
        ("Token count per minute exceeds the maximum", {}, FIRST_BACKOFF),
        ("Request payload exceeds the limit, retry in 20s", {}, 20.0),
        ("Request payload exceeds the limit", {"Retry-After": "20"}, 20.0),
    ],
)
def test_a_rate_that_is_exceeded_is_a_quota(message, headers, lasts):
    assert cooled(429, google(429, OUT, message), headers=headers) == {THIS: NOON + lasts}


def test_a_delay_beside_words_about_a_size_makes_it_a_quota():
    body = google(429, OUT, "Request payload exceeds the limit", RETRY)
    assert cooled(429, body) == {THIS: NOON + 26.0}


@pytest.mark.parametrize(
    "message",
    [
        "grpc: received message larger than max (9 vs. 4)",
        "SERVER: Received message larger than max (5000000 vs. 4194304)",
        "Request payload size exceeds the limit: 20971520 bytes.",
        "Request size exceeds the maximum",
        "The input token count (1250074) exceeds the maximum number of tokens allowed (1048576).",
    ],
)
@pytest.mark.parametrize("status", [400, 429])
def test_a_size_that_is_exceeded_is_no_quota(message, status):
    assert cooled(status, google(status, OUT, message)) is Fault.REJECTED
