"""The OpenAPI document is true: of the routes, of what is refused, and of every answer."""

import os
import re

import pytest
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator

from app import create_app
from app.api.errors import TYPES
from app.config import load_settings

MANY = int(os.environ.get("API_EXAMPLES", "30"))
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """A gateway on its own simulator, with the limits of production."""
    settings = load_settings({"STATE_URL": "memory://"}, root=tmp_path_factory.mktemp("api"))
    return create_app(settings)


@pytest.fixture(scope="module")
def document(app):
    return app.test_client().get("/openapi.json").json


def test_the_document_names_every_route_and_no_other(app, document):
    served = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        if not rule.rule.startswith("/admin") and rule.rule not in ("/", "/metrics")
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    told = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert told == served


def test_the_document_names_every_error(document):
    assert {int(name[1:]) for name in document["components"]["responses"]} == {*TYPES, 405} - {
        402,
        409,
    }


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_what_a_client_sends_is_valid(document, path):
    body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    schema = {**body, "components": document["components"]}
    validator = Draft202012Validator(schema)
    request = {
        "model": "claude-sonnet-4-5",
        "max_tokens": 100,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": "hello"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "x"},
                    {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "seen"}],
            },
        ],
        "tools": [{"name": "look", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "auto"},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
    assert [error.message for error in validator.iter_errors(request)] == []
    assert [error.json_path for error in validator.iter_errors({**request, "messages": []})] == [
        "$.messages"
    ]


@pytest.mark.parametrize(
    "operation",
    ["create_message", "count_tokens", "list_models", "get_model", "healthz", "readyz", "openapi"],
)
def test_any_request_gets_an_answer_that_the_document_knows(app, operation):
    import schemathesis  # here, since it takes long to load, and in every test process

    checks = [getattr(schemathesis.checks, name) for name in CHECKS]
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    (found,) = schema.include(operation_id=operation).get_all_operations()

    @given(case=found.ok().as_strategy())
    @settings(
        max_examples=MANY, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    def check(case):
        case.call_and_validate(checks=checks)

    check()
