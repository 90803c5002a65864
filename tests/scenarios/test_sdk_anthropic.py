"""The official Anthropic SDK, unmodified, gets from the sidecar what it would get from the service, hit or not."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from sidecar.core.rules import CacheMode, CacheRule
from tests.scenarios.conftest import Lab, whole
from tests.scenarios.sdk import MANNERS, STREAMED, WHOLE, Said, Voice, plain, told

ASKED: dict[str, Any] = {
    "model": "claude-sonnet-4-6",
    "max_tokens": 2000,
    "messages": [{"role": "user", "content": "What is in the box?"}],
}

TOOLS = [
    {
        "name": "weather",
        "description": "The weather somewhere.",
        "input_schema": {
            "type": "object",
            "properties": {"town": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["town", "days"],
        },
    }
]

USE_THE_TOOL = [{"role": "user", "content": "Use the tool: what is the weather?"}]

MESSAGES = {
    "text": {},
    "tool-use": {"tools": TOOLS, "messages": USE_THE_TOOL},
    "thinking": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    "thinking-and-tool-use": {
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "tools": TOOLS,
        "messages": USE_THE_TOOL,
    },
    "cut-short": {"max_tokens": 3},
}

FORM_IDS = ["whole", "streamed"]

ALWAYS = CacheRule(mode=CacheMode.ALWAYS)


def client(lab: Lab, manner: str, **more: Any) -> Voice:
    build = anthropic.Anthropic if manner == "sync" else anthropic.AsyncAnthropic
    given = {"api_key": "sk-ant-story", "max_retries": 0} | more
    return Voice(build(base_url=f"{lab.url}/anthropic", **given), lab.settle)


@pytest.fixture(params=MANNERS)
def manner(request, monkeypatch) -> str:
    """The client to use; with no credential but the one it is given."""
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return request.param


@pytest.fixture
async def keen(build_lab, provider) -> Lab:
    """A sidecar that keeps sampled answers too: this SDK has no word for a temperature any more."""
    return await build_lab(f"http://127.0.0.1:{provider.port}", cache=ALWAYS)


@pytest.fixture
async def voice(keen, manner) -> AsyncIterator[Voice]:
    """The SDK, with that sidecar as its base URL."""
    async with client(keen, manner) as speaking:
        yield speaking


@pytest.mark.parametrize("before", [WHOLE, STREAMED], ids=FORM_IDS)
@pytest.mark.parametrize("more", MESSAGES.values(), ids=MESSAGES)
async def test_messages(voice, provider, more, before):
    """A message asked for again, in the same form and in the other, has one answer and one call."""
    first = await voice.ask("messages.create", **ASKED | more | before)
    entire = await voice.ask("messages.create", **ASKED | more)
    streamed = await voice.ask("messages.create", **ASKED | more | STREAMED)
    helped = await voice.assemble("messages.stream", "get_final_message", **ASKED | more)

    assert ["stored", "hit", "hit"] == told(first, entire, streamed)
    assert plain(entire.parsed) == plain(helped)
    assert _message(first) == _message(entire) == _message(streamed)
    assert ["application/json", "text/event-stream"] == [entire.kind, streamed.kind]
    assert entire.parsed._request_id == entire.http.headers["x-sidecar-request-id"]
    assert 1 == provider.calls


def _message(said: Said) -> Any:
    """A message as JSON; of a stream, what its events make when read as the documentation says."""
    if not isinstance(said.parsed, list):
        return plain(said.parsed)
    message: Any = None
    written: dict[int, str] = {}
    for event in said.parsed:
        match event.type:
            case "message_start":
                message = plain(event.message)
            case "content_block_start":
                message["content"].append(plain(event.content_block))
            case "content_block_delta":
                block, delta = message["content"][event.index], event.delta
                match delta.type:
                    case "input_json_delta":
                        written[event.index] = written.get(event.index, "") + delta.partial_json
                    case "signature_delta":
                        block["signature"] = delta.signature
                    case kind:
                        member = kind.removesuffix("_delta")
                        block[member] += getattr(delta, member)
            case "message_delta":
                message |= {"stop_reason": event.delta.stop_reason}
                message["usage"] |= {"output_tokens": event.usage.output_tokens}
    for index, text in written.items():
        message["content"][index]["input"] = json.loads(text or "{}")

    assert "message_stop" == said.parsed[-1].type
    return message


async def test_as_without_sidecar(keen, provider):
    """What the SDK makes of an answer is what it makes of the service's own, but for ids."""
    theirs = Voice(anthropic.AsyncAnthropic(base_url=f"http://127.0.0.1:{provider.port}", api_key="sk-ant-story"))
    async with client(keen, "async") as ours, theirs:
        for more in MESSAGES.values():
            for form in (WHOLE, STREAMED, WHOLE):
                found = _message(await ours.ask("messages.create", **ASKED | more | form))
                own = _message(await theirs.ask("messages.create", **ASKED | more | form))

                assert _anonymous(own) == _anonymous(found)


def _anonymous(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _anonymous(one) for name, one in value.items() if name != "id"}
    return [_anonymous(one) for one in value] if isinstance(value, list) else value


async def test_sampled_message_passes(lab, provider, manner):
    """Without an explicit temperature of 0 a message is not looked up, unless a route says so."""
    async with client(lab, manner) as voice:
        said = [await voice.ask("messages.create", **ASKED) for _ in range(2)]
        cold = [await voice.ask("messages.create", **ASKED, extra_body={"temperature": 0}) for _ in range(2)]

    assert ["sidecar; fwd=bypass; detail=not-deterministic"] * 2 == told(*said)
    assert ["stored", "hit"] == told(*cold)
    assert 3 == provider.calls


async def test_count_tokens(lab, provider, manner):
    """A token count is kept without being asked to, and is not taken for a message."""
    asked = {name: value for name, value in ASKED.items() if name != "max_tokens"}

    async with client(lab, manner) as voice:
        first = await voice.ask("messages.count_tokens", **asked)
        second = await voice.ask("messages.count_tokens", **asked)
        message = await voice.ask("messages.create", **ASKED)

    assert ["stored", "hit", "sidecar; fwd=bypass; detail=not-deterministic"] == told(first, second, message)
    assert first.parsed.input_tokens == second.parsed.input_tokens == message.parsed.usage.input_tokens
    assert {"count_tokens": 1, "messages": 1} == provider.counts


@pytest.mark.parametrize("streamed", [False, True], ids=FORM_IDS)
async def test_chain_of_tool_uses(voice, provider, streamed):
    """A conversation with tool uses, replayed in the other form, is a hit on every turn, with its ids verbatim."""

    async def say(messages: list[Any], *, streamed: bool) -> Any:
        asked = ASKED | {"messages": messages, "tools": TOOLS}
        if streamed:
            return await voice.assemble("messages.stream", "get_final_message", **asked)
        return (await voice.ask("messages.create", **asked)).parsed

    async def talk(*, streamed: bool) -> list[Any]:
        messages: list[Any] = list(USE_THE_TOOL)
        for words in ("And tomorrow? Use the tool.", "Thanks."):
            asked = await say(messages, streamed=streamed)
            [use] = asked.content
            result = {"type": "tool_result", "tool_use_id": use.id, "content": f"sunny in {use.input}"}
            messages.append({"role": "assistant", "content": [plain(use)]})
            messages.append({"role": "user", "content": [result]})
            answer = await say(messages, streamed=streamed)
            messages.append({"role": "assistant", "content": answer.content[0].text})
            messages.append({"role": "user", "content": words})
        return messages

    messages = await talk(streamed=streamed)
    repeated = await talk(streamed=not streamed)

    assert 4 == provider.calls
    assert messages == repeated
    assert messages[1]["content"][0]["id"].startswith("toolu_")


async def test_streaming_response(voice, provider):
    """``with_streaming_response`` sees the same, and the head."""
    first = await voice.ask_streaming("messages.create", **ASKED)
    second = await voice.ask_streaming("messages.create", **ASKED)

    assert plain(first.parsed) == plain(second.parsed)
    assert ["stored", "hit"] == told(first, second)
    assert "claude-sonnet-4-6" == second.http.headers["x-sidecar-model"]
    assert 1 == provider.calls


async def test_models_pass(lab, provider, manner):
    """The list of models is not cached by default, and works all the same."""
    async with client(lab, manner) as voice:
        said = [await voice.ask("models.list") for _ in range(2)]

    assert "claude-sonnet-4-6" in [model.id for model in said[0].parsed.data]
    assert 2 == provider.calls


async def test_key_and_bearer_are_one_caller(keen, provider, manner):
    """One key, as this SDK's bearer token or as the ``x-api-key`` of older ones, is one caller; another is another."""
    old = {"x-api-key": "sk-ant-one", "authorization": anthropic.Omit()}

    async with (
        client(keen, manner, api_key="sk-ant-one") as by_token,
        client(keen, manner, api_key=None, default_headers=old) as by_key,
        client(keen, manner, api_key="sk-ant-two") as stranger,
    ):
        first = await by_token.ask("messages.create", **ASKED)
        second = await by_key.ask("messages.create", **ASKED)
        third = await stranger.ask("messages.create", **ASKED)

    assert "Bearer sk-ant-one" == first.http.request.headers["authorization"]
    assert "authorization" not in second.http.request.headers
    assert ["stored", "hit", "stored"] == told(first, second, third)
    assert first.parsed == second.parsed
    assert first.parsed.id != third.parsed.id
    assert 2 == provider.calls


ERRORS = {
    400: anthropic.BadRequestError,
    401: anthropic.AuthenticationError,
    404: anthropic.NotFoundError,
    429: anthropic.RateLimitError,
    500: anthropic.InternalServerError,
    529: anthropic.InternalServerError,
}


def _refusal(status: int) -> bytes:
    return json.dumps(
        {"type": "error", "error": {"type": f"type-{status}", "message": f"no {status}"}, "request_id": "req_1"}
    ).encode()


@pytest.mark.parametrize(("status", "expected"), ERRORS.items(), ids=map(str, ERRORS))
async def test_errors_of_the_service(build_lab, script, manner, status, expected):
    """An error of the service is the SDK's own exception, with status and body as they were; and is not kept."""

    async def refuse(_head, _body, writer):
        writer.write(whole(_refusal(status), status=f"{status} Refused", extra=b"request-id: req_1\r\n"))

    upstream = await script(refuse)
    lab = await build_lab(f"http://127.0.0.1:{upstream.port}", cache=ALWAYS)

    async with client(lab, manner) as voice:
        for calls, form in enumerate((WHOLE, STREAMED, WHOLE), 1):
            with pytest.raises(anthropic.APIStatusError) as caught:
                await voice.ask("messages.create", **ASKED | form)
            error = caught.value

            assert isinstance(error, expected)
            assert status == error.status_code
            assert _refusal(status) == error.response.content
            assert json.loads(_refusal(status)) == error.body
            assert "req_1" == error.request_id
            assert calls == upstream.calls


async def test_retries_of_the_sdk_are_not_multiplied(build_lab, script, manner):
    """An SDK that tries three times makes three calls, as without the sidecar."""

    async def refuse(_head, _body, writer):
        writer.write(whole(_refusal(500), status="500 Broken", extra=b"retry-after-ms: 1\r\n"))

    upstream = await script(refuse)
    lab = await build_lab(f"http://127.0.0.1:{upstream.port}", cache=ALWAYS)

    async with client(lab, manner, max_retries=2) as voice:
        for calls, form in ((3, WHOLE), (6, STREAMED)):
            with pytest.raises(anthropic.InternalServerError):
                await voice.ask("messages.create", **ASKED | form)

            assert calls == upstream.calls


async def test_unreachable_service(build_lab, manner):
    """A service that cannot be reached is a server error in the API's own form, which says what happened."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        lab = await build_lab(f"http://127.0.0.1:{reserved.getsockname()[1]}", cache=ALWAYS)
        async with client(lab, manner) as voice:
            with pytest.raises(anthropic.InternalServerError) as caught:
                await voice.ask("messages.create", **ASKED)

    body: Any = caught.value.body
    assert 502 == caught.value.status_code
    assert "error" == body["type"]
    assert "could not be reached" in body["error"]["message"]
    assert "upstream-connect" in str(body)
