"""The README's commands do what they say."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.e2e.processes import ROOT

README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


@pytest.fixture
def running(gateway):
    return gateway(GEMINI_API_KEYS="", GEMINI_BASE_URL="")


def test_the_curl_streams_an_answer(running):
    (command,) = [block for block in blocks("sh") if block.startswith("curl ")]
    command = command.replace("http://", "").replace("localhost:8080", running.url)
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("event: message_start\n")
    assert done.stdout.endswith('event: message_stop\ndata: {"type":"message_stop"}\n\n')
    assert done.stdout.count("event: content_block_delta") > 3


def test_the_python_prints_an_answer(running):
    (program,) = blocks("python")
    program = program.replace("http://127.0.0.1:8080", running.url)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True
    )
    assert "hello" in done.stdout


def test_make_run_is_the_production_start():
    dry = subprocess.run(
        ["make", "--dry-run", "run"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "gunicorn -c gunicorn.conf.py wsgi:app" in dry.stdout


@pytest.mark.parametrize("target", ["run", "test", "lint", "bench"])
def test_every_door_is_there(target):
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, check=True)


def test_every_link_leads_somewhere():
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
