"""docs/api.md is the OpenAPI document in words; ``python tests/api/test_api_page.py`` writes it."""

from __future__ import annotations

from pathlib import Path

from app.api.openapi import document

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
HEAD = """# API reference

The surface that clients see, from the OpenAPI document that every gateway serves at
`/openapi.json`. What becomes of each field on its way to Gemini is in
[compatibility.md](compatibility.md), how large requests may be in [limits.md](limits.md), what to
do about each error in [troubleshooting.md](troubleshooting.md).

Keys go into `x-api-key` or `Authorization: Bearer`. Every answer has a `request-id`. Fields that
are not listed are let through.
"""


def kind(schema):
    """A schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema and "properties" not in schema:
        return " or ".join(kind(option) for option in schema["anyOf"])
    if schema.get("properties", {}).get("type", {}).get("const"):
        return block(schema)
    types = schema.get("type", "any value")
    words = " or ".join(types if isinstance(types, list) else [types])
    if "items" in schema:
        words = words.replace("array", f"list of {kind(schema['items'])}")
    bounds = [
        f"{word} {schema[key]}"
        for key, word in (
            ("minimum", "from"),
            ("maximum", "to"),
            ("minItems", "at least"),
            ("maxItems", "at most"),
            ("minLength", "length at least"),
            ("default", "normally"),
        )
        if key in schema
    ]
    return f"{words}, {' '.join(bounds)}" if bounds else words


def block(schema):
    fields = [name for name in schema.get("required", []) if name != "type"]
    known = schema["properties"]["type"]
    name = known.get("const") or f"…{known['pattern'].rstrip('$')}"
    return f"`{name}`" + (f" with {', '.join(f'`{field}`' for field in fields)}" if fields else "")


def fields(schema):
    yield "| field | type | |"
    yield "|---|---|---|"
    for name, value in schema["properties"].items():
        needed = "required" if name in schema.get("required", []) else ""
        yield f"| `{name}` | {kind(value)} | {needed} |"


def operation(path, method, found):
    yield f"## {method.upper()} {path}"
    yield ""
    yield found["summary"] + "."
    yield ""
    body = found.get("requestBody")
    if body:
        yield f"Takes a {kind(body['content']['application/json']['schema'])}."
        yield ""
    if found.get("parameters"):
        yield "| parameter | type | |"
        yield "|---|---|---|"
        for one in found["parameters"]:
            where = "in the path" if one["in"] == "path" else "in the query"
            yield f"| `{one['name']}` | {kind(one['schema'])} | {where} |"
        yield ""
    yield "| status | answer |"
    yield "|---|---|"
    refusals = [status for status, answer in found["responses"].items() if "$ref" in answer]
    for status, answer in found["responses"].items():
        if "$ref" in answer:
            continue
        schema = answer["content"]["application/json"]["schema"]
        shown = "" if schema == {"type": "object"} else f" ({kind(schema)})"
        yield f"| {status} | {answer['description']}{shown} |"
    yield f"| {', '.join(refusals)} | [an error](#errors) |"
    yield ""


def written(found):
    lines = [HEAD]
    for path, methods in found["paths"].items():
        for method, one in methods.items():
            lines += operation(path, method, one)
    lines += [
        "## Errors",
        "",
        '`{"type": "error", "error": {"type", "message"}, "request_id"}`',
        "",
    ]
    lines += ["| status | type | when |", "|---|---|---|"]
    for name, response in found["components"]["responses"].items():
        inner = response["content"]["application/json"]["schema"]["properties"]["error"]
        error_type = inner["properties"]["type"]["const"]
        lines.append(f"| {name[1:]} | `{error_type}` | {response['description']} |")
    lines += ["", "## Schemas", ""]
    for name, schema in found["components"]["schemas"].items():
        lines += [f"### {name}", ""]
        if "anyOf" in schema:
            lines += [f"- {block(o) if 'properties' in o else kind(o)}" for o in schema["anyOf"]]
        else:
            lines += fields(schema)
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def test_the_page_is_what_the_document_says():
    assert PAGE.read_text() == written(document(33_554_432))


if __name__ == "__main__":
    PAGE.write_text(written(document(33_554_432)))
