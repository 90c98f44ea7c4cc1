"""The Gemini API (generativelanguage): keys, OAuth logins, service accounts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from app.backend.connection import Call
from app.backend.link import Link, Outgoing
from app.backend.surface import ListedModel, model_segment, objects_of, text_of, tokens_of
from app.pool.account import Account

GOOGLE = "https://generativelanguage.googleapis.com"
VERSION = "v1beta"
"""``v1`` lacks fields that the translation needs."""


class GeminiApi:
    """See `app.backend.surface.Surface`."""

    unwrap = None

    def __init__(self, account: Account, link: Link, base_url: str) -> None:
        self.link = link
        self._base = f"{(account.base_url or base_url or GOOGLE).rstrip('/')}/{VERSION}"
        # A user's login must name the project that pays; the other kinds have one of their own.
        self._needs_project = account.kind == "oauth"

    def generation(self, project: str, model: str, body: Mapping[str, Any], call: Call) -> Outgoing:
        """Return the streamed generate request."""
        url = f"{self._base}/models/{model_segment(model)}:streamGenerateContent?alt=sse"
        return Outgoing("POST", url, body, self._headers(project))

    def count(self, project: str, model: str, body: Mapping[str, Any], call: Call) -> Outgoing:
        """Return the count request; the inner form must name its model (contract, countTokens)."""
        url = f"{self._base}/models/{model_segment(model)}:countTokens"
        inner = body.get("generateContentRequest")
        if isinstance(inner, dict):
            body = {"generateContentRequest": {"model": f"models/{model}", **inner}}
        return Outgoing("POST", url, body, self._headers(project))

    def listing(self, page_token: str) -> Outgoing:
        """Return the request for a page of up to 1000 models."""
        query = {"pageSize": "1000"} | ({"pageToken": page_token} if page_token else {})
        url = f"{self._base}/models?{urlencode(query)}"
        return Outgoing("GET", url, headers=self._headers(""))

    def listed(self, answer: Mapping[str, Any]) -> list[ListedModel]:
        """Return the models on a page of ``models.list``."""
        return [
            ListedModel(
                text_of(model, "name").removeprefix("models/"),
                text_of(model, "displayName"),
                tokens_of(model, "inputTokenLimit"),
                tokens_of(model, "outputTokenLimit"),
                tuple(map(str, model.get("supportedGenerationMethods") or ())),
                model["thinking"] if isinstance(model.get("thinking"), bool) else None,
            )
            for model in objects_of(answer, "models")
            if text_of(model, "name")
        ]

    def _headers(self, project: str) -> dict[str, str]:
        if not project and self._needs_project:
            project = self.link.auth.quota_project
        return {"x-goog-user-project": project} if project else {}
