"""Images and documents as Gemini's parts."""

from __future__ import annotations

import base64
import binascii
import mimetypes
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from app.translate.errors import InvalidRequest, Unsuited
from app.translate.target import Target

_NOT_PUBLIC = ("localhost", ".internal", ".local", "generativelanguage.googleapis.com")


def media_part(block: Mapping[str, Any], path: str, target: Target) -> dict[str, Any]:
    """Return an ``image`` block, or a ``document`` of bytes or a URL, as a part.

    Raises `InvalidRequest` naming the field at ``path``.
    """
    source = block["source"]
    kind = source.get("type")
    if kind == "base64":
        mime = source["media_type"].strip().lower() or "application/octet-stream"
        _check_type(mime, f"{path}.source.media_type", target)
        return {"inlineData": {"mimeType": mime, "data": source["data"]}}
    if kind == "url":
        if target.flavour == "gemini" and target.family in "12":
            raise Unsuited(
                f"{path}.source: {target.model} can't fetch URLs; send the bytes as base64"
            )
        mime = _mime_of(source["url"], block["type"])
        _check_type(mime, f"{path}.source.url", target)
        return {"fileData": {"mimeType": mime, "fileUri": source["url"]}}
    raise InvalidRequest(f"{path}.source.type: {kind!r} is not supported here; use base64 or url")


def _check_type(mime: str, path: str, target: Target) -> None:
    if mime == "image/gif" and target.flavour == "gemini":
        raise Unsuited(f"{path}: Gemini takes no image/gif; send png, jpeg or webp")


def check_base64(data: str, path: str) -> None:
    """Raise `InvalidRequest` unless ``data`` is base64."""
    try:
        valid = bool(base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError):
        valid = False
    if not valid:
        raise InvalidRequest(f"{path}: Input is not valid base64")


def check_url(url: str, path: str) -> None:
    """Raise `InvalidRequest` unless ``url`` is one that anybody may read.

    Google fetches it, some kinds with the account's own rights: ``gs://`` buckets and uploaded
    files are the operator's, not the client's.
    """
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        raise InvalidRequest(f"{path}: Input should be a valid URL") from None
    if (
        parts.scheme not in ("http", "https")
        or not host
        or "@" in parts.netloc
        or host.endswith(_NOT_PUBLIC)
        or not _public_address(host)
    ):
        raise InvalidRequest(f"{path}: Only public http and https URLs are supported")


def _public_address(host: str) -> bool:
    """Tell whether ``host`` is a name, or an address that is reachable from everywhere."""
    try:
        return ip_address(host).is_global
    except ValueError:
        return not host.replace(".", "").isdecimal()  # 127.1 and 2130706433 are addresses, too


def _mime_of(url: str, kind: str) -> str:
    guessed, _ = mimetypes.guess_type(urlsplit(url).path)
    if guessed:
        return guessed
    return "image/jpeg" if kind == "image" else "application/pdf"
