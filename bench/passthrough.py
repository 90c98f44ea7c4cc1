"""The least a streaming proxy can do: no translation, no pool, no retry, no keep-alive."""

import os

import requests
from flask import Flask, Response

app = Flask(__name__)
session = requests.Session()
UPSTREAM = os.environ["GEMINI_BASE_URL"]
MODEL = "gemini-3.8-flash"


@app.post("/v1/messages")
def messages():
    upstream = session.post(
        f"{UPSTREAM}/v1beta/models/{MODEL}:streamGenerateContent?alt=sse",
        json={"contents": [{"role": "user", "parts": [{"text": "hello"}]}]},
        headers={"x-goog-api-key": "bench"},
        stream=True,
    )
    lines = (line + b"\n" for line in upstream.iter_lines(chunk_size=None))
    return Response(lines, content_type="text/event-stream")
