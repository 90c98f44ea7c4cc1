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
    given = {**_object(schema.get("definitions")), **_object(schema.get("$defs"))}
    cleaner = _Cleaner(frozenset(given))
    result = cleaner.clean(schema)
    if given:
        result["$defs"] = {name: cleaner.clean(value) for name, value in given.items()}
    return result


class _Cleaner:
    """``definitions`` are the names that a ``$ref`` may point to."""

    def __init__(self, definitions: frozenset[str]) -> None:
        self._definitions = definitions

    def clean(self, schema: Any) -> Schema:
        if not isinstance(schema, Mapping):
            return {"description": "no value is valid here"} if schema is False else {}
        reference = self._reference(schema.get("$ref"))
        if reference:
            return {"$ref": reference}  # Gemini takes nothing beside it
        if isinstance(schema.get("allOf"), list):
            schema = _merged(schema)
        result: Schema = {key: schema[key] for key in _KEPT if schema.get(key) is not None}
        if "const" in schema:
            result["enum"] = [schema["const"]]
        if isinstance(schema.get("properties"), Mapping):
            result["properties"] = {
                name: self.clean(value) for name, value in schema["properties"].items()
            }
        _keep_known_required(result)
        self._clean_items(schema, result)
        options = [*_list(schema.get("anyOf")), *_list(schema.get("oneOf"))]
        if options:
            result["anyOf"] = [self.clean(option) for option in options]
        additional = schema.get("additionalProperties")
        if additional is not None:
            result["additionalProperties"] = (
                additional if isinstance(additional, bool) else self.clean(additional)
            )
        description = _description(schema)
        if description:
            result["description"] = description
        return result

    def _reference(self, reference: Any) -> str:
        """Return where ``reference`` leads within the cleaned schema, "" when nowhere."""
        if reference == "#":
            return "#"
        if not isinstance(reference, str):
            return ""
        for prefix in ("#/$defs/", "#/definitions/"):
            name = reference.removeprefix(prefix)
            if name != reference and name in self._definitions:
                return f"#/$defs/{name}"
        return ""

    def _clean_items(self, schema: Mapping[str, Any], result: Schema) -> None:
        items = schema.get("items")
        tuple_items = items if isinstance(items, list) else schema.get("prefixItems")
        if isinstance(tuple_items, list):
            result["prefixItems"] = [self.clean(item) for item in tuple_items]
        if isinstance(items, Mapping):
            result["items"] = self.clean(items)


def _keep_known_required(result: Schema) -> None:
    """Drop required names without a property: Gemini refuses them."""
    required = result.pop("required", None)
    if isinstance(required, list):
        known = result.get("properties", {})
        names = [name for name in required if isinstance(name, str) and name in known]
        if names:
            result["required"] = names


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
            mine = result.get(key)
            if key == "properties" and isinstance(mine, Mapping) and isinstance(value, Mapping):
                result[key] = {**mine, **value}
            elif key == "required" and isinstance(mine, list) and isinstance(value, list):
                result[key] = [*mine, *(name for name in value if name not in mine)]
            else:
                result.setdefault(key, value)
    return result


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
