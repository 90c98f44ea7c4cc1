"""Answers that pause: None where they would have to wait, and a bell for who waits for more."""

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_servers import chunk, make_tls, serving, sse, text_chunk

from app.backend.bell import new_bell
from app.backend.connection import Call
from app.backend.errors import Fault, UpstreamError
from app.backend.upstream import Aborted, Upstream, UpstreamSettings
from app.pool.account import Account

ROOT = Path(__file__).parents[2]
ONE, TWO, THREE = (text_chunk(text) for text in ("one", "two", "three"))


def opened(server, read_timeout=20.0, upstream=None):
    """Return a call and its answer, of which nothing is read yet."""
    call = Call(new_bell())
    upstream = upstream or Upstream(UpstreamSettings(read_timeout=read_timeout))
    account = Account("a", "api_key", api_key="k", base_url=server.url)
    return call, upstream.generate(account, "", "gemini-3.8-flash", {}, call)


def rest(call, chunks):
    """Read to the end, waiting at each pause; pauses themselves are left out."""
    got = []
    for item in chunks:
        if item is None:
            call.wait()
        else:
            got.append(item)
    return got


def following(call, chunks):
    """Return the next chunk, however many packets the way to it came in."""
    while (item := next(chunks)) is None:
        call.wait()
    return item


def ringing(call, after):
    """Ring from another thread, while (nearly always) the caller waits."""
    timer = threading.Timer(after, call._bell.ring)
    timer.start()
    return timer


def test_what_has_arrived_comes_without_a_pause_and_then_one():
    go_on = threading.Event()

    def handler(visit):
        while visit.request():
            visit.send(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                b"transfer-encoding: chunked\r\n\r\n" + chunk(sse(ONE)) + chunk(sse(TWO))
            )
            go_on.wait(10)
            visit.send(chunk(sse(THREE)) + b"0\r\n\r\n")

    with serving(handler) as server:
        upstream = Upstream(UpstreamSettings())
        call, chunks = opened(server, upstream=upstream)
        assert [next(chunks), next(chunks), next(chunks)] == [ONE, TWO, None]
        assert call.pauses
        go_on.set()
        call.wait()
        # The end of the body came with the last event: nothing is left to wait for.
        assert list(chunks) == [THREE]
        call, chunks = opened(server, upstream=upstream)
        assert rest(call, chunks) == [ONE, TWO, THREE]
        assert server.visits == 1


def test_a_call_without_a_bell_never_pauses():
    with serving(lambda visit: visit.request() and visit.chunked(sse(ONE), sse(TWO))) as server:
        account = Account("a", "api_key", api_key="k", base_url=server.url)
        call = Call()
        chunks = Upstream(UpstreamSettings()).generate(account, "", "gemini-3.8-flash", {}, call)
        assert list(chunks) == [ONE, TWO]
        assert not call.pauses


@settings(deadline=None)  # it serves over a socket, on a machine that may be busy
@given(st.lists(st.integers(1, 400), max_size=8))
def test_pauses_may_fall_anywhere(cuts):
    wire = b"".join(chunk(piece) for piece in (sse(ONE, TWO), b": hello\n\n", sse(THREE))) + (
        b"0\r\n\r\n"
    )

    def handler(visit):
        visit.request()
        visit.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        at = 0
        for cut in sorted(cuts):
            visit.send(wire[at:cut])
            at = max(at, cut)
        visit.send(wire[at:])

    with serving(handler) as server:
        assert rest(*opened(server)) == [ONE, TWO, THREE]


def test_records_of_tls_that_came_together_are_all_read(tmp_path, monkeypatch):
    context, bundle = make_tls(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    many = [text_chunk(f"{number} " + "x" * 5000) for number in range(40)]

    def handler(visit):
        visit.request()
        visit.chunked(*(sse(item) for item in many))

    with serving(handler, tls=context) as server:
        call, chunks = opened(server)
        assert rest(call, chunks) == many
        assert call.pauses


def test_a_fault_behind_an_event_is_not_waited_for():
    """The event comes first; the bell would never ring for bytes that have been read."""

    def handler(visit):
        visit.request()
        visit.send(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(sse(ONE)) + b"zz\r\n"
        )
        visit.wait_for_hangup()

    with serving(handler) as server:
        call, chunks = opened(server)
        assert following(call, chunks) == ONE
        with pytest.raises(UpstreamError) as caught:
            next(chunks)
        assert caught.value.fault is Fault.BROKEN
        assert server.hung_up.wait(2)


def tunnel(visit):
    """Be an HTTP proxy for CONNECT: pass bytes on, both ways, until either side ends."""
    line, _, _ = visit.request()
    host, _, port = line.split()[1].rpartition(":")
    beyond = socket.create_connection((host, int(port)))
    visit.send(b"HTTP/1.1 200 OK\r\n\r\n")

    def pass_on(source, target):
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        with suppress(OSError):
            beyond.shutdown(socket.SHUT_RDWR)

    back = threading.Thread(target=pass_on, args=(beyond, visit.sock))
    back.start()
    pass_on(visit.sock, beyond)
    back.join()
    beyond.close()


def test_tls_within_tls_pauses_too(tmp_path, monkeypatch):
    context, bundle = make_tls(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    many = [text_chunk(f"{number} " + "x" * 5000) for number in range(40)]
    go_on = threading.Event()

    def handler(visit):
        visit.request()
        visit.chunked(*(sse(item) for item in many), end=False)
        go_on.wait(10)
        visit.send(chunk(sse(ONE)) + b"0\r\n\r\n")

    with serving(handler, tls=context) as server, serving(tunnel, tls=context) as proxy:
        call = Call(new_bell())
        account = Account("a", "api_key", api_key="k", base_url=server.url, proxy=proxy.url)
        chunks = Upstream(UpstreamSettings()).generate(account, "", "gemini-3.8-flash", {}, call)
        got = []
        while len(got) < len(many):
            item = next(chunks)
            if item is None:
                call.wait()
            else:
                got.append(item)
        timer = ringing(call, 0.05)
        assert next(chunks) is None
        call.wait()
        timer.join()
        go_on.set()
        assert got + rest(call, chunks) == [*many, ONE]
        assert call.pauses


def test_the_bell_wakes_who_waits_and_nothing_is_lost():
    go_on = threading.Event()

    def handler(visit):
        visit.request()
        visit.chunked(sse(ONE), end=False)
        go_on.wait(10)
        visit.send(chunk(sse(TWO)) + b"0\r\n\r\n")

    with serving(handler) as server:
        call, chunks = opened(server)
        assert [following(call, chunks), next(chunks)] == [ONE, None]
        for after in (0.05, 0.0, 0.05):
            timer = ringing(call, after)
            call.wait()
            timer.join()
            assert next(chunks) is None
        go_on.set()
        assert rest(call, chunks) == [TWO]


def test_a_ring_before_the_wait_counts_once():
    bell = new_bell()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for wanted in (ours, None):
            bell.ring()
            bell.ring()
            bell.wait(wanted)  # returns
        woken = threading.Event()
        waiter = threading.Thread(target=lambda: (bell.wait(ours), woken.set()))
        waiter.start()
        assert not woken.wait(0.1)
        theirs.send(b"x")
        assert woken.wait(5)
        waiter.join()
        bell.ring()
        bell.wait(ours)
        ours.recv(1)
        waiter = threading.Thread(target=lambda: (bell.wait(ours), woken.set()))
        woken.clear()
        waiter.start()
        assert not woken.wait(0.1)
        theirs.close()
        assert woken.wait(5)
        waiter.join()
        bell.close()
        bell.ring()


def test_aborting_wakes_who_waits():
    with serving(lambda visit: (visit.request(), visit.chunked(sse(ONE), end=False),
                                visit.wait_for_hangup())) as server:  # fmt: skip
        call, chunks = opened(server)
        assert [following(call, chunks), next(chunks)] == [ONE, None]
        threading.Timer(0.05, call.abort).start()
        call.wait()
        with pytest.raises(Aborted):
            rest(call, chunks)
        assert server.hung_up.wait(5)
        call.wait()  # of no use any more, but it does not block


def test_a_closed_answer_closes_its_connection():
    with serving(lambda visit: (visit.request(), visit.chunked(sse(ONE), end=False),
                                visit.wait_for_hangup())) as server:  # fmt: skip
        call, chunks = opened(server)
        assert following(call, chunks) == ONE
        chunks.close()
        assert server.hung_up.wait(5)


@pytest.mark.parametrize(
    ("last", "fault"),
    [(b"", Fault.BROKEN), (b"5\r\ndata", Fault.BROKEN), (b"oops\r\n", Fault.BROKEN)],
)
def test_a_break_while_one_waits_is_a_failure(last, fault):
    go_on = threading.Event()

    def handler(visit):
        visit.request()
        visit.chunked(sse(ONE), end=False)
        go_on.wait(10)
        visit.send(last)

    with serving(handler) as server:
        call, chunks = opened(server)
        assert [following(call, chunks), next(chunks)] == [ONE, None]
        go_on.set()
        with pytest.raises(UpstreamError) as caught:
            rest(call, chunks)
        assert caught.value.fault is fault


def test_an_upstream_that_falls_silent_times_out():
    with serving(lambda visit: (visit.request(), visit.chunked(sse(ONE), end=False),
                                visit.wait_for_hangup())) as server:  # fmt: skip
        call, chunks = opened(server, read_timeout=0.4)
        assert [following(call, chunks), next(chunks)] == [ONE, None]
        began = time.monotonic()
        with pytest.raises(UpstreamError) as caught:
            rest(call, chunks)
        assert 0.35 < time.monotonic() - began < 5
        assert (caught.value.fault, caught.value.reason) == (Fault.TIMEOUT, "timeout")
        assert server.hung_up.wait(5)


def test_bytes_of_any_kind_are_a_sign_of_life():
    def handler(visit):
        visit.request()
        visit.chunked(sse(ONE), end=False)
        for _ in range(8):
            time.sleep(0.1)
            visit.send(chunk(b": still there\n\n"))
        visit.send(chunk(sse(TWO)) + b"0\r\n\r\n")

    with serving(handler) as server:
        assert rest(*opened(server, read_timeout=0.4)) == [ONE, TWO]


def test_who_is_slow_himself_meets_no_timeout():
    with serving(lambda visit: visit.request() and visit.chunked(sse(ONE), sse(TWO))) as server:
        call, chunks = opened(server, read_timeout=0.2)
        assert following(call, chunks) == ONE
        time.sleep(0.8)
        assert rest(call, chunks) == [TWO]


def test_a_line_that_looks_like_a_pause_is_a_comment():
    def handler(visit):
        visit.request()
        visit.chunked(b": nothing more for now\n\n", sse(ONE))

    with serving(handler) as server:
        assert rest(*opened(server)) == [ONE]


def test_all_of_it_with_greenlets():
    code = "from gevent import monkey; monkey.patch_all()\nimport sys, pytest\n"
    code += "sys.exit(pytest.main(sys.argv[1:]))"
    rests = str(Path(__file__).with_name("test_rests.py"))
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            __file__,
            rests,
            "-q",
            "-k",
            "not greenlets",
            "-p",
            "no:xdist",
        ],
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout[-3000:]
