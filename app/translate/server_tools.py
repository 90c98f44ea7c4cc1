"""What Google's own tools did, as Anthropic's server tool blocks.

Google answers a search in one piece: its queries are known, its pages belong to all of them. So
the first result block of an answer lists all pages, and further ones are empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from app.translate.blocks import BlockWriter
from app.translate.errors import BadAnswer
from app.translate.grounding import Grounding, Source
from app.translate.signatures import (
    SERVER_TOOL_PREFIX,
    note,
    pack_tool_id,
    part_note,
    result_key,
    tool_key,
)
from app.translate.target import Target

SEARCH_TYPE = "GOOGLE_SEARCH_WEB"
_FETCH_TYPE = "URL_CONTEXT"
_SEARCH, _FETCH = "web_search", "web_fetch"
_FETCH_ERRORS = {
    "URL_RETRIEVAL_STATUS_UNSAFE": "url_not_allowed",
    "URL_RETRIEVAL_STATUS_ERROR": "url_not_accessible",
    "URL_RETRIEVAL_STATUS_PAYWALL": "url_not_accessible",
}


class _Call(NamedTuple):
    """A call that was written: Gemini's id of it, the client's, and the nonce of its notes."""

    call_id: str
    tool_id: str
    nonce: str
    name: str
    arguments: dict[str, Any]


class Page(NamedTuple):
    """A page that Google was to read, and Google's word for how that went."""

    url: str
    status: object


class ServerTools:
    """Writes the blocks of Google-run tools and counts their uses."""

    def __init__(
        self,
        writer: BlockWriter,
        target: Target,
        new_nonce: Callable[[], str],
        notes: dict[str, str],
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self._now = now
        self._writer = writer
        self._target = target
        self._new_nonce = new_nonce
        self._notes = notes
        self._code_runs: list[_Call] = []
        self._traced: list[_Call] = []
        self._fetched: set[str] = set()
        self._sources: list[Source] = []
        self.traced_search = False
        self.traced_fetch = False
        self.searches = 0
        self.fetches = 0

    def code(self, part: Mapping[str, Any], signature: str) -> None:
        """Write an ``executableCode`` part."""
        code = part["executableCode"]
        arguments = {"code": _text(code.get("code"))}
        self._code_runs.append(self._call("code_execution", arguments, code, signature))

    def code_result(self, part: Mapping[str, Any], signature: str) -> None:
        """Write a ``codeExecutionResult`` part behind the code it belongs to."""
        result = part["codeExecutionResult"]
        if not self._code_runs:  # a result always has a call in a client's history
            self._code_runs.append(self._call("code_execution", {"code": ""}, {}, ""))
        wanted = _word(result.get("id"))
        run = next((run for run in self._code_runs if run.call_id == wanted), self._code_runs[0])
        self._code_runs.remove(run)
        if signature:
            self._notes[result_key(run.nonce)] = note(signature, self._target)
        output, outcome = _text(result.get("output")), result.get("outcome")
        failed = outcome not in ("OUTCOME_OK", None)
        content: dict[str, Any] = {
            "type": "code_execution_result",
            "stdout": "" if failed else output,
            "stderr": output if failed else "",
            "return_code": 1 if failed else 0,
            "content": [],
        }
        if outcome == "OUTCOME_DEADLINE_EXCEEDED" and not output:
            content = {
                "type": "code_execution_tool_result_error",
                "error_code": "execution_time_exceeded",
            }
        self._result("code_execution_tool_result", run.tool_id, content)

    def traced_call(self, part: Mapping[str, Any], signature: str) -> None:
        """Write a ``toolCall`` part (Gemini 3's trace); the part itself goes into a note.

        Tools that have no Anthropic counterpart are never asked for, and leave no block.
        """
        call = part["toolCall"]
        args = call.get("args")
        args = args if isinstance(args, dict) else {}
        if call.get("toolType") == SEARCH_TYPE:
            queries = [q for q in _list(args.get("queries")) if isinstance(q, str) and q]
            self.traced_search = True
            self.searches += max(len(queries), 1)
            name, arguments = _SEARCH, {"query": "; ".join(queries)}
        elif call.get("toolType") == _FETCH_TYPE:
            urls = [u for u in _list(args.get("urls")) if isinstance(u, str) and u]
            self.traced_fetch = True
            self.fetches += max(len(urls), 1)
            name, arguments = _FETCH, {"url": " ".join(urls)}
        else:
            return
        traced = self._call(name, arguments, call, signature)
        self._notes[tool_key(traced.nonce)] = self._echo(part)
        self._traced.append(traced)

    def traced_result(self, part: Mapping[str, Any]) -> None:
        """Write a ``toolResponse`` part; the part itself goes into a note."""
        wanted = _word(part["toolResponse"].get("id"))
        call = next((call for call in self._traced if call.call_id == wanted), None)
        if call is None:
            return
        self._traced.remove(call)
        self._notes[result_key(call.nonce)] = self._echo(part)
        if call.name == _SEARCH:
            self._search_result(call.tool_id)
        else:
            self._fetch_result(call.tool_id, call.arguments["url"], "")

    def grounded(self, grounding: Grounding) -> None:
        """Take in what a search found; write its blocks unless the parts show the search.

        ``searches`` is the number of queries that Google names. A search without a query still
        counts: its pages are there.
        """
        self._sources = grounding.sources
        if grounding.queries:
            self.searches = len(grounding.queries)
        if self.traced_search or (not grounding.queries and (self.fetches or self._fetched)):
            return
        self.searches = self.searches or 1
        for query in grounding.queries or ("",):
            self._search_result(self._call(_SEARCH, {"query": query}, {}, "").tool_id)

    def pages(self, metadata: Mapping[str, Any]) -> list[Page]:
        """Return the pages of ``urlContextMetadata`` that were not in an earlier one."""
        new = []
        for page in _list(metadata.get("urlMetadata")):
            url = page.get("retrievedUrl") if isinstance(page, dict) else None
            if isinstance(url, str) and url and url not in self._fetched:
                self._fetched.add(url)
                new.append(Page(url, page.get("urlRetrievalStatus")))
        return [] if self.traced_fetch else new

    def fetched(self, pages: Iterable[Page]) -> None:
        """Write pages that Google has read."""
        for page in pages:
            self.fetches += 1
            call = self._call(_FETCH, {"url": page.url}, {}, "")
            self._fetch_result(call.tool_id, page.url, page.status)

    def _call(
        self, name: str, arguments: dict[str, Any], data: Mapping[str, Any], signature: str
    ) -> _Call:
        nonce, call_id = self._new_nonce(), _word(data.get("id"))
        tool_id, kept = pack_tool_id(
            nonce, call_id, signature, self._target, prefix=SERVER_TOOL_PREFIX
        )
        self._notes.update(kept)
        self._writer.tool("server_tool_use", tool_id, name, arguments)
        return _Call(call_id, tool_id, nonce, name, arguments)

    def _echo(self, part: Mapping[str, Any]) -> str:
        """Return the note of a part that goes back verbatim."""
        try:
            return part_note(part, self._target)
        except RecursionError:
            raise BadAnswer("The upstream sent a tool call that is nested without end.") from None

    def _search_result(self, tool_id: str) -> None:
        pages, self._sources = self._sources, []
        content = [
            {
                "type": "web_search_result",
                "url": page.url,
                "title": page.title,
                "encrypted_content": "",
                "page_age": None,
            }
            for page in pages
        ]
        self._result("web_search_tool_result", tool_id, content)

    def _fetch_result(self, tool_id: str, url: str, status: object) -> None:
        """Write what a fetch brought: Google reads the page by itself and hands no text on."""
        error = _FETCH_ERRORS.get(status) if isinstance(status, str) else None
        content: dict[str, Any] = {
            "type": "web_fetch_result",
            "url": url,
            "retrieved_at": self._now().isoformat(timespec="microseconds") if self._now else None,
            "content": {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": ""},
                "title": None,
            },
        }
        if error:
            content = {"type": "web_fetch_tool_result_error", "error_code": error}
        self._result("web_fetch_tool_result", tool_id, content)

    def _result(self, kind: str, tool_id: str, content: object) -> None:
        self._writer.whole({"type": kind, "tool_use_id": tool_id, "content": content})


def _word(value: object) -> str:
    """Return an id of Gemini's, "" when it is none that can travel in ours."""
    return value if isinstance(value, str) and value.isascii() else ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
