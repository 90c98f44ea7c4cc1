"""Upstreams made of bare sockets: every byte, pause and cut is the test's own."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager, suppress


class Visit:
    """One connection to the server, as its handler sees it."""

    def __init__(self, sock, server):
        self.sock = sock
        self.server = server
        self._reader = sock.makefile("rb")

    def request(self):
        """The next request as (line, headers, body), None at the end of the connection."""
        line = self._reader.readline().decode("latin-1").strip()
        if not line:
            return None
        headers = {}
        while text := self._reader.readline().decode("latin-1").strip():
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
        body = self._reader.read(int(headers.get("content-length", 0)))
        self.server.requests.append((line, headers, body))
        return line, headers, body

    def send(self, *pieces):
        for piece in pieces:
            self.sock.sendall(piece)

    def answer(self, body, status=200, content_type="application/json", extra=""):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send(
            f"HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\n{extra}"
            f"content-length: {len(data)}\r\n\r\n".encode()
            + data
        )

    def chunked(self, *pieces, end=True):
        self.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        for piece in pieces:
            self.send(chunk(piece))
        if end:
            self.send(b"0\r\n\r\n")

    def wait_for_hangup(self):
        """Block until the client closes; sets the server's ``hung_up``."""
        with suppress(OSError):
            while self.sock.recv(65536):
                pass
        self.server.hung_up.set()


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


class RawServer:
    """Runs ``handler(visit)`` in a thread per connection."""

    def __init__(self, handler, tls=None):
        self.handler = handler
        self.requests = []
        self.visits = 0
        self.hung_up = threading.Event()
        self.reached = threading.Event()
        self._tls = tls
        self._open = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.visits += 1
            self._open.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        try:
            with suppress(OSError, ValueError):
                if self._tls:
                    sock = self._tls.wrap_socket(sock, server_side=True)
                    self._open.append(sock)
                self.handler(Visit(sock, self))
        finally:  # also when the handler is wrong: its client must not wait for ever
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            with suppress(OSError):
                sock.close()

    def close(self):
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(handler, **options):
    server = RawServer(handler, **options)
    try:
        yield server
    finally:
        server.close()


def text_chunk(text):
    return {"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}}]}


def sse(*chunks, end=b"\r\n\r\n"):
    return b"".join(b"data: " + json.dumps(item).encode() + end for item in chunks)


def make_tls(folder):
    """A certificate for 127.0.0.1, good for a day: (server's context, path of the CA bundle)."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return load_tls(folder), str(folder / "cert.pem")


def load_tls(folder):
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context
