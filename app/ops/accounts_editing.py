"""Changing the accounts file's text: what is there stays as it is, comments included."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

_HEADER = re.compile(r"\s*\[\[\s*[\"']?account[\"']?\s*\]\]")

Value = str | int | Sequence[str]


def with_account(text: str, fields: Mapping[str, Value]) -> str:
    """Return the TOML ``text`` with one more ``[[account]]`` of ``fields`` at its end."""
    start = text.rstrip()
    entry = "\n".join(f"{name} = {_written(value)}" for name, value in fields.items())
    return f"{start}\n\n[[account]]\n{entry}\n" if start else f"[[account]]\n{entry}\n"


def without_account(text: str, number: int) -> str:
    """Return ``text`` without its account ``number`` (from 0).

    Comments right above the next account stay with it. Raises IndexError for an account that has
    no header of its own, such as one in an inline list.
    """
    lines = text.splitlines(keepends=True)
    headers = [index for index, line in enumerate(lines) if _HEADER.match(line)]
    start = headers[number]
    end = headers[number + 1] if number + 1 < len(headers) else len(lines)
    while end < len(lines) and lines[end - 1].lstrip().startswith("#") and end - 1 > start:
        end -= 1
    kept = "".join(lines[:start]).rstrip() + "\n\n" + "".join(lines[end:])
    return kept.strip("\n") + "\n" if kept.strip() else ""


def _written(value: Value) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _quoted(value)
    return f"[{', '.join(map(_quoted, value))}]"


def _quoted(text: str) -> str:
    # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
