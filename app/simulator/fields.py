"""The fields of every request body, by API surface: kept by hand, from Google's schemas.

Sources: the Gemini API reference (https://ai.google.dev/api/generate-content), the discovery
document of ``aiplatform``, and ``packages/core/src/code_assist`` of google-gemini/gemini-cli.
"""

from __future__ import annotations

from functools import cache

from app.simulator.shapes import (
    ANY,
    BOOL,
    BYTES,
    INT,
    NUM,
    STR,
    STRUCT,
    Leaf,
    Many,
    MapOf,
    Obj,
    Shape,
    enum,
)
from app.simulator.signatures import Flavour

_DATA: dict[str, Shape] = {
    "text": STR,
    "inlineData": Obj({"mimeType": STR, "data": BYTES, "displayName": STR}),
    "fileData": Obj({"mimeType": STR, "fileUri": STR, "displayName": STR}),
    "functionCall": Obj(
        {
            "id": STR,
            "name": STR,
            "args": STRUCT,
            "partialArgs": Many(STRUCT),
            "willContinue": BOOL,
        }
    ),
    "functionResponse": Obj(
        {
            "id": STR,
            "name": STR,
            "response": STRUCT,
            "willContinue": BOOL,
            "scheduling": enum("FunctionResponse.Scheduling", "SILENT WHEN_IDLE INTERRUPT"),
            "parts": Many(
                Obj(
                    {
                        "inlineData": Obj({"mimeType": STR, "data": BYTES, "displayName": STR}),
                        "fileData": Obj({"mimeType": STR, "fileUri": STR, "displayName": STR}),
                    }
                )
            ),
        }
    ),
    "executableCode": Obj(
        {"language": enum("ExecutableCode.Language", "PYTHON"), "code": STR, "id": STR}
    ),
    "codeExecutionResult": Obj(
        {
            "outcome": enum(
                "CodeExecutionResult.Outcome",
                "OUTCOME_OK OUTCOME_FAILED OUTCOME_DEADLINE_EXCEEDED",
            ),
            "output": STR,
            "id": STR,
        }
    ),
}
_SERVER_DATA: dict[str, Shape] = {
    "toolCall": Obj({"id": STR, "toolType": STR, "args": STRUCT}),
    "toolResponse": Obj({"id": STR, "toolType": STR, "response": STRUCT}),
}
_RESOLUTIONS = "MEDIA_RESOLUTION_LOW MEDIA_RESOLUTION_MEDIUM MEDIA_RESOLUTION_HIGH"

_CATEGORIES = (
    "HARM_CATEGORY_HARASSMENT HARM_CATEGORY_HATE_SPEECH HARM_CATEGORY_SEXUALLY_EXPLICIT "
    "HARM_CATEGORY_DANGEROUS_CONTENT HARM_CATEGORY_CIVIC_INTEGRITY"
)
_VERTEX_CATEGORIES = (
    f"{_CATEGORIES} HARM_CATEGORY_JAILBREAK HARM_CATEGORY_IMAGE_HATE "
    "HARM_CATEGORY_IMAGE_DANGEROUS_CONTENT HARM_CATEGORY_IMAGE_HARASSMENT "
    "HARM_CATEGORY_IMAGE_SEXUALLY_EXPLICIT"
)
_THRESHOLDS = "BLOCK_LOW_AND_ABOVE BLOCK_MEDIUM_AND_ABOVE BLOCK_ONLY_HIGH BLOCK_NONE OFF"


def _content(flavour: Flavour) -> Obj:
    data: dict[str, Shape] = {**_DATA, **(_SERVER_DATA if flavour == "gemini" else {})}
    modifiers: dict[str, Shape] = {
        "thought": BOOL,
        # Not BYTES: what is wrong with one is for the signature check to say.
        "thoughtSignature": STR,
        "videoMetadata": Obj({"startOffset": STR, "endOffset": STR, "fps": NUM}),
        "mediaResolution": Obj(
            {
                "level": enum(
                    "MediaResolution.Level", f"{_RESOLUTIONS} MEDIA_RESOLUTION_ULTRA_HIGH"
                ),
                "numTokens": INT,
            }
        ),
    }
    if flavour == "gemini":
        modifiers["partMetadata"] = STRUCT
    part = Obj({**data, **modifiers}, frozenset(data))
    return Obj({"role": STR, "parts": Many(part)})


@cache
def _schema(flavour: Flavour) -> Obj:
    schema = Obj({})
    strings = dict.fromkeys(("format", "title", "description", "pattern"), STR)
    counts = ("minItems", "maxItems", "minProperties", "maxProperties", "minLength", "maxLength")
    schema.fields.update(
        {
            "type": enum("Type", "STRING NUMBER INTEGER BOOLEAN ARRAY OBJECT NULL"),
            "nullable": BOOL,
            "enum": Many(STR),
            "items": schema,
            "properties": MapOf(schema),
            "required": Many(STR),
            "propertyOrdering": Many(STR),
            "minimum": NUM,
            "maximum": NUM,
            "anyOf": Many(schema),
            "example": ANY,
            "default": ANY,
            **strings,
            **dict.fromkeys(counts, INT),
        }
    )
    if flavour == "vertex":
        schema.fields.update({"additionalProperties": ANY, "ref": STR, "defs": MapOf(schema)})
    return schema


def _tool(flavour: Flavour) -> Obj:
    declaration = Obj(
        {
            "name": STR,
            "description": STR,
            "parameters": _schema(flavour),
            "parametersJsonSchema": ANY,
            "response": _schema(flavour),
            "responseJsonSchema": ANY,
            "behavior": enum("FunctionDeclaration.Behavior", "UNSPECIFIED BLOCKING NON_BLOCKING"),
        }
    )
    fields: dict[str, Shape] = {
        "functionDeclarations": Many(declaration),
        "googleSearch": STRUCT,
        "googleSearchRetrieval": STRUCT,
        "urlContext": STRUCT,
        "codeExecution": STRUCT,
        "googleMaps": STRUCT,
        "computerUse": STRUCT,
    }
    own: tuple[str, ...] = ("fileSearch", "mcpServers") if flavour == "gemini" else ("retrieval",)
    if flavour == "vertex":
        own += ("enterpriseWebSearch", "exaAiSearch", "parallelAiSearch")
    return Obj({**fields, **dict.fromkeys(own, ANY)})


def _generation_config(flavour: Flavour) -> Obj:
    numbers = ("temperature", "topP", "topK", "presencePenalty", "frequencyPenalty")
    integers = ("candidateCount", "maxOutputTokens", "seed", "logprobs")
    thinking = Obj(
        {
            "includeThoughts": BOOL,
            "thinkingBudget": INT,
            "thinkingLevel": enum("ThinkingConfig.ThinkingLevel", "MINIMAL LOW MEDIUM HIGH XHIGH"),
        }
    )
    fields: dict[str, Shape] = {
        **dict.fromkeys(numbers, NUM),
        **dict.fromkeys(integers, INT),
        "stopSequences": Many(STR),
        "responseMimeType": STR,
        "responseSchema": _schema(flavour),
        "responseJsonSchema": ANY,
        "responseFormat": ANY,
        "responseLogprobs": BOOL,
        "responseModalities": Many(enum("Modality", "TEXT IMAGE AUDIO")),
        "thinkingConfig": thinking,
        "mediaResolution": enum("MediaResolution", _RESOLUTIONS),
        "speechConfig": STRUCT,
        "imageConfig": STRUCT,
        "enableAffectiveDialog": BOOL,
    }
    if flavour == "gemini":
        fields["enableEnhancedCivicAnswers"] = BOOL
    else:
        vertex = {"audioTimestamp": BOOL, "routingConfig": STRUCT, "modelSelectionConfig": STRUCT}
        fields |= vertex
    return Obj(fields)


def _tool_config(flavour: Flavour) -> Obj:
    calling: dict[str, Shape] = {
        "mode": enum("FunctionCallingConfig.Mode", "MODE_UNSPECIFIED AUTO ANY NONE VALIDATED"),
        "allowedFunctionNames": Many(STR),
    }
    fields: dict[str, Shape] = {"functionCallingConfig": Obj(calling), "retrievalConfig": STRUCT}
    if flavour == "gemini":
        fields["includeServerSideToolInvocations"] = BOOL
    else:
        calling["streamFunctionCallArguments"] = BOOL
    return Obj(fields)


@cache
def generate_shape(flavour: Flavour) -> Obj:
    """Return the body of ``generateContent`` (inside the envelope, for Code Assist)."""
    categories = _CATEGORIES if flavour == "gemini" else _VERTEX_CATEGORIES
    safety: dict[str, Shape] = {
        "category": enum("HarmCategory", categories),
        "threshold": enum("SafetySetting.HarmBlockThreshold", _THRESHOLDS),
    }
    if flavour != "gemini":
        safety["method"] = enum("SafetySetting.HarmBlockMethod", "SEVERITY PROBABILITY")
    content = _content(flavour)
    fields: dict[str, Shape] = {
        "contents": Many(content),
        "systemInstruction": content,
        "tools": Many(_tool(flavour)),
        "toolConfig": _tool_config(flavour),
        "safetySettings": Many(Obj(safety)),
        "generationConfig": _generation_config(flavour),
        "cachedContent": STR,
    }
    own: dict[Flavour, dict[str, Leaf | MapOf]] = {
        "gemini": {
            "model": STR,
            "serviceTier": enum("ServiceTier", "FLEX STANDARD PRIORITY"),
            "store": BOOL,
        },
        "vertex": {
            "labels": MapOf(STR),
            "modelArmorConfig": STRUCT,
            "continuationToken": STR,
        },
        "code_assist": {"labels": MapOf(STR), "sessionId": STR},
    }
    return Obj({**fields, **own[flavour]})


@cache
def count_shape(flavour: Flavour) -> Obj:
    """Return the body of ``countTokens`` (inside the envelope, for Code Assist)."""
    generate = generate_shape(flavour).fields
    contents = generate["contents"]
    if flavour == "gemini":
        inner = generate_shape(flavour)
        return Obj({"contents": contents, "generateContentRequest": inner})
    if flavour == "code_assist":
        return Obj({"model": STR, "contents": contents})
    names = ("contents", "systemInstruction", "tools", "generationConfig")
    return Obj({"model": STR, "instances": ANY, **{name: generate[name] for name in names}})


@cache
def envelope_shape(call: str) -> Obj:
    """Return Code Assist's envelope around the request of ``call``."""
    if call == "countTokens":
        return Obj({"request": count_shape("code_assist")})
    return Obj(
        {
            "model": STR,
            "project": STR,
            "userPromptId": STR,
            "request": generate_shape("code_assist"),
            "enabledCreditTypes": Many(STR),
        }
    )
