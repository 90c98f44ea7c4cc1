"""What is shipped for running it agrees with the code and with itself."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from app.config import VARIABLES, Settings, load_settings
from app.ops.worker import LINGER
from tests.services import missing

ROOT = Path(__file__).resolve().parents[2]
NAMES = {variable.name for variable in VARIABLES}
LONGEST_STOP = Settings().drain_timeout + 10
"""Seconds after SIGTERM by which gunicorn.conf.py's ``graceful_timeout`` has ended the workers."""

KNOWN = {
    *("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "RUN"),
    *("SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
}


def instructions():
    """The Dockerfile's (instruction, rest) pairs."""
    lines = [
        line
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines()]


def last_stage():
    steps = instructions()
    start = max(number for number, (word, _) in enumerate(steps) if word == "FROM")
    return steps[start:]


def image_environment():
    (text,) = [rest for word, rest in last_stage() if word == "ENV"]
    return dict(pair.split("=", 1) for pair in shlex.split(text))


def healthcheck():
    (text,) = [rest for word, rest in last_stage() if word == "HEALTHCHECK"]
    return json.loads(text[text.index("[") :])


def test_the_dockerfile_reads_as_one():
    steps = instructions()
    assert {word for word, _ in steps} <= KNOWN
    assert [word for word, _ in steps][:2] == ["ARG", "FROM"]
    stages = [rest.split(" AS ") for word, rest in steps if word == "FROM"]
    assert [len(stage) for stage in stages] == [2, 1]
    for word, rest in steps:
        if word in ("CMD", "ENTRYPOINT"):
            # A shell as the first process would keep SIGTERM to itself.
            assert all(isinstance(piece, str) for piece in json.loads(rest))


def test_the_image_runs_as_nobody_in_particular_and_keeps_its_state():
    words = [word for word, _ in last_stage()]
    assert ("USER", "gateway") in last_stage()
    assert ("VOLUME", "/var/lib/claude-gateway") in last_stage()
    assert words.index("RUN") < words.index("USER") < words.index("CMD")
    settings = load_settings({**image_environment(), "CLIENT_API_KEYS": "k"}, Path("/nowhere"))
    assert settings.state_url == "sqlite:////var/lib/claude-gateway/state.db"
    assert (settings.host, settings.port) == ("0.0.0.0", 8080)
    (command,) = [json.loads(rest) for word, rest in last_stage() if word == "CMD"]
    assert command[:3] == ["gunicorn", "-c", "gunicorn.conf.py"]


def test_what_the_dockerfile_copies_is_there_and_not_ignored():
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    sources = [
        source
        for word, rest in instructions()
        if word == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    ]
    assert sources
    for source in sources:
        assert (ROOT / source).exists()
        ignored = False
        for rule in rules:
            if fnmatch(source, rule.removeprefix("!")):
                ignored = not rule.startswith("!")
        assert not ignored, source
    for secret in (".env", "accounts.toml", "secrets", "var", ".git"):
        assert not any(fnmatch(secret, rule[1:]) for rule in rules if rule.startswith("!"))


def test_every_part_that_the_package_reads_is_packed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["app"]
    for file in (ROOT / "app").rglob("*"):
        inside = file.relative_to(ROOT / "app").as_posix()
        if file.is_file() and file.suffix not in (".py", ".pyc"):
            assert any(fnmatch(inside, pattern) for pattern in patterns), inside


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())


def test_compose_runs_the_gateway_with_redis_behind_nginx(compose):
    services = compose["services"]
    assert set(services) == {"gateway", "redis", "nginx"}
    gateway = services["gateway"]
    environment = {name: str(value) for name, value in gateway["environment"].items()}
    assert set(environment) <= NAMES
    workers = environment.pop("WEB_CONCURRENCY")
    assert re.fullmatch(r"\$\{WEB_CONCURRENCY:-\d+\}", workers)
    settings = load_settings({**environment, "CLIENT_API_KEYS": "k"}, Path("/nowhere"))
    assert settings.state_url == "redis://redis:6379/0"
    for service in services.values():
        for dependency in service.get("depends_on", {}):
            assert dependency in services
    assert (ROOT / "deploy" / gateway["build"]["context"] / "Dockerfile").exists()
    assert int(gateway["stop_grace_period"].removesuffix("s")) > LONGEST_STOP
    # Only nginx can be reached from other machines.
    for name, service in services.items():
        outside = [port for port in service.get("ports", []) if not port.startswith("127.0.0.1:")]
        assert bool(outside) == (name == "nginx")
    named = {volume.split(":")[0] for volume in services["redis"]["volumes"]}
    assert named == set(compose["volumes"])


def test_composes_substitution_gives_nginx_the_gateways_address(compose):
    script = compose["services"]["nginx"]["command"][2]
    sed = script.split("&&")[0].replace("/etc/claude-gateway/", f"{ROOT}/deploy/")
    text = subprocess.run(
        ["/bin/sh", "-c", sed.replace("> /etc/nginx/nginx.conf", "")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    shipped = (ROOT / "deploy" / "nginx.conf").read_text()
    assert text.count("server gateway:8080 resolve max_fails=3 fail_timeout=2s;") == 1
    changed = [
        line
        for line, before in zip(text.splitlines(), shipped.splitlines(), strict=True)
        if line != before
    ]
    assert len(changed) == 1


def service_lines():
    text = (ROOT / "deploy" / "claude-gateway.service").read_text()
    return [tuple(line.split("=", 1)) for line in text.splitlines() if re.match(r"[A-Z]\w+=", line)]


def test_systemd_gives_the_drain_its_time_and_kills_nobody_early():
    lines = dict(service_lines())
    assert int(lines["TimeoutStopSec"]) > LONGEST_STOP
    assert (lines["KillSignal"], lines["KillMode"]) == ("SIGTERM", "mixed")
    assert lines["ExecReload"] == "/bin/kill -HUP $MAINPID"
    named = {value.split("=")[0] for name, value in service_lines() if name == "Environment"}
    assert named - NAMES == {"PYTHONDONTWRITEBYTECODE"}


def test_gunicorn_outlasts_the_drain_and_the_linger():
    text = (ROOT / "gunicorn.conf.py").read_text()
    (more,) = re.findall(r"graceful_timeout = int\(_settings.drain_timeout\) \+ (\d+)", text)
    assert LINGER < int(more) == LONGEST_STOP - Settings().drain_timeout


@pytest.mark.parametrize("unit", ["claude-gateway.service", "claude-gateway@.service"])
def test_systemd_finds_no_fault_with_the_unit(tmp_path, unit):
    if not shutil.which("systemd-analyze"):
        missing("systemd-analyze")
    program = tmp_path / "gunicorn"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = (ROOT / "deploy" / "claude-gateway.service").read_text()
    text = text.replace("/opt/claude-gateway/.venv/bin/gunicorn", str(program))
    if "@" in unit:  # the page's line for several instances
        text = text.replace("Environment=PORT=8080", "Environment=PORT=%i")
    (tmp_path / unit).write_text(text)
    name = unit.replace("@", "@8080")
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_systemd_calls_the_unit_well_locked_in():
    if not shutil.which("systemd-analyze"):
        missing("systemd-analyze")
    unit = ROOT / "deploy" / "claude-gateway.service"
    # Exposure from 0 (locked in) to 10; what remains is the network, which is its work.
    subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            "--threshold=20",
            "--no-pager",
            str(unit),
        ],
        capture_output=True,
        check=True,
    )


def test_the_procfile_listens_where_a_paas_wants_it_and_ends_in_time():
    (line,) = (ROOT / "Procfile").read_text().splitlines()
    name, command = line.split(": ", 1)
    shown = command.replace("gunicorn -c gunicorn.conf.py wsgi:app", "env")
    printed = subprocess.run(
        ["/bin/sh", "-c", shown],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "PORT": "5000", "CLIENT_API_KEYS": "k"},
    ).stdout
    environment = dict(pair.split("=", 1) for pair in printed.splitlines() if "=" in pair)
    settings = load_settings(environment, Path("/nowhere"))
    assert (name, settings.host, settings.port) == ("web", "0.0.0.0", 5000)
    # The common PaaS kills 30 s after SIGTERM.
    assert settings.drain_timeout + LINGER < 30
