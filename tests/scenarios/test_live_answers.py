"""What a call for a stream gets comes as the service sends it, and is over when its last event has come."""

from __future__ import annotations

import asyncio
import json

import pytest

from sidecar.core.rules import CacheMode, CacheRule, Region, Route, Service
from sidecar.dialects import DIALECTS
from tests.scenarios.answers import CLAUDE, CLAUDE_EVENTS, CLAUDE_PATH, chat_events, chunk, chunks, completion, said
from tests.scenarios.conftest import CHAT, CHAT_PATH, LAST_CHUNK, STREAM_HEAD

STREAM = {**CHAT, "stream": True}
SHOWN = {**STREAM, "stream_options": {"include_usage": True}}
EVENTS = chat_events("It", " is", " a box.")
OFF = {**STREAM, "temperature": 1}  # bypassed


class Holding:
    """A service that sends *begun*, and *rest* once it may *go* on."""

    def __init__(self, begun: bytes, rest: bytes) -> None:
        self.begun, self.rest = begun, rest
        self.go = asyncio.Event()

    async def __call__(self, _head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(self.begun)
        await writer.drain()
        await self.go.wait()
        writer.write(self.rest)


def head(kind: str, *, length: int | None = None) -> bytes:
    """An answer's head; *kind* is its type, if it has one."""
    named = f"Content-Type: {kind}\r\n" if kind else ""
    framed = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"HTTP/1.1 200 OK\r\n{named}{framed}\r\n\r\n".encode()


@pytest.mark.parametrize("call", [STREAM, OFF], ids=["looked up", "bypassed"])
@pytest.mark.parametrize("framed", ["length", "chunked"])
@pytest.mark.parametrize("kind", ["text/plain", "", "application/octet-stream", "text/html", "audio/mpeg"])
async def test_neither_stream_nor_json(kind, framed, call, build_lab, script, dial):
    """Its first byte is heard while the rest is still to come; nothing claims that it is stored, and it isn't."""
    if framed == "length":
        holding = Holding(head(kind, length=10) + b"begun", b" rest")
    else:
        holding = Holding(head(kind) + chunk(b"begun"), chunk(b" rest") + LAST_CHUNK)
    upstream = await script(holding)
    lab = await build_lab(upstream.url)
    caller = await dial(lab, call)
    await caller.until(b"begun")

    assert b"begun" == caller.body
    holding.go.set()
    reply = await caller.reply()
    assert (200, b"begun rest", False) == (reply.status, reply.body, reply.broken)
    assert "stored" not in reply.cache
    await lab.settle()
    assert (1, 0) == (upstream.calls, lab.sidecar.memory.entries)


@pytest.mark.parametrize("call", [STREAM, OFF], ids=["looked up", "bypassed"])
async def test_json(call, build_lab, script, dial):
    """A document is waited for: one that breaks is an error answer, also for who asked for a stream."""
    answer = completion("It is a box.")
    holding = Holding(head("application/json", length=len(answer)) + answer[:40], b"")

    async def breaking(request: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        await holding(request, body, writer)
        writer.close()

    upstream = await script(breaking)
    lab = await build_lab(upstream.url)
    caller = await dial(lab, call)
    await lab.until(lambda: lab.held == len(json.dumps(call)) + 40)
    assert 0 == caller.status
    holding.go.set()
    reply = await caller.reply()

    assert (502, "upstream-truncated") == (reply.status, reply.json()["error"]["code"])
    await lab.settle()


async def test_text_that_breaks(build_lab, script, dial):
    """Past its first byte a break is a break for its caller, and nothing is kept."""
    holding = Holding(head("text/plain") + chunk(b"begun"), b"")

    async def breaking(request: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        await holding(request, body, writer)
        writer.close()

    upstream = await script(breaking)
    lab = await build_lab(upstream.url)
    caller = await dial(lab, STREAM)
    await caller.until(b"begun")
    holding.go.set()

    assert (200, b"begun", True) == ((reply := await caller.reply()).status, reply.body, reply.broken)
    await lab.settle()
    assert 0 == lab.sidecar.memory.entries


async def test_text_for_who_asked_for_no_stream(build_lab, script, dial):
    """It is waited for, as any whole answer: a break before its end is an error answer."""
    upstream = await script(Holding(head("text/plain", length=9) + b"begun", b""))

    async def breaking(request: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(head("text/plain", length=9) + b"begun")
        await writer.drain()
        writer.close()

    upstream.handler = breaking
    lab = await build_lab(upstream.url)
    reply = await (await dial(lab)).reply()

    assert 502 == reply.status
    await lab.settle()


@pytest.mark.parametrize("end", ["open", "broken"])
@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_converted_at_the_last_event(name, end, build_lab, script, dial):
    """Who joined without ``stream`` has the answer as soon as the last event has come, whatever the connection does."""
    if name == "openai":
        streamed, plain, path, headers, events = SHOWN, CHAT, CHAT_PATH, {}, EVENTS
    else:
        streamed, plain, path, events = {**CLAUDE, "stream": True}, CLAUDE, CLAUDE_PATH, CLAUDE_EVENTS
        headers = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
    held = asyncio.Event()

    async def provider(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunks(events[:2]))
        await writer.drain()
        await go.wait()
        writer.write(chunks(events[2:]))
        await writer.drain()
        await held.wait()
        if end == "broken":
            writer.close()
        else:
            writer.write(LAST_CHUNK)

    go = asyncio.Event()
    upstream = await script(provider)
    lab = await build_lab(upstream.url)
    leader = await dial(lab, streamed, path=path, headers=headers)
    await leader.until(events[1])
    joiners = [await dial(lab, plain, path=path, headers=headers) for _ in range(2)]
    await lab.until(lambda: lab.waiting == 3)
    go.set()
    replies = [await joiner.reply() for joiner in joiners]  # while the connection is still open

    for reply in replies:
        assert (200, "application/json", False) == (reply.status, reply.headers["content-type"], reply.broken)
        assert "sidecar; fwd=miss; collapsed" == reply.cache
        assert "It is a box." == (said(reply.body) if name == "openai" else reply.json()["content"][0]["text"])
    assert 1 == len(lab.sidecar.flights)
    again = await (await dial(lab, plain, path=path, headers=headers)).reply()
    assert replies[0].body == again.body
    held.set()
    whole = await leader.reply()
    assert (b"".join(events), False) == (whole.body, whole.broken)
    await lab.settle()
    assert (1, 1) == (upstream.calls, lab.sidecar.memory.entries)


async def test_converted_though_the_leader_has_left(build_lab, script, dial):
    """It is so also when nobody but such callers reads along."""

    async def provider(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunks(EVENTS[:2]))
        await writer.drain()
        await go.wait()
        writer.write(chunks(EVENTS[2:]))
        await writer.drain()
        await end.wait()
        writer.write(LAST_CHUNK)

    go, end = asyncio.Event(), asyncio.Event()
    upstream = await script(provider)
    lab = await build_lab(upstream.url)
    leader = await dial(lab, SHOWN)
    await leader.until(EVENTS[1])
    joiner = await dial(lab, CHAT)
    await lab.until(lambda: lab.waiting == 2)
    leader.vanish()
    await lab.until(lambda: lab.waiting == 1)
    go.set()
    reply = await joiner.reply()

    assert (200, "It is a box.") == (reply.status, said(reply.body))
    assert 1 == lab.sidecar.memory.entries
    end.set()
    await lab.settle()


@pytest.mark.parametrize("mode", [CacheMode.ALWAYS, CacheMode.OBSERVE, CacheMode.OFF])
@pytest.mark.parametrize("events", [EVENTS, [b"data: {}\n\n", b"data: {}\n\n"]], ids=["chat", "any"])
async def test_a_generic_stream(events, mode, build_lab, script, dial):
    """Nobody knows when it is whole, so it is never stored, and no answer says that it is."""

    async def provider(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunks(events) + LAST_CHUNK)

    upstream = await script(provider)
    lab = await build_lab(
        "",
        services=(Service("any", DIALECTS["generic"], (Region("here", upstream.url),), path="/any"),),
        routes=(Route("all", cache=CacheRule(mode=mode)),),
    )
    replies = [await (await dial(lab, STREAM, path="/any/v1/x")).reply() for _ in range(2)]

    assert [b"".join(events)] * 2 == [reply.body for reply in replies]
    expected = {
        CacheMode.ALWAYS: "sidecar; fwd=miss",
        CacheMode.OBSERVE: "sidecar; fwd=bypass; detail=observe",
        CacheMode.OFF: "sidecar; fwd=bypass; detail=route-off",
    }[mode]
    assert [expected] * 2 == [reply.cache for reply in replies]
    assert (2, 0) == (upstream.calls, lab.sidecar.memory.entries)
    assert [False, False] == [record.stored for record in lab.records]


async def test_a_document_that_calls_itself_a_stream(build_lab, script, dial):
    """It is handed on, and isn't stored; nor does its answer say so."""
    answer = json.dumps({"error": None, "text": "x" * (2 << 20)}).encode()

    async def provider(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(answer[:50]) + chunk(answer[50:]) + LAST_CHUNK)

    upstream = await script(provider)
    lab = await build_lab(upstream.url)
    reply = await (await dial(lab, STREAM)).reply()

    assert (answer, "sidecar; fwd=miss") == (reply.body, reply.cache)
    await lab.settle()
    assert 0 == lab.sidecar.memory.entries
