"""What applications see while no sidecar listens: before it has started, and after it has ended."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

import anthropic
import openai
import pytest

from tests.redis_servers import free_port
from tests.scenarios.answers import completion, whole
from tests.scenarios.conftest import CHAT
from tests.scenarios.processes import launch, run_by
from tests.scenarios.sdk import MANNERS, Voice, without_sleep

MESSAGE = json.dumps({
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4", "stop_reason": "end_turn",
    "stop_sequence": None, "content": [{"type": "text", "text": "Yes."}],
    "usage": {"input_tokens": 3, "output_tokens": 2},
}).encode()  # fmt: skip


@pytest.fixture(params=MANNERS)
def manner(request) -> str:
    return request.param


@pytest.fixture(params=["openai", "anthropic"])
def sdk(request, monkeypatch, manner) -> Any:
    """An SDK with its default retries before the port of a sidecar. In place of sleeping it calls *sleep*."""
    module, brand = {"openai": (openai, "OpenAI"), "anthropic": (anthropic, "Anthropic")}[request.param]
    monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
    monkeypatch.setattr(module._base_client, "random", lambda: 0.0)
    found = SimpleNamespace(module=module, port=free_port(), slept=[], sleep=lambda: None)

    def sleep(seconds: float) -> None:
        found.slept.append(seconds)
        found.sleep()

    without_sleep(monkeypatch, module, sleep)
    path = "openai/v1" if module is openai else "anthropic"
    build = getattr(module, brand if manner == "sync" else f"Async{brand}")
    found.voice = Voice(build(base_url=f"http://127.0.0.1:{found.port}/{path}", api_key="sk-story"))
    found.call = {"method": "chat.completions.create", **CHAT}
    if module is anthropic:
        message = {"model": "claude-sonnet-4", "max_tokens": 64, "messages": CHAT["messages"]}
        found.call = {"method": "messages.create", **message}
    return found


async def test_nobody_listens(sdk):
    """Two retries within a second and a half, then the SDK's own error for a service that it cannot reach."""
    async with sdk.voice as voice:
        with pytest.raises(sdk.module.APIConnectionError) as told:
            await voice.ask(**sdk.call)

    assert [0.5, 1.0] == sdk.slept
    assert "ConnectError" == type(told.value.__cause__).__name__


async def test_it_comes(sdk, script, tmp_path):
    """A sidecar that has started by the time of a retry serves the call, and the application sees no error."""

    async def answer(_head, body, writer):
        writer.write(whole(MESSAGE if b"claude" in body else completion("Yes.")))

    upstream = await script(answer)
    region = {"regions": [{"name": "here", "url": upstream.url}]}
    config = tmp_path / "sidecar.yaml"
    config.write_text(
        json.dumps({
            "version": 1, "listen": {"port": sdk.port}, "health": {"port": 0}, "admin": {"port": 0},
            "upstream": {"proxy": "none"},
            "services": {
                "openai": {"dialect": "openai", "path": "/openai", **region},
                "anthropic": {"dialect": "anthropic", "path": "/anthropic", **region},
            },
        })
    )  # fmt: skip
    begun = []

    def start() -> None:
        begun.append(launch(tmp_path, *run_by(config)))
        while not begun[0].events:
            assert begun[0].child.poll() is None
            time.sleep(0.01)

    sdk.sleep = start
    try:
        async with sdk.voice as voice:
            found = await voice.ask(**sdk.call)
    finally:
        for process in begun:
            process.child.kill()
            process.child.wait()

    assert ([0.5], 200, 1) == (sdk.slept, found.http.status_code, upstream.calls)
