"""``flask gateway doctor``: every finding, word for word, and no change to anything."""

import json
import re
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from app import create_app
from app.config import load_settings
from app.ops.doctor import gateway
from app.pool.state import open_store
from app.simulator.server import Simulator
from tests.e2e.processes import ROOT, GatewayProcess

ACCOUNTS = """
[[account]]
name = "good"
kind = "api_key"
api_key = "good-secret"

[[account]]
name = "resting"
kind = "api_key"
api_key = "other-secret"
disabled = true
"""


@pytest.fixture
def simulator():
    simulator = Simulator(pace=0)
    simulator.start()
    yield simulator
    simulator.stop()


@pytest.fixture
def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture
def run(tmp_path, monkeypatch, free_port):
    """Run the doctor in ``tmp_path``; gives its exit status and its findings."""
    monkeypatch.chdir(tmp_path)

    def run(**environ):
        before = sorted(tmp_path.rglob("*"))
        result = CliRunner().invoke(
            gateway, ["doctor", "--json"], env={"PORT": str(free_port), **environ}
        )
        assert sorted(tmp_path.rglob("*")) == before
        assert "secret" not in result.output
        found = json.loads(result.output)
        assert [each["about"] for each in found[:3]] == ["gateway", "packages", "open files"]
        return result.exit_code, [tuple(each.values()) for each in found[3:]]

    return run


def test_a_sound_set_up(run, tmp_path, simulator, free_port):
    (tmp_path / "accounts.toml").write_text(ACCOUNTS)
    (tmp_path / "accounts.toml").chmod(0o640)  # as docs/deploy.md has it
    status, found = run(GEMINI_BASE_URL=simulator.base_url, CLIENT_API_KEYS="client-secret")
    good = found.pop(-2)
    assert re.fullmatch(r"api_key, \d+ models, \d+ ms", good[2])
    assert (good[0], good[1]) == ("ok", "account good")
    assert found == [
        ("ok", "settings", "no .env", ""),
        ("ok", "clients", "1 key(s)", ""),
        ("ok", "dashboard", "/admin/ is open to this machine", ""),
        ("ok", "address", f"127.0.0.1:{free_port} is free", ""),
        ("ok", "state", f"{tmp_path}/var/state.db is not there yet, and can be made", ""),
        ("warn", "account resting", "disabled in its file", "remove `disabled` to use it"),
    ]
    assert status == 0


@pytest.mark.parametrize(
    ("arguments", "prefix", "slow"),
    [
        ("'--prefix=/opt/python' '--enable-shared'", "/opt/python", True),
        ("'--enable-optimizations' '--with-lto'", "/usr/local", False),
        ("'--enable-shared' '--prefix=/usr'", "/usr", False),  # Debian's
        (None, "C:\\Python313", False),
    ],
)
def test_a_python_without_optimizations_is_told(tmp_path, monkeypatch, arguments, prefix, slow):
    known = {"CONFIG_ARGS": arguments, "installed_base": prefix}
    monkeypatch.setattr(
        "app.ops.interpreter.sysconfig.get_config_vars", lambda *names: [known[n] for n in names]
    )
    monkeypatch.setattr("app.ops.doctor.platform.python_version", lambda: "3.13.1")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(gateway, ["doctor", "--json"], env={"PORT": "none"})
    found = json.loads(result.output)[0]
    if slow:
        assert found == {
            "verdict": "warn",
            "about": "gateway",
            "said": "0.1.0 on Python 3.13.1, compiled without optimizations: it needs up to half as"
            " much CPU time again",
            "advice": "use your system's Python or the official image's; docs/deploy.md#python",
        }
    else:
        assert (found["verdict"], found["said"]) == ("ok", "0.1.0 on Python 3.13.1")


def test_wrong_settings_are_the_last_word(run):
    status, found = run(REQUEST_RETRY="many")
    assert status == 1
    assert found == [
        (
            "fail",
            "settings",
            "REQUEST_RETRY must be a whole number from 0 to 100, not 'many'",
            "as it says, in the environment or .env",
        )
    ]


def test_an_address_of_another_machine(run):
    status, found = run(HOST="192.0.2.1")
    assert status == 1
    assert found == [
        (
            "fail",
            "settings",
            "HOST must be an address of this machine, such as 127.0.0.1, not '192.0.2.1' "
            "(Cannot assign requested address)",
            "as it says, in the environment or .env",
        )
    ]


@pytest.mark.parametrize("folder", [".", "below"])
def test_a_slip_in_the_dotenv_file_is_told(tmp_path, folder):
    (tmp_path / "below").mkdir()
    (tmp_path / ".env").write_text('PORT=0\nCLIENT_API_KEYS="one-secret",two-secret\n')
    result = subprocess.run(
        [sys.executable, "-m", "flask", "gateway", "doctor"],
        check=False,
        cwd=tmp_path / folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stdout.splitlines()[-2:] == [
        f"FAIL  settings: {tmp_path}/.env, line 2: not NAME=value; put the whole value in quotes "
        "or none",
        "      → as it says, in the environment or .env",
    ]
    assert "secret" not in result.stdout + result.stderr


def test_everything_is_wrong(run, tmp_path, simulator):
    (tmp_path / ".env").write_text("ADMIN_API_KEY=\n")
    (tmp_path / ".env").chmod(0o644)
    (tmp_path / "accounts.toml").write_text(
        ACCOUNTS.replace("good-secret", "sim-fault-key-invalid")
    )
    (tmp_path / "accounts.toml").chmod(0o660)
    simulator.script("sim-fault-key-invalid", ["key-invalid"], on=["models"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        taken.close()
        with socket.create_server(("0.0.0.0", port)):
            status, found = run(
                GEMINI_BASE_URL=simulator.base_url,
                CLIENT_API_KEYS="client-secret",
                HOST="0.0.0.0",
                PORT=str(port),
                STATE_URL="redis://:pass-secret@127.0.0.1:1/0",
            )
    assert status == 1
    by_name = {about: (verdict, said, advice) for verdict, about, said, advice in found}
    assert by_name["settings"] == ("ok", f"read from {tmp_path}/.env", "")
    assert by_name[".env"] == (
        "warn",
        f"{tmp_path}/.env is open to others (644), and it may hold keys",
        f"chmod o= {tmp_path}/.env",
    )
    assert by_name["accounts.toml"] == (
        "warn",
        f"{tmp_path}/accounts.toml can be changed by its group (660), and it may hold keys",
        f"chmod g-w {tmp_path}/accounts.toml",
    )
    assert by_name["dashboard"] == ("warn", "closed", "set ADMIN_API_KEY to open /admin/")
    assert by_name["address"] == (
        "fail",
        f"0.0.0.0:{port}: Address already in use",
        "set another PORT, or stop it",
    )
    assert by_name["state"] == (
        "fail",
        "the redis store does not answer",
        "start it, or mend STATE_URL; meanwhile each worker goes by its own view",
    )
    verdict, said, advice = by_name["account good"]
    assert (verdict, advice) == (
        "fail",
        "see docs/accounts.md, and docs/troubleshooting.md for the message",
    )
    assert "API key not valid" in said


def test_mistakes_in_the_accounts_file_are_told_one_by_one(run, tmp_path):
    (tmp_path / "accounts.toml").write_text('[[account]]\nname = "a"\nkind = "key"\n')
    (tmp_path / "accounts.toml").chmod(0o600)
    status, found = run()
    assert status == 1
    assert found[-1][:2] == ("fail", "accounts")
    assert "accounts.toml line 3: account 'a': kind 'key' is not known" in found[-1][2]


def test_a_running_gateway_is_recognised(run, tmp_path_factory):
    with GatewayProcess(tmp_path_factory.mktemp("running")) as running:
        status, found = run(PORT=str(running.port))
    assert (
        "ok",
        "address",
        f"a gateway runs at 127.0.0.1:{running.port} and is ready",
        "",
    ) in found
    assert status == 0


@pytest.mark.parametrize(("host", "given"), [("::1", "::1"), ("::", "::")])
def test_a_gateway_on_ipv6_is_recognised(run, tmp_path_factory, host, given):
    with GatewayProcess(
        tmp_path_factory.mktemp("running"), HOST=host, CLIENT_API_KEYS="k"
    ) as running:
        _, found = run(HOST=given, PORT=str(running.port), CLIENT_API_KEYS="k")
    assert ("ok", "address", f"a gateway runs at [{host}]:{running.port} and is ready", "") in found


def test_a_full_disk_fails(run, tmp_path, monkeypatch):
    open_store("sqlite:///var/state.db", tmp_path).close()

    def full(_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("app.pool.state.sqlite._touch", full)
    status, found = run(STATE_URL="sqlite:///var/state.db")
    assert (
        "fail",
        "state",
        "the sqlite store can't be written",
        "free space on its disk, or mend STATE_URL; meanwhile each worker goes by its own view",
    ) in found
    assert status == 1


def test_it_runs_where_the_application_can_not_start(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "flask", "gateway", "doctor"],
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PORT": "x"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stdout.splitlines()[-2:] == [
        "FAIL  settings: PORT must be a whole number from 0 to 65535, not 'x'",
        "      → as it says, in the environment or .env",
    ]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("flask gateway ", {"doctor"}),
        ("flask accounts ", {"add", "check", "cool-down", "disable", "enable", "list", "remove"}),
        ("flask accounts add x --k", {"--kind", "--key-variable"}),
    ],
)
def test_the_shell_completes(tmp_path, words, offered):
    result = subprocess.run(
        [Path(sys.executable).parent / "flask"],
        check=False,
        cwd=tmp_path,
        env={
            "PYTHONPATH": str(ROOT),
            "FLASK_APP": "wsgi",
            "_FLASK_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        },
        capture_output=True,
        text=True,
    )
    found = {line.partition(",")[2] for line in result.stdout.splitlines()}
    assert found >= offered, result.stderr


def test_every_command_and_option_says_what_it_is_for(tmp_path):
    app = create_app(load_settings({"STATE_URL": "memory://"}, tmp_path))
    waiting = [gateway, app.cli.commands["accounts"]]
    seen = 0
    while waiting:
        command = waiting.pop()
        assert command.get_short_help_str(), command.name
        waiting += getattr(command, "commands", {}).values()
        for option in command.params:
            if isinstance(option, click.Option) and option.name != "kind":
                assert option.help, f"{command.name} {option.name}"
        seen += 1
    assert seen >= 11
