"""What a service says of waiting reaches its SDK: callers get their errors no later than from the service itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anthropic
import openai
import pytest

from tests.scenarios.answers import whole
from tests.scenarios.conftest import CHAT, Lab
from tests.scenarios.sdk import MANNERS, Voice, without_sleep

WAITS = [
    *(b"Retry-After: %d" % seconds for seconds in (1, 30, 60, 61, 90, 120, 121, 3600)),
    *(b"Retry-After-Ms: %d000" % seconds for seconds in (30, 90, 3600)),
    b"Retry-After: Wed, 01 Jan 2070 00:00:00 GMT",
    b"Retry-After: soon",
    b"X-Should-Retry: true\r\nRetry-After: 90",
    b"X-Should-Retry: true\r\nRetry-After: 3600",
]  # fmt: skip

LONG = (b"121", b"3600", b"3600000", b"2070 00:00:00 GMT")


@pytest.fixture(params=MANNERS)
def manner(request) -> str:
    return request.param


@pytest.fixture(params=[openai, anthropic], ids=["openai", "anthropic"])
def sdk(request, monkeypatch) -> Any:
    """An SDK that notes in ``slept`` how long it wants to sleep, and doesn't; its jitter is none."""
    slept: list[float] = []
    monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
    without_sleep(monkeypatch, request.param, slept.append)
    monkeypatch.setattr(request.param._base_client, "random", lambda: 0.0)
    return SimpleNamespace(module=request.param, slept=slept)


async def _waited(sdk: Any, manner: str, url: str) -> list[float]:
    """How long the SDK wanted to sleep, each time, until it raised what a 429 is."""
    sdk.slept.clear()
    brand, method, asked = ("OpenAI", "chat.completions.create", CHAT)
    if sdk.module is anthropic:
        brand, method, asked = (
            "Anthropic",
            "messages.create",
            {"max_tokens": 64, "model": "claude-sonnet-4", "messages": CHAT["messages"]},
        )
    client = getattr(sdk.module, brand if manner == "sync" else f"Async{brand}")
    async with Voice(client(base_url=url, api_key="sk-story", max_retries=2)) as voice:
        with pytest.raises(sdk.module.RateLimitError):
            await voice.ask(method, **asked)
    return list(sdk.slept)


def _bases(sdk: Any, url: str, lab: Lab) -> tuple[str, str]:
    """The SDK's base URL for the service itself, and for the sidecar."""
    return (f"{url}/v1", f"{lab.url}/openai/v1") if sdk.module is openai else (url, f"{lab.url}/anthropic")


@pytest.mark.parametrize("said", WAITS, ids=lambda said: said.decode().replace("\r\n", ", "))
async def test_an_sdk_waits_as_without_the_sidecar(build_lab, script, sdk, manner, said):
    """Each sleep is the one that the service's own answer brings about; above two minutes there is none at all."""

    async def refuse(_head, _body, writer):
        error = b'{"type":"error","error":{"type":"rate_limit_error","message":"Slow down."}}'
        writer.write(whole(error, status="429 Too Many Requests", extra=said + b"\r\n"))

    upstream = await script(refuse)
    lab = await build_lab(upstream.url)
    direct, through = _bases(sdk, upstream.url, lab)
    without = await _waited(sdk, manner, direct)
    alone = upstream.calls
    found = await _waited(sdk, manner, through)

    if said.endswith(LONG):
        assert [] == found
        assert 1 == upstream.calls - alone
    else:
        assert without == found
        assert alone == upstream.calls - alone
    assert sum(found) <= sum(without)
