"""Names of functions as Google takes them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection

LONGEST = 64
"""The schema allows 128 characters; several of Google's backends still enforce 64."""
_FIT = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}")


def google_name(name: str, taken: Collection[str] = ()) -> str:
    """Return ``name`` if Google takes it and it is free, else one that ends in its digest."""
    if _FIT.fullmatch(name) and name not in taken:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()
    plain = re.sub(r"[^A-Za-z0-9_.:-]", "_", name)
    if not re.match(r"[A-Za-z_]", plain):
        plain = f"_{plain}"
    ends = (digest[start : start + 8] for start in range(len(digest) - 7))
    fits = (f"{plain[: LONGEST - 9]}_{end}" for end in ends)
    return next((fit for fit in fits if fit not in taken), f"_{digest[1:]}")
