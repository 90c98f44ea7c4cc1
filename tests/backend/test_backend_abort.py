"""`Call.abort` ends a call within a second, whatever it is blocked in, and nothing leaks."""

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from raw_servers import chunk, load_tls, make_tls, serving, sse, text_chunk

from app.backend.errors import Fault, UpstreamError
from app.backend.upstream import Aborted, Call, Upstream, UpstreamSettings
from app.pool.account import Account

ONE = text_chunk("one")
SETTINGS = UpstreamSettings(connect_timeout=20, read_timeout=20)


class Worker:
    """Runs a call in a thread; ``outcome`` is its chunks and how it ended."""

    def __init__(self, url, proxy=""):
        self.call = Call()
        self.chunks = []
        self.ended = None
        self.got_one = threading.Event()
        self._upstream = Upstream(SETTINGS)
        self._account = Account("a", "api_key", api_key="k", base_url=url, proxy=proxy)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            for item in self._upstream.generate(
                self._account, "", "gemini-3.8-flash", {}, self.call
            ):
                self.chunks.append(item)
                self.got_one.set()
            self.ended = "end"
        except Exception as error:  # noqa: BLE001
            self.ended = type(error)

    def abort(self):
        """Returns the seconds that it took."""
        began = time.monotonic()
        self.call.abort()
        self.thread.join(10)
        assert not self.thread.is_alive()
        return time.monotonic() - began


def silent(visit):
    visit.request()
    visit.server.reached.set()
    visit.wait_for_hangup()


def mid_stream(head):
    def handler(visit):
        visit.request()
        data = sse(ONE)
        visit.send(head + (chunk(data) if b"chunked" in head else data))
        visit.server.reached.set()
        visit.wait_for_hangup()

    return handler


CHUNKED = mid_stream(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
CLOSING = mid_stream(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")


def check(handler, expected, tls=None):
    with serving(handler, tls=tls) as server:
        worker = Worker(server.url)
        assert server.reached.wait(5)
        if expected:
            assert worker.got_one.wait(5)
        assert worker.abort() < 1
        assert (worker.chunks, worker.ended) == (expected, Aborted)
        assert server.hung_up.wait(2)


def test_before_the_headers():
    check(silent, [])


def test_behind_an_interim_answer():
    def handler(visit):
        visit.request()
        visit.send(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
        visit.server.reached.set()
        visit.wait_for_hangup()

    check(handler, [])


def test_mid_stream():
    check(CHUNKED, [ONE])


def test_mid_stream_of_an_answer_that_ends_with_the_connection():
    check(CLOSING, [ONE])


@pytest.fixture(scope="session")
def tls(tmp_path_factory):
    return make_tls(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("handler", [silent, CHUNKED, CLOSING])
def test_over_tls(tls, monkeypatch, handler):
    context, bundle = tls
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    check(handler, [] if handler is silent else [ONE], context)


def test_a_certificate_that_is_not_trusted(tls):
    with serving(silent, tls=tls[0]) as server:
        account = Account("a", "api_key", api_key="k", base_url=server.url)
        with pytest.raises(UpstreamError) as caught:
            list(Upstream(SETTINGS).generate(account, "", "gemini-3.8-flash", {}, Call()))
        assert (caught.value.fault, caught.value.message) == (
            Fault.BROKEN,
            "The upstream could not be reached (CERTIFICATE_VERIFY_FAILED).",
        )
        assert server.requests == []


def test_in_the_tls_handshake():
    def handler(visit):
        visit.server.reached.set()
        visit.wait_for_hangup()

    with serving(handler) as server:
        worker = Worker(server.url.replace("http:", "https:"))
        assert server.reached.wait(5)
        assert worker.abort() < 1
        assert (worker.chunks, worker.ended) == ([], Aborted)
        assert server.hung_up.wait(2)


@contextmanager
def full():
    """The address of a listener whose queue is full: further connections wait for an answer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = []
        try:
            for _ in range(3):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
                fillers.append(filler)
            yield listener.getsockname()
        finally:
            for filler in fillers:
                filler.close()


def test_in_connect():
    with full() as (host, port):
        worker = Worker(f"http://{host}:{port}")
        deadline = time.monotonic() + 5
        while worker.call._copy is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert worker.abort() < 1
        assert worker.ended is Aborted


def test_the_addresses_of_a_host_share_the_connect_timeout(monkeypatch):
    with full() as address:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address)] * 6
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
        upstream = Upstream(UpstreamSettings(connect_timeout=0.8, read_timeout=20))
        account = Account("a", "api_key", api_key="k", base_url="http://gemini.invalid")
        began = time.monotonic()
        with pytest.raises(UpstreamError) as caught:
            list(upstream.generate(account, "", "gemini-3.8-flash", {}, Call()))
        assert caught.value.fault is Fault.TIMEOUT
        assert 0.7 < time.monotonic() - began < 2.4


def test_an_address_that_does_not_answer_leaves_time_for_the_next(monkeypatch):
    def handler(visit):
        visit.request()
        visit.chunked(sse(ONE))

    with full() as dead, serving(handler) as server:
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", address)
            for address in (dead, ("127.0.0.1", server.port))
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
        upstream = Upstream(UpstreamSettings(connect_timeout=0.8, read_timeout=20))
        account = Account("a", "api_key", api_key="k", base_url="http://gemini.invalid")
        chunks = upstream.generate(account, "", "gemini-3.8-flash", {}, Call())
        assert list(chunks) == [ONE]


def test_through_a_proxy_tunnel():
    def handler(visit):
        visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\n\r\n")
        visit.server.reached.set()
        visit.wait_for_hangup()

    with serving(handler) as proxy:
        worker = Worker("https://gemini.invalid", proxy=proxy.url)
        assert proxy.reached.wait(5)
        assert worker.abort() < 1
        assert worker.ended is Aborted
        assert proxy.requests[0][0].startswith("CONNECT gemini.invalid:443 ")


def test_aborted_before_it_began():
    with serving(silent) as server:
        call = Call()
        call.abort()
        call.abort()
        account = Account("a", "api_key", api_key="k", base_url=server.url)
        with pytest.raises(Aborted):
            list(Upstream(SETTINGS).generate(account, "", "gemini-3.8-flash", {}, call))
        assert server.visits == 0


def test_an_old_call_cannot_cut_the_next_one_on_its_connection():
    go_on = threading.Event()

    def handler(visit):
        visit.request()
        visit.chunked(sse(ONE))
        visit.request()
        visit.chunked(sse(ONE), end=False)
        go_on.wait(5)
        visit.send(chunk(sse(ONE)), b"0\r\n\r\n")

    with serving(handler) as server:
        upstream = Upstream(SETTINGS)
        account = Account("a", "api_key", api_key="k", base_url=server.url)
        old = Call()
        assert list(upstream.generate(account, "", "gemini-3.8-flash", {}, old)) == [ONE]
        chunks = upstream.generate(account, "", "gemini-3.8-flash", {}, Call())
        assert next(chunks) == ONE
        old.abort()
        go_on.set()
        assert list(chunks) == [ONE]
        assert server.visits == 1


def test_no_descriptor_is_left_behind():
    def handler(visit):
        while visit.request():
            visit.chunked(sse(ONE))

    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    with serving(silent) as mute, serving(handler) as server:
        upstream = Upstream(SETTINGS)
        good = Account("a", "api_key", api_key="k", base_url=server.url)
        list(upstream.generate(good, "", "gemini-3.8-flash", {}, Call()))

        def one_aborted():
            mute.reached.clear()
            mute.hung_up.clear()
            worker = Worker(mute.url)
            assert mute.reached.wait(5)
            worker.abort()
            assert mute.hung_up.wait(2)

        one_aborted()
        before = descriptors()
        for _ in range(5):
            one_aborted()
            list(upstream.generate(good, "", "gemini-3.8-flash", {}, Call()))
        deadline = time.monotonic() + 2
        while descriptors() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert descriptors() <= before


def test_under_gevent(tls, tmp_path):
    """The same, with greenlets for threads, in a process that is patched from its first line."""
    context_files = Path(tls[1]).parent
    script = tmp_path / "greenlets.py"
    script.write_text(
        "from gevent import monkey\n"
        "monkey.patch_all()\n"
        "import sys\n"
        f"sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[2])]!r}\n"
        "import test_backend_abort as cases\n"
        f"cases.run_all_under_gevent({str(context_files)!r})\n"
    )
    environment = {**os.environ, "REQUESTS_CA_BUNDLE": tls[1]}
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=50,
        env=environment,
        check=False,
    )
    assert done.stdout.split() == ["plain", "tls", "handshake", "connect", "tunnel", "reuse"], (
        done.stderr
    )


def run_all_under_gevent(folder):
    for handler, expected in ((silent, []), (CHUNKED, [ONE]), (CLOSING, [ONE])):
        check(handler, expected)
    sys.stdout.write("plain\n")
    context = load_tls(Path(folder))
    for handler, expected in ((silent, []), (CHUNKED, [ONE]), (CLOSING, [ONE])):
        check(handler, expected, context)
    sys.stdout.write("tls\n")
    test_in_the_tls_handshake()
    sys.stdout.write("handshake\n")
    test_in_connect()
    sys.stdout.write("connect\n")
    test_through_a_proxy_tunnel()
    sys.stdout.write("tunnel\n")
    test_an_old_call_cannot_cut_the_next_one_on_its_connection()
    sys.stdout.write("reuse\n")
