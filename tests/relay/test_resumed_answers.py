"""An answer that was cut goes on for as long as the table allows, not for one attempt."""

from app.api.messages import _translator
from app.backend.errors import Fault
from app.pool.account import Account
from app.pool.pool import ClientPool
from app.pool.state import MemoryStore
from app.relay.errors import RelayError
from app.relay.relay import Relay, RelaySettings
from app.translate.conversation import Conversation
from app.translate.validation import load_messages
from tests.relay.world import MODEL, error

BODY = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 100,
    "stream": True,
    "messages": [{"role": "user", "content": "Count."}],
}


class Upstream:
    """What each attempt brings, whatever the account; ``asked`` is what each one asked for."""

    def __init__(self, *attempts):
        self.attempts = list(attempts)
        self.asked = []

    def generate(self, account, project, model, body, call):
        self.asked.append(body["contents"])
        for step in self.attempts.pop(0):
            if isinstance(step, Exception):
                raise step
            yield step

    def refresh(self, account):
        pass


def text(piece, output, **candidate):
    content = {"role": "model", "parts": [{"text": piece}]}
    return {
        "candidates": [{"content": content} | candidate],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": output},
    }


def answer(*attempts):
    """Return the events that reach the client, and the upstream; a `RelayError` is the last."""
    upstream = Upstream(*attempts)
    accounts = [Account(name, "api_key", api_key=name) for name in "abcd"]
    relay = Relay(
        ClientPool(accounts, store=MemoryStore()),
        upstream,
        MemoryStore(),
        RelaySettings(
            request_retry=3,
            quota_switch_project=True,
            pool_wait_timeout=5,
            keepalive_interval=60,
            stream_resume=True,
        ),
    )
    job = relay.answer_job(Conversation(load_messages(BODY), MODEL), _translator)
    exchange = relay.exchange(job)
    events = []
    try:
        for batch in exchange.events():
            events += batch
    except RelayError as failure:
        events.append(failure)
    finally:
        relay.done(exchange)
    return events, upstream


def text_of(events):
    deltas = (event.get("delta", {}) for event in events if isinstance(event, dict))
    return "".join(delta.get("text", "") for delta in deltas)


CUT = [text("One, two,", 4), error(Fault.BROKEN)]
REST = [text(" three.", 3, finishReason="STOP")]


def test_an_attempt_that_was_refused_at_once_does_not_end_the_resuming():
    refusals = [[error(Fault.QUOTA, 429)], [error(Fault.UNAVAILABLE, 503)]]
    events, upstream = answer(CUT, *refusals, REST)
    assert text_of(events) == "One, two, three."
    assert events[-1] == {"type": "message_stop"}
    assert len(upstream.asked) == 4
    assert upstream.asked[1] == upstream.asked[2] == upstream.asked[3]
    assert events[-2]["usage"]["output_tokens"] == 7


def test_the_table_still_ends_it():
    events, _ = answer(CUT, *[[error(Fault.UNAVAILABLE, 503)]] * 4)
    assert text_of(events) == "One, two,"
    assert isinstance(events[-1], RelayError)
