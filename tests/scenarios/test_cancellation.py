"""A caller may vanish at any point: nothing stays behind."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from sidecar.core.rules import CacheMode, CacheRule, Limits
from tests.scenarios.answers import chat_events, chunks, said
from tests.scenarios.caller import Caller
from tests.scenarios.conftest import CHAT, LAST_CHUNK, STREAM_HEAD, Lab, chunk, completion, whole
from tests.scenarios.lab import AT_REST

STREAM = {**CHAT, "stream": True}
SAMPLED = {name: value for name, value in STREAM.items() if name != "temperature"}
EVENTS = chat_events("It", " is", " a box.")
TEXT = "It is a box."

POINTS = ["accepted", "in-the-head", "head-read", "in-the-body", "request-read", "answer-head", "first-event",
          "in-an-event", "last-event"]  # fmt: skip

AFTER = {"first-event": EVENTS[0][:60], "in-an-event": EVENTS[0][:60], "last-event": b"[DONE]"}
"""What a streaming caller has read when it leaves."""


class Staged:
    """A provider that stops at *point* of its answer until *go* is set."""

    def __init__(self, point: str) -> None:
        self.point = point
        self.go = asyncio.Event()

    async def __call__(self, _head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if json.loads(body).get("stream"):
            first = chunk(EVENTS[0])
            steps = {
                "request-read": STREAM_HEAD, "answer-head": first, "first-event": chunk(EVENTS[1][:20]),
                "in-an-event": chunk(EVENTS[1][20:]) + chunks(EVENTS[2:]), "last-event": LAST_CHUNK,
            }  # fmt: skip
        else:
            answer = whole(completion(TEXT))
            middle = answer.index(b"\r\n\r\n") + 4
            steps = {
                "request-read": answer[:middle], "answer-head": answer[middle : middle + 5],
                "first-event": answer[middle + 5 : middle + 9], "in-an-event": answer[middle + 9 : -1],
                "last-event": answer[-1:],
            }  # fmt: skip
        for name, data in steps.items():
            if name == self.point:
                await self.go.wait()
            writer.write(data)
            await writer.drain()


async def nothing_left(lab: Lab) -> None:
    """Wait until no flight, byte, task, connection or call is left."""
    await lab.settle()
    await lab.until(lambda: lab.tasks == AT_REST)
    await lab.until(lambda: lab.sidecar.listener.connections == 0)
    pool = lab.sidecar.upstream._pool
    assert pool is not None
    await lab.until(lambda: not pool._acquired)


@pytest.mark.parametrize("leave", [Caller.vanish, Caller.close, Caller.half_close])
@pytest.mark.parametrize("call", [STREAM, CHAT, SAMPLED], ids=["stream", "plain", "bypassed"])
@pytest.mark.parametrize("point", POINTS)
async def test_caller_leaves(point, call, leave, build_lab, script, dial):
    """
    At each point of the line: no flight, no byte, no task, no connection on either side; the next call works.

    Only a stream that has its last event is no longer a call to be given up: all of it is there, and it is kept.
    """
    whole_already = call is STREAM and point == "last-event"
    staged = Staged(point)
    upstream = await script(staged)
    lab = await build_lab(upstream.url)
    body = len(json.dumps(call))
    sent = {"accepted": 0, "in-the-head": 30, "head-read": -body, "in-the-body": 20 - body}
    caller = await dial(lab, call, cut=sent.get(point))
    await lab.until(lambda: lab.sidecar.listener.connections == 1)
    if point not in sent:
        await lab.until(lambda: upstream.calls == 1)
    if call is not CHAT and point in AFTER:
        await caller.until(AFTER[point])
    leave(caller)
    if whole_already:
        await lab.until(lambda: lab.waiting == 0)
        staged.go.set()
    elif point not in sent:
        await lab.until(lambda: upstream.deserted == 1 and upstream.open == 0)
    if leave is Caller.half_close:
        assert (await caller.reply()).broken
    await nothing_left(lab)

    assert whole_already == lab.sidecar.memory.entries
    staged.go.set()
    again = await (await dial(lab, {**call, "user": "again"})).reply()
    assert (200, TEXT, False) == (again.status, said(again.body), again.broken)


@pytest.mark.parametrize("mode", [CacheMode.ALWAYS, CacheMode.OBSERVE, CacheMode.OFF])
@pytest.mark.parametrize("call", [STREAM, CHAT], ids=["stream", "plain"])
async def test_caller_vanishes_at_any_turn_of_the_loop(call, mode, build_lab, script, dial):
    """However many turns of the loop a call lives, what is left of it is nothing; a second caller is not harmed."""

    async def handler(_head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if json.loads(body).get("stream"):
            writer.write(STREAM_HEAD)
            for event in EVENTS:
                writer.write(chunk(event))
                await asyncio.sleep(0)
            writer.write(LAST_CHUNK)
        else:
            writer.write(whole(completion(TEXT)))

    upstream = await script(handler)
    lab = await build_lab(upstream.url, cache=CacheRule(mode=mode))
    for turns in range(40):
        one = {**call, "messages": [{"role": "user", "content": f"Box {turns}?"}]}
        leaving, staying = await dial(lab, one), await dial(lab, one)
        for _ in range(turns):
            await asyncio.sleep(0)
        leaving.vanish()
        reply = await staying.reply()
        staying.vanish()

        assert (200, TEXT, False) == (reply.status, said(reply.body), reply.broken)
        await nothing_left(lab)
    assert 40 <= upstream.calls <= 80


async def test_sidecar_stops_in_the_middle(build_lab, script, dial):
    """A sidecar that is stopped while calls wait lets nobody hang, and leaves no task."""
    staged = Staged("first-event")
    upstream = await script(staged)
    lab = await build_lab(upstream.url, limits=replace(Limits(), drain_seconds=0.05))
    callers = [await dial(lab, STREAM), await dial(lab, STREAM), await dial(lab, SAMPLED), await dial(lab, CHAT)]
    for caller in callers[:3]:
        await caller.until(b"assistant")
    await lab.until(lambda: lab.waiting == 3)
    await lab.sidecar.stop()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert all(reply.broken for reply in replies)
    assert [] == lab.tasks
    assert lab.settled()
    await lab.until(lambda: upstream.open == 0)


async def test_calls_end_within_the_grace(build_lab, script, dial):
    """A sidecar that is stopped lets the calls that are under way come to their end."""
    staged = Staged("first-event")
    upstream = await script(staged)
    lab = await build_lab(upstream.url)
    callers = [await dial(lab, STREAM), await dial(lab, SAMPLED), await dial(lab, CHAT)]
    for caller in callers[:2]:
        await caller.until(b"assistant")
    await lab.until(lambda: lab.waiting == 2)
    stopping = asyncio.create_task(lab.sidecar.stop())
    await lab.until(lambda: not lab.sidecar.ready)
    staged.go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))
    await stopping

    assert [(200, TEXT, False)] * 3 == [(reply.status, said(reply.body), reply.broken) for reply in replies]
    assert [] == lab.tasks
    assert lab.settled()
