"""What an open stream holds: a coding agent's request is large, and its answer takes minutes."""

import gc
import json
import threading
import tracemalloc

import pytest

from app.api.messages import _translator
from app.backend.upstream import Upstream, UpstreamSettings
from app.pool.account import Account
from app.pool.pool import ClientPool
from app.pool.state import MemoryStore
from app.relay.relay import Relay, RelaySettings
from app.translate.conversation import Conversation
from app.translate.validation import load_messages
from tests.backend.raw_servers import serving, sse, text_chunk

MODEL = "gemini-3.8-flash"
LARGE = 2_000_000


def request():
    content = [{"type": "text", "text": str(number) * LARGE} for number in range(2)]
    return json.dumps(
        {
            "model": "claude-sonnet-4-5",
            "max_tokens": 100,
            "stream": True,
            "messages": [{"role": "user", "content": content}],
        }
    )


@pytest.mark.parametrize("resume", [False, True])
def test_the_request_is_let_go_once_no_attempt_can_follow(resume):
    over = threading.Event()

    def gemini(visit):
        visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        visit.send(sse(text_chunk("first")))
        over.wait(30)
        ended = {**text_chunk(" last")}
        ended["candidates"][0]["finishReason"] = "STOP"
        visit.send(sse(ended))

    with serving(gemini) as server:
        account = Account("a", "api_key", api_key="k", base_url=server.url)
        upstream = Upstream(UpstreamSettings())
        relay = Relay(
            ClientPool([account], store=MemoryStore()),
            upstream,
            MemoryStore(),
            RelaySettings(
                request_retry=3,
                quota_switch_project=True,
                pool_wait_timeout=5,
                keepalive_interval=60,
                stream_resume=resume,
            ),
        )
        tracemalloc.start()
        try:
            body = load_messages(json.loads(request()))
            job = relay.answer_job(Conversation(body, MODEL), _translator)
            exchange = relay.exchange(job)
            del body, job
            events = exchange.events()
            text = ""
            while "first" not in text:
                text += "".join(event.get("delta", {}).get("text", "") for event in next(events))
            server.requests.clear()
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            over.set()
        # The client's own text alone where it may be asked for again; not what was written of it.
        assert held // LARGE == (2 if resume else 0)
        text += "".join(
            event.get("delta", {}).get("text", "") for batch in events for event in batch
        )
        assert text == "first last"
        relay.done(exchange)
        upstream.close()
