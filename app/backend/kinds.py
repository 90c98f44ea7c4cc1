"""Every kind of account: which surface it speaks, and what its credentials file may be.

A new kind is one more row here (and in `app.pool.account.AccountKind`).
"""

from __future__ import annotations

from dataclasses import dataclass

from app.backend.code_assist import CodeAssist
from app.backend.gemini import GeminiApi
from app.backend.surface import Surface
from app.backend.vertex import VertexAi
from app.pool.account import AccountKind


@dataclass(frozen=True)
class Kind:
    """``file_types`` are values of ``type`` in a Google credentials file; empty allows all."""

    surface: type[Surface]
    file_types: frozenset[str] = frozenset()


KINDS: dict[AccountKind, Kind] = {
    "api_key": Kind(GeminiApi),
    "oauth": Kind(GeminiApi, frozenset({"authorized_user"})),
    "service_account": Kind(GeminiApi, frozenset({"service_account"})),
    "vertex": Kind(VertexAi),
    "code_assist": Kind(CodeAssist, frozenset({"authorized_user", "service_account"})),
}
