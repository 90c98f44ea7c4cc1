"""What proves to Google who asks, as a link needs it; the simplest one is a key."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from app.backend.errors import Fault, UpstreamError
from app.pool.account import Account


class Auth(Protocol):
    """What a link needs of a credential."""

    @property
    def keyed(self) -> bool:
        """A key: a 401 is final, since there is no token to renew."""
        ...

    @property
    def secrets(self) -> Collection[str]:
        """What must never show in a message."""
        ...

    @property
    def project(self) -> str:
        """The project that the credential itself names, "" if none; may read its file."""
        ...

    @property
    def quota_project(self) -> str:
        """The quota project that a user's file names, "" if none."""
        ...

    def headers(self) -> dict[str, str]:
        """Return the headers that authorize one request; may fetch a token."""
        ...

    def refused(self, headers: Mapping[str, str]) -> None:
        """Take note that the upstream answered 401 to ``headers``."""
        ...

    def renew(self) -> None:
        """Get a new token unless one was got since the last refusal."""
        ...

    def outdated(self) -> bool:
        """Tell whether the file behind the credential has changed."""
        ...


class KeyAuth:
    """An API key. Never judged by its looks: Google has had two forms already."""

    keyed = True
    project = ""
    quota_project = ""

    def __init__(self, account: Account) -> None:
        self.secrets = (account.api_key,) if account.api_key else ()
        self._headers = {"x-goog-api-key": account.api_key}
        self._fit = bool(account.api_key) and account.api_key.isascii()
        self._fit = self._fit and account.api_key.isprintable()

    def headers(self) -> dict[str, str]:
        """Return the key's header; raises `UpstreamError` for a key that no header can carry."""
        if not self._fit:
            raise UpstreamError(
                Fault.CREDENTIAL, "the API key is empty or has characters that no key has"
            )
        return self._headers

    def refused(self, headers: Mapping[str, str]) -> None:
        """Do nothing: the error itself says it all."""

    def renew(self) -> None:
        """Raise: a key can't be renewed."""
        raise UpstreamError(Fault.CREDENTIAL, "an API key can't be refreshed: replace it")

    def outdated(self) -> bool:
        """Return False: the key is in the account itself."""
        return False
