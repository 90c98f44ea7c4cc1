"""What keeps the application from starting, in the words of the ``flask`` command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from app.config import SettingsError
from app.pool.accounts_file import AccountsError


@contextmanager
def one_line_in_commands() -> Iterator[None]:
    """End a command with one line and status 1 where it would end with a traceback.

    Outside of commands nothing is changed: each server tells its operator in its own way.
    """
    try:
        yield
    except (SettingsError, AccountsError) as error:
        if click.get_current_context(silent=True) is None:
            raise
        click.echo(f"Error: {error}", err=True)
        # Flask would print a traceback for every kind of exception when it lists the commands.
        sys.exit(1)
