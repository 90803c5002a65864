"""Half an answer never looks like a whole one, and is never kept."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from tests.scenarios.answers import CLAUDE, CLAUDE_EVENTS, CLAUDE_PATH, chat_events, chunks, claude_event
from tests.scenarios.conftest import CHAT, CHAT_PATH, LAST_CHUNK, STREAM_HEAD, chunk, completion

MIB = 1024 * 1024

STREAM = {**CHAT, "stream": True}
SHOWN = {**STREAM, "stream_options": {"include_usage": True}}
PLAIN = CHAT
EVENTS = chat_events("It", " is", " a box.")

DIALECTS = {
    "openai": (SHOWN, CHAT_PATH, {}, EVENTS, b": waiting\n\n"),
    "anthropic": ({**CLAUDE, "stream": True}, CLAUDE_PATH, {"x-api-key": "k", "anthropic-version": "2023-06-01"},
                  CLAUDE_EVENTS, claude_event("ping")),
}  # fmt: skip


def reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection with a reset."""
    sock = writer.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Breaking:
    """A provider that sends *events* as a stream and then breaks it in the way of *kind*; *go* holds the break."""

    def __init__(self, kind: str, events: list[bytes]) -> None:
        self.kind = kind
        self.events = events
        self.go = asyncio.Event()

    async def __call__(self, _head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        said = b"".join(self.events)
        head = STREAM_HEAD.replace(b"Transfer-Encoding: chunked\r\n", b"")
        if self.kind == "length-short":
            writer.write(head[:-2] + b"Content-Length: %d\r\n\r\n" % (len(said) + 10) + said)
        elif self.kind == "length-met":
            writer.write(head[:-2] + b"Content-Length: %d\r\n\r\n" % (len(said) + 1) + said)
        elif self.kind == "until-close":
            writer.write(head[:-2] + b"Connection: close\r\n\r\n" + said)
        else:
            writer.write(STREAM_HEAD + chunks(self.events))
        await writer.drain()
        await self.go.wait()
        match self.kind:
            case "clean-end":
                writer.write(LAST_CHUNK)
            case "length-met":
                writer.write(b"\n")
            case "reset":
                reset(writer)
            case "garbage":
                writer.write(b"no chunk at all\r\n\r\n")
            case "in-a-chunk":
                writer.write(b"40\r\ndata: {")
                await writer.drain()
                writer.close()
            case _:
                writer.close()


KINDS = ["clean-end", "length-met", "length-short", "until-close", "closed", "reset", "garbage", "in-a-chunk"]


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pings", [0, 1])
async def test_stream_without_an_event_is_an_error(kind, name, pings, build_lab, script, dial):
    """A stream that broke before its first event becomes a 502 in the API's own form, for everybody who waits."""
    call, path, headers, _, ping = DIALECTS[name]
    breaking = Breaking(kind, [ping] * pings)
    upstream = await script(breaking)
    lab = await build_lab(upstream.url)
    callers = [await dial(lab, call, path=path, headers=headers) for _ in range(3)]
    await lab.until(lambda: lab.waiting == 3)
    breaking.go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert 1 == upstream.calls
    assert [(502, False)] * 3 == [(reply.status, reply.broken) for reply in replies]
    assert {"application/json"} == {reply.headers["content-type"] for reply in replies}
    error = replies[0].json()
    if name == "openai":
        assert error["error"]["code"].startswith("upstream-")
        assert "server_error" == error["error"]["type"]
    else:
        assert ("error", "api_error") == (error["type"], error["error"]["type"])
    await lab.settle()
    assert 0 == lab.sidecar.memory.entries
    await (await dial(lab, call, path=path, headers=headers)).reply()
    assert 2 == upstream.calls


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("kind", KINDS)
async def test_stream_that_breaks_is_broken_for_all(kind, name, build_lab, script, dial):
    """A stream that broke after events: the callers see a break, after the API's error event where it has a place."""
    call, path, headers, events, _ = DIALECTS[name]
    breaking = Breaking(kind, events[:3])
    upstream = await script(breaking)
    lab = await build_lab(upstream.url)
    leader = await dial(lab, call, path=path, headers=headers)
    await leader.until(events[2])
    joiner = await dial(lab, call, path=path, headers=headers)
    await joiner.until(events[2])
    plain = await dial(lab, {**call, "stream": False, "stream_options": None} if name == "openai"
                       else {**call, "stream": False}, path=path, headers=headers)  # fmt: skip
    await lab.until(lambda: lab.waiting == 3)
    breaking.go.set()
    replies = await asyncio.gather(leader.reply(), joiner.reply())
    document = await plain.reply()

    assert [True, True] == [reply.broken for reply in replies]
    passed = b"".join(events[:3])
    for reply in replies:
        assert reply.body.startswith(passed)
        rest = reply.body[len(passed) :]
        if kind == "in-a-chunk":  # no place for an event
            assert b"data: {" == rest
        else:
            assert b'"error"' in rest
            assert rest.endswith(b"\n\n")
    assert (502, False) == (document.status, document.broken)
    assert 1 == upstream.calls
    await lab.settle()
    assert 0 == lab.sidecar.memory.entries
    breaking.go.clear()
    await (await dial(lab, call, path=path, headers=headers)).until(events[2])
    assert 2 == upstream.calls


@pytest.mark.parametrize("kind", ["closed", "reset"])
async def test_no_answer_at_all(kind, build_lab, script, dial):
    """A connection that dies before the answer's head: 502 for all who wait, one call."""
    go = asyncio.Event()

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        reset(writer) if kind == "reset" else writer.close()

    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    callers = [await dial(lab, call) for call in (PLAIN, STREAM, PLAIN)]
    await lab.until(lambda: lab.waiting == 3)
    go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert [(502, "upstream-disconnected")] * 3 == [(reply.status, reply.json()["error"]["code"]) for reply in replies]
    assert 1 == upstream.calls
    await lab.settle()


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
    ids=["two-lengths", "length-and-chunked", "not-http"],
)
async def test_malformed_heads(head, build_lab, script, dial):
    """What two readers could understand differently is a 502."""

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        await writer.drain()
        writer.close()

    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    reply = await (await dial(lab)).reply()

    assert (502, "upstream-malformed") == (reply.status, reply.json()["error"]["code"])
    await lab.settle()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("status", ["200 OK", "500 Oh"])
@pytest.mark.parametrize("kind", ["closed", "reset"])
@pytest.mark.parametrize(
    ("sent", "begun"), [(0, False), (1000, False), (MIB - 1000, False), (MIB + 300_000, True), (6 * MIB, True)]
)
async def test_truncated_documents(sent, begun, kind, status, chunked, build_lab, script, dial):
    """Up to 1 MiB a truncated document is a 502; past that its callers have begun to read, and see a break."""
    framing = b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: %d\r\n" % (sent + 100)

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        body = completion("x" * sent)[:sent]
        writer.write(b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n%b\r\n" % (status.encode(), framing))
        if body:
            writer.write(chunk(body) if chunked else body)
        await writer.drain()
        await go.wait()
        reset(writer) if kind == "reset" else writer.close()

    go = asyncio.Event()
    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    caller = await dial(lab)
    await lab.until(lambda: upstream.calls == 1)
    if begun:
        await caller.head()
    reading = asyncio.create_task(caller.reply())
    if sent == 6 * MIB:  # all of it has passed, so that the break comes after it
        await lab.until(lambda: len(caller.body) > 5 * MIB)
    go.set()
    reply = await reading

    assert ((int(status[:3]) if begun else 502), begun) == (reply.status, reply.broken)
    assert begun or "upstream-truncated" == reply.json()["error"]["code"]
    await lab.settle()
    assert 0 == lab.sidecar.memory.entries


async def test_idle_connection_that_died_is_no_error(build_lab, script, dial):
    """A kept-alive connection that its service closed costs the next call nothing."""
    dying = True

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal dying
        answer = completion("It is a box.")
        if upstream.calls == 2 and dying:
            dying = False
            reset(writer)
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                     % (len(answer), answer))  # fmt: skip

    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    first = await (await dial(lab)).reply()
    second = await (await dial(lab, headers={"cache-control": "no-cache"})).reply()

    assert [200, 200] == [first.status, second.status]
    assert 3 == upstream.calls
    assert 2 == lab.records[1].attempts


@pytest.mark.parametrize("form", ["stream", "document"])
async def test_break_is_seen_by_a_caller_of_http_1_0(form, build_lab, script, dial):
    """Where an answer ends with its connection, a break is a reset: a mere close would be the clean end."""

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        if form == "stream":
            writer.write(STREAM_HEAD + chunks(EVENTS[:3]))
        else:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            writer.write(head + chunk(completion("x" * 2 * MIB)))
        await go.wait()
        writer.close()

    go = asyncio.Event()
    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    caller = await dial(lab, SHOWN if form == "stream" else PLAIN, version="1.0")
    await caller.until(b"assistant")
    go.set()
    reply = await caller.reply()
    await lab.settle()

    assert "transfer-encoding" not in reply.headers
    assert reply.broken
