"""``flask accounts add`` and ``remove``: changing the accounts file from the command line."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import get_args

import click
from flask.cli import AppGroup

from app.backend.upstream import Upstream
from app.config import Settings
from app.ops.accounts_editing import Value, with_account, without_account
from app.ops.checking import check_account
from app.ops.private_files import write_private
from app.pool.account import Account, AccountKind
from app.pool.accounts_file import AccountsError, parse_accounts
from app.pool.sources import load_accounts, watched_file


def add_changes(group: AppGroup, settings: Settings, upstream: Upstream) -> None:
    """Add the commands to ``group``."""

    @group.command("add")
    @click.argument("name")
    @click.option(
        "--kind", type=click.Choice(get_args(AccountKind)), default="api_key", show_default=True
    )
    @click.option("--credentials", help="Path of the credentials file.")
    @click.option(
        "--key-variable", metavar="VARIABLE", help="Environment variable that holds the API key."
    )
    @click.option("--project", "projects", multiple=True, help="A project; may be repeated.")
    @click.option("--model", "models", multiple=True, help="A model glob; may be repeated.")
    @click.option("--location", help="Vertex AI's location, such as global or europe-west4.")
    @click.option("--concurrency", type=int, help="Requests at a time.")
    @click.option("--weight", type=int, help="Its share among accounts of its priority.")
    @click.option("--priority", type=int, help="Higher ones are asked first.")
    @click.option("--proxy", help="Address of a proxy for this account.")
    @click.option("--no-check", is_flag=True, help="Write it without asking Google first.")
    def add(
        name: str, kind: str, credentials: str | None, key_variable: str | None, *,
        no_check: bool, **options: Value | None,
    ) -> None:  # fmt: skip
        """Write the account NAME into the accounts file.

        An API key is asked for, or read from standard input, and never from the command line,
        where others could see it. The account is tried first; running gateways take it up.
        """
        fields: dict[str, Value] = {"name": name, "kind": kind}
        if key_variable:
            fields["api_key"] = f"${{{key_variable}}}"
        elif kind == "api_key" or (kind == "vertex" and not credentials):
            fields["api_key"] = _asked_key()
        if credentials:
            fields["credentials"] = credentials
        fields |= {key: value for key, value in options.items() if value not in (None, ())}
        path = watched_file(settings)
        before = _text_of(path)
        after = with_account(before, fields)
        account = _checked(settings, path, after, lines=len(before.splitlines()))[-1]
        logs_in = kind in ("oauth", "code_assist") and not Path(account.credentials).exists()
        if not no_check and not logs_in:
            fault, note = check_account(upstream, account)
            if fault:
                raise click.ClickException(
                    f"{name} was not written, since it does not work: {fault} "
                    "(--no-check writes it nevertheless)"
                )
            click.echo(f"{name} works: {note}.")
        _write(path, after)
        click.echo(f"{name} is in {path}.")
        if logs_in:
            click.echo(f"Log it in: flask accounts login {name} --client-file FILE")

    @group.command("remove")
    @click.argument("name")
    def remove(name: str) -> None:
        """Take the account NAME out of the accounts file; what it is serving goes on."""
        path = watched_file(settings)
        before = _text_of(path)
        names = [account.name for account in _checked(settings, path, before)]
        if name not in names:
            known = ", ".join(names) or "none"
            raise click.UsageError(f"{path} has no account {name!r}; it has: {known}")
        try:
            after = without_account(before, names.index(name))
            left = [account.name for account in _checked(settings, path, after)]
        except (IndexError, click.ClickException):
            left = names
        if left != [each for each in names if each != name]:
            raise click.ClickException(f"{name} can't be told apart in {path}; edit it by hand")
        _write(path, after)
        click.echo(f"{name} is no longer in {path}.")


def _asked_key() -> str:
    if sys.stdin.isatty():
        answer: str = click.prompt("API key", hide_input=True)
    else:
        answer = sys.stdin.readline()
    if not answer.strip():
        raise click.ClickException(
            "no API key came: type it, send a line with it to standard input, or name a variable "
            "with --key-variable"
        )
    return answer.strip()


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{path} can't be read: {error}") from None


def _checked(
    settings: Settings, path: Path, text: str, *, lines: int | None = None
) -> list[Account]:
    """Return the accounts of ``text``; one name of another source can't be taken.

    ``lines``: how many of its lines are in the file; others are not named to people.
    """
    try:
        accounts = parse_accounts(
            text,
            source=str(path),
            folder=path.parent,
            environ=settings.environ,
            base_url=settings.gemini_base_url,
        )
        elsewhere = {account.name for account in load_accounts(settings)}
        if path.exists():
            elsewhere -= {account.name for account in _of_file(settings, path)}
    except AccountsError as error:
        told = [_without_line(mistake, path, lines) for mistake in error.mistakes]
        raise click.ClickException("; ".join(told)) from None
    for account in accounts:
        if account.name in elsewhere:
            raise click.ClickException(
                f"{account.name} is an account of ACCOUNTS_TOML or GEMINI_API_KEYS; take another"
            )
    return accounts


def _without_line(mistake: str, path: Path, lines: int | None) -> str:
    """Return ``mistake`` without a line that is beyond ``lines``."""
    place = re.match(rf"{re.escape(str(path))} line (\d+): ", mistake)
    beyond = place and lines is not None and int(place[1]) > lines
    return mistake[place.end() :] if place and beyond else mistake


def _of_file(settings: Settings, path: Path) -> list[Account]:
    return parse_accounts(
        _text_of(path),
        source=str(path),
        folder=path.parent,
        environ=settings.environ,
        base_url=settings.gemini_base_url,
    )


def _write(path: Path, text: str) -> None:
    try:
        write_private(path, text)
    except OSError as error:
        raise click.ClickException(f"{path} can't be written: {error.strerror}") from None
