"""What an account is: a named Gemini credential with its limits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
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
    ``api_key`` and ``credentials`` never show in a repr.
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
    """Higher is used first; a lower one only when no higher one is usable."""
    base_url: str = ""
    """Overrides the kind's own base URL, without version; empty for the default."""
    proxy: str = ""
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
        return any(fnmatchcase(model, glob) for glob in self.models)


def account_tag(name: str) -> str:
    """Return the stable, anonymous tag of the account called ``name`` (8 hex digits)."""
    return hashlib.sha256(name.encode()).hexdigest()[:8]
