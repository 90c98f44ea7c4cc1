"""Any JSON Schema a client sends → the JSON Schema that Gemini honours.

Honoured keywords: `parametersJsonSchema` in https://ai.google.dev/api/caching#FunctionDeclaration.
What Gemini ignores is kept where a model can read it: in the description.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

_KEPT = (
    "type",
    "format",
    "title",
    "enum",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
    "required",
)
_TOLD = (
    "pattern",
    "minLength",
    "maxLength",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "patternProperties",
    "propertyNames",
    "not",
    "if",
    "then",
    "else",
    "dependentRequired",
    "contains",
    "default",
    "examples",
)


def clean(schema: Mapping[str, Any]) -> Schema:
    """Return ``schema`` (of a tool's input, or of an answer) as Gemini takes it."""
    result = _clean(schema)
    definitions = {
        name: _clean(value)
        for keyword in ("$defs", "definitions")
        for name, value in _object(schema.get(keyword)).items()
    }
    if definitions:
        result["$defs"] = definitions
    return result


def _clean(schema: Any) -> Schema:
    if not isinstance(schema, Mapping):
        return {} if schema is not False else {"description": "(no value is valid here)"}
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        # Gemini takes no sibling beside a reference.
        return {"$ref": reference.replace("#/definitions/", "#/$defs/")}
    if isinstance(schema.get("allOf"), list):
        schema = _merged(schema)
    result: Schema = {key: schema[key] for key in _KEPT if schema.get(key) is not None}
    if "const" in schema:
        result["enum"] = [schema["const"]]
    if isinstance(schema.get("properties"), Mapping):
        result["properties"] = {name: _clean(value) for name, value in schema["properties"].items()}
    _keep_known_required(result)
    _clean_items(schema, result)
    options = [*_list(schema.get("anyOf")), *_list(schema.get("oneOf"))]
    if options:
        result["anyOf"] = [_clean(option) for option in options]
    additional = schema.get("additionalProperties")
    if additional is not None:
        result["additionalProperties"] = (
            additional if isinstance(additional, bool) else _clean(additional)
        )
    description = _description(schema)
    if description:
        result["description"] = description
    return result


def _keep_known_required(result: Schema) -> None:
    """Drop required names without a property: Gemini refuses them."""
    required = result.pop("required", None)
    if isinstance(required, list):
        known = result.get("properties", {})
        names = [name for name in required if name in known]
        if names:
            result["required"] = names


def _clean_items(schema: Mapping[str, Any], result: Schema) -> None:
    items = schema.get("items")
    tuple_items = items if isinstance(items, list) else schema.get("prefixItems")
    if isinstance(tuple_items, list):
        result["prefixItems"] = [_clean(item) for item in tuple_items]
    if isinstance(items, Mapping):
        result["items"] = _clean(items)


def _description(schema: Mapping[str, Any]) -> str:
    told = {key: schema[key] for key in _TOLD if key in schema}
    reference = schema.get("$ref")
    if isinstance(reference, str):
        told["$ref"] = reference
    text = schema.get("description")
    text = text if isinstance(text, str) else ""
    if not told:
        return text
    notes = json.dumps(told, ensure_ascii=False, separators=(", ", ": "))[1:-1]
    return f"{text} ({notes})".strip()


def _merged(schema: Mapping[str, Any]) -> Schema:
    """Return ``schema`` with its ``allOf`` merged in, as far as that can be written."""
    result: Schema = {key: value for key, value in schema.items() if key != "allOf"}
    for part in schema["allOf"]:
        if not isinstance(part, Mapping):
            continue
        flat = _merged(part) if isinstance(part.get("allOf"), list) else part
        for key, value in flat.items():
            if key == "properties" and isinstance(result.get(key), Mapping):
                result[key] = {**result[key], **value}
            elif key == "required" and isinstance(result.get(key), list):
                result[key] = [*result[key], *(name for name in value if name not in result[key])]
            else:
                result.setdefault(key, value)
    return result


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
