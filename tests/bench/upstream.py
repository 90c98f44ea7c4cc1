"""An upstream that costs next to nothing: the same recorded-like stream for every request."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class BenchUpstream:
    """Streams ``events`` text chunks to every POST, an empty list to every GET."""

    def __init__(self, events: int) -> None:
        body = b"".join(self._event(number, events) for number in range(events))

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                self.send_response(200)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    @staticmethod
    def _event(number: int, events: int) -> bytes:
        candidate = {
            "content": {"parts": [{"text": f"word {number} "}], "role": "model"},
            "index": 0,
        }
        if number == events - 1:
            candidate["finishReason"] = "STOP"
        usage = {
            "promptTokenCount": 7,
            "candidatesTokenCount": number,
            "totalTokenCount": number + 7,
        }
        chunk = {
            "candidates": [candidate],
            "usageMetadata": usage,
            "modelVersion": "gemini-3.8-flash",
            "responseId": "bench",
        }
        return b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n"
