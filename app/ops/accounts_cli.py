"""``flask accounts …``: look after the accounts from the command line.

Verdicts and cooldowns are shared through the state store, so what is said here reaches running
gateways on the same store within seconds. Exit status: 0 all is well, 1 something is wrong,
2 the command's words are off.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import click
from flask.cli import AppGroup, with_appcontext

from app.backend.upstream import Upstream
from app.ops.account_fields import account_fields
from app.ops.checking import check_account
from app.ops.login import LoginError, log_in
from app.pool.account import Account
from app.pool.pool import ClientPool
from app.pool.snapshot import AccountView

ALONE = "with STATE_URL=memory:// a running gateway can't be heard or told from here"


@dataclass(frozen=True)
class _Checked:
    name: str
    ok: bool
    note: str


def accounts_commands(pool: ClientPool, upstream: Upstream, fill: Callable[[], None]) -> AppGroup:
    """Return the command group over ``pool``, which ``fill`` fills before a command runs."""
    group = AppGroup("accounts", help="List, check and mend the Gemini accounts.")

    # As the group's own callback it runs with every command, and not for their --help.
    group.callback = with_appcontext(fill)

    @group.command("list")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
    def list_accounts(as_json: bool) -> None:
        """Show every account: state, what cools down and until when, what is left."""
        views = pool.snapshot()
        away = pool.uninformed
        if as_json:
            click.echo(json.dumps([account_fields(view) for view in views], indent=2))
        elif not views:
            click.echo("No account is configured: the gateway serves from its simulator.")
        else:
            _table(
                ("NAME", "KIND", "STATE", "WHY, AND UNTIL WHEN"),
                [(view.name, view.kind, view.state, _described(view)) for view in views],
            )
        if away:
            raise click.ClickException(
                "the state store (STATE_URL) does not answer: what running gateways know of the "
                "accounts is missing here"
            )
        if not pool.leasing.shared:
            click.echo(f"Note: {ALONE}; its view is at /admin/.", err=True)

    @group.command("check")
    @click.argument("name", required=False)
    @click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
    def check(name: str | None, as_json: bool) -> None:
        """Make one cheap call on each account (or on NAME) and say what is wrong."""
        accounts = [_find(pool, name)] if name else pool.accounts()
        found = []
        with click.progressbar(
            accounts, label="checking", file=sys.stderr, hidden=len(accounts) < 2
        ) as progress:
            for account in progress:
                fault, note = check_account(upstream, account)
                found.append(_Checked(account.name, not fault, fault or note))
        if as_json:
            click.echo(json.dumps([asdict(each) for each in found], indent=2))
        else:
            _table(
                ("NAME", "STATE", "WHY"),
                [(each.name, "ok" if each.ok else "WRONG", each.note) for each in found],
            )
        sys.exit(0 if all(each.ok for each in found) else 1)

    _add_verdicts(group, pool)

    @group.command("login")
    @click.argument("name")
    @click.option(
        "--client-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        required=True,
        help="The OAuth client (type: desktop app) that you made in the Google console.",
    )
    def login(name: str, client_file: Path) -> None:
        """Log NAME in with your browser and write its credentials file."""
        account = _find(pool, name)
        if account.kind not in ("oauth", "code_assist") or not account.credentials:
            raise click.UsageError(f"{name} is of kind {account.kind}, which needs no login")
        try:
            log_in(client_file, Path(account.credentials), show=click.echo)
        except LoginError as error:
            raise click.ClickException(str(error)) from None
        click.echo(f"{name} is logged in: {account.credentials} was written.")

    return group


def _add_verdicts(group: AppGroup, pool: ClientPool) -> None:
    """Add the commands that tell the running gateways something."""

    @group.command("disable")
    @click.argument("name")
    def disable(name: str) -> None:
        """Use NAME no more until it is enabled."""
        _say(pool, pool.disable, _find(pool, name))
        click.echo(f"{name} is disabled.")

    @group.command("enable")
    @click.argument("name")
    def enable(name: str) -> None:
        """Use NAME again, whatever was said of it."""
        account = _find(pool, name)
        if account.disabled:
            raise click.ClickException(
                f"{name} is disabled in its definition; remove `disabled` there"
            )
        _say(pool, pool.enable, account)
        click.echo(f"{name} is enabled.")

    @group.group("cool-down")
    def cool_down() -> None:
        """Cooldowns."""

    @cool_down.command("clear")
    @click.argument("name")
    def clear(name: str) -> None:
        """End the cooldowns of NAME."""
        _say(pool, pool.clear_cooldowns, _find(pool, name))
        click.echo(f"{name} has no cooldown any more.")


def _say(pool: ClientPool, say: Callable[[str], bool], account: Account) -> None:
    """Have ``say`` tell the running gateways of ``account``; ends the command if it can't."""
    if not pool.leasing.shared:
        raise click.ClickException(f"{ALONE}, so nothing was changed: use its dashboard, /admin/")
    if not say(account.name):
        raise click.ClickException(
            f"nothing was changed for {account.name}: the state store (STATE_URL) can't be "
            "written; is it up, and is there space on its disk?"
        )


def _find(pool: ClientPool, name: str) -> Account:
    for account in pool.accounts():
        if account.name == name:
            return account
    known = ", ".join(account.name for account in pool.accounts()) or "none"
    raise click.UsageError(f"there is no account {name!r}; known: {known}")


def _described(view: AccountView) -> str:
    parts = list(view.reasons)
    if view.cooldowns:
        last = max(cooldown.until for cooldown in view.cooldowns)
        parts.append(f"until {datetime.fromtimestamp(last).astimezone():%Y-%m-%d %H:%M:%S %Z}")
    for forecast in view.forecasts:
        left = "?" if forecast.remaining is None else forecast.remaining
        parts.append(f"{forecast.model}: {left} of {forecast.limit} left per {forecast.window}")
    return "; ".join(parts)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
