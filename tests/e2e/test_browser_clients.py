"""A page of another site asks the gateway with the browser's own fetch, in real Chromium."""

import http.server
import shutil
import threading

import pytest

from tests.services import missing

ASK = """async ([url, headers]) => {
  try {
    const answer = await fetch(url + "/v1/messages", {
      method: "POST",
      headers: {"content-type": "application/json", ...headers},
      body: JSON.stringify({
        model: "claude-sonnet-5", max_tokens: 100, stream: true,
        messages: [{role: "user", content: "hello"}],
      }),
    });
    const text = await answer.text();
    return [answer.status, answer.headers.has("request-id"), text.includes("message_stop")];
  } catch (error) { return String(error); }
}"""
DIRECT = {"anthropic-dangerous-direct-browser-access": "true"}
UNREADABLE = "TypeError: Failed to fetch"


@pytest.fixture
def page():
    """A page of ``site.example``, which the browser takes to be a server of this test."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if path is None:
        missing("chromium")
    from playwright.sync_api import sync_playwright

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    arguments = ["--no-sandbox", "--host-resolver-rules=MAP site.example 127.0.0.1"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        page = browser.new_page()
        page.goto(f"http://site.example:{server.server_port}/")
        yield page
        browser.close()
    server.shutdown()
    server.server_close()


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<p>a site")

    def log_message(self, *_):
        """Say nothing."""


def test_with_a_key_the_answer_can_be_read(gateway, page):
    running = gateway(CLIENT_API_KEYS="open-sesame")
    key = {"x-api-key": "open-sesame"}
    assert page.evaluate(ASK, [running.url, DIRECT | key]) == [200, True, True]
    assert page.evaluate(ASK, [running.url, DIRECT | {"x-api-key": "x"}]) == [401, True, False]
    assert page.evaluate(ASK, [running.url, key]) == UNREADABLE


def test_without_keys_another_sites_page_is_not_answered(gateway, simulator, page):
    running = gateway()
    assert page.evaluate(ASK, [running.url, DIRECT]) == UNREADABLE
    # As a form would be sent, without asking first.
    assert page.evaluate(ASK, [running.url, {"content-type": "text/plain"}]) == UNREADABLE
    assert [one.path for one in simulator.requests if "Content" in one.path] == []
