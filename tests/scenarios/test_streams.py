"""Streams pass as they come, are asked for their usage, and are whole only with their last event."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.scenarios.answers import ROLE, chat_events, chunks, completion, said
from tests.scenarios.conftest import CHAT, DONE, LAST_CHUNK, STREAM_HEAD, USAGE, chunk, delta, whole

STREAM = {**CHAT, "stream": True}
SHOWN = {**STREAM, "stream_options": {"include_usage": True}}
EVENTS = chat_events("It", " is", " a box.")
TEXT = "It is a box."


def bare(events: list[bytes]) -> bytes:
    """The stream as a provider sends it that was not asked for usage."""
    return b"".join(event.replace(b',"usage":null', b"") for event in events if event is not USAGE)


async def literal(_head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
    """A provider that shows usage to who asks for it."""
    shown = json.loads(body).get("stream_options", {}).get("include_usage")
    writer.write(STREAM_HEAD + chunk(b"".join(EVENTS) if shown else bare(EVENTS)) + LAST_CHUNK)


async def test_usage_is_asked_for_and_not_shown(build_lab, script, dial):
    """The provider is asked for the usage; the caller gets the bytes of one who was not; the entry has it."""
    upstream = await script(literal)
    lab = await build_lab(upstream.url)
    sent = json.dumps(STREAM).encode()
    reply = await (await dial(lab, sent)).reply()
    again = await (await dial(lab, sent)).reply()
    shown = await (await dial(lab, SHOWN)).reply()

    [(_, body)] = upstream.seen
    assert json.loads(body) == SHOWN
    assert body.endswith(sent[1:])
    assert bare(EVENTS) == reply.body
    assert reply.body == again.body
    assert b"".join(EVENTS) == shown.body
    assert 5 == lab.records[0].usage.total


async def test_usage_that_was_asked_for_is_forwarded_as_it_is(build_lab, script, dial):
    """A body that says itself what usage it wants goes up byte for byte."""
    upstream = await script(literal)
    lab = await build_lab(upstream.url)
    sent = b'{ "stream_options" : {"include_usage": true},' + json.dumps(STREAM).encode()[1:]
    reply = await (await dial(lab, sent)).reply()

    assert sent == upstream.seen[0][1]
    assert b"".join(EVENTS) == reply.body


@pytest.mark.parametrize("callers", [1, 5])
async def test_provider_that_knows_no_stream_options(callers, build_lab, script, dial):
    """A 400 that names what we added is answered by one resend of the caller's own bytes."""

    async def old(_head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        if b"stream_options" in body:
            writer.write(whole(b'{"error":{"message":"unknown field stream_options"}}', status="400 No"))
        else:
            writer.write(STREAM_HEAD + chunk(bare(EVENTS)) + LAST_CHUNK)

    go = asyncio.Event()
    upstream = await script(old)
    lab = await build_lab(upstream.url)
    sent = json.dumps(STREAM).encode()
    asking = [await dial(lab, sent) for _ in range(callers)]
    await lab.until(lambda: lab.waiting == callers)
    go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in asking))

    assert 2 == upstream.calls
    assert sent == upstream.seen[1][1]
    assert {(200, bare(EVENTS))} == {(reply.status, reply.body) for reply in replies}
    await lab.settle()
    assert 2 == max(record.attempts for record in lab.records)


@pytest.mark.parametrize("padding", [0, 60_000, 300_000])
async def test_another_400_is_passed_on(padding, build_lab, script, dial):
    """A 400 about anything else is the caller's, whole and once, however long it is."""
    complaint = json.dumps({"error": {"message": "messages: too many" + "!" * padding}}).encode()

    async def refuse(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(complaint, status="400 Bad Request", extra=b"X-Request-Id: req-9\r\n"))

    upstream = await script(refuse)
    lab = await build_lab(upstream.url)
    reply = await (await dial(lab, STREAM)).reply()

    assert (400, complaint, False) == (reply.status, reply.body, reply.broken)
    assert "req-9" == reply.headers["x-request-id"]
    assert "sidecar; fwd=miss" == reply.cache
    assert 1 == upstream.calls
    await lab.settle()


async def test_events_pass_while_the_stream_is_open(build_lab, script, dial):
    """Each event reaches its caller before the provider sends the next."""
    steps = [asyncio.Event() for _ in EVENTS]

    async def slowly(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        for event, step in zip(EVENTS, steps, strict=True):
            await step.wait()
            writer.write(chunk(event))
        writer.write(LAST_CHUNK)

    upstream = await script(slowly)
    lab = await build_lab(upstream.url)
    caller = await dial(lab, SHOWN)
    for event, step in zip(EVENTS, steps, strict=True):
        step.set()
        await caller.until(event)
    reply = await caller.reply()

    assert not reply.broken
    assert b"".join(EVENTS) == reply.body


@pytest.mark.parametrize("form", ["stream", "document"])
@pytest.mark.parametrize("bypassed", [False, True], ids=["looked up", "bypassed"])
async def test_pings_are_heard(bypassed, form, build_lab, script, dial, monkeypatch):
    """Where nothing else comes for a while, callers hear the pings, or blanks, that are meant for their timers."""
    monkeypatch.setattr("sidecar.upstream.commit.TALK_SECONDS", 0.05)
    go = asyncio.Event()
    talk = b": still at it\n\n" if form == "stream" else b" \n"

    async def slow(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        head = STREAM_HEAD if form == "stream" else STREAM_HEAD.replace(b"text/event-stream", b"application/json")
        writer.write(head + chunk(talk))
        await go.wait()
        rest = EVENTS if form == "stream" else [completion(TEXT)]
        writer.write(chunks(rest) + LAST_CHUNK)

    upstream = await script(slow)
    lab = await build_lab(upstream.url)
    asked = {**(STREAM if form == "stream" else CHAT), **({"temperature": 1} if bypassed else {})}
    caller = await dial(lab, asked)
    await caller.until(talk)
    go.set()
    reply = await caller.reply()

    assert (200, False, TEXT) == (reply.status, reply.broken, said(reply.body.strip()))
    await lab.settle()
    assert int(not bypassed) == lab.sidecar.memory.entries


@pytest.mark.parametrize("size", [1, 3, 64, 1000])
async def test_events_cut_anywhere(size, build_lab, script, dial):
    """However the network cuts a stream, callers get the same bytes, with and without the usage."""
    stream = b"".join(EVENTS)

    async def crumbs(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(STREAM_HEAD)
        for start in range(0, len(stream), size):
            writer.write(chunk(stream[start : start + size]))
            await writer.drain()
        writer.write(LAST_CHUNK)

    go = asyncio.Event()
    upstream = await script(crumbs)
    lab = await build_lab(upstream.url)
    shown, hidden = await dial(lab, SHOWN), await dial(lab, STREAM)
    await lab.until(lambda: lab.waiting == 2)
    go.set()
    replies = await asyncio.gather(shown.reply(), hidden.reply())

    assert [stream, bare(EVENTS)] == [reply.body for reply in replies]
    assert 1 == upstream.calls


@pytest.mark.parametrize("end", [LAST_CHUNK, b""], ids=["chunked", "until-close"])
async def test_stream_until_the_connection_closes(end, build_lab, script, dial):
    """A stream whose end is its connection's is whole when its last event has come."""
    head = STREAM_HEAD if end else STREAM_HEAD.replace(b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n")

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(head + (chunks(EVENTS) + end if end else b"".join(EVENTS)))
        await writer.drain()
        writer.close()

    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    reply = await (await dial(lab, SHOWN)).reply()
    again = await (await dial(lab, SHOWN)).reply()

    assert b"".join(EVENTS) == reply.body == again.body
    assert again.cache.startswith("sidecar; hit; ")


@pytest.mark.parametrize(
    ("events", "stored"),
    [
        ([ROLE, delta("It"), b'data: {"error":{"message":"overloaded","code":"x"}}\n\n'], False),
        ([ROLE, delta("It"), DONE], False),
        ([ROLE, delta("It"), delta(None, finish="content_filter"), USAGE, DONE], False),
        ([b": hello\n\n", *EVENTS], True),
        ([*EVENTS[:-1], b": bye\n\n", DONE], True),
    ],
    ids=["error-event", "no-finish-reason", "content-filter", "comment-first", "comment-before-the-end"],
)
async def test_streams_that_end_whole(events, stored, build_lab, script, dial):
    """What a service ends properly reaches the caller as it is; only a good answer is kept."""

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunks(events) + LAST_CHUNK)

    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    reply = await (await dial(lab, SHOWN)).reply()
    await lab.settle()
    await (await dial(lab, SHOWN)).reply()

    assert (b"".join(events), False) == (reply.body, reply.broken)
    assert (1 if stored else 2) == upstream.calls


async def test_stream_as_document_and_back(lab, dial, provider):
    """One answer of the stand-in provider, fetched as a stream, is served in every form from memory."""
    live = await (await dial(lab, SHOWN)).reply()
    document = await lab.ask(CHAT)
    hidden = await (await dial(lab, STREAM)).reply()

    assert 1 == provider.calls
    assert said(live.body) == said(document.body) == said(hidden.body)
    assert b'"usage"' not in hidden.body
    assert "application/json" == document.headers["content-type"]


async def test_error_answer_to_a_streaming_call(build_lab, script, dial):
    """An upstream's error is a document, also for who asked for a stream."""

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(b'{"error":{}}', status="503 Busy", extra=b"Retry-After: 7\r\n"))

    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    reply = await (await dial(lab, STREAM)).reply()

    assert (503, b'{"error":{}}', "7") == (reply.status, reply.body, reply.headers["retry-after"])
    assert TEXT not in reply.body.decode()
