"""What an account is: a named Gemini credential with its limits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

AccountKind = Literal["api_key", "oauth", "service_account", "vertex", "code_assist"]
Flavour = Literal["gemini", "vertex", "code_assist"]

FLAVOURS: dict[AccountKind, Flavour] = {
    "api_key": "gemini",
    "oauth": "gemini",
    "service_account": "gemini",
    "vertex": "vertex",
    "code_assist": "code_assist",
}


@dataclass(frozen=True)
class Account:
    """One entry of the accounts file (or one of ``GEMINI_API_KEYS``), immutable.

    A changed entry makes a new object under the same name; leases taken on the old one live on.
    ``api_key``, ``credentials`` and ``proxy`` (which may hold a password) never show in a repr.
    """

    name: str
    kind: AccountKind
    api_key: str = field(default="", repr=False)
    credentials: str = field(default="", repr=False)
    """Path of a Google credentials file; empty for ADC (vertex) and for keys."""
    projects: tuple[str, ...] = ()
    """Quota projects in order of use; empty means the credential's own, written as ``""``."""
    location: str = "global"
    models: tuple[str, ...] = ("*",)
    """Globs of the Gemini model ids that this account may serve."""
    concurrency: int = 8
    weight: int = 1
    priority: int = 0
    """Higher is used first; a lower one only when no higher one is usable and free."""
    base_url: str = ""
    """Overrides the kind's own base URL, without version; empty for the default."""
    proxy: str = field(default="", repr=False)
    disabled: bool = False

    @property
    def flavour(self) -> Flavour:
        """Which of Google's three API surfaces this account speaks."""
        return FLAVOURS[self.kind]

    @cached_property
    def tag(self) -> str:
        """Eight hex digits that stand for this account in ids that clients see."""
        return account_tag(self.name)

    @property
    def quota_projects(self) -> tuple[str, ...]:
        """The projects to walk, in order; ``("",)`` when there is only the credential's own."""
        return self.projects or ("",)

    def serves(self, model: str) -> bool:
        """Tell whether ``model`` (a Gemini model id) matches one of the account's globs."""
        return _matches(model, self.models)

    def same_credential(self, other: Account) -> bool:
        """Tell whether ``other`` spends the same quota: the same credential at the same place."""
        mine = (self.kind, self.api_key, self.credentials, self.base_url)
        return mine == (other.kind, other.api_key, other.credentials, other.base_url)


@lru_cache(maxsize=4096)
def _matches(model: str, globs: tuple[str, ...]) -> bool:
    # Asked of every account for every request.
    return any(fnmatchcase(model, glob) for glob in globs)


def account_tag(name: str) -> str:
    """Return the stable, anonymous tag of the account called ``name`` (8 hex digits)."""
    return hashlib.sha256(name.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Digests:
    """What an account's past is kept under, so that a changed account starts afresh.

    ``credential`` changes with the key, the credentials file's content or the base URL: quota
    that ran out is then somebody else's. ``definition`` changes with any setting of the account:
    a fault that only an operator can mend may then be mended.
    """

    credential: str
    definition: str


def account_digests(account: Account) -> Digests:
    """Return the digests of ``account``; reads its credentials file, whose absence is a content."""
    secret = hashlib.sha256()
    for part in (account.kind, account.api_key, account.credentials, account.base_url):
        secret.update(part.encode() + b"\0")
    if account.credentials:
        try:
            secret.update(Path(account.credentials).read_bytes())
        except OSError:
            secret.update(b"absent")
    credential = secret.hexdigest()[:16]
    rest = f"{credential} {account!r} {account.proxy}"
    return Digests(credential, hashlib.sha256(rest.encode()).hexdigest()[:16])
