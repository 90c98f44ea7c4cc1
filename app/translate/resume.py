"""Going on with an answer that was cut: another attempt's events, spliced behind those sent.

Sound only while the client holds nothing but thinking and text: a call that was begun, or a block
that Google's tools made, can't be continued by another answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

Event = dict[str, Any]

LEAST_OVERLAP = 8
"""Characters at the seam that must repeat to count as a repetition and not as chance."""


class Translator(Protocol):
    """The translator of one attempt (`app.translate.stream.StreamTranslator`)."""

    notes: dict[str, str]

    @property
    def done(self) -> bool: ...  # noqa: D102
    @property
    def served_model(self) -> str: ...  # noqa: D102
    @property
    def stop_reason(self) -> str | None: ...  # noqa: D102
    @property
    def usage(self) -> dict[str, Any]: ...  # noqa: D102
    def feed(self, chunk: Mapping[str, Any]) -> list[Event]: ...  # noqa: D102
    def finish(self) -> list[Event]: ...  # noqa: D102


class Sent:
    """What of an answer has left for the client, over all its attempts."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._sound = True
        self.index = -1
        """Of the newest block."""
        self.in_text = False
        """A text block is open."""
        self.usage: Mapping[str, Any] = {}
        """Of all attempts that were cut."""

    @property
    def text(self) -> str:
        """All visible text."""
        return "".join(self._pieces)

    @property
    def resumable(self) -> bool:
        """Tell whether another attempt can go on from here."""
        return self._sound and self.in_text and bool(self._pieces)

    def add(self, events: Iterable[Event]) -> None:
        """Take note of events that leave."""
        for event in events:
            match event["type"]:
                case "content_block_delta":
                    delta = event["delta"]
                    if delta["type"] == "text_delta":
                        self._pieces.append(delta["text"])
                    elif delta["type"] == "citations_delta":
                        self._sound = False
                case "content_block_start":
                    self.index = event["index"]
                    kind = event["content_block"]["type"]
                    self.in_text = kind == "text"
                    self._sound = self._sound and kind in ("text", "thinking")
                case "content_block_stop":
                    self.in_text = False
                case "message_delta":
                    self._sound = False

    def cut(self, usage: Mapping[str, Any]) -> None:
        """Take note of what all attempts so far have used (tokens): the newest was cut."""
        self.usage = dict(usage)


class Recorded:
    """Passes a translator's events on and takes note of them in ``sent``."""

    def __init__(self, inner: Translator, sent: Sent) -> None:
        self._inner = inner
        self._sent = sent
        self.notes = inner.notes

    @property
    def done(self) -> bool:
        """Tell whether the answer is complete."""
        return self._inner.done

    @property
    def served_model(self) -> str:
        """The model that answered."""
        return self._inner.served_model

    @property
    def stop_reason(self) -> str | None:
        """Why the answer ended, None while it has not."""
        return self._inner.stop_reason

    @property
    def usage(self) -> dict[str, Any]:
        """Anthropic's usage totals of all attempts (tokens)."""
        return _added(self._sent.usage, self._inner.usage)

    def feed(self, chunk: Mapping[str, Any]) -> list[Event]:
        """Return the events that ``chunk`` makes."""
        return self._recorded(self._inner.feed(chunk))

    def finish(self) -> list[Event]:
        """Return the last events."""
        return self._recorded(self._inner.finish())

    def _recorded(self, events: list[Event]) -> list[Event]:
        self._sent.add(events)
        return events


class Resumed(Recorded):
    """Turns a new attempt's events into the continuation of those that were sent.

    Its head and its thinking are dropped, its first text goes on in the open block without what
    it repeats, the blocks behind follow on, and the usage is that of all attempts.
    """

    def __init__(self, inner: Translator, sent: Sent) -> None:
        super().__init__(inner, sent)
        self._overlap: OverlapFilter | None = OverlapFilter(sent.text)
        self._first = sent.index
        self._shift = 0
        self._joined = False
        self._dropping = False

    def _recorded(self, events: list[Event]) -> list[Event]:
        return super()._recorded([event for each in events for event in self._spliced(each)])

    def _spliced(self, event: Event) -> list[Event]:
        match event["type"]:
            case "message_start" | "ping":
                return []
            case "content_block_start":
                return self._started(event)
            case "content_block_delta" | "content_block_stop" as kind:
                moved = {**event, "index": event["index"] + self._shift}
                return [] if self._dropping else self._within(kind, moved)
            case "message_delta":
                ends = [] if self._joined else self._stopped()
                self._joined = True
                return [*ends, {**event, "usage": self.usage}]
            case _:
                return [event]

    def _started(self, event: Event) -> list[Event]:
        kind = event["content_block"]["type"]
        self._dropping = kind == "thinking" and not self._joined
        if self._dropping:
            return []
        if self._joined:
            return [{**event, "index": event["index"] + self._shift}]
        self._joined = True
        if kind == "text":
            self._shift = self._first - event["index"]
            return []
        self._shift = self._first + 1 - event["index"]
        return [*self._stopped(), {**event, "index": self._first + 1}]

    def _stopped(self) -> list[Event]:
        return [{"type": "content_block_stop", "index": self._first}]

    def _within(self, kind: str, event: Event) -> list[Event]:
        if kind == "content_block_stop":
            return [*self._rest(), event]
        if self._overlap is None or event["delta"]["type"] != "text_delta":
            return [event]
        text = self._overlap.push(event["delta"]["text"])
        if self._overlap.settled:
            self._overlap = None
        return [_text(event["index"], text)] if text else []

    def _rest(self) -> list[Event]:
        """Return the text that waited to be told from a repetition, now that its block ends."""
        if self._overlap is None:
            return []
        text, self._overlap = self._overlap.flush(), None
        return [_text(self._first, text)] if text else []


class OverlapFilter:
    """Takes off the beginning of a continuation what repeats the end of ``sent``.

    It may repeat all of it, or the last words; a repetition reaches the end of ``sent``, begins
    at a word, and has at least `LEAST_OVERLAP` characters (or is all there is).
    """

    def __init__(self, sent: str) -> None:
        self._sent = sent
        least = min(LEAST_OVERLAP, len(sent))
        self._starts = [
            start
            for start in range(len(sent) - least + 1)
            if start == 0 or not (sent[start - 1].isalnum() and sent[start].isalnum())
        ]
        self._held = ""
        self.settled = False

    def push(self, text: str) -> str:
        """Return what is sure to be new; the rest waits."""
        self._held += text
        held, sent = self._held, self._sent
        self._starts = [
            start
            for start in self._starts
            if sent.startswith(held, start) or held.startswith(sent[start:])
        ]
        if any(len(held) < len(sent) - start for start in self._starts):
            return ""  # may still turn out to repeat all that is left of it
        self.settled = True
        repeated = len(sent) - self._starts[0] if self._starts else 0
        return held[repeated:]

    def flush(self) -> str:
        """Return what waits, at the end: what repeats to the end of ``sent`` is not new."""
        held, sent = self._held, self._sent
        whole = [len(sent) - start for start in self._starts if held.startswith(sent[start:])]
        return held[max(whole, default=0) :]


def resumed_body(body: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Return the Messages request that asks to go on after ``text``: it becomes the prefill."""
    return {**body, "messages": [*body["messages"], {"role": "assistant", "content": text}]}


def splicer(
    new_translator: Callable[[], Translator], sent: Sent | None, *, resumed: bool
) -> Translator:
    """Return a fresh translator that records into ``sent``, or goes on from it."""
    inner = new_translator()
    if sent is None:
        return inner
    return Resumed(inner, sent) if resumed else Recorded(inner, sent)


def _added(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return usage totals: the prompt is the first attempt's, what was written adds up."""
    if not before:
        return dict(now)
    total = {**now, **before, "output_tokens": before["output_tokens"] + now["output_tokens"]}
    details = "output_tokens_details"
    if before.get(details) and now.get(details):
        total[details] = {
            key: (before[details].get(key) or 0) + (now[details].get(key) or 0)
            for key in before[details]
        }
    return total


def _text(index: int, text: str) -> Event:
    delta = {"type": "text_delta", "text": text}
    return {"type": "content_block_delta", "index": index, "delta": delta}
