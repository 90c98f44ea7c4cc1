"""Google's own machine-readable schemas as judges of what we send."""

from __future__ import annotations

import copy
import functools
import importlib.resources
import json
import warnings

import jsonschema

# Google's packages take long to load: only who judges pays for it, and not every test process.


@functools.cache
def _body():
    import pydantic
    from google.genai import types as t

    return pydantic.create_model(
        "Body",
        __config__={"extra": "forbid"},
        contents=(list[t.Content], ...),
        systemInstruction=(t.Content | None, None),
        tools=(list[t.Tool] | None, None),
        toolConfig=(t.ToolConfig | None, None),
        generationConfig=(t.GenerationConfig | None, None),
    )


@functools.cache
def _parse():
    from google.ai import generativelanguage_v1beta as proto
    from google.protobuf import json_format

    request = proto.GenerateContentRequest.pb()
    return lambda body: json_format.ParseDict(body, request())


def _json_schema(schema):
    if "$ref" in schema:
        return {"$ref": "#/$defs/" + schema["$ref"]}
    kind = schema.get("type")
    if kind == "any":
        return {}
    if kind == "array":
        result = {"type": "array", "items": _json_schema(schema["items"])}
    elif kind == "object":
        more = schema.get("additionalProperties")
        result = {
            "type": "object",
            "properties": {k: _json_schema(v) for k, v in schema.get("properties", {}).items()},
            "additionalProperties": _json_schema(more) if more else False,
        }
    else:
        whole = schema.get("format") in ("int64", "uint64")
        result = {"type": ["string", "integer"] if whole else kind}
    return result | ({"enum": schema["enum"]} if "enum" in schema else {})


@functools.cache
def _discovery():
    name = "discovery_cache/documents/aiplatform.v1.json"
    document = json.loads((importlib.resources.files("googleapiclient") / name).read_text())
    schemas = document["schemas"].items()
    return {k: _json_schema(v) for k, v in schemas if k.startswith("Google")}


@functools.cache
def _validator():
    name = "GoogleCloudAiplatformV1GenerateContentRequest"
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": _discovery()})


def check(body):
    """Assert that ``body`` is a GenerateContentRequest by the SDK, the discovery and the proto."""
    judge = _body()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        judge.model_validate(body)
    known = copy.deepcopy(body)
    config = known.get("generationConfig", {})
    thinking = config.get("thinkingConfig", {})
    known.get("toolConfig", {}).pop("includeServerSideToolInvocations", None)
    for content in known["contents"]:
        # Server-side traces are the Gemini API's own, and younger than the other two documents.
        content["parts"] = [
            part for part in content["parts"] if not {"toolCall", "toolResponse"} & set(part)
        ]
    if thinking.get("thinkingLevel") == "XHIGH":
        thinking["thinkingLevel"] = "HIGH"
    _validator().validate(known)
    thinking.pop("thinkingLevel", None)
    for content in known["contents"]:
        for part in content["parts"]:
            part.get("functionResponse", {}).pop("parts", None)
            for piece in ("executableCode", "codeExecutionResult"):
                part.get(piece, {}).pop("id", None)
            if part.get("thoughtSignature", "").startswith("skip_"):
                part.pop("thoughtSignature")
    _parse()(known)
