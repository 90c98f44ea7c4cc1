"""Gemini Code Assist (cloudcode-pa), for Standard and Enterprise licences.

The wire format is that of google-gemini/gemini-cli, ``packages/core/src/code_assist``.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from app.backend.connection import Call
from app.backend.errors import Fault, UpstreamError
from app.backend.link import Link, Outgoing
from app.backend.surface import ListedModel, model_segment, objects_of, text_of
from app.pool.account import Account

GOOGLE = "https://cloudcode-pa.googleapis.com"
FREE_TIER = "free-tier"
POLL_INTERVAL = 5.0
"""Seconds between looks at an onboarding under way, as the CLI waits."""
POLLS = 24
"""Looks before it is given up."""


class CodeAssist:
    """See `app.backend.surface.Surface`. The project is found once per account, then kept."""

    def __init__(self, account: Account, link: Link, base_url: str) -> None:
        self.link = link
        self.poll_interval = POLL_INTERVAL
        self._base = f"{(account.base_url or GOOGLE).rstrip('/')}/v1internal"
        self._session = str(uuid.uuid4())
        self._lock = threading.Lock()
        self._found: dict[str, str] = {}

    def generation(self, project: str, model: str, body: Mapping[str, Any], call: Call) -> Outgoing:
        """Return the streamed generate request in its envelope."""
        model_segment(model)
        envelope = {
            "model": model,
            "project": self._project(project, call),
            "user_prompt_id": str(uuid.uuid4()),
            "request": {**body, "session_id": self._session},
        }
        return Outgoing("POST", f"{self._base}:streamGenerateContent?alt=sse", envelope)

    def count(self, project: str, model: str, body: Mapping[str, Any], call: Call) -> Outgoing:
        """Return the count request, whose inner request names the model."""
        model_segment(model)
        inner = body.get("request")
        request = {"model": f"models/{model}", **(inner if isinstance(inner, dict) else body)}
        return Outgoing("POST", f"{self._base}:countTokens", {"request": request})

    def listing(self, page_token: str) -> None:
        """Return None: there is no such method."""
        return

    def listed(self, answer: Mapping[str, Any]) -> list[ListedModel]:
        """Return no models."""
        return []

    def unwrap(self, chunk: dict[str, Any]) -> dict[str, Any] | None:
        """Return the response inside ``chunk``; None when it only carries a trace id."""
        response = chunk.get("response")
        return response if isinstance(response, dict) else None

    def _project(self, configured: str, call: Call) -> str:
        found = self._found.get(configured)
        if found is None:
            with self._lock:
                found = self._found.get(configured)
                if found is None:
                    found = self._found[configured] = self._discover(configured, call)
        return found

    def _discover(self, configured: str, call: Call) -> str:
        """Return the project to name in requests, joining the user to a tier if need be."""
        named = {"cloudaicompanionProject": configured} if configured else {}
        metadata = {
            "ideType": "IDE_UNSPECIFIED",
            "platform": "PLATFORM_UNSPECIFIED",
            "pluginType": "GEMINI",
        }
        if configured:
            metadata["duetProject"] = configured
        try:
            loaded = self._ask("loadCodeAssist", {**named, "metadata": metadata}, call)
        except UpstreamError as error:
            if error.reason != "SECURITY_POLICY_VIOLATED" or not configured:
                raise
            return configured  # behind a VPC perimeter, which only licensed users have
        project = text_of(loaded, "cloudaicompanionProject") or configured
        if loaded.get("currentTier"):
            return project or self._refuse(loaded)
        tier = self._default_tier(loaded)
        join: dict[str, Any] = {"tierId": tier, "metadata": metadata}
        if tier != FREE_TIER:
            if not project:
                self._refuse(loaded)
            join["cloudaicompanionProject"] = project
        operation = self._finished(self._ask("onboardUser", join, call), call)
        joined = operation.get("response")
        own = joined.get("cloudaicompanionProject") if isinstance(joined, dict) else None
        project = (text_of(own, "id") if isinstance(own, dict) else "") or project
        return project or self._refuse(loaded)

    def _finished(self, operation: dict[str, Any], call: Call) -> dict[str, Any]:
        """Wait for a long-running operation and return it."""
        name = text_of(operation, "name")
        for _ in range(POLLS):
            if operation.get("done") or not name:
                return operation
            call.wait_aborted(self.poll_interval)
            call.check()
            url = f"{self._base}/{quote(name, safe='/')}"
            operation = self.link.ask(Outgoing("GET", url), call)
        raise UpstreamError(Fault.UNAVAILABLE, "Code Assist is still setting this account up.")

    def _ask(self, method: str, body: Mapping[str, Any], call: Call) -> dict[str, Any]:
        return self.link.ask(Outgoing("POST", f"{self._base}:{method}", body), call)

    @staticmethod
    def _default_tier(loaded: Mapping[str, Any]) -> str:
        tiers = objects_of(loaded, "allowedTiers")
        default = next((tier for tier in tiers if tier.get("isDefault")), {})
        return text_of(default, "id") or "legacy-tier"

    @staticmethod
    def _refuse(loaded: Mapping[str, Any]) -> str:
        """Raise what keeps the account from being served, in Google's words."""
        for tier in objects_of(loaded, "ineligibleTiers"):
            link = text_of(tier, "validationUrl")
            reason = text_of(tier, "reasonMessage") or text_of(tier, "reasonCode")
            text = f"Code Assist does not serve this account: {reason} {link}".rstrip()
            raise UpstreamError(Fault.CREDENTIAL, text, reason=text_of(tier, "reasonCode"))
        raise UpstreamError(
            Fault.CREDENTIAL, "Code Assist names no project: set projects for this account"
        )
