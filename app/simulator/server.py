"""The simulator as an HTTP server of its own, which can also break its connections."""

from __future__ import annotations

import contextlib
import io
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler
from typing import Any, BinaryIO, cast
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from app.simulator.app import MAX_BODY, create_simulator_app
from app.simulator.delivery import Hangup
from app.simulator.state import SimulatorState

_RST = struct.pack("ii", 1, 0)
"""SO_LINGER on, zero seconds: closing sends an RST."""


class Simulator(SimulatorState):
    """A fake Gemini on an address of its own; see `SimulatorState` for its settings.

    Works with threads and under gevent's monkey patching alike. Port 0 takes a free one.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, **settings: Any) -> None:
        super().__init__(**settings)
        self._address = (host, port)
        self._app = create_simulator_app(self)
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._connections: set[socket.socket] = set()

    @property
    def base_url(self) -> str:
        """Where it listens, without a version; raises RuntimeError unless it is started."""
        listener = self._listener
        if listener is None:
            raise RuntimeError("the simulator is not started")
        host, port = listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> str:
        """Listen, and return `base_url`; does nothing more when it is started already.

        Raises OSError if the address can't be had.
        """
        with self._lock:
            if self._listener is None:
                family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
                listener = socket.create_server(self._address, family=family, backlog=512)
                self._listener = listener
                threading.Thread(
                    target=self._accept, args=(listener,), name="simulator", daemon=True
                ).start()
        return self.base_url

    def stop(self) -> None:
        """Close the address and all connections; does nothing when it is not started."""
        with self._lock:
            listener, self._listener = self._listener, None
            connections = list(self._connections)
        if listener is None:
            return
        # A visit of our own wakes the accepting thread, which nothing else does everywhere.
        with contextlib.suppress(OSError):
            socket.create_connection(listener.getsockname()[:2], timeout=1).close()
        listener.close()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, address = listener.accept()
            except OSError:
                return
            with self._lock:
                stopped = self._listener is not listener
                if not stopped:
                    self._connections.add(connection)
            if stopped:
                connection.close()
                return
            threading.Thread(
                target=self._serve, args=(connection, address), name="simulator", daemon=True
            ).start()

    def _serve(self, connection: socket.socket, address: Any) -> None:
        # A client may vanish at any moment, which is none of the simulator's trouble.
        with contextlib.suppress(OSError), connection:
            try:
                _Handler(self._app, connection, address)
            finally:
                with self._lock:
                    self._connections.discard(connection)


class _SocketLink:
    """See `app.simulator.delivery.Link`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def gone(self, timeout: float | None) -> bool:
        """Wait for the end of the connection by peeking at what the client sends."""
        self._connection.settimeout(timeout)
        try:
            if self._connection.recv(1, socket.MSG_PEEK) == b"":
                return True
        except TimeoutError:
            return False
        except OSError:
            return True
        finally:
            with contextlib.suppress(OSError):
                self._connection.settimeout(None)
        # The client has sent its next request already, which hides whether it is still there.
        threading.Event().wait(timeout)
        return False


class _Handler(BaseHTTPRequestHandler):
    """Serves one connection: HTTP/1.1 with keep-alive, every piece of a body in its own chunk."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_version, sys_version = "simulated-gemini", ""

    def __init__(self, app: WSGIApplication, connection: socket.socket, address: Any) -> None:
        self._app = app
        super().__init__(connection, address, cast(Any, None))

    def log_message(self, *args: Any) -> None:
        """Log nothing: what was asked is in the simulator's records."""

    def _serve_one(self) -> None:
        try:
            body = self._read_body()
        except ValueError:
            self.close_connection = True
            self.send_error(400)
            return
        try:
            self._run(self._environ(body))
        except Hangup as hangup:
            self.close_connection = True
            if hangup.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_HEAD = _serve_one  # noqa: N815

    def _read_body(self) -> bytes:
        """Return the whole body; raises ValueError when its length is not to be made out."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            length = int(self.headers.get("Content-Length") or 0)
            return self.rfile.read(length)
        body = bytearray()
        while True:
            size = int(self.rfile.readline().split(b";")[0], 16)
            if size == 0:
                while self.rfile.readline().strip():
                    pass
                return bytes(body)
            body += self.rfile.read(size)
            self.rfile.readline()
            if len(body) > 2 * MAX_BODY:
                raise ValueError("too much")

    def _environ(self, body: bytes) -> WSGIEnvironment:
        path, _, query = self.path.partition("?")
        environ: WSGIEnvironment = {
            "REQUEST_METHOD": self.command,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "0",
            "SERVER_PROTOCOL": self.request_version,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": cast(BinaryIO, io.BytesIO(body)),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "simulator.link": _SocketLink(self.connection),
        }
        for name, value in self.headers.items():
            environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
        return environ

    def _run(self, environ: WSGIEnvironment) -> None:
        head: list[Any] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], exc_info: Any = None
        ) -> Callable[[bytes], object]:
            head[:] = [status, headers]
            return self.wfile.write

        pieces: Iterable[bytes] = self._app(environ, cast(StartResponse, start_response))
        try:
            chunked = self._send_head(*head)
            for piece in filter(None, pieces):  # an empty chunk would be the end
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            if chunked:
                self.wfile.write(b"0\r\n\r\n")
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()

    def _send_head(self, status: str, headers: list[tuple[str, str]]) -> bool:
        """Send the headers; tells whether the body goes in chunks."""
        code, _, phrase = status.partition(" ")
        self.send_response(int(code), phrase)
        for name, value in headers:
            self.send_header(name, value)
        sized = any(name.lower() == "content-length" for name, _ in headers)
        chunked = not sized and self.request_version != "HTTP/1.0"
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif not sized:
            self.close_connection = True
        self.end_headers()
        return chunked
