"""What becomes of every request field and block type: said once, here.

``docs/compatibility.md`` is the print-out (`as_markdown`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Fate = Literal["mapped", "approximated", "ignored", "refused"]


@dataclass(frozen=True)
class Entry:
    """One field or block type, its fate, and what a user should know."""

    name: str
    fate: Fate
    note: str


FIELDS = (
    Entry("model", "mapped", "through MODEL_ALIASES; `claude-gemini-X` is Gemini's `gemini-X`"),
    Entry("messages", "mapped", "neighbours of one role are merged; see the block types"),
    Entry("system", "mapped", "`systemInstruction`; billing blocks are dropped"),
    Entry("max_tokens", "mapped", "`maxOutputTokens`, clamped to the model's limit"),
    Entry("stream", "mapped", "server-sent events or one message"),
    Entry(
        "stop_sequences",
        "approximated",
        "the first five go to Gemini, which does not say which one hit; all are watched for here",
    ),
    Entry("temperature", "approximated", "Gemini 2 only; newer models ignore it"),
    Entry("top_p", "approximated", "Gemini 2 only; newer models ignore it"),
    Entry("top_k", "approximated", "Gemini 2 only, at most 64; newer models ignore it"),
    Entry("tools", "mapped", "`functionDeclarations` and Google's own tools; see the tool types"),
    Entry("tool_choice", "mapped", "`functionCallingConfig`; one call only is enforced here"),
    Entry("thinking", "approximated", "a level (Gemini 3 and later) or a budget (2.5) near it"),
    Entry(
        "output_config",
        "mapped",
        "`effort` sets the thinking level; `format` is a JSON answer (in words where Gemini 2 "
        "has tools as well)",
    ),
    Entry("output_format", "mapped", "as `output_config.format`"),
    Entry("metadata", "approximated", "a session in `user_id` keeps a conversation on an account"),
    Entry("cache_control", "ignored", "Gemini caches by itself; reads are in the usage"),
    Entry("service_tier", "ignored", ""),
    Entry("speed", "ignored", ""),
    Entry("inference_geo", "ignored", ""),
    Entry("container", "ignored", "code runs in a fresh sandbox each time"),
    Entry("context_management", "ignored", "history is sent as it comes"),
    Entry("diagnostics", "ignored", ""),
    Entry("betas", "ignored", "no beta name is refused"),
    Entry("billing_policy", "ignored", ""),
    Entry("fallbacks", "ignored", "the pool has its own failover"),
    Entry("fallback_credit_token", "ignored", ""),
    Entry("user_profile_id", "ignored", ""),
    Entry("workspace_id", "ignored", ""),
    Entry("mcp_servers", "refused", ""),
    Entry("compaction", "refused", ""),
    Entry("thread", "refused", "`continue` only: no thread is kept here, so SDKs send all of it"),
)

BLOCKS = (
    Entry("text", "mapped", "`citations` are dropped"),
    Entry(
        "image",
        "mapped",
        "base64, or a public URL that Google fetches (Gemini 3 and later); no GIF with keys",
    ),
    Entry(
        "document",
        "mapped",
        "PDF, text, blocks, or a public URL; title and context as text; what an assistant's "
        "message shows that is not text goes into the user's turn behind it",
    ),
    Entry("search_result", "approximated", "as text with title and source"),
    Entry("thinking", "mapped", "signed ones of Gemini's return as they were; others are dropped"),
    Entry("redacted_thinking", "ignored", "only Claude can read it"),
    Entry("tool_use", "mapped", "with Gemini's call id and signature, which the id carries"),
    Entry("tool_result", "mapped", "text, images, documents, references, errors"),
    Entry("server_tool_use", "mapped", "returned to Gemini where the answer was Gemini's"),
    Entry("web_search_tool_result", "mapped", "likewise; others are dropped"),
    Entry("web_fetch_tool_result", "ignored", "the text that follows has what was read"),
    Entry("code_execution_tool_result", "mapped", "likewise"),
    Entry("bash_code_execution_tool_result", "ignored", "Gemini has no such tool"),
    Entry("text_editor_code_execution_tool_result", "ignored", "Gemini has no such tool"),
    Entry("tool_search_tool_result", "ignored", "all tools are declared instead"),
    Entry("container_upload", "ignored", "no files are kept here"),
    Entry("compaction", "approximated", "its summary as text, behind all that came before"),
    Entry("mcp_tool_use", "approximated", "told with its result"),
    Entry("mcp_tool_result", "approximated", "as text in the user's turn behind it"),
    Entry("mcp_tool_listing", "ignored", "no MCP server is asked"),
    Entry("advisor_tool_result", "ignored", "Gemini has no such tool"),
    Entry("fallback", "ignored", "only Claude needs it"),
    Entry("tool_addition", "mapped", "the tool is declared, by its latest definition"),
    Entry("tool_removal", "mapped", "the tool is no longer declared"),
)

TOOLS = (
    Entry("custom", "mapped", "any JSON Schema; what Gemini ignores is told in the description"),
    Entry("web_search", "mapped", "Google Search; the answer's text waits for its sources"),
    Entry("web_fetch", "mapped", "URL context"),
    Entry("code_execution", "mapped", "Gemini's Python sandbox"),
    Entry("tool_search_tool", "approximated", "deferred tools are declared at once"),
    Entry("bash", "mapped", "a function with Anthropic's input"),
    Entry("text_editor", "mapped", "likewise"),
    Entry("memory", "mapped", "likewise"),
    Entry("computer", "approximated", "a function; Gemini is not trained on it"),
    Entry("computer_toolset", "approximated", "as the one function of the `computer` tool"),
    Entry("browser_toolset", "refused", ""),
    Entry("mcp_toolset", "refused", ""),
    Entry("advisor", "refused", ""),
)

NOTES = """\
Google's own tools can't be combined with functions on Gemini 2 models: that is a 400 that says so.
Restrictions such as `allowed_domains` and `max_uses` are not passed on.

A non-streaming answer that takes longer than `KEEPALIVE_INTERVAL` begins with white space, and a
failure after that comes as an error envelope with status 200.
"""


def as_markdown() -> str:
    """Return the page: three tables and the notes."""
    tables = (("Request fields", FIELDS), ("Content blocks", BLOCKS), ("Tool types", TOOLS))
    lines = ["# Compatibility, field by field", ""]
    for title, entries in tables:
        lines += [f"## {title}", "", "| name | fate | |", "|---|---|---|"]
        lines += [f"| `{entry.name}` | {entry.fate} | {entry.note} |" for entry in entries]
        lines.append("")
    return "\n".join(lines) + f"\n## Notes\n\n{NOTES}"
