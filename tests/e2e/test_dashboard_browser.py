"""The dashboard as people meet it: real Chromium, real workers, traffic on accounts that fail."""

import re
import shutil

import pytest
import requests

from app.simulator.server import Simulator
from tests.e2e.processes import ROOT, GatewayProcess
from tests.services import missing

KEY = "open sesame"
SHOTS = ROOT / "test-output" / "dashboard"
"""Pictures of every page, for a person to look at."""
ACCOUNTS = "".join(
    f'[[account]]\nname = "key-{number}"\nkind = "api_key"\napi_key = "secret-{number}"\n'
    for number in (1, 2, 3)
)
PATIENCE = 20_000
"""Milliseconds to wait for what the page should come to show."""


@pytest.fixture(scope="module")
def chromium():
    """A real browser without a screen."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if path is None:
        missing("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def simulator():
    simulator = Simulator(pace=0.0)
    simulator.start()
    yield simulator
    simulator.stop()


@pytest.fixture(scope="module")
def process(simulator, tmp_path_factory):
    settings = {
        "ACCOUNTS_TOML": ACCOUNTS,
        "GEMINI_BASE_URL": simulator.base_url,
        "ADMIN_API_KEY": KEY,
        "WEB_CONCURRENCY": "2",
        "ROTATION": "fill_first",
    }
    with GatewayProcess(tmp_path_factory.mktemp("gateway"), **settings) as process:
        yield process


@pytest.fixture
def running(process):
    """The gateway, with all accounts ready."""
    for name in ("key-1", "key-2", "key-3"):
        for action in ("enable", "clear"):
            done = requests.post(
                f"{process.url}/admin/api/accounts/{name}/{action}",
                headers={"x-api-key": KEY},
                timeout=20,
            )
            assert done.json()["ok"], done.text
    return process


@pytest.fixture
def page(chromium, running):
    """A page of a browser that has not logged in yet; the test fails if its console complains."""
    context = chromium.new_context(
        viewport={"width": 1280, "height": 900},
        base_url=running.url,
        reduced_motion="reduce",  # what moves is drawn sixty times a second, by the processor
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: said.type == "error" and complaints.append(said.text))
    page.complaints = complaints
    yield page
    context.close()


def ask(running, text="hello"):
    """Return the request id of a request that was answered."""
    body = {
        "model": "claude-sonnet-4-5",
        "max_tokens": 200,
        "messages": [{"role": "user", "content": text}],
    }
    answer = requests.post(f"{running.url}/v1/messages", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.headers["request-id"]


def log_in(page):
    page.goto("/admin/")
    page.get_by_label("Admin key").fill(KEY)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="All 3 accounts are ready.").wait_for()
    page.complaints.clear()  # of the 401 that the log-in page came with


def card(page, name):
    return page.get_by_role("article", name=f"Account {name}")


def picture(page, name):
    """Keep pictures in light and dark, wide and on a phone; the page may not scroll sideways."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for device, width, height in (("wide", 1280, 900), ("phone", 390, 844)):
            page.set_viewport_size({"width": width, "height": height})
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{name} on a {device} is {wide} pixels wide"
            page.screenshot(path=SHOTS / f"{name}-{scheme}-{device}.png", full_page=True)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1280, "height": 900})


def test_a_cooldown_appears_counts_down_and_is_cleared(page, running, simulator):
    log_in(page)
    simulator.script("secret-1", ["429-minute-50"])
    ask(running)
    hero = page.get_by_role("listitem").filter(has_text="key-1").first
    hero.get_by_text("Cooling down").wait_for()
    countdown = hero.locator("time[data-until]").first

    def left():
        minutes, seconds = countdown.inner_text().split(":")
        return int(minutes) * 60 + int(seconds)

    first = left()
    assert 1 <= first <= 51
    page.wait_for_function(
        "([element, first]) => element.textContent !== first",
        arg=[countdown.element_handle(), countdown.inner_text()],
    )
    assert left() < first
    page.get_by_role("heading", name="2 of 3 accounts are ready.").wait_for()
    picture(page, "overview-cooling")
    card(page, "key-1").get_by_role("button", name="Clear cooldown key-1").click()
    page.get_by_role("heading", name="All 3 accounts are ready.").wait_for()
    assert page.complaints == []


def test_traffic_leaves_a_disabled_account_and_comes_back(page, running, simulator):
    log_in(page)
    ask(running)
    assert simulator.requests[-1].key == "secret-1"
    card(page, "key-1").get_by_role("button", name="Disable key-1").click()
    card(page, "key-1").get_by_text("Disabled", exact=True).wait_for()
    for _ in range(6):  # whichever worker is asked
        ask(running)
        assert simulator.requests[-1].key == "secret-2"
    picture(page, "overview-disabled")
    card(page, "key-1").get_by_role("button", name="Enable key-1").click()
    page.get_by_role("heading", name="All 3 accounts are ready.").wait_for()
    for _ in range(6):
        ask(running)
        assert simulator.requests[-1].key == "secret-1"
    assert page.complaints == []


def test_a_request_is_found_by_its_id_with_its_way(page, running, simulator):
    log_in(page)
    simulator.script("secret-1", ["429-minute-50"])
    wanted = ask(running)
    for _ in range(3):
        ask(running)
    page.get_by_role("link", name=wanted).first.wait_for()
    page.get_by_role("link", name="Requests", exact=True).click()
    page.get_by_role("heading", name="Requests", exact=True).wait_for()
    picture(page, "requests")
    page.keyboard.press("/")
    page.keyboard.type(wanted)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name=wanted).wait_for()
    assert page.url.endswith(f"/admin/requests/{wanted}")
    way = page.locator("p.lead").inner_text()
    assert re.fullmatch(
        r"key-1 429 per-minute requests, \d+ ms → key-2 200, \d+ ms", way.replace(" ", " ")
    ), way
    picture(page, "request")
    page.locator(".timeline").get_by_role("link", name="key-2").click()
    page.get_by_role("heading", name="key-2").wait_for()
    page.locator('[data-plot="requests"] canvas').wait_for()
    picture(page, "account")
    assert page.complaints == []


def test_a_live_request_shows_its_attempts_while_it_runs(page, running, simulator):
    log_in(page)
    simulator.script("secret-1", ["503"])
    simulator.script("secret-2", ["silent-after-2"])
    body = {
        "model": "claude-sonnet-4-5",
        "max_tokens": 200,
        "stream": True,
        "messages": [{"role": "user", "content": "hello"}],
    }
    url = f"{running.url}/v1/messages"
    with requests.post(url, json=body, stream=True, timeout=30) as answer:
        wanted = answer.headers["request-id"]
        item = page.locator(".live-list li").filter(has_text=wanted)
        item.get_by_text("under way").wait_for()
        text = " ".join(item.inner_text().split())
        assert re.search(r"key-1 503 .*key-2 (200 )?under way", text), text
        picture(page, "overview-live")
    page.locator(".rows tr").filter(has_text=wanted).get_by_text("Client gone").wait_for()
    assert page.complaints == []


def test_the_door(page):
    page.goto("/admin/requests")
    picture(page, "login")
    page.get_by_label("Admin key").fill("guess")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("alert").get_by_text("That is not the admin key.").wait_for()
    picture(page, "login-wrong")
    page.get_by_label("Admin key").fill(KEY)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Requests", exact=True).wait_for()
    cookie = next(c for c in page.context.cookies() if c["name"] == "gateway_admin")
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/admin")
    page.get_by_role("button", name="Log out").click()
    page.get_by_label("Admin key").wait_for()
    page.goto("/admin/")
    page.get_by_role("heading", name="Log in").wait_for()
    assert page.get_by_role("article").count() == 0


def test_everything_can_be_done_by_keyboard(page, running):
    log_in(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    button = card(page, "key-2").get_by_role("button", name="Disable key-2")
    for _ in range(60):
        if button.evaluate("element => element === document.activeElement"):
            break
        page.keyboard.press("Tab")
    outline = button.evaluate("element => getComputedStyle(element).outlineStyle")
    assert outline != "none"
    page.keyboard.press("Enter")
    card(page, "key-2").get_by_text("Disabled", exact=True).wait_for()
    enable = card(page, "key-2").get_by_role("button", name="Enable key-2")
    page.wait_for_function(
        "element => element === document.activeElement", arg=enable.element_handle()
    )
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="All 3 accounts are ready.").wait_for()
    assert page.complaints == []
