"""
The providers' own SDKs, asked the same way whether they are sync or async.

A sync client works in a thread of its own, because the sidecar that it calls runs in the test's event loop.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from operator import attrgetter
from types import SimpleNamespace
from typing import Any, Self

import anyio
import openai
from openai.lib.streaming.chat import ChatCompletionStreamState

from tests.scenarios.conftest import KEY, Lab

STREAMED = {"stream": True}

COUNTED = {"stream": True, "stream_options": {"include_usage": True}}

WHOLE: dict[str, Any] = {}

MANNERS = ["sync", "async"]

_OF_A_STREAM = {"obfuscation", "index", "parsed", "parsed_arguments"}
"""Members that the SDKs leave in an answer which they put together from a stream, or add to it."""


@dataclass(frozen=True)
class Said:
    """What an SDK gave back: *parsed* is its own object, or the list of a stream's; *http* its response."""

    parsed: Any
    http: Any

    @property
    def cache(self) -> str:
        return str(self.http.headers.get("cache-status", ""))

    @property
    def hit(self) -> bool:
        return self.cache.startswith("sidecar; hit; ttl=")

    @property
    def kind(self) -> str:
        return str(self.http.headers["content-type"]).partition(";")[0]


def without_sleep(monkeypatch: Any, module: Any, sleep: Callable[[float], object]) -> None:
    """Have the SDK *module* call *sleep* with the seconds that it wants to sleep, in place of sleeping."""
    base = module._base_client

    async def in_loop(seconds: float) -> None:
        sleep(seconds)

    monkeypatch.setattr(base, "time", SimpleNamespace(**{**vars(time), "sleep": sleep}))
    monkeypatch.setattr(base, "anyio", SimpleNamespace(**{**vars(anyio), "sleep": in_loop}))


async def _at_once() -> None:
    """Nothing to wait for."""


class Voice:
    """
    One SDK client. *waits* tells that it is the async one. *settle* is waited for after each stream: the SDK leaves at
    the last event, while the sidecar has yet to see the end of the transfer.
    """

    def __init__(self, client: Any, settle: Callable[[], Awaitable[None]] = _at_once) -> None:
        self.client = client
        self._settle = settle
        self.waits = inspect.iscoroutinefunction(client.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._run(self.client.close)

    async def ask(self, method: str, **params: Any) -> Said:
        """Call *method* (``chat.completions.create``) by way of ``with_raw_response``; a stream is read to its end."""
        place, _, verb = method.rpartition(".")
        raw = await self._run(attrgetter(f"{place}.with_raw_response.{verb}")(self.client), **params)
        parsed = await self._run(raw.parse)
        if params.get("stream"):
            parsed = await self._all(parsed)
            await self._settle()
        return Said(parsed, raw.http_response)

    async def ask_streaming(self, method: str, **params: Any) -> Said:
        """As ``ask``, by way of ``with_streaming_response``."""
        place, _, verb = method.rpartition(".")
        manager = attrgetter(f"{place}.with_streaming_response.{verb}")(self.client)(**params)
        async with _Entered(manager, self) as raw:
            return Said(await self._run(raw.parse), raw.http_response)

    async def assemble(self, method: str, final: str, **params: Any) -> Any:
        """What a stream helper (``messages.stream``) says the whole is, by its own method *final*."""
        async with _Entered(attrgetter(method)(self.client)(**params), self) as stream:
            await self._all(stream)
            found = await self._run(getattr(stream, final))
        await self._settle()
        return found

    async def _all(self, stream: Any) -> list[Any]:
        if self.waits:
            return [event async for event in stream]
        return await asyncio.to_thread(list, stream)

    async def _run(self, call: Callable[..., Any], **params: Any) -> Any:
        if self.waits:
            found = call(**params)
            return await found if inspect.isawaitable(found) else found
        return await asyncio.to_thread(call, **params)


def openai_client(lab: Lab, manner: str, **more: Any) -> Voice:
    """The OpenAI SDK with a lab's sidecar as its base URL; it does not retry unless told to."""
    build: Any = openai.OpenAI if manner == "sync" else openai.AsyncOpenAI
    given = {"api_key": KEY.removeprefix("Bearer "), "max_retries": 0} | more
    return Voice(build(base_url=f"{lab.url}/openai/v1", **given), lab.settle)


class _Entered:
    """A context manager of the SDK's, sync or async, as an async one."""

    def __init__(self, manager: Any, voice: Voice) -> None:
        self._manager = manager
        self._voice = voice

    async def __aenter__(self) -> Any:
        if self._voice.waits:
            return await self._manager.__aenter__()
        return await asyncio.to_thread(self._manager.__enter__)

    async def __aexit__(self, *error: object) -> None:
        if self._voice.waits:
            await self._manager.__aexit__(*error)
        else:
            await asyncio.to_thread(self._manager.__exit__, *error)


def told(*said: Said) -> list[str]:
    """``stored`` for a miss that was kept, ``hit`` for a hit, else the whole of what was said."""
    words = {"sidecar; fwd=miss; stored": "stored"}
    return ["hit" if one.hit else words.get(one.cache, one.cache) for one in said]


def plain(value: Any) -> Any:
    """An SDK's object as JSON, without nulls and without what tells only whether it came as a stream."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json", warnings=False)
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items() if one is not None and name not in _OF_A_STREAM}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value


def gathered(said: Said) -> Any:
    """A chat completion as JSON; out of chunks, as the SDK's own state puts it together."""
    if not isinstance(said.parsed, list):
        return plain(said.parsed)
    state: Any = ChatCompletionStreamState()
    for chunk in said.parsed:
        state.handle_chunk(chunk)
    return plain(state.get_final_completion())
