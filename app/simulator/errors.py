"""Google's error bodies, in the wording and with the details that the real API sends.

Shapes: ``google.rpc.Status`` (https://cloud.google.com/apis/design/errors); wording from recorded
traffic and Google's troubleshooting pages.
"""

from __future__ import annotations

from typing import Any

_RPC = "type.googleapis.com/google.rpc."
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class GoogleError(Exception):
    """A failure to be answered in Google's shape. ``code`` is the HTTP status too."""

    def __init__(
        self, code: int, message: str, *details: dict[str, Any], status: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.status = status or _STATUSES[code]

    def body(self) -> dict[str, Any]:
        """Return the JSON body."""
        error: dict[str, Any] = {
            "code": self.code,
            "message": self.message,
            "status": self.status,
        }
        if self.details:
            error["details"] = list(self.details)
        return {"error": error}


def error_info(reason: str, domain: str = "googleapis.com", **metadata: str) -> dict[str, Any]:
    """Return an ``ErrorInfo`` detail."""
    return {
        "@type": f"{_RPC}ErrorInfo",
        "reason": reason,
        "domain": domain,
        "metadata": metadata,
    }


def retry_info(delay: str) -> dict[str, Any]:
    """Return a ``RetryInfo`` detail; ``delay`` as Google writes it, e.g. ``26s``."""
    return {"@type": f"{_RPC}RetryInfo", "retryDelay": delay}


def _help(description: str, url: str) -> dict[str, Any]:
    return {"@type": f"{_RPC}Help", "links": [{"description": description, "url": url}]}


def bad_request(message: str, field: str | None = None) -> GoogleError:
    """Return a 400; with ``field``, as the JSON front end reports it."""
    if field is None:
        return GoogleError(400, message)
    violation: dict[str, Any] = {"description": message}
    if field:
        violation = {"field": field, **violation}
    return GoogleError(400, message, {"@type": f"{_RPC}BadRequest", "fieldViolations": [violation]})


def no_such_model(name: str, version: str, call: str) -> GoogleError:
    """Return the 404 of the Gemini API for an unknown model."""
    return GoogleError(
        404,
        f"models/{name} is not found for API version {version}, or is not supported for {call}. "
        "Call ListModels to see the list of available models and their supported methods.",
    )


def no_publisher_model(project: str, location: str, name: str) -> GoogleError:
    """Return Vertex AI's 404 for an unknown model."""
    return GoogleError(
        404,
        f"Publisher Model `projects/{project}/locations/{location}/publishers/google/models/{name}`"
        " was not found or your project does not have access to it. Please ensure you are using a "
        "valid model version. For more information, see: "
        "https://cloud.google.com/vertex-ai/generative-ai/docs/learn/model-versions",
    )


def unregistered() -> GoogleError:
    """Return the Gemini API's answer to a call without any credential."""
    return GoogleError(
        403,
        "Method doesn't allow unregistered callers (callers without established identity). "
        "Please use API Key or other form of API consumer identity to call this API.",
    )


def credentials_missing(service: str, message: str = "") -> GoogleError:
    """Return the 401 of services that want a token."""
    return GoogleError(
        401,
        message
        or "Request is missing required authentication credential. Expected OAuth 2 access token, "
        "login cookie or other valid authentication credential. See "
        "https://developers.google.com/identity/sign-in/web/devconsole-project.",
        error_info("CREDENTIALS_MISSING", service=service),
    )


def token_expired(service: str = "generativelanguage.googleapis.com") -> GoogleError:
    """Return the 401 for a token that is over."""
    return GoogleError(
        401,
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login "
        "cookie or other valid authentication credential. See "
        "https://developers.google.com/identity/sign-in/web/devconsole-project.",
        error_info("ACCESS_TOKEN_EXPIRED", service=service),
    )


def key_invalid() -> GoogleError:
    """Return the 400 for a wrong API key."""
    message = "API key not valid. Please pass a valid API key."
    return GoogleError(
        400,
        message,
        error_info("API_KEY_INVALID", service="generativelanguage.googleapis.com"),
        {"@type": f"{_RPC}LocalizedMessage", "locale": "en-US", "message": message},
    )


def service_disabled(project: str) -> GoogleError:
    """Return the 403 of a project where the API is off."""
    url = (
        "https://console.developers.google.com/apis/api/generativelanguage.googleapis.com/"
        f"overview?project={project}"
    )
    return GoogleError(
        403,
        f"Generative Language API has not been used in project {project} before or it is disabled."
        f" Enable it by visiting {url} then retry. If you enabled this API recently, wait a few "
        "minutes for the action to propagate to our systems and retry.",
        _help("Google developers console API activation", url),
        error_info(
            "SERVICE_DISABLED",
            service="generativelanguage.googleapis.com",
            consumer=f"projects/{project}",
        ),
    )


def quota_exhausted(
    model: str, quota_id: str, limit: int, retry: float, metric: str = "free_tier_requests"
) -> GoogleError:
    """Return a 429 of the Gemini API: which quota ran out, and in how many seconds to retry."""
    metric = f"generativelanguage.googleapis.com/generate_content_{metric}"
    return GoogleError(
        429,
        "You exceeded your current quota, please check your plan and billing details. For more "
        "information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits. To "
        "monitor your current usage, head to: https://ai.dev/rate-limit. \n"
        f"* Quota exceeded for metric: {metric}, limit: {limit}, model: {model}\n"
        f"Please retry in {retry:.9g}s.",
        {
            "@type": f"{_RPC}QuotaFailure",
            "violations": [
                {
                    "quotaMetric": metric,
                    "quotaId": quota_id,
                    "quotaDimensions": {"location": "global", "model": model},
                    "quotaValue": str(limit),
                }
            ],
        },
        _help(
            "Learn more about Gemini API quotas",
            "https://ai.google.dev/gemini-api/docs/rate-limits",
        ),
        retry_info(f"{int(retry)}s"),
    )


def context_too_long(tokens: int, limit: int) -> GoogleError:
    """Return the 400 for a prompt above the model's limit."""
    return GoogleError(
        400,
        f"The input token count ({tokens}) exceeds the maximum number of tokens allowed ({limit}).",
    )
