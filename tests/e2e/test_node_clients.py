"""Official TypeScript SDK, Vercel's AI SDK, headless Claude Code: sessions with tools."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.services import missing

FOLDER = Path(__file__).parent / "node"
MODULES = FOLDER / "node_modules"
MACHINES = {"x86_64": "x64", "aarch64": "arm64", "arm64": "arm64"}


def installed_versions():
    """The versions of the packages that are there, also from before a pin was raised."""
    wanted = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    found = {name: MODULES / name / "package.json" for name in wanted}
    return {
        name: json.loads(package.read_text())["version"]
        for name, package in found.items()
        if package.exists()
    }


@pytest.fixture(scope="module")
def node():
    """The path of node, with the clients installed beside the tests."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if not found or not npm:
        missing("Node.js with npm")
    if installed_versions() != json.loads((FOLDER / "package.json").read_text())["dependencies"]:
        installed = subprocess.run(
            [npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"],
            cwd=FOLDER,
            check=False,
            capture_output=True,
            text=True,
            timeout=240,
        )
        if installed.returncode:
            missing(f"npm registry ({installed.stderr.strip()[-200:]})")
    return found


def said(node, script, running):
    """Return the JSON that ``script``, a client of the gateway ``running``, prints."""
    done = subprocess.run(
        [node, script],
        cwd=FOLDER,
        env={"GATEWAY": running.url, "PATH": "/usr/bin:/bin"},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.timeout(300)
def test_the_typescript_sdk_holds_a_tool_loop(node, plain):
    assert said(node, "session.mjs", plain) == {
        "seen": [
            {"stop": "tool_use", "types": ["thinking", "tool_use"], "output": True},
            {"stop": "end_turn", "types": ["thinking", "text"], "output": True},
        ],
        "counted": True,
        "unique": True,
        "refused": {"status": 400, "type": "invalid_request_error", "requestID": True},
    }


@pytest.mark.timeout(300)
def test_vercels_ai_sdk_finds_nothing_to_refuse(node, gateway):
    """Not one null more than Anthropic's own answers have: its schemas are strict."""
    steps = [["reasoning", "tool-call", "tool-result"], ["reasoning", "text"]]
    search = ["tool-call", "tool-result", "source", "source"]
    cited = ["text", "text", "source", "text", "source"]
    assert said(node, "aisdk.mjs", gateway()) == {
        "whole": steps,
        "streamed": steps,
        "texts": ["The tool get_weather returned: 22 degrees."] * 2,
        "object": {"name": "sample name"},
        "searched": {"types": search + cited, "goesOn": True},
        "fetched": {"types": ["text", "source", "tool-call", "tool-result"], "goesOn": True},
        "computed": {"types": ["tool-call", "tool-result", "text"], "goesOn": True},
    }


def claude(folder, running, prompt, *options):
    """Run headless Claude Code once and return what it prints as JSON."""
    machine = MACHINES.get(platform.machine(), platform.machine())
    program = MODULES / "@anthropic-ai" / f"claude-code-linux-{machine}" / "claude"
    if not program.exists():
        missing("Claude Code's program for this machine")
    done = subprocess.run(
        [program, "-p", prompt, "--output-format", "json", *options],
        cwd=folder,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "TERM": "dumb",
            "ANTHROPIC_BASE_URL": running.url,
            "ANTHROPIC_AUTH_TOKEN": "any",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_TELEMETRY": "1",
            "DISABLE_ERROR_REPORTING": "1",
            "DISABLE_AUTOUPDATER": "1",
            "IS_SANDBOX": "1",
        },
        stdin=subprocess.DEVNULL,
        check=False,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("model", ["claude-sonnet-5", "claude-haiku-4-5"])
def test_claude_code_runs_a_command(node, plain, tmp_path, model):
    prompt = 'call Bash with {"command": "echo hi42", "description": "say hi"}'
    said = claude(tmp_path, plain, prompt, "--model", model, "--allowedTools", "Bash")
    assert (said["is_error"], said["num_turns"]) == (False, 2)
    assert "hi42" in said["result"]
    assert said["usage"]["input_tokens"] > 0
    turns = [record.body for record in plain.upstream.requests if "Content" in record.path]
    calls = [
        part
        for content in turns[-1]["contents"]
        for part in content["parts"]
        if "functionCall" in part
    ]
    assert [part["functionCall"]["name"] for part in calls] == ["Bash"]
    assert calls[0]["thoughtSignature"] != "skip_thought_signature_validator"


@pytest.mark.timeout(300)
def test_claude_code_goes_on_when_a_stream_breaks(node, gateway, simulator, tmp_path):
    running = gateway(REQUEST_RETRY="0")
    simulator.script("key-a", ["cut"])
    said = claude(tmp_path, running, "hello", "--model", "claude-sonnet-5")
    assert said["is_error"] is False
    assert "hello" in said["result"]
