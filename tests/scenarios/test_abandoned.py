"""A caller that leaves harms nobody, and a call that nobody waits for costs nothing more."""

from __future__ import annotations

import asyncio
import json

import pytest

from sidecar.core.rules import CacheRule, MemoryRule, Share
from sidecar.upstream import commit
from tests.scenarios.answers import said
from tests.scenarios.box import STREAM, TEXT, VECTORS, Box
from tests.scenarios.conftest import CHAT, CHAT_PATH, completion, whole
from tests.scenarios.lab import AT_REST

SHOWN = {**STREAM, "stream_options": {"include_usage": True}}

EMBEDDINGS = "/openai/v1/embeddings"
EMBED = {"model": "text-embedding-3-small", "input": "box"}


@pytest.mark.parametrize("point", ["before-the-head", "in-the-stream"])
@pytest.mark.parametrize("form", [STREAM, CHAT], ids=["stream", "plain"])
async def test_first_caller_leaves(form, point, build_lab, script, dial):
    """The others get the whole answer of the one call, and it is kept."""
    box = Box()
    upstream = await script(box)
    lab = await build_lab(upstream.url)
    leader = await dial(lab, form)
    await lab.until(lambda: upstream.calls == 1)
    if point == "in-the-stream":
        box.head.set()
        if form is STREAM:
            await leader.until(b'"It"')
    others = [await dial(lab, call) for call in (STREAM, SHOWN, CHAT, CHAT)]
    await lab.until(lambda: lab.waiting == 5)
    leader.vanish()
    await lab.until(lambda: lab.waiting == 4)
    box.head.set()
    box.rest.set()
    replies = await asyncio.gather(*(caller.reply() for caller in others))
    await lab.settle()

    assert [TEXT] * 4 == [said(reply.body) for reply in replies]
    assert not any(reply.broken for reply in replies)
    assert (1, 0) == (upstream.calls, upstream.deserted)
    assert (await lab.ask()).cache.startswith("sidecar; hit; ")
    [gone] = [record for record in lab.records if record.cause]
    assert ("client-gone", 499) == (gone.cause, gone.status)


@pytest.mark.parametrize("point", ["before-the-head", "in-the-answer"])
@pytest.mark.parametrize("form", [STREAM, CHAT], ids=["stream", "plain"])
async def test_everybody_leaves(form, point, build_lab, script, dial):
    """A generating call that nobody waits for is cancelled upstream, and leaves nothing behind."""
    box = Box()
    upstream = await script(box)
    lab = await build_lab(upstream.url)
    callers = [await dial(lab, form) for _ in range(4)]
    await lab.until(lambda: lab.waiting == 4 and upstream.calls == 1)
    asked = lab.held
    if point == "in-the-answer":
        box.head.set()
        if form is STREAM:
            await callers[3].until(b'"It"')
        else:
            await lab.until(lambda: lab.held > asked)
    for caller in callers:
        caller.vanish()
    await lab.until(lambda: upstream.open == 0)
    await lab.settle()

    assert 1 == upstream.deserted
    assert 0 == lab.sidecar.memory.entries
    await lab.until(lambda: lab.tasks == AT_REST)
    assert ["client-gone"] * 4 == [record.cause for record in lab.records]
    assert [0, 0, 0, 1] == sorted(record.attempts for record in lab.records)
    box.head.set()
    box.rest.set()
    assert TEXT == said((await lab.ask()).body)
    assert 2 == upstream.calls


@pytest.mark.parametrize("point", ["before-the-head", "in-the-answer"])
async def test_embeddings_are_finished_for_nobody(point, build_lab, script, dial):
    """Embeddings that the provider has been asked for are fetched to their end and kept, though nobody waits."""
    box = Box()
    upstream = await script(box)
    lab = await build_lab(upstream.url)
    caller = await dial(lab, EMBED, path=EMBEDDINGS)
    await lab.until(lambda: upstream.calls == 1)
    asked = lab.held
    if point == "in-the-answer":
        box.head.set()
        await lab.until(lambda: lab.held > asked)
    caller.vanish()
    await lab.until(lambda: lab.waiting == 0)
    assert [] == lab.records
    box.head.set()
    box.rest.set()
    await lab.settle()
    reply = await lab.ask(EMBED, path=EMBEDDINGS)

    assert VECTORS == reply.body
    assert reply.cache.startswith("sidecar; hit; ")
    assert (1, 0) == (upstream.calls, upstream.deserted)
    gone = lab.records[0]
    assert ("client-gone", 499, 1, True) == (gone.cause, gone.status, gone.attempts, gone.stored)
    assert 1 == gone.usage.total


async def test_who_comes_back_joins_what_is_finished_for_nobody(build_lab, script, dial):
    """A caller that retries while its embeddings are still being fetched joins them."""
    box = Box()
    upstream = await script(box)
    lab = await build_lab(upstream.url)
    caller = await dial(lab, EMBED, path=EMBEDDINGS)
    await lab.until(lambda: upstream.calls == 1)
    asked = lab.held
    box.head.set()
    await lab.until(lambda: lab.held > asked)
    caller.vanish()
    await lab.until(lambda: lab.waiting == 0)
    again = await dial(lab, EMBED, path=EMBEDDINGS)
    await lab.until(lambda: lab.waiting == 1)
    box.rest.set()
    reply = await again.reply()

    assert (VECTORS, "sidecar; fwd=miss; collapsed") == (reply.body, reply.cache)
    assert 1 == upstream.calls
    await lab.settle()
    assert [0, 1] == sorted(record.attempts for record in lab.records)


async def test_at_most_16_are_finished_for_nobody(build_lab, script, dial):
    """Of twenty abandoned embeddings sixteen are finished, the others are cancelled."""
    box = Box()
    box.head.set()
    upstream = await script(box)
    lab = await build_lab(upstream.url)
    callers = [await dial(lab, {**EMBED, "input": str(n)}, path=EMBEDDINGS) for n in range(20)]
    await lab.until(lambda: sum(flight.sent for flight in lab.sidecar.flights) == 20)
    for caller in callers:
        caller.vanish()
    await lab.until(lambda: upstream.deserted == 4)
    box.rest.set()
    await lab.settle()

    assert 16 == lab.sidecar.memory.entries
    assert 4 == upstream.deserted


async def test_too_large_to_keep_is_not_finished(build_lab, script, dial):
    """An answer that nobody waits for is given up once it is too large to be kept."""
    go = asyncio.Event()

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{")
        await go.wait()
        writer.write(b" " * 500_000)
        await asyncio.Event().wait()

    upstream = await script(handler)
    lab = await build_lab(upstream.url, memory=MemoryRule(max_entry_bytes=100_000))
    caller = await dial(lab, EMBED, path=EMBEDDINGS)
    await lab.until(lambda: lab.held == len(json.dumps(EMBED)) + 1)
    caller.vanish()
    await lab.until(lambda: lab.waiting == 0)
    go.set()
    await lab.until(lambda: upstream.deserted == 1)

    await lab.settle()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n", b"HTTP/1.1 429 No\r\n"])
async def test_first_caller_left_an_answer_of_its_own(answer, build_lab, script, dial, monkeypatch):
    """When the first caller has left and the answer turns out to be its own, the others call themselves."""
    monkeypatch.setattr(commit, "COMPLAINT_SECONDS", 0.05)  # the body of the 429 never comes
    go = asyncio.Event()

    async def handler(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if b"warm" in body:
            writer.write(whole(completion("warm")))
        elif b"sk-one" in head:
            await go.wait()
            writer.write(answer + b"Content-Length: 100\r\n\r\n")
            await asyncio.Event().wait()
        else:
            writer.write(whole(completion(TEXT)))

    upstream = await script(handler)
    lab = await build_lab(upstream.url, cache=CacheRule(share=Share("service")))
    one, two = {"authorization": "Bearer sk-one"}, {"authorization": "Bearer sk-two"}
    warm = {**CHAT, "messages": [{"role": "user", "content": "warm"}]}
    for headers in (one, two):
        await lab.ask(warm, headers=headers)
    leader = await dial(lab, headers=one)
    await lab.until(lambda: upstream.calls == 3)
    others = [await dial(lab, headers=two) for _ in range(2)]
    await lab.until(lambda: lab.waiting == 3)
    leader.vanish()
    await lab.until(lambda: lab.waiting == 2)
    go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in others))

    assert [TEXT, TEXT] == [said(reply.body) for reply in replies]
    await lab.until(lambda: upstream.deserted == 1)
    await lab.settle()


async def test_bypassed_call_is_given_up_with_its_caller(build_lab, script, dial):
    """A call that is not looked up ends upstream when its caller leaves."""
    box = Box()
    box.head.set()
    upstream = await script(box)
    lab = await build_lab(upstream.url)
    call = {name: value for name, value in STREAM.items() if name != "temperature"}
    caller = await dial(lab, call, path=CHAT_PATH)
    await caller.until(b'"It"')
    caller.vanish()
    await lab.until(lambda: upstream.deserted == 1 and upstream.open == 0)
    await lab.until(lambda: lab.tasks == AT_REST)

    assert ["client-gone"] == [record.cause for record in lab.records]
    await lab.settle()


async def test_cost_is_told_though_the_first_caller_left(build_lab, script, dial):
    """The tokens of a call are in exactly one record, also when the caller whose request was sent has left."""
    box = Box()
    box.head.set()
    upstream = await script(box)
    lab = await build_lab(upstream.url)
    leader, joiner = await dial(lab, STREAM), await dial(lab, STREAM)
    await leader.until(b'"It"')
    await joiner.until(b'"It"')
    leader.vanish()
    await lab.until(lambda: lab.waiting == 1)
    box.rest.set()
    await joiner.reply()
    await lab.until(lambda: len(lab.records) == 2)

    assert [5] == [record.usage.total for record in lab.records if record.usage is not None]
    assert [True] == [record.stored for record in lab.records if record.stored]
