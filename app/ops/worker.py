"""gunicorn's gevent worker, with JSON errors and a shutdown that loses nothing."""

from __future__ import annotations

import _socket
import atexit
import contextlib
import errno
import gc
import json
import secrets
import socket
import sys
from collections.abc import Iterator
from functools import partial
from importlib import metadata
from typing import Any

import gevent
from gevent.server import StreamServer
from gunicorn.arbiter import Arbiter
from gunicorn.http import errors as http
from gunicorn.workers.ggevent import GeventWorker

from app.api.errors import envelope
from app.config import SettingsError
from app.ops.client_socket import ClientSocket
from app.ops.hearing_out import hear_out, is_read
from app.ops.logs import catch_unhandled, unhandled
from app.ops.turns import Turns
from app.pool.accounts_file import AccountsError
from app.relay.trace import REQUEST_ID

LINGER = 5.0
"""Seconds that a connection without a request stays open when the worker stops.

A request may be on its way over it, and closing would lose that request: a proxy must not send a
POST twice. Proxies and SDKs give idle connections up sooner than this (`deploy/nginx.conf` after
4 s), so that in the end it is they who close. Never longer than ``DRAIN_TIMEOUT``.
"""

UNSENT = 64 << 10
"""Bytes that the system keeps of what a client is too slow for; by itself it keeps megabytes."""

UNTAKEN = 600.0
"""Seconds that a client may leave a piece of its answer untaken before its connection is ended.

An account is held for it all the while. TCP_USER_TIMEOUT is no way to this: it does not count
reliably while a client's window is shut.
"""

COLLECT = (2_500, 1, 300)
"""Python's thresholds for looking for cycles: objects more than at the last look, looks, looks.

A look holds up all streams: 1.5 to 5 ms for one through 7,500 objects, as here. Python's own come
every few requests, and soon go through all that the open streams hold.
"""

AT_ONCE = 4
"""Requests begun before open streams have their turn again, and connections accepted (gevent would
accept a hundred): to begin a request takes much longer than to pass an event on."""

_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH)

_STATUSES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], int, str], ...] = (
    (http.LimitRequestLine, 414, "URI Too Long"),
    (http.LimitRequestHeaders, 431, "Request Header Fields Too Large"),
    (http.UnsupportedTransferCoding, 501, "Not Implemented"),
    (http.ExpectationFailed, 417, "Expectation Failed"),
    ((http.ParseException, OSError), 400, "Bad Request"),
)


class _Listener:
    """A listening socket's name: connections ask for it even when the socket is closed already."""

    def __init__(self, listener: Any) -> None:
        self._name = listener.getsockname()

    def getsockname(self) -> Any:
        """Return what the socket's own method would."""
        return self._name


class _Server(StreamServer):  # type: ignore[misc]
    """Serves who has already connected before it stops to listen; they would be cut off."""

    def close(self) -> None:
        """Stop to listen."""
        while not self.closed and (accepted := self.do_read()):
            self.do_handle(*accepted)
        super().close()


@contextlib.contextmanager
def _one_look_for_plugins() -> Iterator[None]:
    """Let `metadata.entry_points` read once what is installed, and answer out of that.

    gevent asks two dozen times for plugins of its patching, and each time all installed packages
    are read: a third of all that a worker's start takes, where there are a hundred of them.
    """
    original = metadata.entry_points
    metadata.entry_points = original().select
    try:
        yield
    finally:
        metadata.entry_points = original


class GatewayWorker(GeventWorker):  # type: ignore[misc]
    """Answers what is not HTTP in the error envelope, and drains on SIGTERM.

    After SIGTERM idle connections may bring one more request within `LINGER` seconds (its answer
    says ``connection: close``), streams go on for ``DRAIN_TIMEOUT`` and then end with an ``error``
    event; the process exits when the last connection has ended.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle: set[socket.socket] = set()
        self._turns = Turns(AT_ONCE)

    def init_process(self) -> None:
        """Start the worker; it ends in here."""
        gc.set_threshold(*COLLECT)  # from here on: making the application leaves no cycles, either
        catch_unhandled()
        gevent.get_hub().print_exception = unhandled
        # gunicorn looks some twenty-five settings up with each request: let it find them at once.
        self.cfg.__dict__.update({name: one.get() for name, one in self.cfg.settings.items()})
        super().init_process()

    def patch(self) -> None:
        """Make the standard library gevent's."""
        with _one_look_for_plugins():
            super().patch()

    def load_wsgi(self) -> None:
        """Make the application; what it fails with is a line of the log, as all else."""
        try:
            super().load_wsgi()
        except (SettingsError, AccountsError) as error:
            self.log.critical("claude-gemini-gateway can't start: %s", error)
        except Exception:
            self.log.exception("the worker can't start for a reason of the gateway's own")
        else:
            # What is there now stays for good; what comes and goes leaves few cycles behind.
            gc.collect()
            gc.freeze()
            atexit.register(gc.unfreeze)  # the end of the process needs its own order
            return
        sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def server_class(self, listener: Any, *, spawn: Any, **_: Any) -> _Server:
        """Return the server of one listening socket, as `GeventWorker.run` asks for it."""
        server = _Server(listener, handle=partial(self.handle, _Listener(listener)), spawn=spawn)
        server.max_accept = AT_ONCE if self.cfg.workers == 1 else 1
        return server

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection."""
        with contextlib.suppress(AttributeError, OSError):  # not on every system or kind of socket
            # Unlike a small send buffer it slows nobody down: what is on its way doesn't count.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
        self._idle.add(client)
        try:
            super().handle(listener, client, addr)
        finally:
            self._idle.discard(client)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """Serve one request of a connection; the last one if the worker is stopping."""
        self._idle.discard(sock)
        self._turns.take()
        sock.settimeout(UNTAKEN)
        client = ClientSocket(sock, req.force_close)
        try:
            served = super().handle_request(listener_name, req, client, addr)
        except StopIteration:  # it was the connection's last
            if not is_read(req.body.reader):
                client.flush()
                hear_out(sock)
            raise
        except OSError as error:
            if isinstance(error, TimeoutError) or error.errno in _UNREACHABLE:
                # gunicorn would take it for a fault of its own, and log a traceback.
                raise BrokenPipeError(errno.EPIPE, "the client is gone") from None
            raise
        finally:
            client.flush()
            REQUEST_ID.set("")
        # Also when the worker began to stop meanwhile: the answer has not said it is the last.
        self._idle.add(sock)
        return served

    def timeout_ctx(self) -> gevent.Timeout:
        """Return the limit for the next request of a connection."""
        return super().timeout_ctx() if self.alive else gevent.Timeout(self._linger, False)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to drain (SIGTERM)."""
        super().handle_exit(sig, frame)
        gevent.spawn(self._drain)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer bytes that are not an HTTP request."""
        request_id = f"req_{secrets.token_hex(12)}"
        REQUEST_ID.set(request_id)
        status, reason = 500, "Internal Server Error"
        for classes, known_status, known_reason in _STATUSES:
            if isinstance(exc, classes):
                status, reason = known_status, known_reason
                break
        if status == 500:
            self.log.exception("a connection failed for a reason of the gateway's own")
            message = "The gateway failed on this request; its log says why."
        else:
            self.log.warning(
                "not an HTTP request, from %s: %s", addr and addr[0], type(exc).__name__
            )
            message = f"{reason}: what was sent is not an HTTP request that can be served."
        body = json.dumps(envelope(status, message, request_id)).encode()
        head = (
            f"HTTP/1.1 {status} {reason}\r\nconnection: close\r\ncontent-type: application/json\r\n"
            f"request-id: {request_id}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        with contextlib.suppress(OSError):
            client.sendall(head.encode() + body)
            hear_out(client)

    @property
    def _linger(self) -> float:
        return min(LINGER, float(self.wsgi.extensions["gateway"].settings.drain_timeout))

    def _drain(self) -> None:
        self.wsgi.extensions["gateway"].drain()
        gevent.sleep(self._linger)
        for connection in list(self._idle):
            with contextlib.suppress(OSError):
                # gevent's own shutdown raises in the greenlet that waits; this reads as an end.
                _socket.socket.shutdown(getattr(connection, "_sock", connection), socket.SHUT_RD)
