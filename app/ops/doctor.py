"""``flask gateway doctor``: everything that one would be asked for, checked; nothing is changed.

It is a plugin of the ``flask`` command rather than a part of the application, so that it also runs
where wrong settings keep the application from starting.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import click

from app import __version__
from app.config import Settings, SettingsError, load_settings
from app.ops.address import check_host
from app.ops.interpreter import unoptimized
from app.pool.account import Account
from app.pool.accounts_file import AccountsError
from app.pool.sources import load_accounts, watched_file

Verdict = Literal["ok", "warn", "fail"]

TOGETHER = 8
"""Accounts that are asked at a time."""
FEW_FILES = 4096
SKEW = 2.0
"""Seconds that the store's clock may differ from this machine's."""


@dataclass(frozen=True)
class Finding:
    """One line: ``said`` is what was found, ``advice`` what to do about it."""

    verdict: Verdict
    about: str
    said: str
    advice: str = ""


def examine(root: Path) -> Iterator[Finding]:
    """Yield what there is to say of the gateway whose folder is ``root``, and its environment."""
    yield from _versions()
    yield _open_files()
    try:
        settings = load_settings(os.environ, root, check_host)
    except SettingsError as error:
        yield Finding("fail", "settings", str(error), "as it says, in the environment or .env")
        return
    env = root / ".env"
    yield Finding("ok", "settings", f"read from {env}" if env.is_file() else "no .env")
    yield from _private(env, "it may hold keys")
    yield _clients(settings)
    yield _dashboard(settings)
    yield _port(settings)
    yield from _store(settings)
    yield from _accounts(settings)


def _versions() -> Iterator[Finding]:
    yield _python()
    found = []
    for package in ("flask", "gunicorn", "gevent", "requests"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            yield Finding("fail", "packages", f"{package} is missing", "pip install .")
    yield Finding("ok", "packages", ", ".join(found))


def _python() -> Finding:
    said = f"{__version__} on Python {platform.python_version()}"
    if unoptimized():
        said += ", compiled without optimizations: it needs up to half as much CPU time again"
        advice = "use your system's Python or the official image's; docs/deploy.md#python"
        return Finding("warn", "gateway", said, advice)
    return Finding("ok", "gateway", said)


def _open_files() -> Finding:
    import resource  # noqa: PLC0415 - not on every system

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 < soft < FEW_FILES:
        said = f"{soft} may be open at a time; a stream takes two"
        return Finding("warn", "open files", said, "ulimit -n 65536, or LimitNOFILE in systemd")
    return Finding("ok", "open files", f"{soft} may be open at a time")


def _private(path: Path, why: str) -> Iterator[Finding]:
    with suppress(OSError):
        mode = stat.S_IMODE(path.stat().st_mode)
        # A group that reads it is the service's (docs/deploy.md); that others do is a mistake.
        if mode & 0o007:
            said = f"{path} is open to others ({mode:o}), and {why}"
            yield Finding("warn", path.name, said, f"chmod o= {path}")
        elif mode & 0o020:
            said = f"{path} can be changed by its group ({mode:o}), and {why}"
            yield Finding("warn", path.name, said, f"chmod g-w {path}")


def _clients(settings: Settings) -> Finding:
    count = len(settings.client_api_keys)
    if count:
        return Finding("ok", "clients", f"{count} key(s)")
    return Finding("ok", "clients", "no key is asked for; only this machine gets in")


def _dashboard(settings: Settings) -> Finding:
    if settings.admin_api_key:
        return Finding("ok", "dashboard", "/admin/ opens with ADMIN_API_KEY")
    if settings.on_loopback:
        return Finding("ok", "dashboard", "/admin/ is open to this machine")
    return Finding("warn", "dashboard", "closed", "set ADMIN_API_KEY to open /admin/")


def _port(settings: Settings) -> Finding:
    import requests  # noqa: PLC0415 - loaded only once the settings are right

    host = settings.host.strip("[]")
    where = _in_url(host, settings.port)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, settings.port))
        except OSError as error:
            reason = error.strerror
        else:
            return Finding("ok", "address", f"{where} is free")
    # A server that listens everywhere listens here, too.
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    try:
        answer = requests.get(f"http://{_in_url(near, settings.port)}/readyz", timeout=5)
        ready = bool(answer.json()["ready"])
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return Finding("fail", "address", f"{where}: {reason}", "set another PORT, or stop it")
    if ready:
        return Finding("ok", "address", f"a gateway runs at {where} and is ready")
    return Finding("warn", "address", f"a gateway runs at {where} and is not ready", "see its log")


def _in_url(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _store(settings: Settings) -> Iterator[Finding]:
    from app.pool.state import StateError, open_store  # noqa: PLC0415

    path = settings.root / settings.state_url.removeprefix("sqlite:///")
    if settings.state_url.startswith("sqlite:///") and not path.exists():
        folder = next(parent for parent in path.parents if parent.exists())
        if os.access(folder, os.W_OK | os.X_OK):
            yield Finding("ok", "state", f"{path} is not there yet, and can be made")
        else:
            said = f"{path} can't be made: {folder} is not writable"
            yield Finding("fail", "state", said, "give the gateway's user a folder of its own")
        return
    try:
        store = open_store(settings.state_url, settings.root)
    except StateError as error:
        yield Finding("fail", "state", f"STATE_URL: {error}", "as it says")
        return
    try:
        begun = time.monotonic()
        works = store.ping()
        took = (time.monotonic() - begun) * 1000
        skew = abs(store.now() - time.time())
    finally:
        store.close()
    kind = settings.state_url.partition(":")[0]
    if not works:
        yield Finding(
            "fail", "state",
            f"the {kind} store " + ("can't be written" if kind == "sqlite" else "does not answer"),
            ("free space on its disk" if kind == "sqlite" else "start it")
            + ", or mend STATE_URL; meanwhile each worker goes by its own view",
        )  # fmt: skip
    elif skew > SKEW:
        said = f"its clock differs from this machine's by {skew:.0f} s"
        yield Finding("warn", "state", said, "have both keep time (NTP)")
    else:
        yield Finding("ok", "state", f"the {kind} store answers in {took:.0f} ms")


def _accounts(settings: Settings) -> Iterator[Finding]:
    try:
        accounts = load_accounts(settings)
    except AccountsError as error:
        for mistake in error.mistakes:
            yield Finding("fail", "accounts", mistake, "as it says")
        return
    yield from _private(watched_file(settings), "it may hold keys")
    for account in accounts:
        if account.credentials:
            yield from _private(Path(account.credentials), "it opens the account")
    if not accounts:
        yield Finding(
            "warn", "accounts", "none is configured: the simulator would answer",
            "set GEMINI_API_KEYS or write accounts.toml",
        )  # fmt: skip
        return
    yield from _asked(settings, accounts)


def _asked(settings: Settings, accounts: list[Account]) -> Iterator[Finding]:
    from app.backend.upstream import Upstream, UpstreamSettings  # noqa: PLC0415
    from app.ops.checking import check_account  # noqa: PLC0415

    upstream = Upstream(
        UpstreamSettings(
            gemini_base_url=settings.gemini_base_url,
            connect_timeout=settings.connect_timeout,
            read_timeout=min(30.0, settings.read_timeout),
        )
    )

    def ask(account: Account) -> Finding:
        about = f"account {account.name}"
        if account.disabled:
            return Finding("warn", about, "disabled in its file", "remove `disabled` to use it")
        begun = time.monotonic()
        fault, note = check_account(upstream, account)
        took = (time.monotonic() - begun) * 1000
        if fault:
            return Finding("fail", about, fault, _way_out(account))
        return Finding("ok", about, f"{account.kind}, {note}, {took:.0f} ms")

    with ThreadPoolExecutor(TOGETHER) as pool:
        yield from pool.map(ask, accounts)
    upstream.close()


def _way_out(account: Account) -> str:
    if account.kind in ("oauth", "code_assist"):
        return f"flask accounts login {account.name} --client-file FILE"
    return "see docs/accounts.md, and docs/troubleshooting.md for the message"


@click.group("gateway", help="Look after the gateway itself.")
def gateway() -> None:
    """Group the commands."""


@gateway.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def doctor(as_json: bool) -> None:
    """Check settings, address, state store and every account; exit with 1 if something fails."""
    show: Callable[[Finding], None] = (lambda _: None) if as_json else _show
    found = []
    for finding in examine(Path.cwd()):
        show(finding)
        found.append(finding)
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=2))
    sys.exit(1 if any(each.verdict == "fail" for each in found) else 0)


def _show(finding: Finding) -> None:
    mark = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}[finding.verdict]
    click.echo(f"{mark}  {finding.about}: {finding.said}")
    if finding.advice:
        click.echo(f"      → {finding.advice}")
