"""
The official SDKs through the sidecar before ``llmock``, a stand-in for the services that is not ours.

It answers in the forms of OpenAI and Anthropic, differently each time in its ids, and counts what reaches it.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import openai
import pydantic
import pytest

from sidecar.core.rules import CacheMode, CacheRule, Region, Service
from sidecar.dialects import DIALECTS
from tests.scenarios.conftest import Lab
from tests.scenarios.sdk import COUNTED, MANNERS, STREAMED, WHOLE, Said, Voice, gathered, openai_client, plain, told

CHAT: dict[str, Any] = {
    "model": "gpt-4o",
    "temperature": 0,
    "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
}

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}

TOOL = {"name": "get_weather", "description": "The weather in a city.", "parameters": WEATHER}

TOOLS = [{"type": "function", "function": TOOL}]


class Forecast(pydantic.BaseModel):
    """What the model is to fill in."""

    city: str
    degrees: int
    rain: bool


SCHEMA = {"type": "json_schema", "json_schema": {"name": "forecast", "schema": Forecast.model_json_schema()}}

CHATS = {"text": {}, "tool-call": {"tools": TOOLS}, "two-choices": {"n": 2}, "json-schema": {"response_format": SCHEMA}}

RESPONSES: dict[str, dict[str, Any]] = {
    "text": {"input": "What is the weather in Paris?"},
    "function-call": {"input": "What is the weather in Paris?", "tools": [{"type": "function", **TOOL}]},
}

MESSAGES: dict[str, dict[str, Any]] = {
    "text": {},
    "tool-use": {"tools": [{"name": "get_weather", "description": "The weather.", "input_schema": WEATHER}]},
}

MESSAGE: dict[str, Any] = {
    "model": "claude-sonnet-4-6",
    "max_tokens": 1000,
    "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
}

FORM_IDS = ["whole", "streamed"]


@pytest.fixture(params=MANNERS)
def manner(request) -> str:
    return request.param


@pytest.fixture
async def before_llmock(build_lab, llmock) -> Lab:
    """A sidecar that keeps everything it may, before ``llmock``."""
    return await build_lab(
        "",
        cache=CacheRule(mode=CacheMode.ALWAYS),
        services=(
            Service("openai", DIALECTS["openai"], (Region("here", llmock.url),), path="/openai"),
            Service(
                "anthropic", DIALECTS["anthropic"], (Region("here", f"{llmock.url}/anthropic"),), path="/anthropic"
            ),
        ),
    )


def of_anthropic(lab: Lab, manner: str, **more: Any) -> Voice:
    build = anthropic.Anthropic if manner == "sync" else anthropic.AsyncAnthropic
    given = {"api_key": "sk-story", "max_retries": 0} | more
    return Voice(build(base_url=f"{lab.url}/anthropic", **given), lab.settle)


async def calls(llmock: Any) -> int:
    """How many calls reached it. It waits in this thread for those that it still serves."""
    return len(await asyncio.to_thread(lambda: llmock.requests))


@pytest.mark.parametrize("before", [WHOLE, COUNTED], ids=FORM_IDS)
@pytest.mark.parametrize("more", CHATS.values(), ids=CHATS)
async def test_chat(before_llmock, llmock, manner, more, before):
    """A chat asked again, in the same form and in the other, has one answer and one call."""
    async with openai_client(before_llmock, manner) as voice:
        first = await voice.ask("chat.completions.create", **CHAT | more | before)
        entire = await voice.ask("chat.completions.create", **CHAT | more)
        streamed = await voice.ask("chat.completions.create", **CHAT | more | COUNTED)
        silent = await voice.ask("chat.completions.create", **CHAT | more | STREAMED)

    assert ["stored", "hit", "hit", "hit"] == told(first, entire, streamed, silent)
    assert gathered(first) == gathered(entire) == gathered(streamed)
    assert [] == [chunk for chunk in silent.parsed if not chunk.choices or "usage" in chunk.model_fields_set]
    assert 1 == await calls(llmock)


async def test_usage_is_asked_for_and_not_shown(before_llmock, llmock, manner):
    """The usage that the sidecar asks for on a caller's behalf is not shown to it, but is there for others."""
    async with openai_client(before_llmock, manner) as voice:
        silent = await voice.ask("chat.completions.create", **CHAT | STREAMED)
        entire = await voice.ask("chat.completions.create", **CHAT)

    assert ["stored", "hit"] == told(silent, entire)
    assert [] == [chunk for chunk in silent.parsed if not chunk.choices or "usage" in chunk.model_fields_set]
    assert entire.parsed.usage.total_tokens > 0
    assert 1 == await calls(llmock)


@pytest.mark.parametrize("streamed", [False, True], ids=FORM_IDS)
async def test_parse(before_llmock, llmock, manner, streamed):
    """Structured output is parsed into the caller's own class, from a hit as from the service, in either form."""
    options = {"stream_options": {"include_usage": True}, "response_format": Forecast}

    async def forecast(*, streamed: bool) -> Any:
        if streamed:
            return await voice.assemble("chat.completions.stream", "get_final_completion", **CHAT, **options)
        return (await voice.ask("chat.completions.parse", **CHAT, response_format=Forecast)).parsed

    async with openai_client(before_llmock, manner) as voice:
        found = [await forecast(streamed=each) for each in (streamed, False, True)]

    assert [Forecast] * 3 == [type(one.choices[0].message.parsed) for one in found]
    assert plain(found[0]) == plain(found[1]) == plain(found[2])
    assert 1 == await calls(llmock)


@pytest.mark.parametrize("streamed", [False, True], ids=FORM_IDS)
async def test_chain_of_tool_calls(before_llmock, llmock, manner, streamed):
    """A tool call and what comes of it, replayed in the other form, are hits, with the ids verbatim."""

    async def talk(form: dict[str, Any]) -> list[Any]:
        messages: list[Any] = list(CHAT["messages"])
        asked = gathered(await voice.ask("chat.completions.create", **CHAT | form | {"tools": TOOLS}))
        [call] = asked["choices"][0]["message"]["tool_calls"]
        said = f"sunny in {json.loads(call['function']['arguments'])['city']}"
        messages.append(asked["choices"][0]["message"])
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": said})
        answer = gathered(
            await voice.ask("chat.completions.create", **CHAT | form | {"tools": TOOLS, "messages": messages})
        )
        return [*messages, answer["choices"][0]["message"]]

    forms = (COUNTED, WHOLE) if streamed else (WHOLE, COUNTED)
    async with openai_client(before_llmock, manner) as voice:
        messages, repeated = await talk(forms[0]), await talk(forms[1])

    assert messages == repeated
    assert "tool_calls" not in messages[-1]
    assert 2 == await calls(llmock)


@pytest.mark.parametrize("before", [WHOLE, STREAMED], ids=FORM_IDS)
@pytest.mark.parametrize("more", RESPONSES.values(), ids=RESPONSES)
async def test_responses(before_llmock, llmock, manner, more, before):
    """A response that the service does not store is kept, in either form; the SDK's helper takes what is made of it."""
    asked = {"model": "gpt-4o", "store": False} | more

    async with openai_client(before_llmock, manner) as voice:
        first = await voice.ask("responses.create", **asked | before)
        entire = await voice.ask("responses.create", **asked)
        streamed = await voice.ask("responses.create", **asked | STREAMED)
        helped = await voice.assemble("responses.stream", "get_final_response", **asked)
        stored = await voice.ask("responses.create", **asked | {"store": True})

    assert ["stored", "hit", "hit", "sidecar; fwd=bypass; detail=store"] == told(first, entire, streamed, stored)
    assert _response(first) == _response(entire) == _response(streamed) == plain(helped)
    assert 2 == await calls(llmock)


def _response(said: Said) -> Any:
    return plain(said.parsed[-1].response if isinstance(said.parsed, list) else said.parsed)


async def test_embeddings(before_llmock, llmock, manner):
    """The vectors of a hit are those of the service, which sends numbers even to those who ask for base64."""
    async with openai_client(before_llmock, manner) as voice:
        said = [await voice.ask("embeddings.create", model="e", input=["one", "two"]) for _ in range(2)]

    assert ["stored", "hit"] == told(*said)
    assert said[0].parsed == said[1].parsed
    assert [1536, 1536] == [len(each.embedding) for each in said[1].parsed.data]
    assert 1 == await calls(llmock)


@pytest.mark.parametrize("before", [WHOLE, STREAMED], ids=FORM_IDS)
@pytest.mark.parametrize("more", MESSAGES.values(), ids=MESSAGES)
async def test_messages(before_llmock, llmock, manner, more, before):
    """A message asked for again, in the same form and in the other, has one answer and one call."""
    async with of_anthropic(before_llmock, manner) as voice:
        if before:
            first = await voice.assemble("messages.stream", "get_final_message", **MESSAGE | more)
        else:
            first = (await voice.ask("messages.create", **MESSAGE | more)).parsed
        entire = await voice.ask("messages.create", **MESSAGE | more)
        helped = await voice.assemble("messages.stream", "get_final_message", **MESSAGE | more)

    assert entire.hit
    assert plain(first) == plain(entire.parsed) == plain(helped)
    assert ["miss", "hit_memory", "hit_memory"] == [record.outcome for record in before_llmock.records]
    assert 1 == await calls(llmock)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (429, openai.RateLimitError),
        (503, openai.InternalServerError),
    ],
)
async def test_errors(before_llmock, llmock, manner, status, expected):
    """An error is the SDK's own exception, and is gone with the next call."""
    llmock.fail(status, message="scripted", code="why")

    async with openai_client(before_llmock, manner) as voice:
        with pytest.raises(expected) as caught:
            await voice.ask("chat.completions.create", **CHAT)
        after = await voice.ask("chat.completions.create", **CHAT)

    assert status == caught.value.status_code
    assert "why" == caught.value.code
    assert ["stored"] == told(after)
    assert 2 == await calls(llmock)


async def test_sdk_behaves_as_resiliently_as_without(before_llmock, llmock, manner):
    """The SDK's own retries work through the sidecar: they wait as long as they are told, and are not multiplied."""
    llmock.rate_limit(times=2, retry_after=0.05)

    async with openai_client(before_llmock, manner, max_retries=2) as voice:
        said = await voice.ask("chat.completions.create", **CHAT)

    assert ["stored"] == told(said)
    assert 3 == await calls(llmock)
    await asyncio.to_thread(llmock.assert_resilient, strict=True)


@pytest.mark.parametrize("fault", ["disconnect", "truncate", "corrupt"])
async def test_broken_stream_is_never_kept(before_llmock, llmock, manner, fault):
    """A stream that breaks, ends early or is garbled is not kept, and the SDK is not told that it is whole."""
    getattr(llmock, fault)(after_chunks=3)

    async with openai_client(before_llmock, manner) as voice:
        with pytest.raises((openai.APIError, json.JSONDecodeError)):
            await voice.ask("chat.completions.create", **CHAT | STREAMED)
        await before_llmock.settle()
        after = await voice.ask("chat.completions.create", **CHAT | COUNTED)

    assert after.cache.startswith("sidecar; fwd=miss")
    assert "stop" == gathered(after)["choices"][0]["finish_reason"]
    assert 2 == await calls(llmock)


@pytest.mark.parametrize("fault", ["disconnect", "truncate"])
async def test_broken_message_is_never_kept(before_llmock, llmock, manner, fault):
    """The same with the other SDK, which lets the HTTP library's own exception through."""
    getattr(llmock, fault)(after_chunks=3)

    async with of_anthropic(before_llmock, manner) as voice:
        with pytest.raises(Exception, match=r"broke off|incomplete|closed"):
            await voice.assemble("messages.stream", "get_final_message", **MESSAGE)
        await before_llmock.settle()
        after = await voice.assemble("messages.stream", "get_final_message", **MESSAGE)

    assert "end_turn" == after.stop_reason
    assert 2 == await calls(llmock)
