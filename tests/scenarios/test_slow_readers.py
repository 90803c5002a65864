"""A slow reader stalls nobody while the answer can be kept, and never makes the process grow."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from sidecar.core.rules import KIB, MIB, Limits, MemoryRule
from sidecar.net.inbound.exchange import WRITE_BUFFER
from sidecar.proxy.flight.flight import WINDOW
from tests.scenarios.answers import chat_events, said
from tests.scenarios.conftest import CHAT, LAST_CHUNK, STREAM_HEAD, Lab, chunk, completion, whole
from tests.scenarios.lab import AT_REST

STREAM = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
PIECE = 384 * KIB  # the most that one read of an upstream's answer gives
PATIENT = replace(Limits(), drain_seconds=1.0)
IMPATIENT = replace(PATIENT, reader_seconds=0.3)


class Torrent:
    """A provider that streams about *size* bytes as fast as they are taken, the last event when *go* is set."""

    def __init__(self, size: int) -> None:
        word = "x" * 4000
        self.events = chat_events(*[word] * (size // 4200))
        self.stream = b"".join(self.events)
        self.go = asyncio.Event()
        self.passed = False

    async def __call__(self, _head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if not json.loads(body).get("stream"):
            writer.write(whole(completion("plain")))
            return
        writer.write(STREAM_HEAD)
        for event in self.events[:-1]:
            writer.write(chunk(event))
            await writer.drain()
        self.passed = True
        await self.go.wait()
        writer.write(chunk(self.events[-1]) + LAST_CHUNK)


def buffered(lab: Lab) -> int:
    """The most that waits in this process for one caller to read."""
    return max(one._transport.get_write_buffer_size() for one in lab.sidecar.listener._open)


def stalled(lab: Lab) -> bool:
    return any(one._wire.paused for one in lab.sidecar.listener._open)


def held(lab: Lab) -> int:
    return sum(flight.held for flight in lab.sidecar.flights)


async def test_slow_reader_of_an_answer_that_is_kept(build_lab, script, dial):
    """The others get all of it while one stands still; what is held is the answer, once; then he gets it too."""
    torrent = Torrent(12 * MIB)
    upstream = await script(torrent)
    lab = await build_lab(upstream.url, memory=MemoryRule(max_entry_bytes=16 * MIB), limits=PATIENT)
    slow = await dial(lab, STREAM, buffer=4 * KIB)
    await slow.until(b"xxx")
    fast = [await dial(lab, STREAM) for _ in range(3)]
    reading = [asyncio.create_task(caller.reply()) for caller in fast]
    await lab.until(lambda: torrent.passed)
    await lab.until(lambda: stalled(lab))

    assert lab.sidecar.ledger.held <= len(torrent.stream)
    assert buffered(lab) <= WRITE_BUFFER + PIECE
    torrent.go.set()
    replies = await asyncio.gather(*reading)
    assert [torrent.stream] * 3 == [reply.body for reply in replies]
    assert stalled(lab)
    assert buffered(lab) <= WRITE_BUFFER + PIECE
    assert lab.sidecar.ledger.peak <= len(torrent.stream) + KIB
    assert torrent.stream == (await slow.reply()).body
    assert 1 == upstream.calls
    await lab.settle()
    assert 1 == lab.sidecar.memory.entries


async def test_slowest_reader_paces_what_is_too_large(build_lab, script, dial):
    """Past the largest entry only a window is held; the slowest sets the pace, and all get everything."""
    torrent = Torrent(16 * MIB)
    torrent.go.set()
    upstream = await script(torrent)
    lab = await build_lab(upstream.url, memory=MemoryRule(max_entry_bytes=128 * KIB), limits=PATIENT)
    slow = await dial(lab, STREAM, buffer=4 * KIB)
    fast = await dial(lab, STREAM)
    reading = asyncio.create_task(fast.reply())
    await lab.until(lambda: any(flight._room is not None for flight in lab.sidecar.flights) and stalled(lab))

    assert not torrent.passed
    assert not reading.done()
    assert held(lab) <= WINDOW + PIECE
    assert lab.sidecar.ledger.held <= 128 * KIB + KIB
    assert buffered(lab) <= WRITE_BUFFER + PIECE
    replies = await asyncio.gather(reading, slow.reply())
    assert [True, True] == [reply.body == torrent.stream for reply in replies]
    assert lab.sidecar.ledger.peak <= 128 * KIB + KIB
    await lab.settle()
    assert 0 == lab.sidecar.memory.entries
    assert {"answer-too-large"} == {record.reason for record in lab.records if record.outcome != "collapsed"}


@pytest.mark.parametrize("limit", [128 * KIB, 32 * MIB], ids=["window", "kept"])
async def test_reader_that_stands_still_is_cut(limit, build_lab, script, dial):
    """Who reads nothing for too long is broken off, and the others go on to the end."""
    torrent = Torrent(16 * MIB)
    torrent.go.set()
    upstream = await script(torrent)
    lab = await build_lab(upstream.url, memory=MemoryRule(max_entry_bytes=limit), limits=IMPATIENT)
    slow = await dial(lab, STREAM, buffer=4 * KIB)
    fast = await dial(lab, STREAM)
    reply = await fast.reply()
    await lab.until(lambda: len(lab.records) == 2)
    rest = await slow.reply()

    assert torrent.stream == reply.body
    assert not reply.broken
    assert rest.broken
    assert torrent.stream.startswith(rest.body)
    assert ["", "slow-reader"] == sorted(record.cause for record in lab.records)
    assert 499 == max(record.status for record in lab.records)
    await lab.settle()
    await lab.until(lambda: lab.tasks == AT_REST)


async def test_slow_reader_alone_paces_his_provider(build_lab, script, dial):
    """With one reader who stands still, the provider is held back; once he is cut, its call is cancelled."""
    torrent = Torrent(16 * MIB)
    upstream = await script(torrent)
    lab = await build_lab(upstream.url, memory=MemoryRule(max_entry_bytes=128 * KIB), limits=IMPATIENT)
    slow = await dial(lab, STREAM, buffer=4 * KIB)
    await lab.until(lambda: len(lab.records) == 1)

    assert not torrent.passed
    await lab.until(lambda: upstream.deserted == 1 and upstream.open == 0)
    assert (await slow.reply()).broken
    await lab.settle()


async def test_slow_reader_of_a_bypassed_answer(build_lab, script, dial):
    """What only passes through is held to one buffer, and a reader who stands still is cut there too."""
    torrent = Torrent(16 * MIB)
    upstream = await script(torrent)
    lab = await build_lab(upstream.url, limits=IMPATIENT)
    call = {name: value for name, value in STREAM.items() if name != "temperature"}
    slow = await dial(lab, call, buffer=4 * KIB)
    await lab.until(lambda: stalled(lab))

    assert buffered(lab) <= WRITE_BUFFER + PIECE
    assert lab.sidecar.ledger.held < KIB  # the request
    await lab.until(lambda: len(lab.records) == 1)
    assert "slow-reader" == lab.records[0].cause
    await lab.until(lambda: upstream.open == 0)
    assert (await slow.reply()).broken
    await lab.settle()


async def test_memory_that_is_used_up_opens_a_window(build_lab, script, dial):
    """Where the ledger has no room, an answer passes in a window, whole, and is not kept."""
    torrent = Torrent(8 * MIB)
    torrent.go.set()
    upstream = await script(torrent)
    lab = await build_lab(upstream.url, limits=replace(PATIENT, inflight_memory=1 * MIB))
    callers = [await dial(lab, STREAM) for _ in range(2)]
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert [True, True] == [reply.body == torrent.stream for reply in replies]
    assert lab.sidecar.ledger.peak <= 1 * MIB
    await lab.settle()
    assert 0 == lab.sidecar.memory.entries


async def test_nobody_joins_a_window(build_lab, script, dial):
    """Who comes when the beginning is gone makes a call of its own."""
    torrent = Torrent(1 * MIB)
    upstream = await script(torrent)
    lab = await build_lab(upstream.url, memory=MemoryRule(max_entry_bytes=64 * KIB), limits=PATIENT)
    first = await dial(lab, STREAM)
    reading = [asyncio.create_task(first.reply())]
    await lab.until(lambda: torrent.passed)
    second = await dial(lab, STREAM)
    reading.append(asyncio.create_task(second.reply()))
    await lab.until(lambda: upstream.calls == 2)
    torrent.go.set()
    replies = await asyncio.gather(*reading)

    assert [True, True] == [reply.body == torrent.stream for reply in replies]
    assert not any("collapsed" in reply.cache for reply in replies)


async def test_other_form_of_an_answer_too_large_is_not_collected(build_lab, script, dial):
    """A plain caller beside a stream that outgrows its limit calls itself: nobody collects what has no bound."""
    torrent = Torrent(4 * MIB)
    upstream = await script(torrent)
    lab = await build_lab(upstream.url, memory=MemoryRule(max_entry_bytes=64 * KIB), limits=PATIENT)
    stream = await dial(lab, STREAM)
    plain = await dial(lab, CHAT)
    reading = asyncio.create_task(stream.reply())
    await lab.until(lambda: torrent.passed)
    await lab.until(lambda: upstream.calls == 2)
    torrent.go.set()

    assert "plain" == said((await plain.reply()).body)
    assert torrent.stream == (await reading).body
    await lab.settle()


async def test_slow_reader_of_another_form(build_lab, script, dial):
    """Who reads a converted answer slowly has one buffer too."""
    torrent = Torrent(5 * MIB)
    upstream = await script(torrent)
    lab = await build_lab(upstream.url, memory=MemoryRule(max_entry_bytes=16 * MIB), limits=PATIENT)
    leader = await dial(lab, STREAM)
    await leader.until(b"xxx")
    slow = await dial(lab, CHAT, buffer=4 * KIB)
    await lab.until(lambda: lab.waiting == 2)
    torrent.go.set()
    await leader.reply()
    await lab.until(lambda: stalled(lab))

    assert buffered(lab) <= WRITE_BUFFER + PIECE
    assert said(torrent.stream) == said((await slow.reply()).body)
    assert 1 == upstream.calls
    await lab.settle()
