"""Values that satisfy a schema: arguments of calls, and JSON answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_DEPTH = 12
_FORMATS = {
    "date-time": "2026-01-02T03:04:05Z",
    "date": "2026-01-02",
    "time": "03:04:05Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "url": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
    "hostname": "example.com",
}


class Filler:
    """Fills one schema (Google's ``Schema`` or JSON Schema), ``hints`` first come, first served.

    ``hints`` are strings to use for properties that take free text; when they run out, a property
    gets ``sample NAME``. Only what is required is filled in, and one item of each list.
    """

    def __init__(self, schema: object, hints: Sequence[str] = ()) -> None:
        self._root = schema if isinstance(schema, Mapping) else {}
        self._hints: Iterator[str] = iter(hints)

    def value(self) -> Any:
        """Return a value for the whole schema."""
        return self._value(self._root, "value", 0)

    def _value(self, schema: object, name: str, depth: int) -> Any:  # noqa: PLR0911
        if not isinstance(schema, Mapping) or depth > _DEPTH:
            return None if depth > _DEPTH else f"sample {name}"
        schema = self._resolve(schema, depth)
        for key in ("const", "default", "example"):
            if key in schema:
                return schema[key]
        if schema.get("enum"):
            return schema["enum"][0]
        for key in ("anyOf", "oneOf"):
            options = [option for option in schema.get(key, ()) if not _is_null(option)]
            if options:
                rest = {k: v for k, v in schema.items() if k != key}
                return self._value({**rest, **options[0]}, name, depth + 1)
        match _kind(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "integer":
                return int(_number(schema))
            case "number":
                return _number(schema)
            case "boolean":
                return True
            case "null":
                return None
        return self._string(schema, name)

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        # A depth that is never reached ends recursive schemas, whose properties must be optional.
        required = [name for name in schema.get("required", ()) if isinstance(name, str)]
        extra = max(0, int(schema.get("minProperties", 0)) - len(required))
        required += [name for name in properties if name not in required][:extra]
        return {name: self._value(properties.get(name, {}), name, depth + 1) for name in required}

    def _array(self, schema: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        head = [self._value(item, name, depth + 1) for item in schema.get("prefixItems", ())]
        length = int(schema.get("minItems", min(1, int(schema.get("maxItems", 1)))))
        items = schema.get("items", {})
        if items is False or (head and "minItems" not in schema):
            return head
        return head + [self._value(items, name, depth + 1) for _ in range(length - len(head))]

    def _string(self, schema: Mapping[str, Any], name: str) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        text = next(self._hints, f"sample {name}")
        text = text.ljust(int(schema.get("minLength", 0)), ".")
        return text[: int(schema.get("maxLength", len(text)))]

    def _resolve(self, schema: Mapping[str, Any], depth: int) -> Mapping[str, Any]:
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            target: Any = self._root
            for step in reference.lstrip("#/").split("/") if reference != "#" else ():
                target = target.get(step, {}) if isinstance(target, Mapping) else {}
            return self._resolve(target, depth + 1) if depth < _DEPTH else {}
        merged = dict(schema)
        for part in merged.pop("allOf", ()):
            inner = self._resolve(part, depth + 1)
            merged["properties"] = {**merged.get("properties", {}), **inner.get("properties", {})}
            merged["required"] = [*merged.get("required", ()), *inner.get("required", ())]
            for key, item in inner.items():
                merged.setdefault(key, item)
        return merged


def _kind(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((word for word in kind if word != "null"), "null")
    if isinstance(kind, str):
        return kind.lower()
    if schema.get("properties") or schema.get("required"):
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else "string"


def _is_null(schema: object) -> bool:
    return isinstance(schema, Mapping) and str(schema.get("type", "")).lower() == "null"


def _number(schema: Mapping[str, Any]) -> float | int:
    step = schema.get("multipleOf", 1)
    low = schema.get("minimum")
    if low is None and "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + step
    high = schema.get("maximum")
    if high is None and "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - step
    if low is None:
        low = min(step, high) if high is not None else step
    number: float | int = -(-low // step) * step
    return number
