"""The fields at the top of a request, as marshmallow schemas with Anthropic's error texts.

Unknown fields pass. What is below (messages, tools, content) is `app.translate.validation`'s: a
coding agent sends thousands of blocks, for which a schema would cost too much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from marshmallow import INCLUDE, Schema, ValidationError, fields, validate

from app.translate.errors import InvalidRequest


def _required() -> dict[str, Any]:
    return {"required": "Field required", "null": "Field required"}


class _Text(fields.String):
    default_error_messages = {  # noqa: RUF012 - as marshmallow declares it
        "invalid": "Input should be a valid string",
        **_required(),
    }


class _Whole(fields.Integer):
    default_error_messages = {  # noqa: RUF012 - as marshmallow declares it
        "invalid": "Input should be a valid integer",
        **_required(),
    }

    def __init__(self, **options: Any) -> None:
        super().__init__(strict=True, **options)

    def _validated(self, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.make_error("invalid", input=value)
        return super()._validated(value) or 0


class _Number(fields.Float):
    default_error_messages = {  # noqa: RUF012 - as marshmallow declares it
        "invalid": "Input should be a valid number",
        **_required(),
    }

    def _validated(self, value: Any) -> float:
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise self.make_error("invalid", input=value)
        return float(value)


class _Flag(fields.Field[bool]):
    default_error_messages = {  # noqa: RUF012 - as marshmallow declares it
        "invalid": "Input should be a valid boolean",
        **_required(),
    }

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid")
        return value


class _Object(fields.Field[dict[str, Any]]):
    default_error_messages = {  # noqa: RUF012 - as marshmallow declares it
        "invalid": "Input should be an object",
        **_required(),
    }

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.make_error("invalid")
        return value


class _Objects(fields.Field[list[dict[str, Any]]]):
    default_error_messages = {  # noqa: RUF012 - as marshmallow declares it
        "invalid": "Input should be a valid list",
        **_required(),
    }

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> list[dict[str, Any]]:
        if not isinstance(value, list):
            raise self.make_error("invalid")
        for number, item in enumerate(value):
            if not isinstance(item, dict):
                raise ValidationError({number: ["Input should be an object"]})
        return value


def _between(low: float, high: float) -> validate.Range:
    return validate.Range(low, high, error=f"Input should be between {low:g} and {high:g}")


class _Base(Schema):
    class Meta:
        unknown = INCLUDE


class _Thinking(_Base):
    type = _Text(required=True)
    budget_tokens = _Whole(
        allow_none=True,
        validate=validate.Range(1024, error="Input should be greater than or equal to 1024"),
    )


class _ToolChoice(_Base):
    type = _Text(
        required=True,
        validate=validate.OneOf(
            ("auto", "any", "tool", "none"), error="Input should be 'auto', 'any', 'tool' or 'none'"
        ),
    )
    name = _Text()
    disable_parallel_tool_use = _Flag(allow_none=True)


class _Count(_Base):
    model = _Text(required=True, validate=validate.Length(1, error="Field required"))
    messages = _Objects(required=True)
    system = fields.Raw(allow_none=True)
    tools = _Objects(allow_none=True)
    tool_choice = _Object(allow_none=True)
    thinking = _Object(allow_none=True)
    output_config = _Object(allow_none=True)
    output_format = _Object(allow_none=True)
    metadata = _Object(allow_none=True)


class _Messages(_Count):
    max_tokens = _Whole(
        required=True,
        validate=validate.Range(0, error="Input should be greater than or equal to 1"),
    )
    stream = _Flag(allow_none=True)
    stop_sequences = fields.List(
        _Text(), allow_none=True, error_messages={"invalid": "Input should be a valid list"}
    )
    temperature = _Number(allow_none=True, validate=_between(0, 1))
    top_p = _Number(allow_none=True, validate=_between(0, 1))
    top_k = _Whole(
        allow_none=True,
        validate=validate.Range(0, error="Input should be greater than or equal to 0"),
    )


MESSAGES, COUNT = _Messages(), _Count()
THINKING, TOOL_CHOICE = _Thinking(), _ToolChoice()


def load(schema: Schema, value: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return what ``schema`` makes of ``value``; raises `InvalidRequest`, the path in front."""
    part = _part(schema, frozenset(schema.load_fields.keys() & value.keys()))
    try:
        loaded: dict[str, Any] = part.load(value)
    except ValidationError as error:
        path, reason = _first(error.messages)
        raise InvalidRequest(f"{prefix}{path}: {reason}") from None
    return loaded


@lru_cache(maxsize=256)
def _part(schema: Schema, names: frozenset[str]) -> Schema:
    """Return ``schema`` for values with the fields ``names``, as an absent one costs time, too."""
    return type(schema)(
        only=[name for name, field in schema.load_fields.items() if name in names or field.required]
    )


def _first(messages: Any) -> tuple[str, str]:
    path: list[str] = []
    while isinstance(messages, dict):
        key = next(iter(messages))
        path.append(str(key))
        messages = messages[key]
    return ".".join(path), str(messages[0] if isinstance(messages, list) else messages)
