"""A process is killed while it fetches for the fleet: another takes over."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.fleet.lease import LEASE_SECONDS
from tests.redis_servers import RedisServer
from tests.scenarios.answers import LAST_CHUNK, STREAM_HEAD, chat_events, chunks, completion, said, whole
from tests.scenarios.conftest import CHAT
from tests.scenarios.processes import Process, ask, configured, launch, run_by

STREAM = {**CHAT, "stream": True}
TEXT = "It is a box."


@pytest.fixture
async def run(tmp_path, redis_server: RedisServer):
    """Runs sidecars over one Redis, each in a process of its own."""
    running = []

    async def start(upstream: str, count: int) -> list[Process]:
        config = configured(tmp_path, redis_server, upstream)
        running.extend(launch(tmp_path, *run_by(config), mark=f"-{number}") for number in range(count))
        await asyncio.gather(*(process.started() for process in running))
        return running

    yield start
    for process in running:
        process.child.kill()
        process.child.wait()


async def until(holds):
    """Wait until *holds* is true; a story that never gets there fails here."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110  what is looked at has no events for tests
            await asyncio.sleep(0.02)


async def test_another_takes_over(run, script, redis_server):
    """Killed in mid-call, the holder of a lease is followed by another; no other process's caller fails."""

    async def answer(_head, body, writer):
        if upstream.calls == 1:
            await asyncio.Event().wait()  # until its caller is gone
        if b'"stream": true' in body:
            writer.write(STREAM_HEAD + chunks(chat_events(TEXT)) + LAST_CHUNK)
        else:
            writer.write(whole(completion(TEXT)))

    upstream = await script(answer)
    first, *others = await run(upstream.url, 3)
    lost = await ask(first, CHAT)
    await until(lambda: upstream.calls)
    callers = [await ask(process, body) for process in others for body in (CHAT, STREAM)]
    for process in others:
        while b"sidecar_lease_waits_total 1.0" not in await process.metrics():  # noqa: ASYNC110  as in until
            await asyncio.sleep(0.02)
    first.child.kill()
    [lease] = redis_server.call("KEYS", "*:l")

    assert 0 < int(redis_server.call("PTTL", lease)) <= 1000 * LEASE_SECONDS
    redis_server.call("PEXPIRE", lease, 1)  # nobody renews it, and its time passes at once
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert [(200, False, TEXT)] * 4 == [(reply.status, reply.broken, said(reply.body)) for reply in replies]
    assert 2 == upstream.calls
    assert (await lost.reply()).broken
    assert [] == [key for key in redis_server.call("KEYS", "*") if int(redis_server.call("PTTL", key)) < 0]
    told = [await process.metrics() for process in others]
    assert [False, True] == sorted(b"sidecar_lease_takeovers_total 1.0" in one for one in told)
    await until(lambda: not redis_server.call("KEYS", "*:l"))
    for caller in (lost, *callers):
        caller.close()
