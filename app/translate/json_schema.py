"""Any JSON Schema a client sends → the JSON Schema that Gemini honours.

Honoured keywords: `parametersJsonSchema` in https://ai.google.dev/api/caching#FunctionDeclaration.
What Gemini ignores is kept where a model can read it: in the description.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

Schema = dict[str, Any]

MOST_WRITTEN_OUT = 262_144
"""Bytes of JSON that may be written once more where a reference leads to them."""

_KEPT = (
    "type",
    "format",
    "title",
    "enum",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
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
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "additionalItems",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contains",
    "minContains",
    "maxContains",
    "contentEncoding",
    "contentMediaType",
    "nullable",
    "default",
    "example",
    "examples",
    "$ref",
    "$dynamicRef",
    "allOf",
)
_REMARKS = {
    *("description", "title", "default", "example", "examples", "deprecated", "readOnly"),
    *("writeOnly", "nullable", "$comment", "$schema", "$id", "$defs", "definitions"),
}
"""What may stand beside a reference without changing what it means."""
_ESCAPED = re.compile(r"[/~%#$\s]")
_LOWER = frozenset(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"))
_UPPER = frozenset(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"))


def clean(schema: Mapping[str, Any]) -> Schema:
    """Return ``schema`` (of a tool's input, or of an answer) as Gemini takes it."""
    return _Cleaner(schema).document()


class _Cleaner:
    """Cleans one document; what its references lead to becomes definitions."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._definitions: dict[str, Any] = {}
        self._places: dict[str, str] = {}
        self._inlined: frozenset[str] = frozenset()
        self._room = MOST_WRITTEN_OUT
        given = {**_object(root.get("definitions")), **_object(root.get("$defs"))}
        for name in sorted(given, key=lambda name: bool(_ESCAPED.search(name))):
            place = self._define(name, given[name])
            self._places[f"#/$defs/{name}"] = self._places[f"#/definitions/{name}"] = place
            anchor = _object(given[name]).get("$anchor")
            if isinstance(anchor, str):
                self._places[f"#{anchor}"] = place

    def document(self) -> Schema:
        """Return the whole document."""
        root = self._root
        if self._place(root.get("$ref")) not in ("", "#"):
            # Its root must describe an object by itself.
            result = self._merge(root, [{"$ref": root["$ref"]}, *_list(root.get("allOf"))])
        else:
            result = self.clean(root)
        definitions: Schema = {}
        while len(definitions) < len(self._definitions):  # cleaning one can find others
            for name in [name for name in self._definitions if name not in definitions]:
                definitions[name] = self.clean(self._definitions[name])
        if definitions:
            result["$defs"] = definitions
        _loosen(result)
        return result

    def clean(self, schema: Any) -> Schema:
        if not isinstance(schema, Mapping):
            return {"description": "no value is valid here"} if schema is False else {}
        parts = _list(schema.get("allOf"))
        if self._place(schema.get("$ref")):
            parts = [{"$ref": schema["$ref"]}, *parts]
        if not parts:
            return self._plain(schema)
        place = self._place(parts[0].get("$ref")) if isinstance(parts[0], Mapping) else ""
        rest = {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}
        if place and len(parts) == len(parts[0]) == 1 and _REMARKS.issuperset(rest):
            # Gemini takes nothing beside a reference, but one within anyOf.
            beside = self._plain(rest)
            return {**beside, "anyOf": [{"$ref": place}]} if beside else {"$ref": place}
        return self._merge(schema, parts)

    def _plain(self, schema: Mapping[str, Any]) -> Schema:
        result: Schema = {key: schema[key] for key in _KEPT if schema.get(key) is not None}
        told = {key: schema[key] for key in _TOLD if key in schema}
        if "const" in schema:
            result["enum"] = [schema["const"]]
        _explain_enum(result, told)
        if isinstance(schema.get("properties"), Mapping):
            result["properties"] = {
                name: self.clean(value) for name, value in schema["properties"].items()
            }
        required, unknown = _required(schema, result)
        if required:
            result["required"] = required
        if unknown:
            told["required"] = unknown
        items = schema.get("items")
        tuple_items = items if isinstance(items, list) else schema.get("prefixItems")
        if isinstance(tuple_items, list):
            result["prefixItems"] = [self.clean(item) for item in tuple_items]
        if isinstance(items, Mapping):
            result["items"] = self.clean(items)
        elif items is False:
            told["items"] = False
        options = _list(schema.get("anyOf"))
        if options and schema.get("oneOf"):
            told["oneOf"] = schema["oneOf"]
        options = options or _list(schema.get("oneOf"))
        if options:
            result["anyOf"] = [self.clean(option) for option in options]
        additional = schema.get("additionalProperties")
        if additional is not None:
            result["additionalProperties"] = (
                additional if isinstance(additional, bool) else self.clean(additional)
            )
        description = _described(schema.get("description"), told)
        if description:
            result["description"] = description
        return result

    # allOf

    def _merge(self, schema: Mapping[str, Any], parts: list[Any]) -> Schema:
        """Return ``schema`` with ``parts`` (of its ``allOf``) merged in, as far as that goes."""
        before = self._inlined
        gone = ("allOf", "$ref" if self._place(schema.get("$ref")) else "")
        merged = {key: value for key, value in schema.items() if key not in gone}
        left: list[Any] = []
        waiting, seen = parts[::-1], set[str]()
        while waiting:
            part = waiting.pop()
            if not isinstance(part, Mapping):
                continue
            waiting += reversed(_list(part.get("allOf")))
            place = self._place(part.get("$ref"))
            if place and place not in seen:
                seen.add(place)
                target = self._target(place)
                if place in before or not isinstance(target, Mapping) or not self._fits(target):
                    left.append({"$ref": part["$ref"]})
                else:
                    waiting.append(target)
            for key, value in part.items():
                if key != "allOf" and not (key == "$ref" and place):
                    _merge_keyword(merged, key, value, left)
        if len(left) == 1 and "$ref" in left[0] and not {"anyOf", "oneOf"} & merged.keys():
            merged["anyOf"] = left
        elif left:
            merged["allOf"] = left
        self._inlined = before | seen
        result = self._plain(merged)
        self._inlined = before
        return result

    # References

    def _place(self, reference: Any) -> str:
        """Return where ``reference`` leads within the cleaned schema, "" when nowhere."""
        if not isinstance(reference, str):
            return ""
        base = self._root.get("$id")
        if isinstance(base, str) and base and reference.startswith(f"{base}#"):
            reference = reference[len(base) :]
        if reference in ("#", "#/"):
            return "#"
        if reference not in self._places:
            self._places[reference] = self._found(reference)
        return self._places[reference]

    def _found(self, reference: str) -> str:
        """Return the place of a schema somewhere in the document: it becomes a definition."""
        if not reference.startswith("#/"):
            return ""
        tokens = [
            unquote(token).replace("~1", "/").replace("~0", "~")
            for token in reference[2:].split("/")
        ]
        if len(tokens) == 2 and tokens[0] in ("$defs", "definitions"):
            return self._places.get(f"#/$defs/{tokens[1]}", "")
        value: Any = self._root
        for token in tokens:
            if isinstance(value, Mapping) and token in value:
                value = value[token]
            elif isinstance(value, list) and token in map(str, range(min(len(value), 100))):
                value = value[int(token)]
            else:
                return ""
        if not isinstance(value, Mapping) or not self._fits(value):
            return ""
        return self._define("_".join(tokens), value)

    def _define(self, name: str, value: Any) -> str:
        """Take in a definition under a name that no pointer has to escape; return its place."""
        plain = _ESCAPED.sub("_", name)
        while plain in self._definitions:
            plain = f"{plain}_{len(self._definitions)}"
        self._definitions[plain] = value
        return f"#/$defs/{plain}"

    def _fits(self, value: Mapping[str, Any]) -> bool:
        """Tell whether ``value`` may be written once more: a few references can stand for a lot."""
        if self._room > 0:
            self._room -= len(json.dumps(value))
        return self._room > 0

    def _target(self, place: str) -> Any:
        return self._root if place == "#" else self._definitions[place.removeprefix("#/$defs/")]


def _required(schema: Mapping[str, Any], result: Schema) -> tuple[list[str], list[str]]:
    """Return the required names with and without a property: Gemini refuses the latter."""
    known = result.get("properties", {})
    names = [name for name in _list(schema.get("required")) if isinstance(name, str)]
    return [n for n in names if n in known], [n for n in names if n not in known]


def _explain_enum(result: Schema, told: dict[str, Any]) -> None:
    """Tell values that are neither strings nor numbers, too: Gemini knows enums of these alone."""
    values = result.get("enum")
    if not isinstance(values, list):
        return
    if any(isinstance(value, bool) or not isinstance(value, str | int | float) for value in values):
        told["enum"] = values
        if all(isinstance(value, bool) for value in values):
            result.setdefault("type", "boolean")


def _merge_keyword(merged: Schema, key: str, value: Any, left: list[Any]) -> None:
    """Put one keyword into ``merged``, or, when both can't be said at once, into ``left``."""
    mine = merged.get(key)
    if key not in merged or mine == value:
        merged[key] = value
    elif key == "properties" and isinstance(mine, Mapping) and isinstance(value, Mapping):
        both = {name: {"allOf": [mine[name], value[name]]} for name in value if name in mine}
        merged[key] = {**mine, **value, **both}
    elif key == "required" and isinstance(mine, list) and isinstance(value, list):
        merged[key] = [*mine, *(name for name in value if name not in mine)]
    elif key == "description" and isinstance(mine, str) and isinstance(value, str):
        merged[key] = f"{mine} {value}"
    elif key in _LOWER | _UPPER and _number(mine) and _number(value):
        merged[key] = max(mine, value) if key in _LOWER else min(mine, value)
    elif key not in _REMARKS:
        left.append({key: value})


def _loosen(document: Schema) -> None:
    """Take recursion out of ``required``: Gemini unrolls it, and refuses it where it must be."""
    definitions = document.pop("$defs", {})
    schemas = {"#": document} | {f"#/$defs/{name}": each for name, each in definitions.items()}
    links = {place: _references(schema) & schemas.keys() for place, schema in schemas.items()}
    looping = _peeled(links)
    looping &= _peeled(_turned({place: links[place] & looping for place in looping}))
    for place in looping:
        for node in _nodes(schemas[place]):
            required, properties = node.get("required"), node.get("properties")
            if not isinstance(required, list) or not isinstance(properties, dict):
                continue
            loops = [n for n in required if looping & _references(properties.get(n))]
            if loops:
                node["required"] = [name for name in required if name not in loops]
                node["description"] = _described(node.get("description"), {"required": loops})
                if not node["required"]:
                    del node["required"]
    if definitions:
        document["$defs"] = definitions


def _peeled(links: Mapping[str, set[str]]) -> set[str]:
    """Return the places from which one can go on for ever."""
    open_links = {place: len(leads) for place, leads in links.items()}
    back = _turned(links)
    ends = [place for place, number in open_links.items() if not number]
    while ends:
        for place in back[ends.pop()]:
            open_links[place] -= 1
            if not open_links[place]:
                ends.append(place)
    return {place for place, number in open_links.items() if number}


def _turned(links: Mapping[str, set[str]]) -> dict[str, set[str]]:
    turned: dict[str, set[str]] = {place: set() for place in links}
    for place, leads in links.items():
        for other in leads:
            turned[other].add(place)
    return turned


def _references(schema: Any) -> set[str]:
    found = (node.get("$ref") for node in _nodes(schema))
    return {reference for reference in found if isinstance(reference, str)}


def _nodes(schema: Any) -> Iterator[Schema]:
    waiting = [schema]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


def _described(given: Any, told: Mapping[str, Any]) -> str:
    text = given if isinstance(given, str) else ""
    if not told:
        return text
    notes = json.dumps(told, ensure_ascii=False, separators=(", ", ": "))[1:-1]
    return f"{text} ({notes})".strip()


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
