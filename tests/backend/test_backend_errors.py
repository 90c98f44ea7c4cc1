"""Every error that Google is known to send, and the whole of what we make of it."""

import json
from pathlib import Path

import pytest
import responses
from requests.structures import CaseInsensitiveDict

from app.backend.errors import Fault, UpstreamError
from app.backend.google_errors import classify, classify_object, one_line
from app.backend.quota import duration
from app.backend.upstream import Call, Upstream, UpstreamSettings
from app.pool.account import Account
from app.pool.cooldown import Exhausted

RECORDINGS = Path(__file__).parents[1] / "recordings"
NOW = 1_765_000_000.0
ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "26s"}


def judged(status, body, headers=None, keyed=True, secrets=()):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = classify(
        status,
        data,
        CaseInsensitiveDict(headers or {}),
        keyed=keyed,
        now=NOW,
        secrets=secrets,
    )
    return whole(error)


def whole(error):
    return (
        error.fault,
        error.status,
        error.reason,
        error.message,
        error.exhausted,
        error.per_project,
    )


def google(code, status, message, *details, **more):
    return {
        "error": {
            "code": code,
            "message": message,
            "status": status,
            "details": list(details),
            **more,
        }
    }


def info(reason, domain="googleapis.com", **metadata):
    return {"@type": ERROR_INFO, "reason": reason, "domain": domain, "metadata": metadata}


def violated(*ids):
    return {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [
            {
                "quotaMetric": "generativelanguage.googleapis.com/m",
                "quotaId": name,
                "quotaDimensions": {"location": "global", "model": "gemini-2.5-flash"},
                "quotaValue": value,
            }
            for name, value in ids
        ],
    }


def quota(status, word, message, **exhausted):
    return Fault.QUOTA, status, word, message, Exhausted(**exhausted), False


PAID = "GenerateContentPaidTierInputTokensPerModelPerMinute"
REGION = "GenerateContentRequestsPerMinutePerProjectPerRegion"

RECORDED = {
    "error-400-bad-media-url-vertex": (
        Fault.REJECTED,
        400,
        "INVALID_ARGUMENT",
        "Cannot fetch content from the provided URL. Please ensure the URL is valid and "
        "accessible by Vertex AI. Vertex AI respects robots.txt rules, so confirm the URL is "
        "allowed to be crawled. Status: URL_ROBOTED-ROBOTED_DENIED",
        None,
        False,
    ),
    "error-400-context-too-long-vertex": (
        Fault.REJECTED,
        400,
        "INVALID_ARGUMENT",
        "The input token count (1250074) exceeds the maximum number of tokens allowed (1048576).",
        None,
        False,
    ),
    "error-400-invalid-key": (
        Fault.CREDENTIAL,
        400,
        "API_KEY_INVALID",
        "API key not valid. Please pass a valid API key.",
        None,
        False,
    ),
    "error-404-model": (
        Fault.NOT_FOUND,
        404,
        "NOT_FOUND",
        "models/this-model-does-not-exist-12345 is not found for API version v1beta, or is not "
        "supported for generateContent. Call ListModels to see the list of available models and "
        "their supported methods.",
        None,
        False,
    ),
    "error-429-paid-tier-tokens-per-minute": quota(
        429,
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota, please check your plan and billing details. For more "
        "information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits. "
        "To monitor your current usage, head to: https://ai.dev/rate-limit. * Quota exceeded for "
        "metric: generativelanguage.googleapis.com/generate_content_paid_tier_input_token_count, "
        "limit: 1000000, model: gemini-2.5-flash Please retry in 48.939935699s.",
        window="minute",
        retry_after=48.939935699,
        reason="per-minute input tokens",
        limit=1_000_000,
        metric=PAID,
    ),
    "fx-400-user-location": (
        Fault.CREDENTIAL,
        400,
        "FAILED_PRECONDITION",
        "User location is not supported for the API use.",
        None,
        False,
    ),
    "fx-403-api-disabled": (
        Fault.CREDENTIAL,
        403,
        "SERVICE_DISABLED",
        "Generative Language API has not been used in project 12345678 before or it is disabled. "
        "Enable it by visiting https://console.developers.google.com/apis/api/generativelanguage"
        ".googleapis.com/overview?project=12345678 then retry. If you enabled this API recently, "
        "wait a few minutes for the action to propagate to our systems and retry.",
        None,
        True,
    ),
    "fx-403-iam": (
        Fault.FORBIDDEN,
        403,
        "IAM_PERMISSION_DENIED",
        "Permission 'aiplatform.endpoints.predict' denied on resource "
        "'//aiplatform.googleapis.com/projects/example-project/locations/us-central1/publishers/"
        "google/models/gemini-1.5-flash' (or it may not exist).",
        None,
        False,
    ),
    "fx-429-vertex-errorinfo": quota(
        429,
        "RATE_LIMIT_EXCEEDED",
        "Quota exceeded for quota metric 'Generate Content API requests per minute' and limit "
        "'GenerateContent request limit per minute for a region' of service "
        "'generativelanguage.googleapis.com' for consumer 'project_number:000000000000'.",
        window="never",
        reason="no quota for this model",
        limit=0,
        metric=REGION,
    ),
}


def test_no_recorded_error_is_left_out():
    index = json.loads((RECORDINGS / "index.json").read_text())
    assert {entry["name"] for entry in index if entry["status"] >= 400} == set(RECORDED)


@pytest.mark.parametrize("name", RECORDED)
def test_every_recorded_error(name):
    body = (RECORDINGS / f"{name}.response.json").read_bytes()
    status = json.loads(body)["error"]["code"]
    assert judged(status, body) == RECORDED[name]
    assert judged(status, b"[" + body + b"\n]") == RECORDED[name]


MINUTE = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"
DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
TOKENS_MINUTE = "GenerateContentInputTokensPerModelPerMinute-FreeTier"
TOKENS_DAY = "GenerateContentInputTokensPerModelPerDay-FreeTier"
OUT = "RESOURCE_EXHAUSTED"
CODE_ASSIST = "cloudcode-pa.googleapis.com"
RESET = "You have exhausted your capacity on this model. Your quota will reset after 161h39m41s."

QUOTAS = {
    "per minute": (
        429,
        google(429, OUT, "Out.\nPlease retry in 26.3s.", violated((MINUTE, "10")), RETRY),
        quota(
            429,
            OUT,
            "Out. Please retry in 26.3s.",
            window="minute",
            retry_after=26.3,
            reason="per-minute requests",
            limit=10,
            metric=MINUTE,
        ),
    ),
    "per day beats the delay": (
        429,
        google(429, OUT, "Out.", violated((DAY, "250")), RETRY),
        quota(
            429,
            OUT,
            "Out.",
            window="day",
            retry_after=26.0,
            reason="per-day requests",
            limit=250,
            metric=DAY,
        ),
    ),
    "the longest of several": (
        429,
        google(
            429,
            OUT,
            "Out.",
            violated((TOKENS_MINUTE, "250000"), (TOKENS_DAY, "1000000"), (MINUTE, "10")),
            RETRY,
        ),
        quota(
            429,
            OUT,
            "Out.",
            window="day",
            retry_after=26.0,
            reason="per-day input tokens",
            limit=1_000_000,
            metric=TOKENS_DAY,
        ),
    ),
    "limit: 0 in the message": (
        429,
        google(
            429,
            OUT,
            "* Quota exceeded for metric: m, limit: 0, model: x\nPlease retry in 3s.",
            violated((MINUTE, "")),
        ),
        quota(
            429,
            OUT,
            "* Quota exceeded for metric: m, limit: 0, model: x Please retry in 3s.",
            window="never",
            retry_after=3.0,
            reason="no quota for this model",
            limit=0,
            metric=MINUTE,
        ),
    ),
    "no details": (
        429,
        google(429, OUT, "Resource has been exhausted (e.g. check quota)."),
        quota(429, OUT, "Resource has been exhausted (e.g. check quota)."),
    ),
    "a delay in the message only": (
        429,
        google(429, OUT, "Quota exceeded for metric: m, limit: 20. Please retry in 300ms."),
        quota(
            429,
            OUT,
            "Quota exceeded for metric: m, limit: 20. Please retry in 300ms.",
            retry_after=0.3,
            limit=20,
        ),
    ),
    "vertex, shared capacity": (
        429,
        google(
            429,
            OUT,
            "Resource exhausted. Please try again later.",
            errors=[{"reason": "rateLimitExceeded", "domain": "global"}],
        ),
        quota(429, OUT, "Resource exhausted. Please try again later."),
    ),
    "classic": (
        429,
        google(
            429,
            OUT,
            "Quota exceeded.",
            info("RATE_LIMIT_EXCEEDED", quota_limit=REGION, quota_limit_value="60"),
        ),
        quota(
            429,
            "RATE_LIMIT_EXCEEDED",
            "Quota exceeded.",
            window="minute",
            reason="per-minute requests",
            limit=60,
            metric=REGION,
        ),
    ),
    "code assist, for days": (
        429,
        google(
            429,
            OUT,
            RESET,
            info(
                "QUOTA_EXHAUSTED",
                CODE_ASSIST,
                quotaResetDelay="161h39m41.300432511s",
                quotaResetTimeStamp="2025-12-18T20:18:34Z",
            ),
            {**RETRY, "retryDelay": "581981.300432511s"},
        ),
        quota(429, "QUOTA_EXHAUSTED", RESET, retry_after=581_981.300432511, until=1_766_089_114.0),
    ),
    "code assist, an instant only": (
        429,
        google(
            429,
            OUT,
            "Out.",
            info("QUOTA_EXHAUSTED", CODE_ASSIST, quotaResetTimeStamp="2025-12-18T20:18:34Z"),
        ),
        quota(
            429,
            "QUOTA_EXHAUSTED",
            "Out.",
            retry_after=1_766_089_114.0 - NOW,
            until=1_766_089_114.0,
        ),
    ),
    "code assist, a short window": (
        429,
        google(
            429,
            OUT,
            "Your quota will reset after 1m2s.",
            info("RATE_LIMIT_EXCEEDED", CODE_ASSIST),
        ),
        quota(429, "RATE_LIMIT_EXCEEDED", "Your quota will reset after 1m2s.", retry_after=62.0),
    ),
    "capacity, 429": (
        429,
        google(
            429,
            OUT,
            "No capacity available for model X on the server",
            info("MODEL_CAPACITY_EXHAUSTED", CODE_ASSIST),
            {**RETRY, "retryDelay": "40s"},
        ),
        quota(
            429,
            "MODEL_CAPACITY_EXHAUSTED",
            "No capacity available for model X on the server",
            window="capacity",
            retry_after=40.0,
            per_project=False,
            reason="model capacity",
        ),
    ),
    "capacity, 503": (
        503,
        google(
            503,
            "UNAVAILABLE",
            "No capacity available for model X on the server",
            info("MODEL_CAPACITY_EXHAUSTED", CODE_ASSIST),
        ),
        quota(
            503,
            "MODEL_CAPACITY_EXHAUSTED",
            "No capacity available for model X on the server",
            window="capacity",
            per_project=False,
            reason="model capacity",
        ),
    ),
    "credits": (
        429,
        google(429, OUT, "No credits.", info("INSUFFICIENT_G1_CREDITS_BALANCE", CODE_ASSIST)),
        quota(
            429,
            "INSUFFICIENT_G1_CREDITS_BALANCE",
            "No credits.",
            per_project=False,
            per_model=False,
            reason="credits",
        ),
    ),
    "403 in the older format": (
        403,
        {"error": {"code": 403, "message": "Slow.", "errors": [{"reason": "rateLimitExceeded"}]}},
        quota(403, "rateLimitExceeded", "Slow."),
    ),
    "403 with the word": (403, google(403, OUT, "Out."), quota(403, OUT, "Out.")),
    "400 with the word": (400, google(400, OUT, "Out."), quota(400, OUT, "Out.")),
    "503 with the word": (503, google(503, OUT, "Out."), quota(503, OUT, "Out.")),
    "not Google's": (
        429,
        b"<html>Too many requests</html>",
        quota(429, "", "The upstream answered HTTP 429 without saying why."),
    ),
    "another gateway's": (
        429,
        {"error": {"message": "Slow.", "type": "throttling_error", "code": "429"}},
        quota(429, "", "Slow."),
    ),
}


@pytest.mark.parametrize("case", QUOTAS)
def test_every_quota_error(case):
    status, body, expected = QUOTAS[case]
    assert judged(status, body) == expected


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("17", 17.0),
        ("Sat, 06 Dec 2025 05:46:55 GMT", 15.0),
        ("Sat, 06 Dec 2025 05:46:30 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("", None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999", None),
        ("Mon, 01 Jan 2024 00:00:00 +9999", None),
        ("Mon, 01 Jan 99999 00:00:00 GMT", None),
    ],
)
def test_retry_after_counts_when_the_body_names_nothing(header, seconds):
    body = google(429, OUT, "Out.")
    assert judged(429, body, {"Retry-After": header}) == quota(
        429, OUT, "Out.", retry_after=seconds
    )
    named = google(429, OUT, "Out.", RETRY)
    assert judged(429, named, {"Retry-After": header}) == quota(429, OUT, "Out.", retry_after=26.0)


OTHERS = [
    # status, body, keyed, fault, per_project
    (400, google(400, "INVALID_ARGUMENT", "API key expired. Please renew the API key."), 1, "C", 0),
    (400, google(400, "INVALID_ARGUMENT", "API Key not found. Pass one."), 1, "C", 0),
    (400, google(400, "FAILED_PRECONDITION", "Please enable billing on project 1."), 1, "C", 0),
    (403, google(403, "PERMISSION_DENIED", "Your API key was reported as leaked."), 1, "C", 0),
    (403, google(403, "PERMISSION_DENIED", "x", info("API_KEY_SERVICE_BLOCKED")), 1, "C", 0),
    (403, google(403, "PERMISSION_DENIED", "x", info("API_KEY_IP_ADDRESS_BLOCKED")), 1, "C", 0),
    (403, google(403, "PERMISSION_DENIED", "x", info("CONSUMER_SUSPENDED")), 1, "C", 1),
    (403, google(403, "PERMISSION_DENIED", "x", info("CONSUMER_INVALID")), 0, "C", 1),
    (403, google(403, "PERMISSION_DENIED", "x", info("BILLING_DISABLED")), 0, "C", 1),
    (403, google(403, "PERMISSION_DENIED", "x", info("USER_PROJECT_DENIED")), 0, "C", 1),
    (
        403,
        google(403, "PERMISSION_DENIED", "x", info("ACCESS_TOKEN_SCOPE_INSUFFICIENT")),
        0,
        "C",
        0,
    ),
    (403, google(403, "PERMISSION_DENIED", "This API requires a quota project."), 0, "C", 0),
    (400, {"error": "invalid_grant", "error_description": "Bad Request"}, 0, "C", 0),
    (
        401,
        google(401, "UNAUTHENTICATED", "x", info("ACCESS_TOKEN_EXPIRED")),
        0,
        "UNAUTHENTICATED",
        0,
    ),
    (401, google(401, "UNAUTHENTICATED", "x", info("ACCESS_TOKEN_TYPE_UNSUPPORTED")), 1, "C", 0),
    (401, b"", 0, "UNAUTHENTICATED", 0),
    (
        403,
        google(403, "PERMISSION_DENIED", "The caller does not have permission"),
        1,
        "FORBIDDEN",
        0,
    ),
    (403, b"<html>", 0, "FORBIDDEN", 0),
    (400, google(400, "INVALID_ARGUMENT", "Corrupted thought signature."), 1, "SIGNATURE", 0),
    (
        400,
        google(400, "INVALID_ARGUMENT", "x is missing a thought_signature in y"),
        1,
        "SIGNATURE",
        0,
    ),
    (400, google(400, "INVALID_ARGUMENT", "name: 'API key not valid' is bad"), 1, "REJECTED", 0),
    (400, google(400, OUT, "grpc: received message larger than max (9 vs. 4)"), 1, "REJECTED", 0),
    (404, b"not here", 1, "NOT_FOUND", 0),
    (407, b"", 1, "BROKEN", 0),
    (408, b"", 1, "TIMEOUT", 0),
    (409, google(409, "ABORTED", "x"), 1, "REJECTED", 0),
    (
        413,
        google(413, "INVALID_ARGUMENT", "Request payload size exceeds the limit"),
        1,
        "REJECTED",
        0,
    ),
    (499, google(499, "CANCELLED", "The operation was cancelled."), 1, "UNAVAILABLE", 0),
    (500, google(500, "INTERNAL", "An internal error has occurred."), 1, "BROKEN", 0),
    (502, b"<html>Bad gateway</html>", 1, "BROKEN", 0),
    (503, google(503, "UNAVAILABLE", "The model is overloaded."), 1, "UNAVAILABLE", 0),
    (504, google(504, "DEADLINE_EXCEEDED", "Deadline expired."), 1, "TIMEOUT", 0),
    (529, b"", 1, "BROKEN", 0),
    (302, b"", 1, "BROKEN", 0),
]


@pytest.mark.parametrize("case", OTHERS, ids=lambda case: f"{case[0]}-{str(case[1])[-60:]}")
def test_every_other_error(case):
    status, body, keyed, fault, per_project = case
    expected = Fault.CREDENTIAL if fault == "C" else Fault[fault]
    got = judged(status, body, keyed=bool(keyed))
    assert (got[0], got[1], got[4], got[5]) == (expected, status, None, bool(per_project))


def test_a_request_to_verify_shows_its_link():
    link = {
        "@type": "type.googleapis.com/google.rpc.Help",
        "links": [{"description": "Verify", "url": "https://accounts.google.com/verify"}],
    }
    body = google(
        403, "PERMISSION_DENIED", "Verify.", info("VALIDATION_REQUIRED", CODE_ASSIST), link
    )
    assert judged(403, body, keyed=False) == (
        Fault.CREDENTIAL,
        403,
        "VALIDATION_REQUIRED",
        "Verify. https://accounts.google.com/verify",
        None,
        False,
    )


def test_code_assist_bodies_are_read_with_their_flaws():
    body = (
        '{"error": {"code": 429,,\u00a0"message": "Out.",\n "status": "RESOURCE_EXHAUSTED",'
        '"details": [,{"@type": "x.RetryInfo", "retryDelay": "5s"},],}}'
    ).encode()
    assert judged(429, body) == quota(429, OUT, "Out.", retry_after=5.0)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b'{"error": 5}',
        b'{"error": {"details": 5, "errors": {}, "message": null}}',
        b'{"error": {"details": [{"@type": 5, "violations": 3}, {"@type": "x.QuotaFailure"}, 4]}}',
        b"[" * 60_000,
        b"\xff\xfe",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_no_body_is_too_strange(body):
    message = "The upstream answered HTTP 500 without saying why."
    assert judged(500, body) == (Fault.BROKEN, 500, "", message, None, False)


def test_messages_are_one_line_bounded_and_without_credentials():
    secret = "my-own.key"
    text = (
        f"Bad\r\n key {secret} in https://x/?key=AAAA&b=1 with Bearer abc.def and "
        "AIzaSyA0123456789012345678901234567890 and ya29.a0Af_x-y"
    )
    assert one_line(text, [secret]) == (
        "Bad key [removed] in https://x/?key=[removed]&b=1 with Bearer [removed] and "
        "[removed] and [removed]"
    )
    assert len(one_line("x" * 5000)) == 1000


def test_an_error_in_a_stream_names_its_own_status():
    error = {"code": 429, "message": "Out.", "status": OUT, "details": [RETRY]}
    assert whole(classify_object(error, keyed=True, now=NOW)) == quota(
        429, OUT, "Out.", retry_after=26.0
    )
    without = classify_object({"status": "UNAVAILABLE", "message": "x"}, keyed=True, now=NOW)
    assert whole(without) == (Fault.UNAVAILABLE, 503, "UNAVAILABLE", "x", None, False)
    strange = classify_object({"code": "teapot"}, keyed=True, now=NOW)
    assert (strange.fault, strange.status) == (Fault.BROKEN, 500)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("26s", 26.0),
        ("0.5s", 0.5),
        ("900ms", 0.9),
        ("1h2m3.5s", 3723.5),
        ("161h39m41.300432511s", 581_981.300432511),
        ("", None),
        ("soon", None),
        ("5 apples", None),
    ],
)
def test_durations(text, seconds):
    assert duration(text) == (None if seconds is None else pytest.approx(seconds, abs=1e-9))


URL = "https://gemini.example/v1beta/models/gemini-3.8-flash:streamGenerateContent"


@responses.activate
def test_the_error_of_an_http_status_reaches_the_caller():
    upstream = Upstream(UpstreamSettings(gemini_base_url="https://gemini.example"))
    account = Account("a", "api_key", api_key="top-secret")
    responses.post(URL, json=google(400, "INVALID_ARGUMENT", "top-secret is bad"), status=400)
    with pytest.raises(UpstreamError) as caught:
        list(upstream.generate(account, "", "gemini-3.8-flash", {}, Call()))
    assert whole(caught.value) == (
        Fault.REJECTED,
        400,
        "INVALID_ARGUMENT",
        "[removed] is bad",
        None,
        False,
    )


@responses.activate
def test_an_error_in_a_stream_comes_after_what_came_before_it():
    upstream = Upstream(UpstreamSettings(gemini_base_url="https://gemini.example"))
    account = Account("a", "api_key", api_key="k")
    body = (RECORDINGS / "fx-stream-error-mid-stream.response.sse").read_bytes()
    responses.post(URL, body=body)
    chunks = upstream.generate(account, "", "gemini-3.8-flash", {}, Call())
    texts = [next(chunks)["candidates"][0]["content"]["parts"][0]["text"] for _ in range(2)]
    with pytest.raises(UpstreamError) as caught:
        next(chunks)
    assert (texts, whole(caught.value)) == (
        ["First ", "Second "],
        (Fault.UNAVAILABLE, 499, "CANCELLED", "The operation was cancelled.", None, False),
    )


@pytest.mark.parametrize(
    ("secret", "text", "shown"),
    [
        ("AQ.Ab8RN6-secret-key", "key AQ.Ab8RN6-secret-keyX was", "key [removed]X was"),
        ("key-a", "key-a is not key-ab nor monkey-a", "[removed] is not key-ab nor monkey-a"),
        ("a", "a message about a key", "a message about a key"),
    ],
)
def test_secrets_are_removed_and_words_are_not(secret, text, shown):
    assert one_line(text, [secret]) == shown
