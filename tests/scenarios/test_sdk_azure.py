"""The Azure clients of the official OpenAI SDK, with ``/azure/RESOURCE`` for ``https://RESOURCE.openai.azure.com``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.scenarios.conftest import Lab, whole
from tests.scenarios.sdk import COUNTED, MANNERS, STREAMED, WHOLE, Said, Voice, gathered, plain, told

CHAT: dict[str, Any] = {
    "model": "my-gpt-4o",
    "temperature": 0,
    "messages": [{"role": "user", "content": "What is in the box?"}],
}

TOOLS = [
    {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {"town": {"type": "string"}}}},
    }
]

CHATS = {
    "text": {},
    "tool-call": {"tools": TOOLS, "messages": [{"role": "user", "content": "Use the tool."}]},
    "two-choices": {"n": 2},
}

SURFACES = ["deployments", "v1"]

FORM_IDS = ["whole", "streamed"]


def client(lab: Lab, surface: str, manner: str, *, resource: str = "contoso", **more: Any) -> Voice:
    """A client of the classic form, with deployments in the path, or of the newer ``/openai/v1``."""
    endpoint = f"{lab.url}/azure/{resource}".rstrip("/")
    given = {"api_key": "azure-key", "max_retries": 0} | more
    if surface == "v1":
        build: Any = openai.OpenAI if manner == "sync" else openai.AsyncOpenAI
        return Voice(build(base_url=f"{endpoint}/openai/v1/", **given), lab.settle)
    build = openai.AzureOpenAI if manner == "sync" else openai.AsyncAzureOpenAI
    return Voice(build(azure_endpoint=endpoint, **{"api_version": "2024-10-21"} | given), lab.settle)


@pytest.fixture(params=MANNERS)
def manner(request, monkeypatch) -> str:
    """The client to use; with no credential but the one it is given."""
    for name in ("AZURE_OPENAI_AD_TOKEN", "AZURE_OPENAI_API_KEY", "OPENAI_API_VERSION"):
        monkeypatch.delenv(name, raising=False)
    return request.param


@pytest.fixture(params=SURFACES)
def surface(request) -> str:
    return request.param


@pytest.fixture
async def voice(lab, surface, manner) -> AsyncIterator[Voice]:
    """The SDK, with the sidecar as its endpoint."""
    async with client(lab, surface, manner) as speaking:
        yield speaking


@pytest.mark.parametrize("before", [WHOLE, COUNTED], ids=FORM_IDS)
@pytest.mark.parametrize("more", CHATS.values(), ids=CHATS)
async def test_chat(voice, provider, more, before):
    """A chat asked again, in the same form and in the other, has one answer and one call, filter verdicts included."""
    first = await voice.ask("chat.completions.create", **CHAT | more | before)
    entire = await voice.ask("chat.completions.create", **CHAT | more)
    streamed = await voice.ask("chat.completions.create", **CHAT | more | COUNTED)

    assert ["stored", "hit", "hit"] == told(first, entire, streamed)
    assert _without_verdicts(first) == _without_verdicts(entire) == _without_verdicts(streamed)
    assert _verdicts(first) == _verdicts(entire) == _verdicts(streamed)
    assert 1 == provider.calls


def _without_verdicts(said: Said) -> Any:
    """
    A completion as JSON, without what the content filter says. The SDK takes a stream's first chunk for the envelope,
    which in Azure's streams is the one with the verdicts on the prompt; so that one is left out, as its users have to.
    """
    if isinstance(said.parsed, list):
        said = Said([chunk for chunk in said.parsed if chunk.id], said.http)
    answer = gathered(said)
    for choice in answer["choices"]:
        choice.pop("content_filter_results", None)
    return {name: value for name, value in answer.items() if name != "prompt_filter_results"}


def _verdicts(said: Said) -> Any:
    """What the content filter says: of the prompt, in a stream in a first chunk of its own; and of each choice."""
    parts = said.parsed if isinstance(said.parsed, list) else [said.parsed]
    if len(parts) > 1:
        assert ("", []) == (parts[0].id, parts[0].choices)
    choices: dict[int, Any] = {}
    for choice in (choice for part in parts for choice in part.choices):
        choices.setdefault(choice.index, {}).update(choice.content_filter_results)

    assert [] == [part for part in parts[1:] if hasattr(part, "prompt_filter_results")]
    assert choices[0]["hate"]["severity"] == "safe"
    return parts[0].prompt_filter_results, choices


@pytest.mark.parametrize("before", [WHOLE, STREAMED, COUNTED], ids=[*FORM_IDS, "counted"])
async def test_usage_is_shown_on_request_only(voice, provider, before):
    """Whatever was asked before, a stream has a usage chunk when it asks for one, and else no word of usage."""
    await voice.ask("chat.completions.create", **CHAT | before)
    silent = await voice.ask("chat.completions.create", **CHAT | STREAMED)
    counted = await voice.ask("chat.completions.create", **CHAT | COUNTED)

    assert ["hit", "hit"] == told(silent, counted)
    assert [] == [chunk for chunk in silent.parsed if "usage" in chunk.model_fields_set]
    assert [] == [chunk for chunk in silent.parsed[1:] if not chunk.choices]
    assert [[]] == [chunk.choices for chunk in counted.parsed if chunk.usage]
    assert 1 == provider.calls


async def test_embeddings(voice, provider):
    """The vectors of a hit are those of the service, in base64 as the SDK asks for by default."""
    asked = {"model": "my-embedding", "input": ["one", "two"], "dimensions": 32}

    first = await voice.ask("embeddings.create", **asked)
    second = await voice.ask("embeddings.create", **asked)

    assert ["stored", "hit"] == told(first, second)
    assert [32, 32] == [len(each.embedding) for each in second.parsed.data]
    assert first.parsed == second.parsed
    assert 1 == provider.calls


@pytest.mark.parametrize("before", [WHOLE, STREAMED], ids=FORM_IDS)
async def test_responses(lab, provider, manner, before):
    """A response that the service does not store is kept; one that it stores passes."""
    asked = {"model": "my-gpt-4o", "input": "What is in the box?", "temperature": 0}

    async with client(lab, "v1", manner) as voice:
        first = await voice.ask("responses.create", **asked | before, store=False)
        entire = await voice.ask("responses.create", **asked, store=False)
        streamed = await voice.ask("responses.create", **asked | STREAMED, store=False)
        stored = await voice.ask("responses.create", **asked)

    assert ["stored", "hit", "hit", "sidecar; fwd=bypass; detail=store"] == told(first, entire, streamed, stored)
    assert plain(entire.parsed) == plain(streamed.parsed[-1].response)
    assert entire.parsed.output_text
    assert 2 == provider.calls


async def test_where_the_calls_go(lab, provider, manner):
    """The path after the resource reaches the service as the SDK wrote it, and its key with it."""
    async with client(lab, "deployments", manner) as classic, client(lab, "v1", manner) as newer:
        await classic.ask("chat.completions.create", **CHAT)
        await newer.ask("chat.completions.create", **CHAT)

    assert [
        "/openai/deployments/my-gpt-4o/chat/completions?api-version=2024-10-21",
        "/openai/v1/chat/completions",
    ] == [seen.target for seen in provider.seen]
    assert b"azure-key" == provider.seen[0].fields[b"api-key"]
    assert b"Bearer azure-key" == provider.seen[1].fields[b"authorization"]


async def test_a_resource_forgotten(lab, provider, surface, manner):
    """Without a resource in the base URL nothing is sent, least of all to one named ``openai``; what to set is said."""
    async with client(lab, surface, manner, resource="") as voice:
        with pytest.raises(openai.NotFoundError) as caught:
            await voice.ask("chat.completions.create", **CHAT)

    assert f"AZURE_OPENAI_ENDPOINT={lab.url}/azure/RESOURCE" in caught.value.message
    assert "false" == caught.value.response.headers["x-should-retry"]
    assert 0 == provider.calls


async def test_resources_and_deployments_are_apart(lab, provider, manner):
    """The same question to another resource, deployment, API version or by another key is another question."""
    others = {
        "resource": {"resource": "fabrikam"},
        "version": {"api_version": "2025-01-01-preview"},
        "key": {"api_key": "another"},
    }
    async with client(lab, "deployments", manner) as voice:
        said = [
            await voice.ask("chat.completions.create", **CHAT),
            await voice.ask("chat.completions.create", **CHAT | {"model": "my-gpt-5"}),
        ]
    for more in others.values():
        async with client(lab, "deployments", manner, **more) as voice:
            said.append(await voice.ask("chat.completions.create", **CHAT))

    assert ["stored"] * 5 == told(*said)
    assert 5 == provider.calls


async def test_key_and_bearer_are_one_caller(lab, provider, manner):
    """One key in ``api-key`` or as a bearer token is one caller."""
    async with (
        client(lab, "deployments", manner) as by_key,
        client(lab, "deployments", manner, api_key=None, azure_ad_token="azure-key") as by_token,
    ):
        first = await by_key.ask("chat.completions.create", **CHAT)
        second = await by_token.ask("chat.completions.create", **CHAT)

    assert "api-key" not in second.http.request.headers
    assert ["stored", "hit"] == told(first, second)
    assert 1 == provider.calls


FILTERED = {
    "error": {
        "message": "The response was filtered.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}},
    }
}

ERRORS = {
    400: (openai.BadRequestError, FILTERED),
    401: (openai.AuthenticationError, {"error": {"code": "401", "message": "Access denied."}}),
    404: (openai.NotFoundError, {"error": {"code": "DeploymentNotFound", "message": "No such deployment."}}),
    429: (openai.RateLimitError, {"error": {"code": "429", "message": "Please retry after 37 seconds."}}),
    500: (openai.InternalServerError, {"error": {"code": "InternalServerError", "message": "Broken."}}),
}


@pytest.mark.parametrize(("status", "expected", "body"), [(n, *e) for n, e in ERRORS.items()], ids=map(str, ERRORS))
async def test_errors_of_the_service(build_lab, script, surface, status, expected, body):
    """An error of the service is the SDK's own exception, with status and body as they were; and is not kept."""

    async def refuse(_head, _body, writer):
        writer.write(whole(json.dumps(body).encode(), status=f"{status} Refused"))

    upstream = await script(refuse)
    lab = await build_lab(f"http://127.0.0.1:{upstream.port}")

    async with client(lab, surface, "async") as voice:
        for calls, form in enumerate((WHOLE, STREAMED, WHOLE), 1):
            with pytest.raises(openai.APIStatusError) as caught:
                await voice.ask("chat.completions.create", **CHAT | form)

            assert expected is type(caught.value)
            assert status == caught.value.status_code
            assert body == caught.value.response.json()
            assert body["error"]["code"] == caught.value.code
            assert calls == upstream.calls


async def test_service_that_does_not_know_stream_options(build_lab, script, surface, manner):
    """An older API version refuses the usage that we ask for: the stream comes without, and the caller sees nothing."""
    events = (
        b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,'
        b'"delta":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    )
    complaint = json.dumps({
        "error": {"message": "Unrecognized request argument supplied: stream_options", "code": None}
    }).encode()  # fmt: skip

    async def answer(_head, body, writer):
        if b"stream_options" in body:
            writer.write(whole(complaint, status="400 Bad Request"))
        else:
            writer.write(whole(events, kind=b"text/event-stream"))

    upstream = await script(answer)
    lab = await build_lab(f"http://127.0.0.1:{upstream.port}")

    async with client(lab, surface, manner) as voice:
        first = await voice.ask("chat.completions.create", **CHAT | STREAMED)
        second = await voice.ask("chat.completions.create", **CHAT | STREAMED)

    assert ["stored", "hit"] == told(first, second)
    assert ["Hello"] == [chunk.choices[0].delta.content for chunk in second.parsed]
    assert plain(first.parsed) == plain(second.parsed)
    assert 2 == upstream.calls
