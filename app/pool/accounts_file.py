"""The accounts file: TOML text to accounts, or a refusal that says what to write instead."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

from app.pool.account import FLAVOURS, Account, AccountKind

KINDS: tuple[AccountKind, ...] = get_args(AccountKind)
KEYS = tuple(field.name for field in fields(Account))

_VARIABLE = re.compile(r"\$\{([^}]*)\}?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOCATION = re.compile(r"[a-z][a-z0-9-]*")
_HEADER = re.compile(r"\s*\[\[\s*[\"']?account[\"']?\s*\]\]")
_PROXIES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_WHOLE = {"concurrency": (1, 10_000), "weight": (1, 1000), "priority": (-1000, 1000)}


class AccountsError(ValueError):
    """The accounts can't be right; the message is one line: where, what, and what to write.

    ``mistakes`` are its parts, one for each mistake. No secret is repeated in it.
    """

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("; ".join(self.mistakes))


class _Mistake(Exception):
    """One mistake within an entry; ``key`` is where."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def parse_accounts(
    text: str,
    *,
    source: str,
    folder: Path,
    environ: Mapping[str, str],
    base_url: str = "",
) -> list[Account]:
    """Return the accounts that ``text`` defines, in its order.

    ``source`` names the text in messages, ``folder`` is what relative credentials paths start
    from, ``environ`` gives ``${NAME}``, ``base_url`` is for accounts of the Gemini API that set
    none. Raises `AccountsError` with every mistake found; then none of the text counts.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise AccountsError([f"{source} {_syntax(error)}"]) from None
    lines = _Lines(text)
    mistakes = []
    for key in document:
        if key != "account":
            where = f"{source} line {lines.of_top(key)}"
            mistakes.append(f"{where}: {key!r} is not known here; write [[account]]")
    entries = document.get("account", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        where = f"{source} line {lines.of_top('account')}"
        raise AccountsError([*mistakes, f"{where}: account must be written as [[account]]"])
    accounts: list[Account] = []
    names: dict[str, int] = {}
    for number, entry in enumerate(entries):
        try:
            account = _Entry(entry, folder, environ, base_url).account()
            if account.name in names:
                first = lines.of(names[account.name], "name")
                raise _Mistake("name", f"is the name of the account in line {first}, too")  # noqa: TRY301
        except _Mistake as mistake:
            where = f"{source} line {lines.of(number, mistake.key)}: {_called(entry, number)}"
            mistakes.append(f"{where}: {mistake.key} {mistake}")
        else:
            names[account.name] = number
            accounts.append(account)
    if mistakes:
        raise AccountsError(mistakes)
    return accounts


def accounts_from_keys(keys: str | Iterable[str], base_url: str = "") -> list[Account]:
    """Return an ``api_key`` account for each key: ``key-1``, ``key-2`` and so on.

    ``keys`` is comma-separated text or the keys themselves; empty ones are skipped.
    """
    pieces = keys.split(",") if isinstance(keys, str) else keys
    found = [piece.strip() for piece in pieces]
    return [
        Account(f"key-{number}", "api_key", api_key=key, base_url=base_url)
        for number, key in enumerate((key for key in found if key), start=1)
    ]


class _Entry:
    """One ``[[account]]`` on its way to an `Account`; methods raise `_Mistake`."""

    def __init__(
        self, entry: Mapping[str, Any], folder: Path, environ: Mapping[str, str], base_url: str
    ) -> None:
        self._entry = entry
        self._folder = folder
        self._environ = environ
        self._base_url = base_url

    def account(self) -> Account:
        for key in self._entry:
            if key not in KEYS:
                close = get_close_matches(key, KEYS, n=1)
                hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(KEYS)}"
                raise _Mistake(key, f"is not known; {hint}")
        kind = self._kind()
        api_key, credentials = self._credential(kind)
        base_url = self._url("base_url", ("http", "https"))
        if base_url.rsplit("/", 1)[-1] in ("v1", "v1beta", "v1beta1", "v1internal"):
            raise _Mistake("base_url", "must not carry a version; end it before the version")
        concurrency = self._whole("concurrency", 1 if kind == "code_assist" else 8)
        return Account(
            name=self._name(),
            kind=kind,
            api_key=api_key,
            credentials=credentials,
            projects=self._projects(),
            location=self._location(),
            models=self._models(),
            concurrency=concurrency,
            weight=self._whole("weight", 1),
            priority=self._whole("priority", 0),
            base_url=base_url or (self._base_url if FLAVOURS[kind] == "gemini" else ""),
            proxy=self._url("proxy", _PROXIES),
            disabled=self._disabled(),
        )

    def _text(self, key: str) -> str:
        value = self._entry.get(key, "")
        if not isinstance(value, str):
            raise _Mistake(key, 'must be text in quotes, such as "text"')
        return self._filled(key, value).strip()

    def _texts(self, key: str) -> tuple[str, ...]:
        value = self._entry.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise _Mistake(key, 'must be a list of texts, such as ["one", "two"]')
        items = tuple(self._filled(key, item).strip() for item in value)
        if "" in items:
            raise _Mistake(key, "has an empty text; remove it")
        if len(set(items)) < len(items):
            raise _Mistake(key, "names one twice; remove one of them")
        return items

    def _filled(self, key: str, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            name = match.group(1)
            if not match.group().endswith("}") or not _NAME.fullmatch(name):
                raise _Mistake(key, "has a ${ without a variable's name; write ${NAME}")
            if not self._environ.get(name):
                raise _Mistake(key, f"needs the environment variable {name}; set it")
            return self._environ[name]

        return _VARIABLE.sub(value, text)

    def _name(self) -> str:
        name = self._text("name")
        if not name:
            raise _Mistake("name", 'is missing; write name = "some-name"')
        if len(name) > 64 or not name.isprintable():
            raise _Mistake("name", "must be at most 64 printable characters")
        return name

    def _kind(self) -> AccountKind:
        text = self._text("kind")
        for kind in KINDS:
            if text == kind:
                return kind
        known = ", ".join(KINDS)
        if not text:
            raise _Mistake("kind", f"is missing; write one of {known}")
        raise _Mistake("kind", f"{text!r} is not known; write one of {known}")

    def _credential(self, kind: AccountKind) -> tuple[str, str]:
        api_key, path = self._text("api_key"), self._text("credentials")
        if kind == "vertex":
            if api_key and path:
                raise _Mistake("api_key", "and credentials exclude each other; remove one")
        elif kind == "api_key":
            if not api_key:
                raise _Mistake("api_key", 'is missing; write api_key = "${NAME_OF_A_VARIABLE}"')
            if path:
                raise _Mistake("credentials", "has no use for kind api_key; remove it")
        else:
            if api_key:
                raise _Mistake("api_key", f"has no use for kind {kind}; remove it")
            if not path:
                raise _Mistake(
                    "credentials", f'is missing; write credentials = "FILE.json" for kind {kind}'
                )
        if any(character.isspace() or not character.isprintable() for character in api_key):
            raise _Mistake("api_key", "has a space or a control character in it; copy it again")
        return api_key, str(self._folder / Path(path).expanduser()) if path else ""

    def _projects(self) -> tuple[str, ...]:
        projects = self._texts("projects")
        for project in projects:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9:.-]*", project):
                raise _Mistake("projects", f"has {project!r}, which is not a project id")
        return projects

    def _models(self) -> tuple[str, ...]:
        if "models" not in self._entry:
            return ("*",)
        models = self._texts("models")
        if not models:
            raise _Mistake("models", "is empty, so it serves none; remove it to serve all")
        for model in models:
            if model.startswith("models/"):
                bare = model.removeprefix("models/")
                raise _Mistake("models", f"has {model!r}; write it as {bare!r}")
        return models

    def _location(self) -> str:
        location = self._text("location") or "global"
        if not _LOCATION.fullmatch(location):
            raise _Mistake("location", "must be a location such as global or europe-west4")
        return location

    def _whole(self, key: str, default: int) -> int:
        value = self._entry.get(key, default)
        low, high = _WHOLE[key]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise _Mistake(key, f"must be a whole number from {low} to {high}")
        return value

    def _url(self, key: str, schemes: tuple[str, ...]) -> str:
        """Return an address; it may hold a password, so messages do not repeat it."""
        text = self._text(key).rstrip("/")
        if not text:
            return ""
        try:
            parts = urlsplit(text)
            right = parts.scheme in schemes and parts.hostname and (parts.port or 1) > 0
        except ValueError:
            right = False
            parts = urlsplit("")
        if not right or parts.query or parts.fragment:
            raise _Mistake(key, f"must be an address such as {schemes[0]}://host:8080")
        return text

    def _disabled(self) -> bool:
        value = self._entry.get("disabled", False)
        if not isinstance(value, bool):
            raise _Mistake("disabled", "must be true or false, without quotes")
        return value


class _Lines:
    """Where things stand in the text, as well as can be told without a TOML parser's help."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._headers = [index for index, line in enumerate(self._lines) if _HEADER.match(line)]

    def of(self, number: int, key: str) -> int:
        """Return the line of ``key`` in the account with index ``number``, else of its head."""
        if number >= len(self._headers):
            return self.of_top("account")
        start = self._headers[number]
        later = self._headers[number + 1 :]
        end = later[0] if later else len(self._lines)
        return self._find(key, start, end) or start + 1

    def of_top(self, key: str) -> int:
        """Return the line of a key or table outside of accounts; 1 when it is not found."""
        return self._find(key, 0, len(self._lines)) or 1

    def _find(self, key: str, start: int, end: int) -> int:
        pattern = re.compile(rf"\s*(\[\[?\s*)?[\"']?{re.escape(key)}[\"']?\s*([.=\]]|$)")
        for index in range(start, end):
            if pattern.match(self._lines[index]):
                return index + 1
        return 0


def _called(entry: Mapping[str, Any], number: int) -> str:
    name = entry.get("name")
    return f"account {name!r}" if isinstance(name, str) and name else f"account number {number + 1}"


def _syntax(error: tomllib.TOMLDecodeError) -> str:
    """Return the parser's words with the line in front, as in our own messages."""
    match = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", str(error), re.DOTALL)
    if not match:  # "(at end of document)"
        return f"is not valid TOML: {error}"
    what, line, column = match.groups()
    return f"line {line}: is not valid TOML: {what} (column {column})"
