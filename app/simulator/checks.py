"""What Google refuses in a body that is well formed, rule by rule, with a 400."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from app.simulator.errors import GoogleError, bad_request, context_too_long
from app.simulator.models import Model
from app.simulator.signatures import Flavour, Signer
from app.simulator.tokens import prompt_tokens

_BUILT_IN = [
    "googleSearch",
    "googleSearchRetrieval",
    "urlContext",
    "codeExecution",
    "googleMaps",
    "computerUse",
    "fileSearch",
    "mcpServers",
    "retrieval",
    "enterpriseWebSearch",
]
_DATA = [
    "text",
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
    "executableCode",
    "codeExecutionResult",
    "toolCall",
    "toolResponse",
]
_FUNCTION_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}\Z")
_MAX_STOP_SEQUENCES = 5
_PAIRED_IDS_SINCE = (3, 5)

Body = Mapping[str, Any]


def check_generate(body: Body, model: Model, flavour: Flavour, signer: Signer) -> None:
    """Raise `GoogleError` for a generate body that Google would refuse."""
    contents = body.get("contents") or []
    check_contents(contents, model, flavour)
    _check_system(body)
    _check_config(body.get("generationConfig") or {}, model)
    _check_thinking((body.get("generationConfig") or {}).get("thinkingConfig") or {}, model)
    check_tools(body, model, flavour)
    _check_safety(body)
    _check_last_turn(contents, model)
    _check_calls(contents, model)
    _check_signatures(contents, model, flavour, signer)
    if "cachedContent" in body:
        raise GoogleError(403, "CachedContent not found (or permission denied)")
    tokens = prompt_tokens(body, model).total()
    if tokens > model.input_limit:
        raise context_too_long(tokens, model.input_limit)


def check_contents(contents: Sequence[Body], model: Model, flavour: Flavour) -> None:
    """Raise `GoogleError` for contents that Google would refuse to read at all."""
    if not contents:
        raise bad_request("* GenerateContentRequest.contents: contents is not specified\n")
    for n, content in enumerate(contents):
        where = f"* GenerateContentRequest.contents[{n}].parts"
        if not content.get("parts"):
            raise bad_request(f"{where}: contents.parts must not be empty.\n")
        if content.get("role", "user") not in ("user", "model", "function"):
            raise bad_request("Please use a valid role: user, model.")
        for k, part in enumerate(content["parts"]):
            if not any(name in part for name in _DATA):
                raise bad_request(
                    f"{where}[{k}].data: required oneof field 'data' must have one initialized "
                    "field\n"
                )
            _check_media(part, model, flavour)


def _check_media(part: Body, model: Model, flavour: Flavour) -> None:
    nested = part.get("functionResponse", {}).get("parts", ())
    if nested and model.generation < 3:
        raise bad_request("Multimodal function responses are not supported for this model.")
    for holder in (part, *nested):
        for name in ("inlineData", "fileData"):
            mime = holder.get(name, {}).get("mimeType")
            if mime == "image/gif" and flavour == "gemini":
                raise bad_request(f"Unsupported MIME type: {mime}")
        if "inlineData" in holder and not holder["inlineData"].get("mimeType"):
            raise bad_request("Unsupported MIME type: ")


def _check_system(body: Body) -> None:
    for part in body.get("systemInstruction", {}).get("parts", ()):
        if "text" not in part:
            raise bad_request("Only text is supported in system_instruction.")


def _check_config(config: Body, model: Model) -> None:
    limit = config.get("maxOutputTokens")
    if limit is not None and not 1 <= limit <= model.output_limit:
        raise bad_request(
            f"Unable to submit request because it has a maxOutputTokens value of {limit} but the "
            f"supported range is from 1 (inclusive) to {model.output_limit + 1} (exclusive). "
            "Update the value and try again."
        )
    if len(config.get("stopSequences", ())) > _MAX_STOP_SEQUENCES:
        raise bad_request(
            "* GenerateContentRequest.generation_config.stop_sequences: the number of stop "
            f"sequences must not exceed {_MAX_STOP_SEQUENCES}.\n"
        )
    for name, low, high in (("temperature", 0, 2), ("topP", 0, 1)):
        value = config.get(name, low)
        if not low <= value <= high:
            raise bad_request(
                f"* GenerateContentRequest.generation_config.{name}: {name} must be in the range "
                f"[{low}.0, {high}.0].\n"
            )
    if not model.penalties and (config.get("presencePenalty") or config.get("frequencyPenalty")):
        raise bad_request(f"Penalty is not enabled for models/{model.id}")
    if config.get("candidateCount", 1) != 1:
        raise bad_request("Multiple candidates is not enabled for this model")
    schemas = [name for name in ("responseSchema", "responseJsonSchema") if name in config]
    if len(schemas) == 2:
        raise bad_request("Only one of response_schema and response_json_schema can be set.")
    mime = config.get("responseMimeType", "text/plain")
    if mime not in ("text/plain", "application/json", "text/x.enum"):
        raise bad_request(
            "* GenerateContentRequest.generation_config.response_mime_type: allowed mimetypes are "
            "`text/plain`, `application/json`, `application/xml`, `application/yaml` and "
            "`text/x.enum`.\n"
        )
    if schemas and mime == "text/plain":
        raise bad_request(
            "* GenerateContentRequest.generation_config.response_schema: only allowed when "
            "response_mime_type is `application/json`.\n"
        )
    if "responseSchema" in config:
        check_schema(config["responseSchema"], "generation_config.response_schema", model)


def _check_thinking(config: Body, model: Model) -> None:
    level, budget = config.get("thinkingLevel"), config.get("thinkingBudget")
    if level is not None and budget is not None:
        raise bad_request("You can only set only one of thinking budget and thinking level.")
    if level is not None and level not in model.levels:
        named = f"Thinking level {level}" if model.levels else "Thinking level"
        raise bad_request(f"{named} is not supported for this model.")
    if budget is None or (budget == -1 and model.budgets):
        return
    if model.budgets is None:
        raise bad_request("Thinking budget is not supported for this model.")
    if budget == 0:
        if not model.zero_budget:
            raise bad_request("Budget 0 is invalid. This model only works in thinking mode.")
        return
    low, high = model.budgets
    if not low <= budget <= high:
        raise bad_request(
            f"The thinking budget {budget} is invalid. Please choose a value between {low} and "
            f"{high}."
        )


def check_tools(body: Body, model: Model, flavour: Flavour) -> None:
    """Raise `GoogleError` for tools, or combinations of them, that Google refuses."""
    tools = body.get("tools", ())
    declared = [d for tool in tools for d in tool.get("functionDeclarations", ())]
    built_in = any(name in tool for tool in tools for name in _BUILT_IN)
    config = body.get("toolConfig", {})
    if built_in and declared:
        if model.generation < 3:
            raise bad_request("Tool use with function calling is unsupported")
        if flavour == "gemini" and not config.get("includeServerSideToolInvocations"):
            raise bad_request(
                "Please enable tool_config.include_server_side_tool_invocations to use Built-in "
                "tools with Function calling."
            )
    mime = body.get("generationConfig", {}).get("responseMimeType", "text/plain")
    if declared and mime != "text/plain" and model.generation < 3:
        raise bad_request(f"Function calling with a response mime type: '{mime}' is unsupported")
    _check_declarations(declared, model)
    calling = config.get("functionCallingConfig")
    if calling and not declared:
        raise bad_request("Function calling config is set without function_declarations.")
    mode, allowed = (calling or {}).get("mode"), (calling or {}).get("allowedFunctionNames", ())
    if allowed and mode not in ("ANY", "VALIDATED"):
        raise bad_request("Allowed function names can only be set when the mode is ANY.")
    unknown = set(allowed) - {declaration.get("name") for declaration in declared}
    if unknown:
        raise bad_request(
            "allowed_function_names must be a subset of the declared functions, unknown: "
            f"{', '.join(sorted(unknown))}"
        )


def _check_declarations(declared: Sequence[Body], model: Model) -> None:
    seen: set[str] = set()
    for n, declaration in enumerate(declared):
        where = f"tools[0].function_declarations[{n}]"
        name = declaration.get("name", "")
        if not _FUNCTION_NAME.match(name):
            raise bad_request(
                f"* GenerateContentRequest.{where}.name: Invalid function name. Must start with a "
                "letter or an underscore. Must be alphanumeric (a-z, A-Z, 0-9), underscores (_), "
                "dots (.), colons (:), or dashes (-), with a maximum length of 64.\n"
            )
        if name in seen:
            raise bad_request(f"Duplicate function declaration found: {name}")
        seen.add(name)
        if "parameters" in declaration and "parametersJsonSchema" in declaration:
            raise bad_request(
                f"{where}: only one of parameters and parameters_json_schema can be set."
            )
        if "parameters" in declaration:
            check_schema(declaration["parameters"], f"{where}.parameters", model)
        whole = declaration.get("parametersJsonSchema", {})
        if not isinstance(whole, Mapping) or whole.get("type", "object") != "object":
            raise bad_request(f"{where}.parameters_json_schema: must describe an object.")


def check_schema(schema: Body, where: str, model: Model) -> None:
    """Raise `GoogleError` for a ``Schema`` that breaks a rule beyond its fields' types."""
    kind = schema.get("type")
    if kind == "ARRAY" and "items" not in schema:
        raise bad_request(f"* GenerateContentRequest.{where}.items: missing field.\n")
    properties = schema.get("properties", {})
    if kind == "OBJECT" and not properties and model.generation < 3:
        raise bad_request(
            f"* GenerateContentRequest.{where}.properties: should be non-empty for OBJECT type\n"
        )
    for n, name in enumerate(schema.get("required", ())):
        if name not in properties:
            raise bad_request(
                f"* GenerateContentRequest.{where}.required[{n}]: property is not defined\n"
            )
    if kind == "STRING" and schema.get("format", "enum") not in ("enum", "date-time"):
        raise bad_request(
            f"* GenerateContentRequest.{where}.format: only 'enum' and 'date-time' are supported "
            "for STRING type\n"
        )
    for name, inner in properties.items():
        check_schema(inner, f"{where}.properties[{name}]", model)
    if "items" in schema:
        check_schema(schema["items"], f"{where}.items", model)
    for n, inner in enumerate(schema.get("anyOf", ())):
        check_schema(inner, f"{where}.any_of[{n}]", model)


def _check_safety(body: Body) -> None:
    categories = [setting.get("category") for setting in body.get("safetySettings", ())]
    if len(categories) != len(set(categories)):
        raise bad_request("Only one safety setting per category is allowed.")


def _check_last_turn(contents: Sequence[Body], model: Model) -> None:
    last = contents[-1]
    if last.get("role") == "model" and not model.prefill:
        raise bad_request("Requests ending with a model turn are not supported.")


def _check_calls(contents: Sequence[Body], model: Model) -> None:
    """Check the strict order of function calls and their responses."""
    before: Body = {}
    waiting: list[Body] = []
    for content in contents:
        calls = _those(content, "functionCall")
        responses = _those(content, "functionResponse")
        if waiting and len(responses) != len(waiting):
            raise bad_request(
                "Please ensure that the number of function response parts is equal to the number "
                "of function call parts of the function call turn."
            )
        if responses and not waiting:
            raise bad_request(
                "Please ensure that function response turn comes immediately after a function "
                "call turn."
            )
        if calls and (not before or before.get("role") == "model"):
            raise bad_request(
                "Please ensure that function call turn comes immediately after a user turn or "
                "after a function response turn."
            )
        _check_pairs(waiting, responses, model)
        waiting, before = calls, content
    if waiting:
        raise bad_request(
            "Please ensure that the number of function response parts is equal to the number of "
            "function call parts of the function call turn."
        )


def _check_pairs(calls: Sequence[Body], responses: Sequence[Body], model: Model) -> None:
    for response in responses:
        if not response.get("name"):
            raise bad_request("Name cannot be empty for a function response.")
        if "response" not in response:
            raise bad_request("function_response.response: missing field.")
    names = sorted(str(call.get("name")) for call in calls)
    if names != sorted(str(response.get("name")) for response in responses):
        raise bad_request(
            "Please ensure that the name of each function response matches its function call."
        )
    if model.version < _PAIRED_IDS_SINCE:
        return
    # A missing one is let pass: google-genai's own automatic calling sends none.
    ids = {call.get("id") for call in calls}
    given = [response["id"] for response in responses if response.get("id")]
    if len(set(given)) != len(given) or not ids.issuperset(given):
        raise bad_request(
            "Please ensure that the id of each function response matches its function call."
        )


def turn_start(contents: Sequence[Body]) -> int:
    """Return the index of the last user content that holds more than function responses."""
    for index in range(len(contents) - 1, -1, -1):
        content = contents[index]
        if content.get("role", "user") == "model":
            continue
        if any("functionResponse" not in part for part in content["parts"]):
            return index
    return 0


def _check_signatures(
    contents: Sequence[Body], model: Model, flavour: Flavour, signer: Signer
) -> None:
    start = turn_start(contents)
    for n, content in enumerate(contents):
        first = True
        for part in content["parts"]:
            if part.get("thoughtSignature"):
                signer.check(part)
            elif "functionCall" in part and first and n > start and model.generation >= 3:
                raise _unsigned(part["functionCall"].get("name", ""), n + 1, flavour)
            first = first and "functionCall" not in part


def _unsigned(name: str, position: int, flavour: Flavour) -> GoogleError:
    if flavour == "vertex":
        return bad_request(
            f"Unable to submit request because function call `{name}` in the {position}. content "
            "block is missing a `thought_signature`. Learn more: "
            "https://docs.cloud.google.com/vertex-ai/generative-ai/docs/thought-signatures"
        )
    return bad_request(
        "Function call is missing a thought_signature in functionCall parts. This is required for "
        "tools to work correctly, and missing thought_signature may lead to degraded model "
        f"performance. Additional data, function call `default_api:{name}` , position {position}. "
        "Please refer to https://ai.google.dev/gemini-api/docs/thought-signatures for more details."
    )


def _those(content: Body, name: str) -> list[Body]:
    return [part[name] for part in content["parts"] if name in part]
