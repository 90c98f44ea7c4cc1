"""docs/troubleshooting.md and the code say the same: a row for each message, none without."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from app.api.errors import STATUSES, TYPES
from app.api.refusals import OUTCOMES
from app.relay.errors import Failure

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
RAISED = {"ApiError", "RelayError", "BadAnswer", "SettingsError", "StateError", "UpstreamError"}
LOGGED = {"warning", "error", "exception", "critical"}
SELF_EXPLAINING = re.compile(r"^(STATE_URL: …|… …|…:? ?…?|…\.|models/… is not found\.)$")
"""What only passes another message on; nothing can be said of it in general."""


def normal(text):
    text = re.sub(r"%[sdr]|%\.\df", "…", text)
    return re.sub(r"…+", "…", " ".join(text.split()))


def text_of(node):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return normal(node.value)
    if isinstance(node, ast.JoinedStr):
        pieces = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
        return normal("".join(pieces))
    return None


@cache
def sources():
    files = [file for file in sorted((ROOT / "app").rglob("*.py")) if "simulator" not in file.parts]
    return {
        file.relative_to(ROOT).as_posix(): ast.parse(file.read_text())
        for file in [*files, ROOT / "gunicorn.conf.py"]
    }


@cache
def literals():
    found = {text_of(node) for tree in sources().values() for node in ast.walk(tree)}
    served_by_nginx = re.findall(r'"message":"(.*?)"', (ROOT / "deploy" / "nginx.conf").read_text())
    return (found - {None, ""}) | set(served_by_nginx)


def said():
    """(place, message) of everything that is raised for clients and operators, or logged."""
    for file, tree in sources().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            of_log = isinstance(node.func, ast.Attribute) and name in LOGGED
            if name in RAISED or (of_log and "log" in ast.unparse(node.func.value)):
                texts = [text for text in map(text_of, node.args) if text]
                if texts and not SELF_EXPLAINING.match(texts[0]):
                    yield f"{file}:{node.lineno}", texts[0]


def rows(title):
    """The first cells of the tables under a heading."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return [cell.replace("\\|", "|") for cell in re.findall(r"^\| `(.*?)` \|", section, re.M)]


MESSAGES = [
    normal(cell)
    for title in ("By the client's message", "By the log's line", "Refused starts")
    for cell in rows(title)
]


@pytest.mark.parametrize("message", MESSAGES)
def test_every_listed_message_can_be_met(message):
    fragments = [piece.strip() for piece in message.split("…") if piece.strip(" .:;,()")]
    assert any(all(piece in literal for piece in fragments) for literal in literals())


def test_every_message_is_listed():
    def listed(message):
        return any(entry in message for entry in MESSAGES)

    unlisted = [f"{place}: {text}" for place, text in said() if not listed(text)]
    assert not unlisted, "give these a row in docs/troubleshooting.md:\n" + "\n".join(unlisted)


def test_every_outcome_has_its_row():
    section = PAGE.split("\n## What a request came to\n")[1].split("\n## ")[0]
    table = {
        outcome: (int(status), kind)
        for outcome, status, kind in re.findall(
            r"^\| `(\w+)` \| (\d+) \| `(\w+)` \|", section, re.M
        )
    }
    failures = {failure.value: STATUSES[failure] for failure in Failure}
    refusals = {outcome: status for status, outcome in OUTCOMES.items()}
    assert table == {
        outcome: (status, TYPES[status]) for outcome, status in {**failures, **refusals}.items()
    }
