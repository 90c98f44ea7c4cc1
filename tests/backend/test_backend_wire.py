"""Answers over real sockets: framing, timing, cuts, kept connections."""

import gzip
import json
import socket
import threading
import time
import zlib
from contextlib import suppress

import pytest
from raw_servers import chunk, serving, sse, text_chunk

from app.backend import connection, link
from app.backend.answer_head import AnswerHead
from app.backend.errors import Fault, UpstreamError
from app.backend.session import RECEIVE_BUFFER
from app.backend.upstream import Call, ListedModel, Upstream, UpstreamSettings
from app.pool.account import Account

ONE, TWO = text_chunk("öne"), text_chunk("two")
BODY = {"contents": [{"role": "user", "parts": [{"text": "hé 😀"}]}]}


def account(server, **options):
    return Account("a", "api_key", api_key="secret-key", base_url=server.url, **options)


def generate(upstream, server, call=None, **options):
    return upstream.generate(
        account(server, **options), "", "gemini-3.8-flash", BODY, call or Call()
    )


def outcome(error):
    return error.fault, error.status, error.message


def test_the_request_is_what_google_wants(upstream):
    def handler(visit):
        visit.request()
        visit.chunked(sse(ONE))

    with serving(handler) as server:
        chunks = upstream.generate(account(server), "proj-1", "gemini-3.8-flash", BODY, Call())
        assert list(chunks) == [ONE]
        [(line, headers, body)] = server.requests
    assert line == "POST /v1beta/models/gemini-3.8-flash:streamGenerateContent?alt=sse HTTP/1.1"
    assert body == json.dumps(BODY, ensure_ascii=False, separators=(",", ":")).encode()
    assert headers == {
        "host": f"127.0.0.1:{server.port}",
        "user-agent": "claude-gemini-gateway/0.1.0",
        "accept": "*/*",
        "accept-encoding": "identity",
        "connection": "keep-alive",
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-goog-api-key": "secret-key",
        "x-goog-user-project": "proj-1",
    }


def test_the_system_reads_no_more_ahead_than_is_stated(upstream):
    """Directly and through a proxy; Linux doubles what it is told."""

    def handler(visit):
        visit.request()
        visit.chunked(sse(ONE), end=False)
        visit.wait_for_hangup()

    with serving(handler) as server:
        for proxy in ("", server.url):
            call = Call()
            chunks = generate(upstream, server, call, proxy=proxy)
            assert next(chunks) == ONE
            size = call._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            assert size in (RECEIVE_BUFFER, 2 * RECEIVE_BUFFER)
            chunks.close()


def plain(head):
    return lambda visit, body: visit.send(head + b"\r\n", body)


def sent_chunked(visit, body):
    visit.chunked(body)


def sent_in_bytes(visit, body):
    visit.chunked(*(body[i : i + 1] for i in range(len(body))))


def sent_gzipped(visit, body):
    packed = gzip.compress(body)
    visit.send(
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed),
        packed,
    )


def sent_with_length(visit, body):
    visit.answer(body, content_type="text/html")


FRAMINGS = {
    "chunked": sent_chunked,
    "one byte at a time": sent_in_bytes,
    "gzip": sent_gzipped,
    "content-length, wrong type": sent_with_length,
    "HTTP/1.0 to the end": plain(b"HTTP/1.0 200 OK\r\n"),
    "connection: close": plain(b"HTTP/1.1 200 OK\r\nconnection: close\r\n"),
}
BODIES = {
    "sse": sse(ONE, TWO),
    "sse with bare newlines": sse(ONE, TWO, end=b"\n\n"),
    "sse, no end": sse(ONE, TWO).rstrip(),
    "sse, single newlines": sse(ONE, TWO, end=b"\n"),
    "array": f"[{json.dumps(ONE)}\r\n,\r\n{json.dumps(TWO)}]".encode(),
    "indented array": json.dumps([ONE, TWO], indent=2).encode(),
    "compact array": json.dumps([ONE, TWO]).encode(),
    "a line each": f"{json.dumps(ONE)}\n{json.dumps(TWO)}\n".encode(),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
def test_every_framing_of_every_form(upstream, framing, body):
    def handler(visit):
        visit.request()
        framing(visit, body)

    with serving(handler) as server:
        assert list(generate(upstream, server)) == [ONE, TWO]


HEADS = {
    "chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    "to the end": b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
    "content-length": b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n",
    "gzip": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n",
}


@pytest.mark.parametrize("framing", HEADS)
def test_an_event_leaves_when_it_arrives(upstream, framing):
    """The server sends the second event only when the first has come out."""
    seen = threading.Event()
    packer = zlib.compressobj(wbits=31)

    def framed(data):
        if framing == "gzip":
            return packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)
        return chunk(data) if framing == "chunked" else data

    def handler(visit):
        visit.request()
        visit.send(HEADS[framing] + framed(sse(ONE)))
        if seen.wait(4):
            visit.send(framed(sse(TWO)))
        visit.wait_for_hangup()

    with serving(handler) as server:
        chunks = generate(upstream, server)
        assert next(chunks) == ONE
        seen.set()
        assert next(chunks) == TWO
        chunks.close()
        assert server.hung_up.wait(2)


def test_connections_are_kept_after_a_whole_answer(upstream):
    def handler(visit):
        while visit.request():
            visit.chunked(sse(ONE))

    with serving(handler) as server:
        for _ in range(3):
            assert list(generate(upstream, server)) == [ONE]
        assert (server.visits, len(server.requests)) == (1, 3)


def test_a_connection_is_not_kept_after_half_an_answer(upstream):
    def handler(visit):
        visit.request()
        first = visit.server.visits == 1
        visit.chunked(sse(ONE), end=False)
        if first:
            visit.wait_for_hangup()
        else:
            visit.send(chunk(sse(TWO)), b"0\r\n\r\n")

    with serving(handler) as server:
        first = generate(upstream, server)
        assert next(first) == ONE
        first.close()
        assert list(generate(upstream, server)) == [ONE, TWO]
        assert server.visits == 2


def test_an_error_answer_keeps_its_connection(upstream):
    def handler(visit):
        while visit.request():
            visit.answer({"error": {"code": 503, "status": "UNAVAILABLE", "message": "later"}}, 503)

    with serving(handler) as server:
        for _ in range(2):
            with pytest.raises(UpstreamError) as caught:
                list(generate(upstream, server))
            assert outcome(caught.value) == (Fault.UNAVAILABLE, 503, "later")
        assert server.visits == 1


QUIET = {"error": {"code": 503, "status": "UNAVAILABLE", "message": "later"}}


@pytest.mark.parametrize("framing", ["length", "chunked", "to its end"])
@pytest.mark.parametrize("how", ["silent", "trickling"])
@pytest.mark.parametrize("timeouts", [(0.3, 20.0), (20.0, 0.3)])
def test_an_error_whose_body_stalls_is_judged_by_its_status(monkeypatch, framing, how, timeouts):
    wait, read_timeout = timeouts
    monkeypatch.setattr(link, "ERROR_WAIT", wait)
    body, ended = json.dumps(QUIET).encode(), threading.Event()
    head = {
        "length": b"content-length: 9999",
        "chunked": b"transfer-encoding: chunked",
        "to its end": b"connection: close",
    }[framing]

    def trickle(visit):
        with suppress(OSError):
            while not ended.wait(0.05):
                visit.send(b"1\r\n \r\n" if framing == "chunked" else b" ")

    def handler(visit):
        visit.request()
        visit.send(b"HTTP/1.1 503 X\r\n" + head + b"\r\n\r\n")
        visit.send(chunk(body) if framing == "chunked" else body)
        if how == "trickling":
            threading.Thread(target=trickle, args=(visit,), daemon=True).start()
        visit.wait_for_hangup()

    upstream = Upstream(UpstreamSettings(connect_timeout=2, read_timeout=read_timeout))
    began = time.monotonic()
    with serving(handler) as server:
        try:
            with pytest.raises(UpstreamError) as caught:
                list(generate(upstream, server))
            # What did come of the body is not lost.
            assert outcome(caught.value) == (Fault.UNAVAILABLE, 503, "later")
            assert time.monotonic() - began < 4
            assert server.hung_up.wait(2)
        finally:
            ended.set()


def test_an_error_whose_body_never_comes(monkeypatch):
    monkeypatch.setattr(link, "ERROR_WAIT", 0.1)

    def handler(visit):
        visit.request()
        visit.send(b"HTTP/1.1 503 X\r\ncontent-length: 200\r\n\r\n{")
        visit.wait_for_hangup()

    with serving(handler) as server:
        with pytest.raises(UpstreamError) as caught:
            list(generate(Upstream(UpstreamSettings(read_timeout=20.0)), server))
        assert outcome(caught.value) == (
            Fault.UNAVAILABLE,
            503,
            "The upstream answered HTTP 503 without saying why.",
        )
        assert server.hung_up.wait(2)


HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"


@pytest.mark.parametrize("together", [True, False])
def test_nobody_gets_the_answer_of_the_one_before(upstream, together):
    """An interim answer is no answer: the real one must not wait for the next client."""
    go_on = threading.Event()

    def handler(visit):
        while request := visit.request():
            visit.send(HINTS if together else HINTS[:9])
            if not together:
                go_on.wait(5)
                visit.send(HINTS[9:])
            visit.chunked(sse(text_chunk(json.loads(request[2])["text"])))

    with serving(handler) as server:
        for text in ("Alice's", "Bob's"):
            threading.Timer(0.05, go_on.set).start()
            chunks = upstream.generate(
                account(server), "", "gemini-3.8-flash", {"text": text}, Call()
            )
            assert list(chunks) == [text_chunk(text)]
        assert server.visits == 1


def test_an_interim_answer_that_is_taken_as_final_costs_the_connection(upstream, monkeypatch):
    monkeypatch.delattr(AnswerHead, "_read_status")

    def handler(visit):
        visit.request()
        visit.send(HINTS)
        visit.wait_for_hangup()

    with serving(handler) as server:
        for visits in (1, 2):
            with pytest.raises(UpstreamError) as caught:
                list(generate(upstream, server))
            assert (caught.value.fault, server.visits) == (Fault.BROKEN, visits)
            assert server.hung_up.wait(2)


@pytest.mark.parametrize(
    "wire", [b"HTTP/1.1 101 Switching\r\nupgrade: h2c\r\n\r\n", HINTS * 100], ids=["101", "many"]
)
def test_interim_answers_that_lead_nowhere_cost_the_connection(upstream, wire):
    def handler(visit):
        visit.request()
        visit.send(wire)
        visit.wait_for_hangup()

    with serving(handler) as server:
        with pytest.raises(UpstreamError) as caught:
            list(generate(upstream, server))
        assert caught.value.fault is Fault.BROKEN
        assert server.hung_up.wait(2)


def test_a_hangup_behind_an_interim_answer_is_not_tried_again(upstream, monkeypatch):
    """The upstream has seen the request, so that the kept connection was not a stale one."""
    monkeypatch.setattr(connection, "STALE_AFTER", 0.0)

    def handler(visit):
        visit.request()
        visit.chunked(sse(ONE))
        visit.request()
        visit.send(HINTS)

    with serving(handler) as server:
        assert list(generate(upstream, server)) == [ONE]
        with pytest.raises(UpstreamError) as caught:
            list(generate(upstream, server))
        assert (caught.value.fault, server.visits) == (Fault.BROKEN, 1)


@pytest.mark.parametrize("how", ["closes", "resets"])
@pytest.mark.parametrize("idle", [True, False])
def test_a_connection_dropped_after_long_idleness_is_replaced_unseen(
    upstream, how, idle, monkeypatch
):
    """The server reads the second request and hangs up: no byte of an answer had come.

    Only after long idleness can the server have closed it before; else it is the upstream's fault.
    """
    monkeypatch.setattr(connection, "STALE_AFTER", 0.0 if idle else 60.0)

    def handler(visit):
        visit.request()
        visit.chunked(sse(ONE))
        if visit.server.visits == 1:
            visit.request()
            if how == "resets":
                linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                import socket

                visit.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    with serving(handler) as server:
        assert list(generate(upstream, server)) == [ONE]
        if idle:
            assert list(generate(upstream, server)) == [ONE]
            assert server.visits == 2
            return
        with pytest.raises(UpstreamError) as caught:
            list(generate(upstream, server))
        assert (caught.value.fault, server.visits) == (Fault.BROKEN, 1)


def test_a_fresh_connection_that_is_dropped_is_not_tried_twice(upstream):
    with serving(lambda visit: visit.request()) as server:
        with pytest.raises(UpstreamError) as caught:
            list(generate(upstream, server))
        assert (caught.value.fault, caught.value.status) == (Fault.BROKEN, 0)
        assert server.visits == 1


def cut_chunked(visit):
    visit.chunked(sse(ONE), end=False)


def cut_in_a_chunk(visit):
    visit.chunked(sse(ONE), end=False)
    visit.send(b"ff\r\ndata: {")


def cut_length(visit):
    visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n", sse(ONE))


def cut_event(visit):
    visit.send(b"HTTP/1.0 200 OK\r\n\r\n", sse(ONE), b'data: {"candidates"')


def stalled(visit):
    visit.chunked(sse(ONE), end=False)
    visit.wait_for_hangup()


def html(visit):
    visit.chunked(sse(ONE), b"<html>502</html>")


CUTS = {
    cut_chunked: (Fault.BROKEN, "The connection to the upstream broke."),
    cut_in_a_chunk: (Fault.BROKEN, "The connection to the upstream broke."),
    cut_length: (Fault.BROKEN, "The connection to the upstream broke."),
    cut_event: (Fault.BROKEN, "The upstream sent an event that is not JSON."),
    stalled: (Fault.TIMEOUT, "The upstream did not answer in time."),
    html: (Fault.BROKEN, "The upstream sent something that is not JSON."),
}


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.__name__)
def test_what_came_before_a_failure_is_delivered(cut):
    def handler(visit):
        visit.request()
        cut(visit)

    upstream = Upstream(UpstreamSettings(connect_timeout=1, read_timeout=0.2))
    got = []
    with serving(handler) as server, pytest.raises(UpstreamError) as caught:
        got.extend(iter_into(got, generate(upstream, server)))
    fault, message = CUTS[cut]
    assert (got, *outcome(caught.value)) == ([ONE], fault, 0, message)


def iter_into(got, chunks):
    for item in chunks:
        got.append(item)
    return ()


@pytest.mark.parametrize("before", [b"", HINTS], ids=["nothing", "an interim answer"])
def test_silence_before_the_headers_is_a_timeout(before):
    def handler(visit):
        visit.request()
        visit.send(before)
        visit.wait_for_hangup()

    upstream = Upstream(UpstreamSettings(connect_timeout=1, read_timeout=0.2))
    with serving(handler) as server:
        with pytest.raises(UpstreamError) as caught:
            list(generate(upstream, server))
        assert outcome(caught.value) == (Fault.TIMEOUT, 0, "The upstream did not answer in time.")
        assert server.hung_up.wait(2)


@pytest.mark.parametrize("what", ["a stream", "a count"])
@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nx: ", HINTS[:-2]], ids=["final", "interim"])
def test_a_head_that_trickles_is_a_timeout(what, head):
    ended = threading.Event()

    def trickle(visit):
        with suppress(OSError):
            while not ended.wait(0.05):
                visit.send(b"y")

    def handler(visit):
        visit.request()
        visit.send(head)
        threading.Thread(target=trickle, args=(visit,), daemon=True).start()
        visit.wait_for_hangup()

    upstream = Upstream(UpstreamSettings(connect_timeout=2, read_timeout=0.4))
    with serving(handler) as server:
        # The net under a failure of the test; the watch must be the one that ends it.
        threading.Timer(5, ended.set).start()
        began = time.monotonic()
        with pytest.raises(UpstreamError) as caught:
            if what == "a stream":
                list(generate(upstream, server))
            else:
                upstream.count_tokens(account(server), "", "gemini-3.8-flash", BODY, Call())
        assert outcome(caught.value) == (Fault.TIMEOUT, 0, "The upstream did not answer in time.")
        assert time.monotonic() - began < 4
        assert server.hung_up.wait(2)
        ended.set()


def test_a_head_that_was_waited_for_in_vain_is_not_asked_for_again(upstream, monkeypatch):
    """What the watch ends looks like a kept connection that the upstream had closed."""
    monkeypatch.setattr(connection, "STALE_AFTER", 0.0)
    call = Call()

    def handler(visit):
        visit.request()
        visit.chunked(sse(ONE))
        visit.request()
        call.stall()
        visit.wait_for_hangup()

    with serving(handler) as server:
        assert list(generate(upstream, server)) == [ONE]
        with pytest.raises(UpstreamError) as caught:
            list(generate(upstream, server, call))
        assert (caught.value.fault, server.visits) == (Fault.TIMEOUT, 1)


def test_a_refused_connection_and_an_unknown_name(upstream):
    with serving(lambda visit: None) as server:
        pass
    with pytest.raises(UpstreamError) as caught:
        list(generate(upstream, server))
    assert outcome(caught.value) == (
        Fault.BROKEN,
        0,
        "The upstream could not be reached (Connection refused).",
    )
    lost = Account("a", "api_key", api_key="k", base_url="http://no-such-host.invalid")
    with pytest.raises(UpstreamError) as caught:
        list(upstream.generate(lost, "", "gemini-3.8-flash", BODY, Call()))
    assert caught.value.fault is Fault.BROKEN


def test_a_redirect_is_a_failure_and_never_followed(upstream):
    with serving(lambda visit: None) as elsewhere:

        def handler(visit):
            while visit.request():
                visit.answer(b"moved", 307, extra=f"location: {elsewhere.url}/v1beta\r\n")

        with serving(handler) as server, pytest.raises(UpstreamError) as caught:
            list(generate(upstream, server))
        assert (caught.value.fault, caught.value.status) == (Fault.BROKEN, 307)
        assert elsewhere.visits == 0


def test_no_cookie_and_no_netrc(upstream, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login eve password pw\n")
    monkeypatch.setenv("NETRC", str(netrc))

    def handler(visit):
        while visit.request():
            visit.answer({"totalTokens": 7}, extra="set-cookie: a=b\r\n")

    with serving(handler) as server:
        for _ in range(2):
            count = upstream.count_tokens(account(server), "", "gemini-3.8-flash", BODY, Call())
            assert count == 7
        names = [set(headers) for _, headers, _ in server.requests]
    assert not any(name & {"cookie", "authorization"} for name in names)


def test_a_model_name_cannot_reach_another_path(upstream):
    with serving(lambda visit: None) as server:
        for model in ("../x", "a/b", "a?b", "a b", "", "a\r\nb", "ä", ".."):
            with pytest.raises(UpstreamError) as caught:
                list(upstream.generate(account(server), "", model, BODY, Call()))
            assert (caught.value.fault, caught.value.status) == (Fault.NOT_FOUND, 404)
        assert server.visits == 0


def test_an_empty_answer_yields_nothing(upstream):
    def handler(visit):
        visit.request()
        visit.answer(b"")

    with serving(handler) as server:
        assert list(generate(upstream, server)) == []


def test_a_base_url_may_end_in_a_slash(upstream):
    def handler(visit):
        visit.request()
        visit.answer({"totalTokens": "12"})

    with serving(handler) as server:
        slashed = Account("a", "api_key", api_key="k", base_url=f"{server.url}/")
        inner = {"generateContentRequest": BODY}
        assert upstream.count_tokens(slashed, "", "gemini-3.8-flash", inner, Call()) == 12
        [(line, _, body)] = server.requests
    assert line == "POST /v1beta/models/gemini-3.8-flash:countTokens HTTP/1.1"
    assert json.loads(body) == {
        "generateContentRequest": {"model": "models/gemini-3.8-flash", **BODY}
    }


def test_all_pages_of_the_models(upstream):
    def handler(visit):
        while request := visit.request():
            if "pageToken=n+1" in request[0]:
                visit.answer({"models": [{"name": "models/gemini-b"}]})
            else:
                model = {
                    "name": "models/gemini-a",
                    "displayName": "A",
                    "inputTokenLimit": 10,
                    "outputTokenLimit": 5,
                    "supportedGenerationMethods": ["generateContent"],
                    "thinking": True,
                }
                visit.answer({"models": [model], "nextPageToken": "n 1"})

    with serving(handler) as server:
        models = upstream.list_models(account(server))
    assert models == [
        ListedModel("gemini-a", "A", 10, 5, ("generateContent",), True),
        ListedModel("gemini-b"),
    ]


def test_a_key_that_no_header_can_carry(upstream):
    for key in ("ключ", "a\nb", ""):
        broken = Account("a", "api_key", api_key=key, base_url="http://127.0.0.1:9")
        with pytest.raises(UpstreamError) as caught:
            list(upstream.generate(broken, "", "gemini-3.8-flash", BODY, Call()))
        assert caught.value.fault is Fault.CREDENTIAL


def test_forget_keeps_what_is_used(upstream):
    def handler(visit):
        while visit.request():
            visit.answer({"totalTokens": 1})

    with serving(handler) as server:
        used = account(server)
        count = lambda: upstream.count_tokens(used, "", "gemini-3.8-flash", BODY, Call())  # noqa: E731
        count()
        upstream.forget([used])
        count()
        upstream.forget([])
        count()
        assert server.visits == 1
