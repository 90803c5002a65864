"""The official OpenAI SDK, unmodified, gets from the sidecar what it would get from the service, hit or not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pydantic
import pytest

from tests.scenarios.conftest import DONE, LAST_CHUNK, STREAM_HEAD, USAGE, chunk, delta, whole
from tests.scenarios.sdk import COUNTED, MANNERS, STREAMED, WHOLE, Said, Voice, gathered, openai_client, plain, told

CHAT: dict[str, Any] = {
    "model": "gpt-4o",
    "temperature": 0,
    "messages": [{"role": "user", "content": "What is in the box?"}],
}

WEATHER = {
    "name": "weather",
    "description": "The weather somewhere.",
    "parameters": {
        "type": "object",
        "properties": {"town": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["town", "days"],
        "additionalProperties": False,
    },
}

TOOLS = [{"type": "function", "function": WEATHER}]

USE_THE_TOOL = [{"role": "user", "content": "Use the tool: what is the weather?"}]


class Box(pydantic.BaseModel):
    """What the model is to fill in."""

    color: str
    weight: int
    open: bool


BOX_SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "box", "strict": True, "schema": Box.model_json_schema()},
}

CHATS = {
    "text": {},
    "tool-call": {"tools": TOOLS, "messages": USE_THE_TOOL},
    "two-choices": {"n": 2},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "json-schema": {"response_format": BOX_SCHEMA},
}

FORM_IDS = ["whole", "streamed"]


@pytest.fixture(params=MANNERS)
def manner(request) -> str:
    return request.param


@pytest.fixture
async def voice(lab, manner) -> AsyncIterator[Voice]:
    """The SDK, with the sidecar as its base URL."""
    async with openai_client(lab, manner) as speaking:
        yield speaking


@pytest.mark.parametrize("before", [WHOLE, COUNTED], ids=FORM_IDS)
@pytest.mark.parametrize("more", CHATS.values(), ids=CHATS)
async def test_chat(voice, provider, more, before):
    """A chat asked again, in the same form and in the other, has one answer and one call."""
    first = await voice.ask("chat.completions.create", **CHAT | more | before)
    entire = await voice.ask("chat.completions.create", **CHAT | more)
    streamed = await voice.ask("chat.completions.create", **CHAT | more | COUNTED)

    assert gathered(first) == gathered(entire) == gathered(streamed)
    assert gathered(first)["usage"]["total_tokens"] > 0
    assert ["stored", "hit", "hit"] == told(first, entire, streamed)
    assert ["application/json", "text/event-stream"] == [entire.kind, streamed.kind]
    assert entire.parsed._request_id == entire.http.headers["x-sidecar-request-id"]
    assert 1 == provider.calls


@pytest.mark.parametrize("more", CHATS.values(), ids=CHATS)
async def test_chat_as_without_sidecar(lab, provider, more):
    """What the SDK makes of an answer is what it makes of the service's own, but for ids and times."""
    theirs = Voice(openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{provider.port}/v1", api_key="sk-story"))
    async with openai_client(lab, "async") as ours, theirs:
        for form in (WHOLE, COUNTED, STREAMED, WHOLE):
            found = await ours.ask("chat.completions.create", **CHAT | more | form)
            own = await theirs.ask("chat.completions.create", **CHAT | more | form)

            assert _anonymous(gathered(own)) == _anonymous(gathered(found))


def _anonymous(value: Any) -> Any:
    """Without ids, times, and the empty list of annotations that only a whole answer has."""
    if isinstance(value, dict):
        return {
            name: _anonymous(one)
            for name, one in value.items()
            if name not in {"id", "created"} and (name != "annotations" or one)
        }
    return [_anonymous(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("before", [WHOLE, STREAMED, COUNTED], ids=["whole", "streamed", "counted"])
async def test_usage_is_shown_on_request_only(voice, provider, before):
    """Whatever was asked before, a stream has a usage chunk when it asks for one, and else no word of usage."""
    await voice.ask("chat.completions.create", **CHAT | before)
    silent = await voice.ask("chat.completions.create", **CHAT | STREAMED)
    declined = await voice.ask("chat.completions.create", **CHAT | STREAMED, stream_options={"include_usage": False})
    counted = await voice.ask("chat.completions.create", **CHAT | COUNTED)
    entire = await voice.ask("chat.completions.create", **CHAT)

    assert 1 == provider.calls
    for said in (silent, declined):
        assert said.hit
        assert [] == [chunk for chunk in said.parsed if not chunk.choices or "usage" in chunk.model_fields_set]
    assert [[]] == [chunk.choices for chunk in counted.parsed if chunk.usage]
    assert entire.parsed.usage == counted.parsed[-1].usage


async def test_usage_is_asked_for_and_not_shown_on_a_miss(voice, provider):
    """The sidecar asks the service for the usage of a stream; the caller who did not never sees it."""
    said = await voice.ask("chat.completions.create", **CHAT | STREAMED)

    assert {"include_usage": True} == json.loads(provider.seen[-1].body)["stream_options"]
    assert [] == [chunk for chunk in said.parsed if not chunk.choices or "usage" in chunk.model_fields_set]


@pytest.mark.parametrize("before", [False, True], ids=FORM_IDS)
async def test_parse(voice, lab, provider, before):
    """Structured output is parsed into the caller's own class, from a hit as from the service, streamed or not."""

    async def box(*, streamed: bool) -> tuple[Any, Any]:
        if streamed:
            found = await voice.assemble(
                "chat.completions.stream",
                "get_final_completion",
                **CHAT,
                stream_options={"include_usage": True},
                response_format=Box,
            )
        else:
            found = (await voice.ask("chat.completions.parse", **CHAT, response_format=Box)).parsed
        return found.choices[0].message.parsed, plain(found)

    found = [await box(streamed=streamed) for streamed in (before, False, True)]

    assert isinstance(found[0][0], Box)
    assert found[0] == found[1] == found[2]
    assert ["miss", "hit_memory", "hit_memory"] == [record.outcome for record in lab.records]
    assert 1 == provider.calls


async def test_chain_of_tool_calls(voice, provider):
    """A conversation with tool calls, replayed, is answered from memory on every turn, with its ids verbatim."""

    async def talk() -> tuple[list[Said], list[Any]]:
        messages: list[Any] = list(USE_THE_TOOL)
        turns: list[Said] = []
        for words in ("And tomorrow? Use the tool.", None):
            turns.append(await voice.ask("chat.completions.create", **CHAT | {"messages": messages, "tools": TOOLS}))
            asked = turns[-1].parsed.choices[0].message
            [call] = asked.tool_calls
            messages += [asked.model_dump(exclude_none=True), _result(call)]
            turns.append(await voice.ask("chat.completions.create", **CHAT | {"messages": messages, "tools": TOOLS}))
            messages.append({"role": "assistant", "content": turns[-1].parsed.choices[0].message.content})
            if words:
                messages.append({"role": "user", "content": words})
        return turns, messages

    turns, messages = await talk()
    again, repeated = await talk()

    assert 4 == provider.calls
    assert messages == repeated
    assert all(said.hit for said in again)
    assert [plain(said.parsed) for said in turns] == [plain(said.parsed) for said in again]


def _result(call: Any) -> dict[str, str]:
    return {"role": "tool", "tool_call_id": call.id, "content": f"sunny in {json.loads(call.function.arguments)}"}


async def test_streaming_response(voice, provider):
    """``with_streaming_response`` sees the same, and the head."""
    first = await voice.ask_streaming("chat.completions.create", **CHAT)
    second = await voice.ask_streaming("chat.completions.create", **CHAT)

    assert plain(first.parsed) == plain(second.parsed)
    assert second.http.headers["x-sidecar-request-id"] != first.http.headers["x-sidecar-request-id"]
    assert "gpt-4o" == second.http.headers["x-sidecar-model"]
    assert 1 == provider.calls
    assert ["stored", "hit"] == told(first, second)


@pytest.mark.parametrize("before", [WHOLE, COUNTED], ids=FORM_IDS)
async def test_completions(voice, provider, before):
    """The older completions, as chat."""
    asked = {"model": "gpt-3.5-turbo-instruct", "prompt": "Once upon", "temperature": 0, "n": 2}

    first = await voice.ask("completions.create", **asked | before)
    entire = await voice.ask("completions.create", **asked)
    streamed = await voice.ask("completions.create", **asked | COUNTED)

    assert _texts(first) == _texts(entire) == _texts(streamed)
    assert 2 == len(_texts(first)[0])
    assert ["hit", "hit"] == told(entire, streamed)
    assert 1 == provider.calls


def _texts(said: Said) -> Any:
    texts: dict[int, str] = {}
    parts = said.parsed if isinstance(said.parsed, list) else [said.parsed]
    for choice in (choice for part in parts for choice in part.choices):
        texts[choice.index] = texts.get(choice.index, "") + choice.text
    return texts, parts[-1].usage, parts[0].id


RESPONSES: dict[str, dict[str, Any]] = {
    "text": {"input": "What is in the box?"},
    "function-call": {"input": USE_THE_TOOL, "tools": [{"type": "function", **WEATHER}]},
    "json-schema": {
        "input": "What is in the box?",
        "text": {"format": {"type": "json_schema", "name": "box", "schema": Box.model_json_schema()}},
    },
}

ASKED = {"model": "gpt-4o", "temperature": 0, "store": False}


@pytest.mark.parametrize("before", [WHOLE, STREAMED], ids=FORM_IDS)
@pytest.mark.parametrize("more", RESPONSES.values(), ids=RESPONSES)
async def test_responses(voice, provider, more, before):
    """A response that the service does not store is kept, in either form; the helper, too, takes what is made of it."""
    first = await voice.ask("responses.create", **ASKED | more | before)
    entire = await voice.ask("responses.create", **ASKED | more)
    streamed = await voice.ask("responses.create", **ASKED | more | STREAMED)
    helped = await voice.assemble("responses.stream", "get_final_response", **ASKED | more)

    assert _response(first) == _response(entire) == _response(streamed) == plain(helped)
    assert ["hit", "hit"] == told(entire, streamed)
    assert 1 == provider.calls


def _response(said: Said) -> Any:
    """A response as JSON; of a stream, what its deltas make has to be what its last event says."""
    if not isinstance(said.parsed, list):
        return plain(said.parsed)
    final = said.parsed[-1].response
    deltas = "".join(event.delta for event in said.parsed if event.type.endswith(".delta"))

    assert list(range(len(said.parsed))) == [event.sequence_number for event in said.parsed]
    assert deltas == (final.output_text or final.output[0].arguments)
    assert deltas
    return plain(final)


async def test_stored_responses_pass(voice, provider):
    """A response that the service stores, as it does unless told otherwise, is never answered from memory."""
    said = [await voice.ask("responses.create", model="gpt-4o", input="Hi", temperature=0) for _ in range(2)]

    assert ["sidecar; fwd=bypass; detail=store"] * 2 == [one.cache for one in said]
    assert said[0].parsed.id != said[1].parsed.id
    assert 2 == provider.calls


@pytest.mark.parametrize("more", [{}, {"encoding_format": "float"}], ids=["default", "float"])
async def test_embeddings(voice, provider, more):
    """The vectors of a hit are those of the service, also in base64, which the SDK asks for by default."""
    asked = {"model": "text-embedding-3-small", "input": ["one", "two"], "dimensions": 64} | more

    first = await voice.ask("embeddings.create", **asked)
    second = await voice.ask("embeddings.create", **asked)
    other = await voice.ask("embeddings.create", **asked | {"input": ["two", "one"]})

    assert first.parsed == second.parsed
    vectors = [each.embedding for each in second.parsed.data]
    assert [64, 64] == [len(vector) for vector in vectors]
    assert vectors[::-1] == [each.embedding for each in other.parsed.data]
    assert sum(number * number for number in vectors[0]) == pytest.approx(1, abs=1e-6)
    assert 2 == provider.calls
    assert ["stored", "hit"] == told(first, second)


async def test_both_encodings_of_an_embedding_say_the_same(voice, provider):
    """Base64 and numbers are two questions to the sidecar, with one answer to the caller."""
    asked = {"model": "text-embedding-3-small", "input": "one", "dimensions": 64}

    coded = await voice.ask("embeddings.create", **asked)
    listed = await voice.ask("embeddings.create", **asked, encoding_format="float")

    assert coded.parsed.data == listed.parsed.data
    assert 2 == provider.calls


@pytest.mark.parametrize(
    ("method", "params"),
    [("moderations.create", {"input": "flag me"}), ("models.list", {}), ("models.retrieve", {"model": "gpt-4o"})],
    ids=["moderations", "models", "model"],
)
async def test_passed_through(voice, provider, method, params):
    """What is not cached by default works all the same, and says so."""
    said = [await voice.ask(method, **params) for _ in range(2)]

    assert ["sidecar; fwd=bypass; detail=route-off"] * 2 == [one.cache for one in said]
    assert 2 == provider.calls
    if method == "moderations.create":
        assert said[0].parsed.results[0].flagged
    elif method == "models.list":
        assert "gpt-4o" in [model.id for model in said[0].parsed.data]
    else:
        assert "gpt-4o" == said[0].parsed.id


WAV = b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00" + bytes(range(256)) * 8


async def test_transcription(build_lab, script, manner):
    """The same sound is the same question, though each upload has a multipart boundary of its own."""

    async def transcribe(_head, body, writer):
        writer.write(whole(json.dumps({"text": f"{len(body)} bytes"}).encode()))

    upstream = await script(transcribe)
    lab = await build_lab(f"http://127.0.0.1:{upstream.port}")

    async with openai_client(lab, manner) as voice:

        async def ask(sound: bytes, **more: Any) -> Said:
            return await voice.ask(
                "audio.transcriptions.create", model="whisper-1", file=("talk.wav", sound, "audio/wav"), **more
            )

        first, second, other = await ask(WAV), await ask(WAV), await ask(WAV + b"!")
        warm = await ask(WAV, temperature=0.5)

    types = [one.http.request.headers["content-type"] for one in (first, second)]
    assert types[0] != types[1]
    assert types[0].startswith("multipart/form-data; boundary=")
    assert first.parsed.text == second.parsed.text != other.parsed.text
    assert ["stored", "hit", "stored"] == told(first, second, other)
    assert "sidecar; fwd=bypass; detail=not-deterministic" == warm.cache
    assert 3 == upstream.calls


async def test_stream_left_at_its_last_event(build_lab, script, manner):
    """
    The SDK closes its connection at ``[DONE]``, before the last chunk of the transfer. It has had the whole answer,
    and so has the sidecar: this is no abandoned call, and the answer is kept.
    """
    release = asyncio.Event()

    async def answer(_head, _body, writer):
        writer.write(STREAM_HEAD + chunk(delta("Hello")) + chunk(delta(None, finish="stop") + USAGE + DONE))
        await writer.drain()
        await release.wait()
        writer.write(LAST_CHUNK)

    upstream = await script(answer)
    lab = await build_lab(f"http://127.0.0.1:{upstream.port}")

    async with Voice(openai_client(lab, manner).client) as voice:
        first = await voice.ask("chat.completions.create", **CHAT | COUNTED)
        await lab.ask(path="/nowhere")  # a round trip, by the end of which the sidecar knows that its caller has left
        release.set()
        await lab.settle()
        second = await voice.ask("chat.completions.create", **CHAT | COUNTED)

    assert ["stored", "hit"] == told(first, second)
    assert gathered(first) == gathered(second)
    assert 1 == upstream.calls
    told_of = [one for one in lab.records if one.service]

    assert [("miss", 200, ""), ("hit_memory", 200, "")] == [(one.outcome, one.status, one.cause) for one in told_of]
    assert [5, 5] == [one.usage.total if one.usage else None for one in told_of]


async def test_many_at_once(voice, provider):
    """Equal calls at the same time are one call, streamed or not."""
    provider.latency = 0.05

    said = await asyncio.gather(
        *[voice.ask("chat.completions.create", **CHAT | form) for form in (COUNTED, WHOLE, COUNTED, WHOLE)]
    )

    assert 1 == provider.calls
    assert all(gathered(said[0]) == gathered(one) for one in said)
