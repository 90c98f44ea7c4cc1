"""Google's own tools, as far as an answer shows that they ran."""

from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_QUERY_LENGTH = 80
_PROMPT = re.compile(r"Perform a web search for the query:\s*", re.IGNORECASE)
_URL = re.compile(r"https?://[^\s<>\"')\]]+")
_SUM = re.compile(r"(-?\d{1,15})\s*([-+*])\s*(-?\d{1,15})")
_CODE = re.compile(r"\b(python|code|script|compute|calculate)\b", re.IGNORECASE)
_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
}


@dataclass
class Found:
    """What a tool adds to an answer: parts before the text, the text, fields of the candidate.

    ``tokens`` is what its results count as prompt (``toolUsePromptTokenCount``).
    """

    text: str
    before: list[dict[str, Any]] = field(default_factory=list)
    extras: dict[str, Any] = field(default_factory=dict)
    tokens: int = 0


def search(text: str, generation: int) -> Found | None:
    """Answer from a made-up search of the web, with its sources (byte offsets, end exclusive)."""
    query = _PROMPT.sub("", text).strip()[:_QUERY_LENGTH]
    if not query:
        return None
    sources = [
        ("example.com", f"“{query}” is explained in full on example.com: naïvely, but clearly."),
        ("example.org", "A second source, example.org, agrees with the first."),
    ]
    opening = "Here is what the simulated search found:\n\n"
    answer, supports = opening, []
    for number, (_, sentence) in enumerate(sources):
        start = len(answer.encode())
        answer += sentence
        supports.append(
            {
                "segment": {
                    "startIndex": start,
                    "endIndex": start + len(sentence.encode()),
                    "text": sentence,
                },
                "groundingChunkIndices": [number],
            }
        )
        answer += "\n\n"
    grounding = {
        "searchEntryPoint": {"renderedContent": '<div class="container">Google Search</div>'},
        "groundingChunks": [
            {"web": {"uri": _redirect(domain, query), "title": domain}} for domain, _ in sources
        ],
        "groundingSupports": supports,
        "webSearchQueries": [query],
    }
    return Found(answer.rstrip(), extras={"groundingMetadata": grounding}, tokens=102)


def _redirect(domain: str, query: str) -> str:
    tag = hashlib.sha256(f"{domain} {query}".encode()).hexdigest()[:32]
    return f"https://vertexaisearch.cloud.google.com/grounding-api-redirect/{tag}"


def fetch(text: str, generation: int) -> Found | None:
    """Answer from the pages that the text names; None when it names none."""
    urls = list(dict.fromkeys(_URL.findall(text)))
    if not urls:
        return None
    statuses = [
        {"retrievedUrl": url, "urlRetrievalStatus": "URL_RETRIEVAL_STATUS_SUCCESS"} for url in urls
    ]
    answer = f"I read {', '.join(urls)}: a simulated page with nothing in particular on it."
    grounding = {
        "groundingChunks": [{"web": {"uri": url, "title": "A simulated page"}} for url in urls],
        "groundingSupports": [
            {
                "segment": {"endIndex": len(answer.encode()), "text": answer},
                "groundingChunkIndices": list(range(len(urls))),
            }
        ],
    }
    extras = {"urlContextMetadata": {"urlMetadata": statuses}, "groundingMetadata": grounding}
    return Found(answer, extras=extras, tokens=460 * len(urls))


def execute(text: str, generation: int) -> Found | None:
    """Answer with code and its output; None when the text is about neither sums nor code."""
    asked = _SUM.search(text)
    if asked is None and not _CODE.search(text):
        return None
    if asked is None:
        code, output = 'print("hello from the simulator")', "hello from the simulator"
    else:
        left, sign, right = int(asked[1]), asked[2], int(asked[3])
        code = f"print({left} {sign} {right})"
        output = str(_OPERATORS[sign](left, right))
    call: dict[str, Any] = {"language": "PYTHON", "code": code}
    result: dict[str, Any] = {"outcome": "OUTCOME_OK", "output": f"{output}\n"}
    if generation >= 3:
        call["id"] = result["id"] = hashlib.sha256(code.encode()).hexdigest()[:8]
    before = [{"executableCode": call}, {"codeExecutionResult": result}]
    return Found(f"The result is {output}.", before, tokens=180)


def trace(tool: str, text: str) -> list[dict[str, Any]]:
    """Return the parts that show a server-side call, for requests that ask to see them."""
    kind = _TRACED.get(tool)
    if kind is None:
        return []
    call_id = hashlib.sha256(f"{tool} {text}".encode()).hexdigest()[:8]
    query = _PROMPT.sub("", text).strip()[:_QUERY_LENGTH]
    args = {"queries": [query]} if tool == "googleSearch" else {"urls": _URL.findall(text)}
    return [
        {"toolCall": {"toolType": kind, "args": args, "id": call_id}},
        {"toolResponse": {"toolType": kind, "response": {}, "id": call_id}},
    ]


_TRACED = {"googleSearch": "GOOGLE_SEARCH_WEB", "urlContext": "URL_CONTEXT"}
