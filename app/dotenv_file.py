"""``.env``: what it sets, and whether all of it can be read."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import Binding, parse_stream


def read_dotenv(path: Path) -> tuple[dict[str, str], str]:
    """Return what the file sets, and one line that says what is wrong with it, else ``""``.

    A line that can't be read is no small thing: without it the gateway may let everybody in. Its
    text is not repeated, since it may be a secret; what the other lines set is returned all the
    same. A file that is not there sets nothing.
    """
    try:
        text = path.read_text("utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        return {}, f"{path} can't be read: {error}"
    bindings = list(parse_stream(StringIO(text)))
    slips = [binding for binding in bindings if _is_slip(binding)]
    # Only what can be read: of the rest dotenv would write a line of its own, past our log.
    readable = "".join(each.original.string for each in bindings if not _is_slip(each))
    values = dotenv_values(stream=StringIO(readable))
    found = {name: value for name, value in values.items() if value is not None}
    if not slips:
        return found, ""
    return found, (
        f"{path}, line {_line(slips[0])}: not NAME=value; put the whole value in quotes or none"
    )


def _is_slip(binding: Binding) -> bool:
    # A name alone sets nothing, and dotenv says nothing of it either.
    return binding.error or (binding.key is not None and binding.value is None)


def _line(binding: Binding) -> int:
    """Return where it begins; to dotenv the empty lines above belong to it."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
