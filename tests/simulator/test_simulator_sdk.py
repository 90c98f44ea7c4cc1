"""The official google-genai client finds nothing odd about the simulator."""

import warnings

import pytest

from app.simulator.models import MODELS

PRO, FLASH = "gemini-2.5-pro", "gemini-3.8-flash"
WEATHER = {
    "name": "get_weather",
    "description": "Weather of a city",
    "parametersJsonSchema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
}


@pytest.fixture(scope="module")
def genai():
    """The client's package; it takes long to load, and not every test process needs it."""
    from google import genai

    return genai


@pytest.fixture
def client(simulator, genai):
    options = {"base_url": simulator.base_url, "api_version": "v1beta"}
    with genai.Client(api_key="x", http_options=options) as client:
        yield client


def test_it_answers(client, genai):
    answer = client.models.generate_content(model=FLASH, contents="What is new?")
    assert answer.text == "You said: What is new?"
    assert answer.candidates[0].finish_reason is genai.types.FinishReason.STOP
    assert answer.model_version == FLASH
    usage = answer.usage_metadata
    assert (usage.prompt_token_count, usage.candidates_token_count) == (3, 6)
    assert usage.total_token_count == 9 + usage.thoughts_token_count


def test_hello_says_who_answers_and_the_way_to_real_answers(client):
    text = client.models.generate_content(model=FLASH, contents="hello").text
    assert text.startswith("You said: hello\n\nThis is the built-in simulator")
    assert "GEMINI_API_KEYS" in text


@pytest.mark.parametrize("model", [PRO, FLASH])
def test_a_stream_is_the_answer_in_pieces(client, genai, model):
    config = {"thinking_config": {"include_thoughts": True}}
    whole = client.models.generate_content(model=model, contents="a b c", config=config)
    chunks = list(
        client.models.generate_content_stream(model=model, contents="a b c", config=config)
    )
    parts = [part for chunk in chunks for part in chunk.candidates[0].content.parts]
    thoughts = [part.text for part in parts if part.thought]
    assert len(thoughts) == 2
    assert whole.candidates[0].content.parts[0].text == "".join(thoughts)
    assert "".join(part.text for part in parts if not part.thought) == whole.text
    assert [part.text for part in parts if part.text and not part.thought] == [
        "You ",
        "said: ",
        "a ",
        "b ",
        "c",
    ]
    ends = [chunk.candidates[0].finish_reason for chunk in chunks]
    assert ends == [None] * (len(chunks) - 1) + [genai.types.FinishReason.STOP]
    totals = [chunk.usage_metadata.total_token_count for chunk in chunks]
    assert totals == sorted(totals)
    assert chunks[-1].usage_metadata == whole.usage_metadata
    assert len({chunk.response_id for chunk in chunks}) == 1


def test_tokens_are_counted(client):
    counted = client.models.count_tokens(model=FLASH, contents="twelve bytes")
    assert counted.total_tokens == 3


def test_models_are_listed_in_pages(client):
    listed = list(client.models.list(config={"page_size": 5}))
    assert [model.name for model in listed] == [f"models/{name}" for name in MODELS]
    one = client.models.get(model=FLASH)
    assert (one.display_name, one.input_token_limit) == ("Gemini 3.8 Flash", 1_048_576)


@pytest.mark.parametrize("model", [PRO, FLASH])
def test_a_tool_loop_goes_round(client, genai, model):
    config = {"tools": [{"functionDeclarations": [WEATHER]}]}
    chat = client.chats.create(model=model, config=config)
    answer = chat.send_message("Use get_weather for 'Boston'")
    call = answer.function_calls[0]
    assert (call.name, call.args) == ("get_weather", {"city": "Boston"})
    assert (call.id is None) == (model == PRO)
    reply = genai.types.Part(
        function_response={"name": call.name, "id": call.id, "response": {"output": "22 degrees"}}
    )
    assert chat.send_message(reply).text == "The tool get_weather returned: 22 degrees."


def test_automatic_calls_go_one_after_the_other(client):
    def first(word: str) -> str:
        """Do one thing."""
        return f"did {word}"

    def second(number: int) -> str:
        """Do another."""
        return f"counted {number}"

    chat = client.chats.create(model=FLASH, config={"tools": [first, second]})
    assert chat.send_message("call first then second").text == (
        'The tool first returned: {"result": "did sample word"}. '
        'The tool second returned: {"result": "counted 1"}.'
    )


def test_structured_output_parses(client):
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "ages": {"type": "array", "items": {"type": "integer"}},
        },
        "required": ["name", "ages"],
    }
    config = {"response_mime_type": "application/json", "response_json_schema": schema}
    answer = client.models.generate_content(model=FLASH, contents="invent", config=config)
    assert answer.parsed == {"name": "sample name", "ages": [1]}


@pytest.mark.parametrize(
    ("fault", "kind", "code", "status"),
    [
        ("503", "ServerError", 503, "UNAVAILABLE"),
        ("500", "ServerError", 500, "INTERNAL"),
        ("429-minute", "ClientError", 429, "RESOURCE_EXHAUSTED"),
        ("key-invalid", "ClientError", 400, "INVALID_ARGUMENT"),
        ("401", "ClientError", 401, "UNAUTHENTICATED"),
        ("error-mid", "ServerError", 503, "UNAVAILABLE"),
        ("error-raw", "ClientError", 499, "CANCELLED"),
    ],
)
def test_errors_reach_the_client_as_googles(client, genai, fault, kind, code, status):
    with pytest.raises(getattr(genai.errors, kind)) as raised:
        list(client.models.generate_content_stream(model=f"gemini-sim-{fault}", contents="a b c d"))
    assert (raised.value.code, raised.value.status) == (code, status)


SEARCH = {"tools": [{"googleSearch": {}}]}
SHAPES = {
    "text": {},
    "thoughts": {"generationConfig": {"thinkingConfig": {"includeThoughts": True}}},
    "calls": {"tools": [{"functionDeclarations": [WEATHER, {"name": "look_up"}]}]},
    "search": SEARCH,
    "trace": {
        "tools": [{"googleSearch": {}}, {"functionDeclarations": [{"name": "nothing"}]}],
        "toolConfig": {"includeServerSideToolInvocations": True},
    },
    "fetch": {"tools": [{"urlContext": {}}]},
    "code": {"tools": [{"codeExecution": {}}]},
}


MODELS_AND_FAULTS = (
    PRO,
    FLASH,
    "gemini-sim-safety",
    "gemini-sim-blocked",
    "gemini-sim-recitation",
    "gemini-sim-malformed-call",
    "gemini-sim-unexpected-call",
    "gemini-sim-thoughts-only",
    "gemini-sim-empty",
    "gemini-sim-no-finish",
)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (model, shape)
        for model in MODELS_AND_FAULTS
        for shape in SHAPES
        if (model, shape) != (PRO, "trace")  # 2.5 refuses the combination
    ],
)
def test_every_chunk_is_a_valid_response(ask, genai, model, shape):
    text = "Look at https://example.com/, compute 6 * 7"
    if shape == "calls":
        text += ", and use get_weather and look_up"
    made = ask.chunks(text, model=model, **SHAPES[shape])
    made.append(ask.whole(text, model=model, **SHAPES[shape]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for chunk in made:
            genai.types.GenerateContentResponse.model_validate(chunk)
