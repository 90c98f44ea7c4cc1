"""Clients that don't read: what of their answers the gateway holds, and for how long."""

import json
import queue
import socket
from contextlib import ExitStack
from pathlib import Path

import requests

from app.relay.mailbox import READ_AHEAD
from tests.backend.raw_servers import chunk, serving, sse, text_chunk
from tests.e2e.processes import GatewayProcess

MIB = 1 << 20
STREAM = 64 * MIB
"""What the upstream would send to each, if it were read."""
BODY = json.dumps(
    {
        "model": "gemini-2.5-flash",
        "max_tokens": 1000,
        "stream": True,
        "messages": [{"role": "user", "content": "Go on for ever."}],
    }
).encode()
PAGE = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()


class Flood:
    """Sends events until nobody takes more; ``stuck`` gets how many bytes were taken."""

    def __init__(self):
        self.stuck = queue.Queue()
        self.size = 0
        """Characters of each event."""

    def handle(self, visit):
        line, *_ = visit.request()
        if line.startswith("GET"):
            visit.answer({"models": []}, extra="connection: close\r\n")
            return
        # The system would hold megabytes of what the gateway hasn't taken.
        visit.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        visit.chunked(end=False)
        piece = chunk(sse(text_chunk("x" * self.size)))
        piece = memoryview(piece * max(1, 16_384 // len(piece)))
        taken = 0
        visit.sock.settimeout(0.5)
        try:
            while taken < STREAM:
                taken += visit.sock.send(piece[taken % len(piece) :])
        except TimeoutError:
            pass
        self.stuck.put(taken)
        visit.sock.settimeout(None)
        visit.wait_for_hangup()


def client(gateway):
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", gateway.port))
    connection.sendall(
        b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)
    )
    return connection


def resident(gateway):
    """The worker's resident memory (bytes)."""
    master = gateway.process.pid
    worker = Path(f"/proc/{master}/task/{master}/children").read_text().split()[0]
    return int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * 4096


KINDS = {
    # How many clients, of events of which size; then, for each client and at most, what is taken
    # from the upstream and what the process grows by (all in bytes).
    "small events": (10, 200, 1 * MIB, 2 * MIB),
    "usual events": (10, 5000, 1 * MIB, 2 * MIB),
    "large events": (3, 1_000_000, 8 * MIB, 20 * MIB),
}


def test_who_does_not_read_holds_little(tmp_path):
    """The bounds are those of ``docs/limits.md``, with room for what an allocator does."""
    assert f"or {READ_AHEAD >> 10} KiB of a stream" in PAGE
    assert "about 1 MiB of memory" in PAGE
    flood = Flood()
    with (
        serving(flood.handle) as upstream,
        GatewayProcess(
            tmp_path, GEMINI_API_KEYS="a,b,c,d,e,f,g,h", GEMINI_BASE_URL=upstream.url
        ) as gateway,
    ):
        before = resident(gateway)
        for kind, (clients, size, read, held) in KINDS.items():
            flood.size = size
            with ExitStack() as connections:
                slow = [connections.enter_context(client(gateway)) for _ in range(clients)]
                taken = [flood.stuck.get(timeout=30) for _ in slow]
                assert max(taken) < read, (kind, taken)
                assert (resident(gateway) - before) / clients < held, kind
                # Each is served all the same, at its own pace, and so is everybody else.
                for connection in slow:
                    connection.settimeout(10)
                    assert connection.recv(12) == b"HTTP/1.1 200", kind
                assert requests.get(f"{gateway.url}/healthz", timeout=10).ok
