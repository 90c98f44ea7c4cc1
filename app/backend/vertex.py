"""Vertex AI: regional and global hosts, service accounts, ADC, and express-mode keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from app.backend.connection import Call
from app.backend.errors import Fault, UpstreamError
from app.backend.link import Link, Outgoing
from app.backend.surface import ListedModel, model_segment, objects_of, text_of
from app.pool.account import Account

VERSION = "v1beta1"
MULTI_REGIONS = ("us", "eu")


def host(location: str) -> str:
    """Return the host that serves ``location`` (google-genai, ``_api_client.py``)."""
    if location in ("", "global"):
        return "aiplatform.googleapis.com"
    if location in MULTI_REGIONS:
        return f"aiplatform.{location}.rep.googleapis.com"
    return f"{location}-aiplatform.googleapis.com"


class VertexAi:
    """See `app.backend.surface.Surface`."""

    unwrap = None

    def __init__(self, account: Account, link: Link, base_url: str) -> None:
        self.link = link
        # Express mode knows neither project nor location.
        location = "global" if link.auth.keyed else account.location or "global"
        base = account.base_url or f"https://{host(location)}"
        self._base = f"{base.rstrip('/')}/{VERSION}"
        self._location = quote(location, safe="")
        self._projects = account.projects

    def generation(self, project: str, model: str, body: Mapping[str, Any], call: Call) -> Outgoing:
        """Return the streamed generate request."""
        url = f"{self._model_url(project, model)}:streamGenerateContent?alt=sse"
        return Outgoing("POST", url, body)

    def count(self, project: str, model: str, body: Mapping[str, Any], call: Call) -> Outgoing:
        """Return the count request."""
        return Outgoing("POST", f"{self._model_url(project, model)}:countTokens", body)

    def listing(self, page_token: str) -> Outgoing | None:
        """Return the request for a page of Google's own models; None in express mode."""
        if self.link.auth.keyed:
            return None
        project = self._projects[0] if self._projects else self.link.auth.project
        query = {"pageSize": "100"} | ({"pageToken": page_token} if page_token else {})
        url = f"{self._base}/publishers/google/models?{urlencode(query)}"
        return Outgoing("GET", url, headers={"x-goog-user-project": project} if project else {})

    def listed(self, answer: Mapping[str, Any]) -> list[ListedModel]:
        """Return the Gemini models that answer; the list has everything else Google makes, too."""
        names = (text_of(m, "name").rpartition("/")[2] for m in objects_of(answer, _LIST))
        return [ListedModel(n) for n in names if n.startswith("gemini") and "embedding" not in n]

    def _model_url(self, project: str, model: str) -> str:
        path = f"publishers/google/models/{model_segment(model)}"
        if self.link.auth.keyed:
            return f"{self._base}/{path}"
        project = project or self.link.auth.project
        if not project:
            raise UpstreamError(
                Fault.CREDENTIAL, "no project: set projects for this account, or one in its file"
            )
        return f"{self._base}/projects/{quote(project, safe=':')}/locations/{self._location}/{path}"


_LIST = "publisherModels"
