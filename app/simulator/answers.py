"""What the simulated model says: whole parts, before they are cut into a stream."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.simulator import built_in, tools
from app.simulator.checks import turn_start
from app.simulator.filling import Filler
from app.simulator.models import Model
from app.simulator.signatures import Flavour, Signer
from app.simulator.tokens import BYTES_PER_TOKEN, json_tokens, text_tokens

Part = dict[str, Any]

_HELLO = re.compile(
    r"\W*(hello|hi|hey|hallo|hola|bonjour|good (morning|day|evening)|test|ping)\b.{0,60}\Z",
    re.IGNORECASE | re.DOTALL,
)
_ASKS_SYSTEM = re.compile(r"\bsystem (prompt|instruction)", re.IGNORECASE)
_WORDS = re.compile(r"\b(\d{1,6}) words\b", re.IGNORECASE)
_LOREM = ("lorem", "ipsum", "dolor", "sit", "amet", "consectetur", "adipiscing", "elit")
_MAX_ECHO = 2000

WELCOME = (
    "This is the built-in simulator, a fake Gemini: no account is configured. For real answers, "
    "set GEMINI_API_KEYS to a key from https://aistudio.google.com/apikey, or describe your "
    "accounts in accounts.toml, and start again."
)

_THOUGHTS = (
    "**Reading the request**\n\nI'm looking at what was asked and what came before it.\n\n",
    "**Weighing the options**\n\nA simulated model has few of them, so this is quick.\n\n",
    "**Planning the answer**\n\nI'm settling on the shortest answer that helps.\n\n",
    "**Checking once more**\n\nNothing was overlooked; the answer can go out.\n\n",
)
_DEPTH = {"MINIMAL": 0, "LOW": 1, "MEDIUM": 2, "HIGH": 3, "XHIGH": 4}


@dataclass(frozen=True)
class Ask:
    """One generate request that has passed the checks; ``body`` is normalised."""

    flavour: Flavour
    model: Model
    body: Mapping[str, Any]
    signer: Signer

    @property
    def config(self) -> Mapping[str, Any]:
        """The ``generationConfig``."""
        return self.body.get("generationConfig") or {}

    @property
    def text(self) -> str:
        """What the user wrote last."""
        return tools.user_text(self.body["contents"][-1])

    def offers(self, tool: str) -> bool:
        """Tell whether a built-in tool may be used."""
        return any(tool in each for each in self.body.get("tools", ()))

    @property
    def declares(self) -> bool:
        """Whether functions are declared."""
        return self.offers("functionDeclarations")


@dataclass
class Answer:
    """One candidate. ``extras`` are its fields that come with the last chunk of a stream."""

    parts: list[Part]
    thoughts: list[str] = field(default_factory=list)
    thought_tokens: int = 0
    finish: str = "STOP"
    finish_message: str = ""
    extras: dict[str, Any] = field(default_factory=dict)
    tool_tokens: int = 0


def compose(ask: Ask) -> Answer:
    """Return the answer to ``ask``: within its limits, and signed."""
    thoughts = _thoughts(ask)
    answer = _content(ask)
    answer.thought_tokens = sum(map(text_tokens, thoughts))
    if ask.config.get("thinkingConfig", {}).get("includeThoughts"):
        answer.thoughts = thoughts
    _limit(answer, ask.config)
    _sign(answer, ask)
    return answer


def thinking_depth(config: Mapping[str, Any], model: Model) -> int:
    """Return how many summaries a model thinks: 0 to 4."""
    thinking = config.get("thinkingConfig", {})
    level, budget = thinking.get("thinkingLevel"), thinking.get("thinkingBudget")
    if level:
        return _DEPTH[level]
    if budget is None or budget == -1:
        if not model.thinks_by_default and budget is None:
            return 0
        return _DEPTH[model.default_level or "MEDIUM"]
    return 0 if budget == 0 else 1 if budget <= 1024 else 2 if budget <= 8192 else 3


def _thoughts(ask: Ask) -> list[str]:
    return list(_THOUGHTS[: thinking_depth(ask.config, ask.model)])


def _content(ask: Ask) -> Answer:
    calls = tools.choose_calls(ask.body, with_ids=ask.model.generation >= 3)
    if calls:
        parts: list[Part] = [{"functionCall": call} for call in calls]
        if re.search(r"\bexplain\b", ask.text, re.IGNORECASE):
            parts.insert(0, {"text": "Here is what I am going to look up."})
        message = "Model generated function call(s)." if ask.model.generation < 3 else ""
        return Answer(parts, finish_message=message)
    mime = ask.config.get("responseMimeType", "text/plain")
    if mime != "text/plain":
        return Answer([{"text": _structured(ask, mime)}])
    contents = ask.body["contents"]
    turn = contents[turn_start(contents) :]
    results = [sentence for content in turn for sentence in tools.tool_results(content)]
    if results:
        return Answer([{"text": " ".join([*results, _also(ask.text)]).strip()}])
    for offered, reply in _BUILT_IN.items():
        found = reply(ask.text, ask.model.generation) if ask.offers(offered) else None
        if found:
            shown = ask.body.get("toolConfig", {}).get("includeServerSideToolInvocations")
            trace = built_in.trace(offered, ask.text) if shown else []
            return Answer(
                [*trace, *found.before, {"text": found.text}],
                extras=found.extras,
                tool_tokens=found.tokens,
            )
    return Answer([{"text": _talk(ask)}])


_BUILT_IN: dict[str, Callable[[str, int], built_in.Found | None]] = {
    "googleSearch": built_in.search,
    "urlContext": built_in.fetch,
    "codeExecution": built_in.execute,
}


def _structured(ask: Ask, mime: str) -> str:
    schema = ask.config.get("responseJsonSchema", ask.config.get("responseSchema"))
    if schema is None:
        return json.dumps({"you_said": ask.text}, ensure_ascii=False)
    value = Filler(schema).value()
    if mime == "text/x.enum":
        return str(value)
    return json.dumps(value, ensure_ascii=False, indent=2)


def _talk(ask: Ask) -> str:
    text = ask.text
    if _ASKS_SYSTEM.search(text):
        system = tools.user_text(ask.body.get("systemInstruction", {}))
        return f"My system instruction is: {system}" if system else "I have no system instruction."
    wanted = _WORDS.search(text)
    if wanted:
        return " ".join(_LOREM[n % len(_LOREM)] for n in range(int(wanted[1]))) + "."
    media = [
        tools.describe_media(part)
        for part in ask.body["contents"][-1]["parts"]
        if "inlineData" in part or "fileData" in part
    ]
    said = [f"I was given {', '.join(media)}."] if media else []
    if text:
        said.append(_also(text))
    if _HELLO.match(text):
        said.append(WELCOME)
    return "\n\n".join(said) or "You said nothing."


def _also(text: str) -> str:
    if not text:
        return ""
    return f"You said: {text[:_MAX_ECHO]}{'…' if len(text) > _MAX_ECHO else ''}"


def _limit(answer: Answer, config: Mapping[str, Any]) -> None:
    """Apply stop sequences and ``maxOutputTokens``, which thinking counts towards."""
    for index, part in enumerate(answer.parts):
        ends = [part.get("text", "").find(stop) for stop in config.get("stopSequences", ()) if stop]
        end = min((end for end in ends if end >= 0), default=-1)
        if end >= 0:
            answer.parts[index:] = [{"text": part["text"][:end]}] if end else []
            answer.extras = {}
            break
    limit = config.get("maxOutputTokens")
    if limit is None:
        return
    # A small limit is mostly kept for the answer, so that people who set one still see text.
    answer.thought_tokens = min(answer.thought_tokens, limit // 2)
    left = limit - answer.thought_tokens
    for index, part in enumerate(answer.parts):
        cost = part_cost(part)
        if cost > left:
            kept = _first_tokens(part["text"], left) if "text" in part else ""
            answer.parts[index:] = [{"text": kept}] if kept else []
            answer.finish, answer.finish_message, answer.extras = "MAX_TOKENS", "", {}
            return
        left -= cost


def part_cost(part: Mapping[str, Any]) -> int:
    """Return the output tokens of a visible part."""
    if "text" in part:
        return text_tokens(part["text"])
    return json_tokens({name: data for name, data in part.items() if name != "thoughtSignature"})


def output_tokens(parts: Iterable[Mapping[str, Any]]) -> int:
    """Return the output tokens of visible parts, however their text is cut."""
    parts = list(parts)
    text = "".join(part.get("text", "") for part in parts)
    return text_tokens(text) + sum(part_cost(part) for part in parts if "text" not in part)


def _first_tokens(text: str, tokens: int) -> str:
    return text.encode()[: tokens * BYTES_PER_TOKEN].decode(errors="ignore")


def _sign(answer: Answer, ask: Ask) -> None:
    """Put signatures where models of the generation put theirs."""
    seed = json.dumps([ask.model.id, ask.body], sort_keys=True)
    if ask.model.generation < 3:
        # Only when thinking is on and tools are declared; on the first part, whatever it is.
        if answer.parts and ask.declares and answer.thought_tokens:
            _put(answer.parts[0], ask.signer, seed)
        return
    for index, part in enumerate(answer.parts):
        if "executableCode" in part or "toolCall" in part or "toolResponse" in part:
            _put(part, ask.signer, f"{seed}{index}")
    call = next((part for part in answer.parts if "functionCall" in part), None)
    if call is not None:
        _put(call, ask.signer, seed)
    elif answer.parts and answer.finish == "STOP":
        last: Part = {"text": ""}
        _put(last, ask.signer, seed)
        answer.parts.append(last)


def _put(part: Part, signer: Signer, seed: str) -> None:
    part["thoughtSignature"] = signer.sign(part, seed)
