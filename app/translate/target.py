"""Where a translated request goes: what the wire format depends on besides the request."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Flavour = Literal["gemini", "vertex", "code_assist"]


@dataclass(frozen=True)
class Target:
    """One of Google's API surfaces, a model on it, and a stand-in for the account.

    ``model`` is a Gemini model id without ``models/``; ``account`` an opaque tag of eight hex
    digits (never a credential or a name). ``trust_foreign`` is False on the one retry after a
    400 that named a thought signature: then only signatures from this very account and model are
    sent; and none at all without ``trust_own``, where no other had been among them.
    """

    flavour: Flavour
    model: str
    account: str = "00000000"
    trust_foreign: bool = True
    trust_own: bool = True

    @property
    def family(self) -> str:
        """Model generation, the unit within which thought signatures are valid ("2", "3", "4").

        Unknown names (``gemini-flash-latest``, tuned models) give ``"0"``.
        """
        return model_family(self.model)


_GENERATION = re.compile(r"gemini-(\d+)(?:[.-]|$)")


def model_family(model: str) -> str:
    """Return the generation digit of a Gemini model id, ``"0"`` when the name carries none."""
    match = _GENERATION.search(model)
    return match.group(1) if match else "0"
