"""Errors reach users of the official OpenAI SDK as its own exceptions: the service's as they were, ours in its form."""

from __future__ import annotations

import json
import socket

import openai
import pytest

from tests.scenarios.conftest import CHAT, whole
from tests.scenarios.sdk import MANNERS, STREAMED, WHOLE, Voice, openai_client


@pytest.fixture(params=MANNERS)
def manner(request) -> str:
    return request.param


ERRORS = {
    401: openai.AuthenticationError,
    404: openai.NotFoundError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
}


def _refusal(status: int) -> bytes:
    return json.dumps(
        {"error": {"message": f"no {status}", "type": "t", "param": "p", "code": f"code-{status}"}}
    ).encode()


@pytest.mark.parametrize(("status", "expected"), ERRORS.items(), ids=map(str, ERRORS))
async def test_errors_of_the_service(build_lab, script, manner, status, expected):
    """An error of the service is the SDK's own exception, with status and body as they were; and is not kept."""

    async def refuse(_head, _body, writer):
        writer.write(whole(_refusal(status), status=f"{status} Refused", extra=b"x-request-id: req-1\r\n"))

    upstream = await script(refuse)
    lab = await build_lab(f"http://127.0.0.1:{upstream.port}")

    async with openai_client(lab, manner) as voice:
        for calls, form in enumerate((WHOLE, STREAMED, WHOLE), 1):
            with pytest.raises(openai.APIStatusError) as caught:
                await voice.ask("chat.completions.create", **CHAT | form)
            error = caught.value

            assert expected is type(error)
            assert status == error.status_code
            assert (f"code-{status}", "p", "t") == (error.code, error.param, error.type)
            assert _refusal(status) == error.response.content
            assert "req-1" == error.request_id
            assert calls == upstream.calls


async def test_retries_of_the_sdk_are_not_multiplied(build_lab, script, manner):
    """An SDK that tries three times makes three calls, as without the sidecar."""

    async def refuse(_head, _body, writer):
        writer.write(whole(_refusal(500), status="500 Broken", extra=b"retry-after-ms: 1\r\n"))

    upstream = await script(refuse)
    lab = await build_lab(f"http://127.0.0.1:{upstream.port}")

    async with openai_client(lab, manner, max_retries=2) as voice:
        for calls, form in ((3, WHOLE), (6, STREAMED)):
            with pytest.raises(openai.InternalServerError):
                await voice.ask("chat.completions.create", **CHAT | form)

            assert calls == upstream.calls


async def test_unreachable_service(build_lab, manner):
    """A service that cannot be reached is a server error, which says what happened."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        lab = await build_lab(f"http://127.0.0.1:{reserved.getsockname()[1]}")
        async with openai_client(lab, manner) as voice:
            for form in (WHOLE, STREAMED):
                with pytest.raises(openai.InternalServerError) as caught:
                    await voice.ask("chat.completions.create", **CHAT | form)

                assert 502 == caught.value.status_code
                assert "upstream-connect" == caught.value.code
                assert "could not be reached" in caught.value.message


async def test_wrong_service(lab, provider, manner):
    """An Azure client on OpenAI's base URL is told the right one."""
    build = openai.AzureOpenAI if manner == "sync" else openai.AsyncAzureOpenAI
    lost = build(azure_endpoint=f"{lab.url}/openai", api_version="2024-10-21", api_key="k", max_retries=2)

    async with Voice(lost) as voice:
        with pytest.raises(openai.APIStatusError) as caught:
            await voice.ask("chat.completions.create", **CHAT)

    assert 421 == caught.value.status_code
    assert f"AZURE_OPENAI_ENDPOINT={lab.url}/azure/RESOURCE" in caught.value.message
    assert "misdirected" == caught.value.code
    assert 0 == provider.calls
    assert 1 == len(lab.records)
