"""Gemini's answer chunks → Anthropic's events, one answer at a time, as they arrive.

How Gemini streams: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
What Anthropic clients expect: https://docs.anthropic.com/en/docs/build-with-claude/streaming

What has no form on Anthropic's side is left out: ``citationMetadata`` (recitation notices without
a quoted text), ``safetyRatings``, log probabilities, and media that the model makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from app.translate import ends
from app.translate.blocks import BlockWriter, Event, message_start
from app.translate.calls import CallWriter
from app.translate.chunk_fields import (
    SERVER_PARTS,
    check_part,
    first_candidate,
    malformed,
    repeated,
    text_of,
    visible_text,
)
from app.translate.errors import BadAnswer
from app.translate.grounding import Grounding, Placement
from app.translate.opening import FenceFilter, PrefillFilter
from app.translate.reply import ReplyContext
from app.translate.server_tools import SEARCH_TYPE, Page, ServerTools
from app.translate.signatures import note, result_key
from app.translate.stop_sequences import StopMatcher
from app.translate.thinking import ThinkingWriter
from app.translate.usage import UsageMeter


class StreamTranslator:
    """Translates one answer; sans-I/O.

    ``new_nonce`` returns 22 fresh characters of ``[A-Za-z0-9]`` at each call; ``now`` tells the
    time, with its zone, that fetched pages are said to be of. After each `feed` and `finish` the
    caller stores ``notes`` (and empties it) before the events leave.

    Content leaves with the chunk it came in, with three exceptions. Text that may be the
    beginning of a stop sequence waits until it is known. A thinking block's signature waits for
    the next part. And the text of a searched answer waits for the end, since only there Google
    tells the queries and pages that come before it, and where citations split it: always, when
    searching is all that the request offers; from the first sign of a search, when it offers
    other tools too. If no sign came and a search turns up at the end all the same, its
    citations go to the open text block and its blocks follow it.
    """

    def __init__(
        self,
        context: ReplyContext,
        new_nonce: Callable[[], str],
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self._context = context
        self._message_id = "msg_" + new_nonce()
        self.notes: dict[str, str] = {}
        self.served_model = ""
        self.stop_reason: str | None = None
        self._meter = UsageMeter(context.input_estimate)
        self._writer = BlockWriter(self._message_start, context.target, self.notes)
        self._thinking = ThinkingWriter(context.thinking, self._writer, context.target)
        self._calls = CallWriter(context, self._writer, new_nonce, self.notes)
        self._server = ServerTools(self._writer, context.target, new_nonce, self.notes, now)
        self._openings: tuple[PrefillFilter | FenceFilter, ...] = (
            *((PrefillFilter(context.prefill),) if context.prefill else ()),
            *((FenceFilter(inside=context.resumed),) if context.json_answer else ()),
        )
        self._filters = self._openings
        self._matcher = StopMatcher(context.stop_sequences) if context.stop_sequences else None
        self._placement: Placement | None = None
        self._seen: list[str] = []
        self._arrived = 0
        self._searchable = "web_search" in context.server_tools
        self._holding = self._searchable and not context.known_tools
        self._held: list[Mapping[str, Any]] = []
        self._late: list[Page] = []
        self._grounding: Mapping[str, Any] = {}
        self._media = False
        self._finish_reason = ""
        self._finish_message = ""
        self._blocked: ends.Ending | None = None

    @property
    def done(self) -> bool:
        """Tell whether ``message_stop`` was returned: the upstream may be left."""
        return self.stop_reason is not None

    @property
    def content_sent(self) -> bool:
        """Tell whether events have been returned: from then on a failure can't be hidden."""
        return self._writer.started

    @property
    def usage(self) -> dict[str, Any]:
        """Anthropic's usage totals so far (tokens)."""
        return self._meter.totals(searches=self._server.searches, fetches=self._server.fetches)

    def feed(self, chunk: Mapping[str, Any]) -> list[Event]:
        """Return the events that ``chunk`` makes, [] when none are due.

        Raises `BadAnswer` when the answer is none; content of earlier chunks stays valid.
        """
        if self.stop_reason is not None:
            return []
        metadata = chunk.get("usageMetadata")
        if isinstance(metadata, dict):
            self._meter.observe(metadata)
        served = chunk.get("modelVersion")
        if served and isinstance(served, str):
            self.served_model = served
        candidate = first_candidate(chunk)
        if candidate is None:
            self._read_envelope(chunk)
            return self._writer.take()
        if "finishReason" in candidate or "error" in chunk or "promptFeedback" in chunk:
            self._read_envelope(chunk)
            self._read_end(candidate)
        if "groundingMetadata" in candidate or "urlContextMetadata" in candidate:
            self._read_metadata(candidate)
        if self._searchable and self._meter.fed_by_tools:
            self._holding = True
        content = candidate.get("content")
        if content is None:
            return self._writer.take()
        if not isinstance(content, dict):
            raise malformed("content")
        parts = content.get("parts")
        if type(parts) is not list or len(parts) != 1 or not self._wrote_plain(parts[0]):
            self._read_parts(repeated(content, "parts"))
        return self._writer.take()

    def finish(self) -> list[Event]:
        """Return the last events, now that the upstream has ended; [] when `done`.

        Raises `BadAnswer` when the answer was cut (no ``finishReason``), unusable or empty.
        """
        if self.done:
            return []
        if self._blocked is None and not self._finish_reason:
            raise BadAnswer("The upstream ended without a finish reason.")
        if self._finish_reason in ends.FAULTS:
            raise ends.fault(self._finish_reason, self._finish_message)
        self._release()
        if not self.done:
            self._settle(whole=self._finish_reason == "STOP")
        if not self.done:
            ending = self._blocked or self._judged()
            if self._calls.dropped and ending.stop_reason not in ("max_tokens", "refusal"):
                raise BadAnswer("The upstream left a function call unfinished.")
            self._end(ending)
        return self._writer.take()

    def _judged(self) -> ends.Ending:
        content = self._writer.visible or any(self._seen)
        if self._media and not content:
            raise BadAnswer(
                "The model answered with media alone, which a Messages answer can't carry.",
                retryable=False,
            )
        return ends.finished(
            self._finish_reason,
            self._finish_message,
            content=content,
            calls=self._calls.count > 0,
            may_be_empty=bool(self._context.stop_sequences),
        )

    def _read_envelope(self, chunk: Mapping[str, Any]) -> None:
        """Read what stands beside the candidates."""
        error = chunk.get("error")
        if error:  # the backend raises these before; here they must at least not pass for an end
            message = error.get("message") if isinstance(error, dict) else error
            raise BadAnswer(f"The upstream reported an error in its stream: {message}")
        feedback = chunk.get("promptFeedback")
        if not isinstance(feedback, dict):
            return
        reason = text_of(feedback.get("blockReason"))
        if reason:
            self._blocked = ends.blocked(reason, text_of(feedback.get("blockReasonMessage")))

    def _read_end(self, candidate: Mapping[str, Any]) -> None:
        """Read the finish reason; one in a later chunk does not soften an earlier one.

        An unusable answer of which nothing was sent is given up at once, so that the call that
        a chunk with UNEXPECTED_TOOL_CALL may hold never leaves.
        """
        reason = candidate.get("finishReason")
        if not isinstance(reason, str):
            if reason is None:
                return
            raise malformed("finishReason")
        if not reason or ends.weight(reason) < ends.weight(self._finish_reason):
            return
        self._finish_reason = reason
        self._finish_message = text_of(candidate.get("finishMessage"))
        if reason in ends.FAULTS:
            if not self._writer.started:
                raise ends.fault(reason, self._finish_message)
            self._calls.refuse()

    def _read_metadata(self, candidate: Mapping[str, Any]) -> None:
        """Read what Google's tools say beside the content."""
        grounding = candidate.get("groundingMetadata")
        if isinstance(grounding, dict):
            self._holding |= self._searchable
            if grounding:
                self._grounding = {**self._grounding, **grounding}
        fetched = candidate.get("urlContextMetadata")
        if isinstance(fetched, dict) and fetched:
            if self._held:
                self._held.append({"urlContextMetadata": fetched})
            else:
                self._fetched(fetched)

    def _hold(self, part: Mapping[str, Any]) -> bool:
        """Keep a part of a searched answer for later; False when it may go on its way.

        Order is kept: once something waits, all that follows waits too.
        """
        text = part.get("text")
        if self._held or "toolResponse" in part or (text and not part.get("thought")):
            self._held.append(part)
            return True
        return False

    def _release(self) -> None:
        """Write what waited for the end, with what a search found."""
        self._holding = False
        grounding = Grounding.read(self._grounding)
        if grounding:
            self._ground(grounding)
        for part in self._held:
            self._part(part)
            if self.done:
                return

    def _ground(self, grounding: Grounding) -> None:
        """Write a search's blocks, and see to the citations of the text before and behind."""
        whole = "".join((*self._seen, *map(visible_text, self._held)))
        cut = 0
        for opening in self._openings:
            cut += opening.cut(whole[cut:])
        cited = grounding.cited(whole)
        for stretch in cited:
            stretch.start, stretch.end = max(stretch.start - cut, 0), stretch.end - cut
        self._settle_text()
        self._thinking.end()
        if self.done:
            return
        if self._writer.in_text:
            for stretch in cited:
                if self._writer.text_start <= stretch.start and stretch.end <= self._arrived:
                    for citation in stretch.citations:
                        self._writer.cite(citation)
        if self._held:
            self._placement = Placement(self._writer, cited, self._arrived)
        self._server.grounded(grounding)

    def _read_parts(self, parts: list[Any]) -> None:
        for part in parts:
            check_part(part)
            if self._holding and self._hold(part):
                continue
            self._part(part)
            if self.done:
                break

    def _wrote_plain(self, part: object) -> bool:
        """Do what `_part` would with mere text in which nothing else has a say; False for others.

        Nearly all parts are such text, and this is the short way for it.
        """
        text = part.get("text") if type(part) is dict and len(part) == 1 else None
        if (
            type(text) is not str
            or self._filters
            or self._matcher
            or self._placement
            or self._holding
            or self._thinking.pending
            or self._calls.under_way
        ):
            return False
        if text:
            self._seen.append(text)
            self._arrived += len(text)
            self._writer.text(text)
        return True

    def _part(self, part: Mapping[str, Any]) -> None:
        """Translate one part: exactly one kind of data, maybe signed."""
        signature = part.get("thoughtSignature", "")
        if type(signature) is not str or not signature.isascii():
            signature = ""
        text, call = part.get("text"), part.get("functionCall")
        if text and not call:
            call = None
        if part.get("thought") and call is None:
            if self._context.thinking != "off" and (text or signature):
                self._settle()
                self._thinking.thought(text_of(text), signature)
        elif call is not None:
            self._call(call, "" if part.get("thought") else text_of(text), signature)
        elif text:
            self._text(text, signature)
        elif kind := next((k for k in SERVER_PARTS if part.get(k) is not None), None):
            self._settle()
            self._thinking.end()
            if not self.done:
                self._server_part(kind, part, signature)
        elif isinstance(part.get("urlContextMetadata"), dict):
            self._fetched(part["urlContextMetadata"])
        elif isinstance(part.get("inlineData") or part.get("fileData"), dict):
            self._media = True
        elif signature:
            self._signed_nothing(signature)

    def _call(self, call: Mapping[str, Any], text: str, signature: str) -> None:
        """Translate a ``functionCall``; ``text`` stood in the same part and may not get lost."""
        if text:
            self._text(text, "")
        self._settle_text()
        self._settle_pages()
        if not self.done:
            self._calls.part(call, signature, self._thinking)

    def _server_part(self, kind: str, part: Mapping[str, Any], signature: str) -> None:
        if kind == "executableCode":
            self._server.code(part, signature)
        elif kind == "codeExecutionResult":
            self._server.code_result(part, signature)
        elif kind == "toolResponse":
            self._server.traced_result(part)
        else:
            self._server.traced_call(part, signature)
            if part["toolCall"].get("toolType") == SEARCH_TYPE:
                self._holding = True

    def _fetched(self, metadata: Mapping[str, Any]) -> None:
        """Write pages that were read: at once, or behind the text that they would part.

        Google may repeat them in every chunk, or name them only in the last one.
        """
        self._late += self._server.pages(metadata)
        waiting = (self._matcher and self._matcher.holding) or (self._filters and self._seen)
        if not (self._writer.in_text or waiting):
            self._settle()

    def _settle_pages(self) -> None:
        if self._late and not self.done:
            self._thinking.end()
            self._server.fetched(self._late)
            self._late = []

    def _text(self, text: str, signature: str) -> None:
        """Translate visible text; ``signature`` is that of the part it came in."""
        self._calls.complete()
        self._seen.append(text)
        if self._filters:
            for filter_ in self._filters:
                text = filter_.push(text)
            self._filters = tuple(f for f in self._filters if not f.settled)
        if signature:
            self._writer.mark(self._arrived, self._arrived + len(text), signature)
        self._arriving(text, signature)

    def _arriving(self, text: str, signature: str = "") -> None:
        if not text:
            return
        if signature or self._thinking.pending:
            self._thinking.lead_to(signature, len(text))
        self._arrived += len(text)
        hit = None
        if self._matcher:
            text, hit = self._matcher.push(text)
        if text:
            self._show(text)
        if hit is not None:
            self._end(ends.Ending("stop_sequence", hit))

    def _show(self, text: str) -> None:
        if self._placement:
            self._placement.text(text)
        else:
            self._writer.text(text)

    def _signed_nothing(self, signature: str) -> None:
        """Keep the signature of an empty text part.

        It belongs to the text it ends; behind a client's call, with no text to hold it, it is
        noted under that call's `result_key`; else to the start of the text that may follow.
        """
        waiting = self._matcher is not None and self._matcher.holding
        nonce = self._calls.newest_nonce
        if nonce and not waiting:
            self.notes[result_key(nonce)] = note(signature, self._context.target)
        else:
            self._writer.mark(self._arrived, self._arrived, signature)

    def _settle_text(self) -> None:
        """Write what filters and matcher hold back: something else than text follows."""
        if self._filters and self._seen:
            rest = ""
            for filter_ in self._filters:
                rest = filter_.push(rest) + filter_.flush()
            self._filters = ()
            self._arriving(rest)
        if self._matcher and self._matcher.holding and not self.done:
            self._show(self._matcher.flush())

    def _settle(self, *, whole: bool = True) -> None:
        """End what is under way but thinking; a call that is not ``whole`` is dropped."""
        self._settle_text()
        if not self.done:
            self._calls.complete(whole=whole)
        self._settle_pages()

    def _end(self, ending: ends.Ending) -> None:
        """Write the end of the message."""
        self._thinking.end()
        self._settle_pages()
        self._writer.close()
        self.stop_reason = ending.stop_reason
        delta: dict[str, Any] = {
            "stop_reason": ending.stop_reason,
            "stop_sequence": ending.stop_sequence,
        }
        if ending.stop_details:
            delta["stop_details"] = ending.stop_details
        self._writer.end({"type": "message_delta", "delta": delta, "usage": self.usage})

    def _message_start(self) -> Event:
        usage = self._meter.start(output_tokens=0 if self.done else 1)
        return message_start(self._message_id, self._context.model, usage)
