"""Where accounts come from: the accounts file, the same text inline, and bare keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from app.pool.account import Account
from app.pool.accounts_file import AccountsError, accounts_from_keys, parse_accounts

DEFAULT_FILE = "accounts.toml"


class Sources(Protocol):
    """The settings that name accounts (`app.config.Settings` is one)."""

    @property
    def accounts_file(self) -> str: ...  # noqa: D102
    @property
    def accounts_toml(self) -> str: ...  # noqa: D102
    @property
    def gemini_api_keys(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def gemini_base_url(self) -> str: ...  # noqa: D102
    @property
    def root(self) -> Path: ...  # noqa: D102
    @property
    def environ(self) -> Mapping[str, str]: ...  # noqa: D102


def watched_file(sources: Sources) -> Path:
    """Return the accounts file, which need not be there unless ``ACCOUNTS_FILE`` names it."""
    return sources.root / Path(sources.accounts_file or DEFAULT_FILE).expanduser()


def load_accounts(sources: Sources) -> list[Account]:
    """Return all configured accounts: of the file, of ``ACCOUNTS_TOML``, of the keys.

    Raises `AccountsError`, also when one name comes from two sources.
    """
    found: list[tuple[str, list[Account]]] = []
    path = watched_file(sources)
    if sources.accounts_file or path.is_file():
        found.append((str(path), _parsed(_read(path), str(path), path.parent, sources)))
    if sources.accounts_toml:
        inline = _parsed(sources.accounts_toml, "ACCOUNTS_TOML", sources.root, sources)
        found.append(("ACCOUNTS_TOML", inline))
    keys = accounts_from_keys(sources.gemini_api_keys, sources.gemini_base_url)
    found.append(("GEMINI_API_KEYS", keys))
    origin: dict[str, str] = {}
    for source, accounts in found:
        for account in accounts:
            first = origin.setdefault(account.name, source)
            if first != source:
                raise AccountsError(
                    [f"{source}: account {account.name!r} is in {first}, too; rename one of them"]
                )
    return [account for _, accounts in found for account in accounts]


def none_left(sources: Sources) -> AccountsError:
    """Return the refusal to go on without any account where there were some.

    Real traffic must not get the simulator's made-up answers because somebody emptied a file.
    """
    return AccountsError(
        [
            f"{watched_file(sources)}: has no account any more, nor have GEMINI_API_KEYS and "
            "ACCOUNTS_TOML; add one, or restart to serve from the simulator"
        ]
    )


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise AccountsError(
            [f"{path}: there is no such file; write it, or change ACCOUNTS_FILE"]
        ) from None
    except UnicodeDecodeError:
        raise AccountsError([f"{path}: is not UTF-8 text; save it as UTF-8"]) from None
    except OSError as error:
        raise AccountsError([f"{path}: can't be read: {error.strerror}"]) from None


def _parsed(text: str, source: str, folder: Path, sources: Sources) -> list[Account]:
    return parse_accounts(
        text,
        source=source,
        folder=folder,
        environ=sources.environ,
        base_url=sources.gemini_base_url,
    )
