"""Google Search grounding: queries, sources, and which stretch of the answer rests on which.

``groundingMetadata`` comes at the end of a stream; its segments are offsets in UTF-8 bytes into
the whole visible text (or, in answers of several parts, into one of them: the segment's own text
tells).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from app.translate.blocks import BlockWriter


@dataclass(frozen=True)
class Source:
    """A page the answer was grounded on."""

    url: str
    title: str


@dataclass
class Cited:
    """A stretch of the text (characters, end exclusive) and the citations that cover it."""

    start: int
    end: int
    citations: list[dict[str, Any]]


@dataclass(frozen=True)
class Grounding:
    """``pages`` keeps Gemini's numbering: None where a chunk names no page."""

    queries: tuple[str, ...]
    pages: tuple[Source | None, ...]
    supports: tuple[Mapping[str, Any], ...]

    @property
    def sources(self) -> list[Source]:
        """Return the pages that can be shown."""
        return [page for page in self.pages if page]

    @classmethod
    def read(cls, metadata: Mapping[str, Any]) -> Grounding | None:
        """Return what ``groundingMetadata`` says, None when it says nothing."""
        queries = tuple(
            query
            for query in _items(metadata, "webSearchQueries")
            if isinstance(query, str) and query
        )
        pages = tuple(map(_page, _items(metadata, "groundingChunks")))
        supports = tuple(s for s in _items(metadata, "groundingSupports") if isinstance(s, dict))
        return cls(queries, pages, supports) if queries or any(pages) else None

    def cited(self, text: str) -> list[Cited]:
        """Return the cited stretches of ``text``, in order and disjoint.

        Overlapping segments become one stretch with the citations of both. What stands between
        two stretches, or around all, without a word in it is counted to its neighbour: a block of
        white space alone can't be sent back in a conversation, one of a full stop is no use.
        """
        found: list[Cited] = []
        located = _Locator(text)
        placed = (
            (where, citations)
            for support in self.supports
            if (where := located.find(support.get("segment")))
            and (citations := self._citations(support, text[slice(*where)]))
        )
        for (start, end), citations in sorted(placed, key=lambda item: item[0]):
            if found and start < found[-1].end:
                found[-1].end = max(end, found[-1].end)
                found[-1].citations += citations
            else:
                found.append(Cited(start, end, list(citations)))
        _absorb_gaps(found, text)
        return found

    def _citations(self, support: Mapping[str, Any], cited_text: str) -> list[dict[str, Any]]:
        citations = []
        for number in _items(support, "groundingChunkIndices"):
            if type(number) is not int or not 0 <= number < len(self.pages):
                continue
            if page := self.pages[number]:
                citations.append(
                    {
                        "type": "web_search_result_location",
                        "url": page.url,
                        "title": page.title,
                        "encrypted_index": str(number),
                        "cited_text": cited_text,
                    }
                )
        return citations


class Placement:
    """Writes text in blocks that begin and end where cited stretches do.

    ``cited`` must be in order and disjoint; positions count characters of the text as it is
    written, the first of which stands at ``position``.
    """

    def __init__(self, writer: BlockWriter, cited: Iterable[Cited], position: int) -> None:
        self._writer = writer
        self._cited = deque(stretch for stretch in cited if stretch.end > position)
        self._position = position

    def text(self, piece: str) -> None:
        """Write the next piece of the text."""
        writer = self._writer
        while piece and self._cited:
            stretch = self._cited[0]
            inside = self._position >= stretch.start
            if self._position == stretch.start:
                writer.break_text()
            taken = piece[: (stretch.end if inside else stretch.start) - self._position]
            writer.text(taken)
            self._position += len(taken)
            piece = piece[len(taken) :]
            if inside and self._position == stretch.end:
                for citation in stretch.citations:
                    writer.cite(citation)
                writer.break_text()
                self._cited.popleft()
        if piece:
            writer.text(piece)


class _Locator:
    """Finds segments in a text; later ones are looked for behind earlier ones first."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._encoded = text.encode("utf-8", "surrogatepass")
        self._behind = 0

    def find(self, segment: object) -> tuple[int, int] | None:
        """Return start and end in characters, None when the text has no such segment."""
        if not isinstance(segment, dict):
            return None
        wanted = segment.get("text")
        start, end = segment.get("startIndex") or 0, segment.get("endIndex")
        if not wanted and segment.get("partIndex"):
            return None  # offsets into another part, and nothing that tells where it begins
        if type(start) is int and type(end) is int and 0 <= start < end <= len(self._encoded):
            first, last = self._characters(start), self._characters(end)
            if not wanted or self._text[first:last] == wanted:
                self._behind = last
                return (first, last) if first < last else None
        if not isinstance(wanted, str) or not wanted:
            return None
        first = self._text.find(wanted, self._behind)
        if first < 0:
            first = self._text.find(wanted)
        if first < 0:
            return None
        self._behind = first + len(wanted)
        return first, self._behind

    def _characters(self, offset: int) -> int:
        return len(self._encoded[:offset].decode("utf-8", "ignore"))


def _absorb_gaps(found: list[Cited], text: str) -> None:
    if not found:
        return
    if _no_words(text[: found[0].start]):
        found[0].start = 0
    for stretch, following in pairwise(found):
        if _no_words(text[stretch.end : following.start]):
            stretch.end = following.start
    if _no_words(text[found[-1].end :]):
        found[-1].end = len(text)


def _no_words(text: str) -> bool:
    return not any(map(str.isalnum, text))


def _page(chunk: object) -> Source | None:
    for kind in ("web", "maps", "retrievedContext"):
        page = chunk.get(kind) if isinstance(chunk, dict) else None
        if not isinstance(page, dict):
            continue
        url, title = page.get("uri"), page.get("title")
        if isinstance(url, str) and url:
            return Source(url, title if isinstance(title, str) and title else url)
    return None


def _items(holder: Mapping[str, Any], name: str) -> list[Any]:
    value = holder.get(name)
    return value if isinstance(value, list) else []
