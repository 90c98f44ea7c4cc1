"""Connections that can be cut from another thread, whatever they are waiting for.

``requests`` has no way to end a call that is blocked in connect, in the TLS handshake, before the
headers or between two events. The connections here tell the current `Call` which socket they
use, and `Call.abort` shuts that socket down: the blocked thread or greenlet then wakes at once.
"""

from __future__ import annotations

import _socket
import socket
import threading
import time
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from gevent.socket import socket as GeventSocket  # noqa: N812 - it is a class
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.contrib.socks import SOCKSConnection, SOCKSHTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util import SKIP_HEADER
from urllib3.util.connection import allowed_gai_family

from app.backend.answer_head import AnswerHead
from app.backend.bell import Bell
from app.backend.rests import Rests

STALE_AFTER = 5.0
"""Seconds of idleness after which a kept connection that breaks proves nothing: Google may have
closed it. One that breaks sooner was broken by the upstream, and counts as a failure."""
LEAST_PATIENCE = 0.01
"""Seconds for an address whose host's other ones have used the connect timeout up."""


class Aborted(Exception):
    """The call was aborted by its owner: nobody waits for its outcome."""


class Call:
    """One upstream call as the one who may want to end it sees it. Good for one attempt.

    With a ``bell`` the reader of the answer need not be a thread of its own: once `pauses` is set,
    the answer gives None where it would have to wait, and `wait` then waits for more of it, with
    the ``rests`` of the process.
    """

    def __init__(self, bell: Bell | None = None, rests: Rests | None = None) -> None:
        self._bell = bell
        self._rests = rests
        self._waited = 0.0
        self._had = 0
        self._waits_for: Any = None
        self._lock = threading.Lock()
        self._ended: threading.Event | None = None
        self._socket: Any = None
        self._copy: _socket.socket | None = None
        self.aborted = False
        """Whether `abort` was called."""
        self.received = 0
        """Bytes of the answer's body that were read."""
        self.stale = False
        """The connection of the latest try may have been closed before the request reached it."""
        self.fresh_only = False
        """The next try must not use a connection that served another call."""
        self.after_refusal = False
        """Another call was refused just before: any kept connection counts as stale."""
        self.waiting = False
        """Whether `wait` is waiting now."""
        self.stalled = False
        """Whether `stall` has ended the call."""

    def abort(self) -> None:
        """End the call from any thread; what it is blocked in ends at once. Idempotent."""
        with self._lock:
            self.aborted = True
            if self._ended is not None:
                self._ended.set()
            for handle in (self._socket, self._copy):
                if handle is not None:
                    _shut_down(handle)

    def wait_aborted(self, timeout: float) -> bool:
        """Sleep for ``timeout`` seconds, less when aborted meanwhile; returns `aborted`."""
        with self._lock:  # an event is large, and few calls ever sleep
            if self._ended is None:
                self._ended = threading.Event()
            if self.aborted:
                return True
        return self._ended.wait(timeout)

    def check(self) -> None:
        """Raise `Aborted` if the call was aborted."""
        if self.aborted:
            raise Aborted

    @property
    def pauses(self) -> bool:
        """Tell whether the answer gives None, and its reader must `wait`."""
        return self._waits_for is not None

    def pause(self, sock: Any) -> bool:
        """Have the answer from ``sock`` pause rather than wait, if there is a bell."""
        if self._bell is None:
            return False
        sock.settimeout(0.0)
        self._waits_for = sock
        return True

    def wait(self) -> None:
        """Wait for more of an answer that has paused, or for its end, or for the bell."""
        bell = self._bell
        if bell is None or self.aborted:
            return
        rest = 0.0
        if self._rests is not None:
            now = time.monotonic()
            if self.received != self._had:  # else it has just rested, and for nothing
                rest = self._rests.due(self._waited, now)
            self._had = self.received
            self._waited = now + rest
        self.waiting = True
        try:
            bell.wait(self._waits_for, rest)
        finally:
            self.waiting = False

    def stall(self) -> None:
        """End the call as one whose upstream has been silent for too long."""
        with self._lock:
            self.stalled = True
            if self._socket is not None:
                _shut_down(self._socket)

    def attach(self, sock: Any) -> None:
        """Use ``sock`` from here on; raises `Aborted`."""
        with self._lock:
            self.check()
            self._socket = _bare(sock)

    def detach(self) -> None:
        """Forget the socket: it is free for other calls now."""
        with self._lock:
            self._socket = None

    def attach_copy(self, sock: Any) -> None:
        """Use ``sock`` until `drop_copy`, also while a TLS wrapper takes it over."""
        copy = _socket.socket(fileno=_socket.dup(sock.fileno()))
        with self._lock:
            self._copy, old = copy, self._copy
            if self.aborted:
                _shut_down(copy)
        if old is not None:
            old.close()

    def drop_copy(self) -> None:
        """Close what `attach_copy` opened."""
        with self._lock:
            copy, self._copy = self._copy, None
        if copy is not None:
            copy.close()


def _bare(sock: Any) -> Any:
    """Return the C-level socket below gevent's and urllib3's wrappers.

    Its own ``shutdown`` is needed: that of an ``SSLSocket`` takes the TLS object away under the
    reading thread, which then reads ciphertext as text.
    """
    if type(sock) is GeventSocket:
        return sock._sock
    inner = getattr(sock, "socket", sock)  # urllib3's TLS-in-TLS, for https proxies
    return getattr(inner, "_sock", inner)


def _shut_down(sock: Any) -> None:
    with suppress(OSError):
        _socket.socket.shutdown(sock, socket.SHUT_RDWR)


_current: ContextVar[Call | None] = ContextVar("upstream_call", default=None)


class tracked:  # noqa: N801 - used like a function
    """Have the connections opened or used inside the block known to ``call``."""

    __slots__ = ("_call", "_token")

    def __init__(self, call: Call) -> None:
        self._call = call

    def __enter__(self) -> None:
        self._token = _current.set(self._call)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


class _Tracked(HTTPConnection):
    """What all connection classes below share."""

    response_class = AnswerHead
    _call: Call | None = None
    _idle_since = 0.0
    _pieces: list[bytes] | None = None

    @property
    def is_connected(self) -> bool:
        bare = _bare(self.sock)
        if bare is None or _socket.socket.gettimeout(bare) != 0.0:
            connected: bool = super().is_connected
            return connected
        # gevent's never block. What urllib3 does has it make a watcher of the loop for each look.
        try:
            _socket.socket.recv(bare, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False  # it has ended, or brings what nobody has asked for

    def connect(self) -> None:
        self._idle_since = time.monotonic()
        call = _current.get()
        if call is None:
            super().connect()
            return
        try:
            super().connect()
        finally:
            call.drop_copy()
        call.attach(self.sock)

    def request(self, *args: Any, **kwargs: Any) -> None:
        call = self._call = _current.get()
        if call is not None:
            call.stale = False
            if self.sock is not None:
                idle = time.monotonic() - self._idle_since
                call.stale = call.after_refusal or idle > STALE_AFTER
                call.attach(self.sock)
        # The head and the body leave in one piece: each system call costs as much as an event.
        self._pieces = []
        try:
            super().request(*args, **kwargs)
            self._send_kept()
        finally:
            self._pieces = None

    def getresponse(self) -> Any:
        """Return the answer, its head read; a watch sees one wait, however the head trickles."""
        call = self._call
        if call is None:
            return super().getresponse()
        call.waiting = True
        try:
            response = super().getresponse()
        finally:
            call.waiting = False
        if call.stalled:
            raise TimeoutError  # a head that is cut off there reads as a whole one
        return response

    def putheader(self, header: Any, *values: Any) -> None:
        # `requests` has checked it; urllib3 and http.client would, again, for each request.
        plain = len(values) == 1 and type(header) is type(values[0]) is str
        if plain and values[0] != SKIP_HEADER:
            self._output(f"{header}: {values[0]}".encode("latin-1"))  # type: ignore[attr-defined]
        else:
            super().putheader(header, *values)

    def send(self, data: Any) -> None:
        if self._pieces is None or not isinstance(data, bytes):
            self._send_kept()
            super().send(data)
        else:
            self._pieces.append(data)

    def _send_kept(self) -> None:
        if self._pieces:
            kept = b"".join(self._pieces)
            self._pieces.clear()
            sent = 0
            sock: Any = self.sock
            if type(sock) is GeventSocket:  # else it may encrypt, or not be connected yet
                # gevent's own would ask for the size of the socket's buffer first.
                with suppress(BlockingIOError):
                    sent = sock._sock.send(kept)
            if sent < len(kept):
                super().send(kept[sent:] if sent else kept)

    def leave_call(self) -> None:
        """End the use by the current call, before the connection is kept for others."""
        self._idle_since = time.monotonic()
        call, self._call = self._call, None
        if call is not None:
            call.detach()
            if call.aborted:
                self.close()


def _share(deadline: float | None, *, last: bool) -> float | None:
    """Return the seconds for one address: half of what is left, so that a dead one costs no other.

    Never 0, which would not wait at all.
    """
    if deadline is None:
        return None
    left = max(deadline - time.monotonic(), LEAST_PATIENCE)
    return left if last else left / 2


class _Direct(_Tracked):
    """A connection to the host itself or to an HTTP proxy."""

    def _new_conn(self) -> socket.socket:
        # As urllib3's, but the socket is known to the call before it connects, and the timeout is
        # for all addresses together.
        call = _current.get()
        try:
            addresses = socket.getaddrinfo(
                self._dns_host, self.port, allowed_gai_family(), socket.SOCK_STREAM
            )
        except (socket.gaierror, UnicodeError) as error:
            failure = error if isinstance(error, socket.gaierror) else socket.gaierror(str(error))
            raise NameResolutionError(self.host, self, failure) from error
        refusal = OSError("the host has no address")
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        for number, (family, kind, protocol, _, address) in enumerate(addresses, 1):
            if call is not None:
                call.check()
            patience = _share(deadline, last=number == len(addresses))
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                if call is not None:
                    call.attach_copy(sock)
                sock.settimeout(patience)
                sock.connect(address)
                sock.settimeout(self.timeout)
            except OSError as error:
                sock.close()
                refusal = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        if isinstance(refusal, TimeoutError):
            raise ConnectTimeoutError(self, f"Connecting to {self.host} timed out.") from refusal
        raise NewConnectionError(self, f"Connecting to {self.host} failed.") from refusal


class _ViaSocks(_Tracked):
    """A connection through a SOCKS proxy, whose own handshake only the connect timeout ends."""

    def _new_conn(self) -> socket.socket:
        sock: socket.socket = super()._new_conn()
        call = _current.get()
        if call is not None:
            call.attach_copy(sock)
        return sock


class _DirectHttp(_Direct, HTTPConnection):
    pass


class _DirectHttps(_Direct, HTTPSConnection):
    pass


class _SocksHttp(_ViaSocks, SOCKSConnection):
    pass


class _SocksHttps(_ViaSocks, SOCKSHTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    """What all pools below share: no call keeps hold of a connection that others may get."""

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection = super()._get_conn(timeout)
        call = _current.get()
        if call is not None and call.fresh_only:
            connection.close()
        return connection

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.leave_call()
        super()._put_conn(conn)


class _DirectHttpPool(_Pool):
    ConnectionCls = _DirectHttp


class _DirectHttpsPool(_Pool, HTTPSConnectionPool):
    ConnectionCls = _DirectHttps


class _SocksHttpPool(_Pool):
    ConnectionCls = _SocksHttp


class _SocksHttpsPool(_Pool, HTTPSConnectionPool):
    ConnectionCls = _SocksHttps


DIRECT_POOLS = {"http": _DirectHttpPool, "https": _DirectHttpsPool}
SOCKS_POOLS = {"http": _SocksHttpPool, "https": _SocksHttpsPool}
