"""The commands in the README and in docs/ do what they say.

Blocks whose info string ends in ``run`` (```` ```sh run ````) are run as they stand, except that
the address is the test's gateway, which serves from the simulator as after ``make run``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from tests.e2e.processes import ROOT, GatewayProcess

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"^```(sh|python) run\n(.*?)^```$", re.M | re.S)
BLOCKS = [
    pytest.param(language, text, id=f"{page.name}:{number}")
    for page in PAGES
    for number, (language, text) in enumerate(BLOCK.findall(page.read_text()), 1)
]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    with GatewayProcess(folder, GEMINI_API_KEYS="", GEMINI_BASE_URL="") as gateway:
        yield gateway


def printed(language, text, running):
    """What the block prints; it must succeed."""
    text = re.sub(r"\b(?:localhost|127\.0\.0\.1):8080\b", f"127.0.0.1:{running.port}", text)
    command = {"sh": ["/bin/sh", "-ec", text], "python": [sys.executable, "-Wignore", "-c", text]}
    done = subprocess.run(
        command[language], capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(("language", "text"), BLOCKS)
def test_the_block_runs(language, text, running):
    output = printed(language, text, running)
    assert output.strip()
    assert '"error"' not in output
    if "/v1/messages " in text or language == "python":
        assert "hello" in output
    if '"stream":' in text.replace('"stream": ', '"stream":'):
        assert output.startswith("event: message_start\n")
        assert output.endswith('event: message_stop\ndata: {"type":"message_stop"}\n\n')
        assert output.count("event: content_block_delta") > 3


def test_blocks_are_found_where_they_are_expected():
    found = {block.id.split(":")[0] for block in BLOCKS}
    assert found >= {"README.md", "quickstart.md", "claude-code.md", "models.md"}


def test_the_picker_gets_gemini_models(running):
    (text,) = [block.values[1] for block in BLOCKS if block.id == "claude-code.md:1"]
    assert "claude-gemini-3.8-flash" in printed("sh", text, running).split()


def test_readyz_says_what_the_quick_start_says(running):
    (text,) = [block.values[1] for block in BLOCKS if block.id == "quickstart.md:1"]
    assert json.loads(printed("sh", text, running))["serving"] == "simulator"


def test_the_models_page_shows_the_default_aliases():
    from app.config import DEFAULT_ALIASES

    page = (ROOT / "docs" / "models.md").read_text().split("The default:")[1].split("Your own")[0]
    shown = [
        (glob, model)
        for globs, model in re.findall(r"^\| (`claude.*?) \| `(gemini-\S+)` \|", page, re.M)
        for glob in re.findall(r"`(.*?)`", globs)
    ]
    assert shown == [tuple(pair.split("=")) for pair in DEFAULT_ALIASES.split(",")]


def test_the_models_page_knows_every_model():
    from app.translate.gemini_models import KNOWN_MODELS

    page = (ROOT / "docs" / "models.md").read_text().split("## Which models there are")[1]
    table = re.findall(r"^\| (`gemini.*?) \|", page, re.M)
    shown = [name for cell in table for name in re.findall(r"`(.*?)`", cell)]
    assert sorted(shown) == sorted(model.id for model in KNOWN_MODELS)


def test_make_run_is_the_production_start():
    dry = subprocess.run(
        ["make", "--dry-run", "run"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "gunicorn -c gunicorn.conf.py wsgi:app" in dry.stdout


@pytest.mark.parametrize("target", ["run", "test", "lint", "bench"])
def test_every_door_is_there(target):
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, check=True)


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    for title in re.findall(r"^#+ (.*)$", page.read_text(), re.M):
        yield re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_every_link_leads_somewhere():
    for page in PAGES:
        for link, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", page.read_text()):
            target = (page.parent / link).resolve() if link else page
            assert target.exists(), f"{page.name} links to {link}"
            if anchor:
                assert anchor in anchors(target), f"{page.name} links to {link}#{anchor}"


def test_the_index_leads_to_every_page():
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name
