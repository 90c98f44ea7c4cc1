"""A simulator on a free port, and a short way to ask it."""

import json

import pytest
import requests

from app.simulator.server import Simulator


@pytest.fixture
def simulator():
    simulator = Simulator(pace=0.0)
    simulator.start()
    yield simulator
    simulator.stop()


class Asker:
    """Posts bodies; the answers come parsed."""

    def __init__(self, simulator):
        self.simulator = simulator
        self.session = requests.Session()

    def post(self, contents="hello", *, model="gemini-3.8-flash", **options):
        """The plain response to a generate call."""
        call = options.pop("call", "generateContent")
        path = options.pop("path", f"/v1beta/models/{model}:{call}")
        headers = options.pop("headers", {"x-goog-api-key": options.pop("key", "key-a")})
        query = options.pop("query", "")
        stream = options.pop("stream", False)
        body = options.pop("body", None)
        if isinstance(contents, str):
            contents = [{"role": "user", "parts": [{"text": contents}]}]
        return self.session.post(
            f"{self.simulator.base_url}{path}{query}",
            json=body if body is not None else {"contents": contents, **options},
            headers=headers,
            stream=stream,
            timeout=10,
            allow_redirects=False,
        )

    def whole(self, contents="hello", **options):
        answer = self.post(contents, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def parts(self, contents="hello", **options):
        return self.whole(contents, **options)["candidates"][0]["content"]["parts"]

    def text(self, contents="hello", **options):
        parts = self.parts(contents, **options)
        return "".join(part.get("text", "") for part in parts if not part.get("thought"))

    def chunks(self, contents="hello", **options):
        options.setdefault("call", "streamGenerateContent")
        answer = self.post(contents, query="?alt=sse", **options)
        assert answer.status_code == 200, answer.text
        events = answer.content.decode().split("\r\n\r\n")
        assert events.pop() == ""
        assert all(event.startswith("data: ") for event in events)
        return [json.loads(event[6:]) for event in events]

    def refusal(self, contents="hello", **options):
        answer = self.post(contents, **options)
        error = answer.json()["error"]
        assert error["code"] == answer.status_code != 200
        return answer.status_code, error["message"]


@pytest.fixture
def ask(simulator):
    asker = Asker(simulator)
    yield asker
    asker.session.close()
