"""The stand-in provider as its callers meet it: the real SDKs, and raw requests where failures matter."""

import asyncio
import base64
import struct

import aiohttp
import anthropic
import openai
import pytest

from sidecar.core.dialect import Completeness
from sidecar.core.model import Form
from sidecar.demo.canned import OPENING
from sidecar.demo.failure import Failure, FailureMode
from sidecar.demo.provider import DemoProvider
from sidecar.dialects.anthropic.messages import ANSWERS as MESSAGES

ASKED = [{"role": "user", "content": "What is the weather?"}]
SCHEMA = {
    "type": "object",
    "properties": {
        "place": {"type": "string"},
        "unit": {"enum": ["c", "f"]},
        "days": {"type": "array", "items": {"type": "integer"}},
        "exact": {"type": ["boolean", "null"]},
    },
}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
KEY = {"authorization": "Bearer sk-demo"}


@pytest.fixture
async def provider():
    """A provider on a free port."""
    demo = DemoProvider()
    demo.port = await demo.start()
    yield demo
    await demo.stop()


@pytest.fixture
async def gpt(provider):
    """OpenAI's SDK."""
    async with openai.AsyncOpenAI(
        api_key="sk-demo", base_url=f"http://127.0.0.1:{provider.port}/v1", max_retries=0
    ) as client:
        yield client


@pytest.fixture
async def azure(provider):
    """Azure's client of OpenAI's SDK."""
    async with openai.AsyncAzureOpenAI(
        api_key="demo", azure_endpoint=f"http://127.0.0.1:{provider.port}", api_version="2024-10-21", max_retries=0
    ) as client:
        yield client


@pytest.fixture
async def claude(provider):
    """Anthropic's SDK."""
    async with anthropic.AsyncAnthropic(
        api_key="sk-demo", base_url=f"http://127.0.0.1:{provider.port}", max_retries=0
    ) as client:
        yield client


@pytest.fixture
async def post(provider):
    """Raw POST requests."""
    plain = {"accept-encoding": "identity"}
    async with aiohttp.ClientSession(headers=plain, auto_decompress=False) as session:

        def send(path, json=None, headers=KEY):
            return session.post(f"http://127.0.0.1:{provider.port}{path}", json=json, headers=headers)

        yield send


async def test_a_chat_is_canned_and_repeats(provider, gpt):
    """The same question has the same words and a new id; another question has other words."""
    first = await gpt.chat.completions.create(model="gpt-4o", messages=ASKED)
    again = await gpt.chat.completions.create(model="gpt-4o", messages=ASKED)
    other = await gpt.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Why?"}])

    assert first.choices[0].message.content.startswith(OPENING)
    assert first.choices == again.choices
    assert first.id != again.id
    assert first.choices[0].message.content != other.choices[0].message.content
    assert first.usage.total_tokens == first.usage.prompt_tokens + first.usage.completion_tokens
    assert (provider.calls, provider.counts["chat"]) == (3, 3)


async def test_a_chat_stream_says_what_the_document_says(gpt):
    """Streamed or not, the choices are the same; usage shows only where asked for."""
    question = {"model": "gpt-4o", "messages": ASKED, "n": 2, "logprobs": True, "top_logprobs": 2}
    whole = await gpt.chat.completions.create(**question)
    async with gpt.chat.completions.stream(**question, stream_options={"include_usage": True}) as stream:
        gathered = await stream.get_final_completion()
    silent = [chunk async for chunk in await gpt.chat.completions.create(**question, stream=True)]

    assert [c.message.content for c in whole.choices] == [c.message.content for c in gathered.choices]
    assert [c.logprobs.content for c in whole.choices] == [c.logprobs.content for c in gathered.choices]
    assert whole.usage == gathered.usage
    assert all("usage" not in chunk.to_dict() for chunk in silent)


@pytest.mark.parametrize(
    ("choice", "words", "called"),
    [
        ("required", "Hello", True),
        ({"type": "function", "function": {"name": "get_weather"}}, "Hello", True),
        ("auto", "Please use the tool.", True),
        ("auto", "Please get_weather now.", True),
        ("auto", "Hello", False),
        ("none", "Please use the tool.", False),
    ],
    ids=str,
)
async def test_a_tool_is_called_on_demand(gpt, choice, words, called):
    """A tool call comes where the choice or the words demand one, with arguments that fit; streamed alike."""
    question = {"model": "gpt-4o", "messages": [{"role": "user", "content": words}], "tools": [TOOL]}
    whole = (await gpt.chat.completions.create(**question, tool_choice=choice)).choices[0]
    async with gpt.chat.completions.stream(**question, tool_choice=choice) as stream:
        gathered = (await stream.get_final_completion()).choices[0]

    assert called == (whole.finish_reason == "tool_calls") == (gathered.finish_reason == "tool_calls")
    if called:
        (call,), (streamed,) = whole.message.tool_calls, gathered.message.tool_calls
        assert '{"place":' in call.function.arguments
        assert call.function.arguments == streamed.function.arguments
        assert call.id != streamed.id


async def test_a_tool_result_is_answered_with_text(gpt):
    """After a tool has answered, words follow."""
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    said = [{"role": "user", "content": "use the tool"}, {"role": "assistant", "tool_calls": [call]}]
    result = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}

    answer = await gpt.chat.completions.create(model="gpt-4o", messages=[*said, result], tools=[TOOL])

    assert answer.choices[0].finish_reason == "stop"


async def test_limits_and_forms_are_kept(gpt):
    """Short limits cut the text; a schema is filled."""
    short = await gpt.chat.completions.create(model="gpt-4o", messages=ASKED, max_tokens=3)
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    filled = await gpt.chat.completions.create(model="gpt-4o", messages=ASKED, response_format=form)

    assert (short.choices[0].finish_reason, short.choices[0].message.content) == ("length", "This is a")
    assert filled.choices[0].message.content.startswith('{"place": "')


async def test_responses(gpt):
    """A response streamed ends in the same output as the document's."""
    whole = await gpt.responses.create(model="gpt-4o", input="Hello", store=False)
    async with gpt.responses.stream(model="gpt-4o", input="Hello", store=False) as stream:
        gathered = await stream.get_final_response()
    tool = {"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": False}
    call = await gpt.responses.create(model="gpt-4o", input="use the tool", tools=[tool])
    short = await gpt.responses.create(model="gpt-4o", input="Hello", max_output_tokens=3)

    assert whole.output_text.startswith(OPENING)
    assert whole.output_text == gathered.output_text
    assert not whole.store
    assert (call.output[0].type, call.output[0].name) == ("function_call", "get_weather")
    assert (short.status, short.output_text) == ("incomplete", "This is a")


async def test_completions(gpt):
    """A completion of each prompt; streamed alike."""
    question = {"model": "gpt-3.5-turbo-instruct", "prompt": ["a", "b"], "max_tokens": 20}
    whole = await gpt.completions.create(**question)
    texts = ["", ""]
    async for chunk in await gpt.completions.create(**question, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text

    assert texts == [choice.text for choice in whole.choices]


async def test_embeddings_are_the_same_in_both_encodings(gpt, post):
    """Vectors depend on the text alone, have unit length, and are the same numbers in base64."""
    question = {"model": "text-embedding-3-small", "input": ["one", "two", "one"], "dimensions": 8}
    async with post("/v1/embeddings", question | {"encoding_format": "base64"}) as answer:
        coded = (await answer.json())["data"][1]["embedding"]
    one, two, again = (await gpt.embeddings.create(**question, encoding_format="float")).data
    large = await gpt.embeddings.create(model="text-embedding-3-large", input="x")

    assert one.embedding == again.embedding != two.embedding
    assert list(struct.unpack("<8f", base64.b64decode(coded))) == two.embedding
    assert sum(number * number for number in one.embedding) == pytest.approx(1)
    assert len(large.data[0].embedding) == 3072


async def test_moderations_and_models(gpt, claude):
    """Only what asks for it is flagged; the list of models has the form of the vendor who is asked."""
    verdicts = (await gpt.moderations.create(input=["hello", "flag me"])).results

    assert [verdict.flagged for verdict in verdicts] == [False, True]
    assert "gpt-4o" in [model.id async for model in gpt.models.list()]
    assert (await gpt.models.retrieve("gpt-9")).id == "gpt-9"
    assert "claude-sonnet-4-6" in [model.id async for model in claude.models.list()]


async def test_azure_has_its_filter_results(azure, post):
    """Azure answers by deployment, with its content filter's verdicts, first of all in a stream."""
    whole = await azure.chat.completions.create(model="my-deployment", messages=ASKED)
    stream = await azure.chat.completions.create(model="my-deployment", messages=ASKED, stream=True)
    chunks = [chunk async for chunk in stream]
    vectors = await azure.embeddings.create(model="vectors", input="x")
    async with post("/openai/v1/chat/completions", {"model": "d", "messages": ASKED}, {"api-key": "k"}) as answer:
        newer = await answer.json()

    assert whole.model == "my-deployment"
    assert {"prompt_filter_results"} <= whole.to_dict().keys()
    assert "content_filter_results" in whole.choices[0].to_dict()
    assert (chunks[0].choices, list(chunks[0].to_dict())[-1]) == ([], "prompt_filter_results")
    assert whole.choices[0].message.content == "".join(c.choices[0].delta.content or "" for c in chunks[1:])
    assert len(vectors.data[0].embedding) == 1536
    assert "prompt_filter_results" in newer


async def test_messages(claude):
    """Thinking and text, streamed or not, are the same for Anthropic's SDK."""
    question = {
        "model": "claude-sonnet-4-6",
        "max_tokens": 2000,
        "messages": ASKED,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
    whole = await claude.messages.create(**question)
    async with claude.messages.stream(**question) as stream:
        gathered = await stream.get_final_message()
    short = await claude.messages.create(model="claude-sonnet-4-6", max_tokens=3, messages=ASKED)

    assert [block.type for block in whole.content] == ["thinking", "text"]
    for one, other in zip(whole.content, gathered.content, strict=True):
        assert one.to_dict().items() <= other.to_dict().items()
    assert whole.usage == gathered.usage
    assert (short.stop_reason, short.content[0].text) == ("max_tokens", "This is a")


@pytest.mark.parametrize(
    ("choice", "words", "called"),
    [
        ({"type": "any"}, "Hello", True),
        ({"type": "tool", "name": "get_weather"}, "Hello", True),
        ({"type": "auto"}, "use the tool", True),
        ({"type": "auto"}, "Hello", False),
        ({"type": "none"}, "use the tool", False),
    ],
    ids=str,
)
async def test_messages_call_tools_on_demand(claude, choice, words, called):
    """A tool use comes where it is demanded, with an input that fits; streamed alike."""
    question = {
        "model": "claude-sonnet-4-6",
        "max_tokens": 200,
        "messages": [{"role": "user", "content": words}],
        "tools": [{"name": "get_weather", "input_schema": SCHEMA}],
        "tool_choice": choice,
    }
    whole = await claude.messages.create(**question)
    async with claude.messages.stream(**question) as stream:
        gathered = await stream.get_final_message()

    assert called == (whole.stop_reason == "tool_use") == (gathered.stop_reason == "tool_use")
    if called:
        assert list(SCHEMA["properties"]) == list(whole.content[0].input)
        assert whole.content[0].input == gathered.content[0].input


async def test_token_counts(claude):
    """A count grows with the question."""
    few = await claude.messages.count_tokens(model="claude-sonnet-4-6", messages=ASKED)
    many = await claude.messages.count_tokens(model="claude-sonnet-4-6", messages=ASKED, system="Be brief. " * 9)

    assert 0 < few.input_tokens < many.input_tokens


async def test_recognisable_by_its_headers(gpt):
    """Every answer names the demo as its server, and has an id, limits and a cookie of its own."""
    one = await gpt.chat.completions.with_raw_response.create(model="gpt-4o", messages=ASKED)
    two = await gpt.chat.completions.with_raw_response.create(model="gpt-4o", messages=ASKED)

    assert one.headers["server"] == "sidecar-demo"
    assert one.headers["x-request-id"] != two.headers["x-request-id"]
    assert one.headers["set-cookie"] != two.headers["set-cookie"]
    assert int(one.headers["x-ratelimit-remaining-requests"]) > int(two.headers["x-ratelimit-remaining-requests"])
    assert {"openai-processing-ms", "openai-organization"} <= set(one.headers)


CLAUDE = {"anthropic-version": "2023-06-01"}


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "words"),
    [
        ("/v1/chat/completions", {}, {}, 401, "API key"),
        ("/v1/chat/completions", {}, {"authorization": "Bearer invalid"}, 401, "Incorrect API key"),
        ("/v1/chat/completions", {"model": "m"}, KEY, 400, "'messages'"),
        ("/v1/chat/completions", [], KEY, 400, "must be an object"),
        ("/v1/chat/completions", {"model": "m", "messages": ASKED, "tools": [5]}, KEY, 400, "cannot read"),
        ("/v1/chat/completions", {"model": "m", "messages": ASKED, "n": 1000}, KEY, 400, "cannot read"),
        ("/v1/nothing", {}, KEY, 404, "does not know"),
        ("/openai/deployments/d/chat/completions?api-version=1", {}, {}, 401, "subscription key"),
        ("/openai/deployments/d/chat/completions", {"messages": ASKED}, {"api-key": "k"}, 404, "api-version"),
        ("/v1/messages", {}, CLAUDE, 401, "x-api-key"),
        ("/v1/messages", {}, {"x-api-key": "k"}, 400, "anthropic-version"),
        ("/v1/messages", {"model": "m", "messages": ASKED}, CLAUDE | KEY, 400, "'max_tokens'"),
        ("/v1/complete", {}, CLAUDE | KEY, 404, "does not know"),
    ],
)
async def test_refusals(post, path, body, headers, status, words):
    """What a vendor refuses is refused, with an error object in JSON."""
    async with post(path, body, headers) as answer:
        refused = await answer.json()

    assert status == answer.status
    assert words in refused["error"]["message"]


@pytest.mark.parametrize(
    "mode", [FailureMode.ERROR, FailureMode.UNAVAILABLE, FailureMode.RATE_LIMIT, FailureMode.OVERLOADED]
)
async def test_failures_raise_in_the_sdks(provider, gpt, azure, claude, mode):
    """A canned failure is an error of its status to each SDK; only one that passes by itself says when."""
    provider.failure = Failure(mode, retry_after=7)

    for client, error in ((gpt, openai.APIStatusError), (azure, openai.APIStatusError)):
        with pytest.raises(error) as raised:
            await client.chat.completions.create(model="gpt-4o", messages=ASKED)
        assert mode.status == raised.value.status_code
    with pytest.raises(anthropic.APIStatusError) as raised:
        await claude.messages.create(model="claude-sonnet-4-6", max_tokens=9, messages=ASKED)
    assert mode.status == raised.value.status_code
    waits = "7" if mode in (FailureMode.UNAVAILABLE, FailureMode.RATE_LIMIT) else None
    assert waits == raised.value.response.headers.get("retry-after")


async def test_a_share_of_the_calls_fails(provider, post):
    """A rate of a half fails every second call, always the same ones."""
    provider.failure = Failure(FailureMode.ERROR, rate=0.5)

    statuses = []
    for _ in range(6):
        async with post("/v1/embeddings", {"model": "m", "input": "x", "dimensions": 1}) as answer:
            statuses.append(answer.status)

    assert statuses == [200, 500] * 3


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_reset_gives_no_answer(provider, post, stream, caplog):
    """The connection dies before any byte of an answer."""
    provider.failure = Failure(FailureMode.RESET)

    with pytest.raises(aiohttp.ClientConnectionError):
        await post("/v1/chat/completions", {"model": "m", "messages": ASKED, "stream": stream})
    assert (provider.calls, provider.abandoned, caplog.records) == (1, 0, [])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_truncated_answer_ends_in_the_middle(provider, post, stream, caplog):
    """The head is good, then the connection dies: the client knows that the body is not whole."""
    provider.failure = Failure(FailureMode.TRUNCATE)

    async with post("/v1/chat/completions", {"model": "m", "messages": ASKED, "stream": stream}) as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    assert (provider.abandoned, caplog.records) == (0, [])


async def test_a_stream_may_report_an_error(provider, claude, gpt, post):
    """An error inside a stream raises in both SDKs; without a stream it is a 500."""
    provider.failure = Failure(FailureMode.STREAM_ERROR)

    with pytest.raises(openai.APIError, match="canned failure"):
        [chunk async for chunk in await gpt.chat.completions.create(model="m", messages=ASKED, stream=True)]
    with pytest.raises(anthropic.APIStatusError, match="canned failure"):
        async with claude.messages.stream(model="m", max_tokens=9, messages=ASKED) as stream:
            await stream.get_final_message()
    async with post("/v1/chat/completions", {"model": "m", "messages": ASKED}) as answer:
        assert answer.status == 500


async def test_a_caller_who_leaves_is_noticed(provider, post):
    """A call whose caller has gone counts as abandoned; stopping ends what still waits."""
    arrived = asyncio.Event()
    provider.failure = Failure(FailureMode.SLOW, seconds=3600)
    provider._fresh = lambda: arrived.set() or "0" * 32

    leaver = asyncio.ensure_future(post("/v1/chat/completions", {"model": "m", "messages": ASKED}))
    await arrived.wait()
    leaver.cancel()
    await provider.stop()

    assert (provider.calls, provider.abandoned) == (1, 1)


async def test_what_arrived_can_be_looked_at(provider, post):
    """The last requests are kept as they came: target, headers, body."""
    async with post("/v1/x%2Fy?a=1", {"b": 2}, KEY | {"X-Odd": "1"}):
        pass

    seen = provider.seen[-1]
    assert (seen.method, seen.target, seen.body) == ("POST", "/v1/x%2Fy?a=1", b'{"b": 2}')
    assert seen.fields[b"x-odd"] == b"1"


async def test_answers_are_compressed_for_who_takes_it(post):
    """Documents come compressed only where the caller takes gzip."""
    question = {"model": "m", "messages": ASKED}
    async with post("/v1/chat/completions", question, KEY | {"accept-encoding": "gzip"}) as answer:
        small = await answer.read()
    async with post("/v1/chat/completions", question) as answer:
        plain = await answer.read()

    assert small.startswith(b"\x1f\x8b")
    assert OPENING.encode() in plain


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_the_dialect_finds_its_answers_whole(post, stream):
    """What it says in Anthropic's name is complete by the dialect's judgement."""
    form = Form.EVENTS if stream else Form.WHOLE
    question = {"model": "claude-sonnet-4-6", "max_tokens": 99, "messages": ASKED, "stream": stream}
    async with post("/v1/messages", question, CLAUDE | KEY) as answer:
        body = await answer.read()

    assert MESSAGES.complete(body, form) is Completeness.WHOLE
    assert MESSAGES.usage(body, form).completion > 0


async def test_a_taken_port_is_an_error(provider):
    """A port that is taken raises, and leaves nothing behind."""
    other = DemoProvider()

    with pytest.raises(OSError, match=str(provider.port)):
        await other.start(port=provider.port)
    assert repr(other) == "<DemoProvider stopped, 0 calls, failing: None>"


async def test_ids_and_times_come_from_outside():
    """With a clock and ids handed in, an answer is the same byte for byte."""
    bodies = []
    for _ in range(2):
        demo = DemoProvider(clock=lambda: 1_800_000_000.5, fresh=lambda: "0123456789abcdef" * 2)
        port = await demo.start()
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"http://127.0.0.1:{port}/v1/chat/completions", json={"model": "m", "messages": ASKED}, headers=KEY
            ) as answer,
        ):
            bodies.append(await answer.read())
        await demo.stop()

    assert bodies[0] == bodies[1]
    assert b'"created": 1800000000' in bodies[0]
