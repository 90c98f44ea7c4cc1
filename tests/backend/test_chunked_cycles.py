"""A body that was read, or was left, goes at once: the collector comes seldom."""

import gc
import weakref

import pytest
from raw_servers import serving, sse, text_chunk

from app.backend import stream
from app.backend.bell import new_bell
from app.backend.connection import Call
from app.backend.upstream import Upstream, UpstreamSettings
from app.pool.account import Account


@pytest.mark.parametrize("to_its_end", [True, False])
def test_a_body_leaves_no_cycle(monkeypatch, to_its_end):
    bodies = []

    class Noted(stream.ChunkedBody):
        def __init__(self, *args):
            super().__init__(*args)
            bodies.append(weakref.ref(self))

    monkeypatch.setattr(stream, "ChunkedBody", Noted)

    def handler(visit):
        visit.request()
        visit.chunked(sse(text_chunk("a")), sse(text_chunk("b")))

    gc.collect()
    gc.disable()
    try:
        with serving(handler) as server:
            call = Call(new_bell())
            account = Account("a", "api_key", api_key="k", base_url=server.url)
            upstream = Upstream(UpstreamSettings())
            chunks = upstream.generate(account, "", "gemini-3.8-flash", {}, call)
            for item in chunks:
                if item is None:
                    call.wait()
                elif not to_its_end:
                    break
            chunks.close()
            del chunks
            assert [body() for body in bodies] == [None]
    finally:
        gc.enable()
