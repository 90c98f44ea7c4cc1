"""The table once more over HTTP: real backend, real pool, scripted answers of Google's."""

import json

import pytest
import responses

from app.backend.upstream import Upstream, UpstreamSettings
from app.pool.account import Account
from app.pool.pool import ClientPool
from app.pool.state import MemoryStore
from app.relay.errors import Failure, RelayError
from app.relay.exchange import KEEPALIVE
from app.relay.relay import Relay, RelaySettings
from app.translate.conversation import Conversation
from app.translate.fold import MessageFold
from app.translate.stream import StreamTranslator
from app.translate.validation import load_messages

MODEL = "gemini-3.8-flash"
BASE = "https://upstream.example"
URL = f"{BASE}/v1beta/models/{MODEL}:streamGenerateContent"
GOOD = (
    b'data: {"candidates":[{"content":{"parts":[{"text":"fine"}]},"finishReason":"STOP"}],'
    b'"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":1}}\r\n\r\n'
)
CUT = b'data: {"candidates":[{"content":{"parts":[{"text":"fi"}]}}]}\r\n\r\n'
REQUEST = {"model": "claude-x", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


def google(status, word, message="why", **detail):
    error = {"code": status, "status": word, "message": message}
    if detail:
        kind = f"type.googleapis.com/google.rpc.{detail.pop('kind')}"
        error["details"] = [{"@type": kind, **detail}]
    return status, json.dumps({"error": error}).encode()


QUOTA = google(429, "RESOURCE_EXHAUSTED", kind="RetryInfo", retryDelay="26s")
KEY = google(400, "INVALID_ARGUMENT", kind="ErrorInfo", reason="API_KEY_INVALID")


class Answers:
    """What each key is answered, call by call; then `GOOD`."""

    def __init__(self, **by_key):
        self.by_key = {key: list(answers) for key, answers in by_key.items()}
        self.asked = []

    def __call__(self, request):
        key = request.headers["x-goog-api-key"]
        self.asked.append(key)
        waiting = self.by_key[key]
        answer = waiting.pop(0) if waiting else (200, GOOD)
        if isinstance(answer, Exception):
            raise answer
        status, body = answer
        return status, {}, body


def run(answers, *, stream=True, retry=1, switch=True):
    pool = ClientPool([Account(key, "api_key", api_key=key) for key in answers.by_key])
    upstream = Upstream(UpstreamSettings(gemini_base_url=BASE))
    relay = Relay(pool, upstream, MemoryStore(), RelaySettings(retry, switch, 1.0, 60.0))
    conversation = Conversation(load_messages({**REQUEST, "stream": stream}), MODEL)
    job = relay.answer_job(
        conversation,
        lambda asked, target: StreamTranslator(asked.reply_context(target), lambda: "n" * 22),
    )
    exchange = relay.exchange(job)
    fold = MessageFold()
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.add_callback(responses.POST, URL, callback=answers)
        try:
            for batch in exchange.events():
                assert batch is not KEEPALIVE
                for event in batch:
                    fold.add(event)
        finally:
            relay.done(exchange)
    assert all(view.in_flight == 0 for view in pool.snapshot())
    return fold.message()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("first", "asked"),
    [
        (QUOTA, ["a", "b"]),
        (KEY, ["a", "b"]),
        (google(401, "UNAUTHENTICATED"), ["a", "b"]),
        (google(403, "PERMISSION_DENIED"), ["a", "b"]),
        ((408, b""), ["a", "b"]),
        (google(500, "INTERNAL"), ["a", "b"]),
        ((502, b"<html>"), ["a", "b"]),
        (google(503, "UNAVAILABLE"), ["a", "b"]),
        (google(504, "DEADLINE_EXCEEDED"), ["a", "b"]),
        (google(499, "CANCELLED"), ["a", "b"]),
        (ConnectionError("refused"), ["a", "b"]),
        ((200, b""), ["a", "b"]),
        ((200, b"garbage"), ["a", "b"]),
        ((302, b""), ["a", "b"]),
        (
            google(400, "INVALID_ARGUMENT", "Corrupted thought signature."),
            ["a", "a"],
        ),
    ],
)
def test_one_fault_is_invisible(first, asked, stream):
    answers = Answers(a=[first], b=[])
    message = run(answers, stream=stream)
    assert (message["content"][0]["text"], message["stop_reason"]) == ("fine", "end_turn")
    assert answers.asked == asked


@pytest.mark.parametrize(
    ("fault", "failure", "asked"),
    [
        (QUOTA, Failure.QUOTA, ["a", "b"]),
        (KEY, Failure.NO_ACCOUNT, ["a", "b"]),
        (google(403, "PERMISSION_DENIED"), Failure.FORBIDDEN, ["a", "b"]),
        (google(500, "INTERNAL"), Failure.BROKEN, ["a", "b"]),
        (google(503, "UNAVAILABLE"), Failure.OVERLOADED, ["a", "b"]),
        (google(504, "DEADLINE_EXCEEDED"), Failure.TIMEOUT, ["a", "b"]),
        ((200, b""), Failure.BROKEN, ["a", "b"]),
        (google(400, "INVALID_ARGUMENT"), Failure.REJECTED, ["a"]),
        (google(404, "NOT_FOUND"), Failure.NOT_FOUND, ["a"]),
    ],
)
def test_faults_without_end_have_their_failure(fault, failure, asked):
    answers = Answers(a=[fault] * 9, b=[fault] * 9)
    with pytest.raises(RelayError) as caught:
        run(answers)
    assert caught.value.failure is failure
    assert answers.asked == asked


def test_a_cut_answer_is_an_error_in_a_stream_and_unseen_without_one():
    with pytest.raises(RelayError) as caught:
        run(Answers(a=[(200, CUT)], b=[]))
    assert caught.value.failure is Failure.BROKEN
    answers = Answers(a=[(200, CUT)], b=[])
    assert run(answers, stream=False)["content"][0]["text"] == "fine"
    assert answers.asked == ["a", "b"]


def test_quota_without_switching_reaches_the_client():
    answers = Answers(a=[QUOTA], b=[])
    with pytest.raises(RelayError) as caught:
        run(answers, switch=False)
    assert (caught.value.failure, caught.value.retry_after) == (Failure.QUOTA, 26.0)
    assert answers.asked == ["a"]
