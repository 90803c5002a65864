"""
What SIGTERM saves at once: a kubelet may kill a native sidecar two seconds later, whatever still runs.

The rule: ``flushed`` in the log means that what was stored before SIGTERM is in Redis, streams open or not.
"""

from __future__ import annotations

import asyncio
import json

from sidecar.core.rules import Limits
from sidecar.redis_link.names import RedisNames
from tests.scenarios.answers import completion, said, whole
from tests.scenarios.conftest import CHAT
from tests.scenarios.open_streams import TEXT, Streaming
from tests.scenarios.processes import configured, launch, run_by
from tests.store.remotes import entry, key

NAMES = RedisNames("team-a")

LONG = Limits(drain_seconds=60.0)

OTHERS = {"time", "level", "event", "connections", "seconds"}
"""Fields of a line that are no counts."""


class Service:
    """Streams that do not end before *go*; whatever else is asked is answered at once."""

    def __init__(self) -> None:
        self.streaming = Streaming()

    async def __call__(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if b'"stream": true' in body:
            await self.streaming(head, body, writer)
        else:
            writer.write(whole(completion("Yes.")))


def entries(server) -> list[bytes]:
    """The names of the entries in Redis."""
    return [name for name in server.call("KEYS", "*") if name.endswith(b":e")]


def members(server) -> list[bytes]:
    """The processes that count as there."""
    return server.call("ZRANGE", NAMES.pods, "0", "-1")


def told(lab, event: str) -> list[dict]:
    """The lines of *lab*'s log that tell *event*."""
    return [line for line in map(json.loads, lab.logs) if line["event"] == event]


async def until_told(process, event: str) -> dict:
    """Wait until the log tells *event*; its line."""
    async with asyncio.timeout(60):
        while not (found := [line for line in process.events if line["event"] == event]):  # noqa: ASYNC110  a file
            await asyncio.sleep(0.01)
    return found[0]


async def test_killed(script, redis_server, tmp_path, dial):
    """
    A stream is open when SIGTERM comes, and SIGKILL follows on ``flushed``: every answer of before is in Redis, the
    process has signed off, and its log is whole and has counted the calls.
    """
    upstream = await script(Service())
    process = launch(tmp_path, *run_by(configured(tmp_path, redis_server, upstream.url)))
    try:
        await process.started()
        stream = await dial(process.port, {**CHAT, "stream": True})
        await stream.until(b'"One"')
        replies = [await (await dial(process.port, {**CHAT, "seed": seed})).reply() for seed in range(20)]
        process.terminate()
        flushed = await until_told(process, "flushed")
    finally:
        process.child.kill()
        process.child.wait()
    log = process.log.read_bytes()
    draining = await until_told(process, "draining")

    assert {"Yes."} == {said(reply.body) for reply in replies}
    assert (0, 20, []) == (flushed["unwritten"], len(entries(redis_server)), members(redis_server))
    assert log.endswith(b"\n")
    assert ["started", "draining", "flushed"] == [line["event"] for line in process.events]
    assert (20, 20, 21) == (draining["requests"], draining["miss"], draining["connections"])


async def test_a_short_life_counts(script, redis_server, tmp_path, dial):
    """
    A process that ends before anybody reads its metrics: the lines of its end add up to all calls, that of SIGTERM has
    those of before, and the last one those that have ended since.
    """
    service = Service()
    upstream = await script(service)
    process = launch(tmp_path, *run_by(configured(tmp_path, redis_server, upstream.url)))
    try:
        await process.started()
        stream = await dial(process.port, {**CHAT, "stream": True})
        await stream.until(b'"One"')
        for body in ({**CHAT, "seed": 1}, {**CHAT, "seed": 1}, {**CHAT, "seed": 2}):
            await (await dial(process.port, body)).reply()
        await (await dial(process.port, {**CHAT, "temperature": 1})).reply()
        process.terminate()
        await until_told(process, "flushed")
        service.streaming.go.set()
        await stream.reply()

        assert 0 == await process.ended()
    finally:
        process.child.kill()
        process.child.wait()
    counts = {
        line["event"]: {name: value for name, value in line.items() if name not in OTHERS} for line in process.events
    }

    assert {
        "requests": 4,
        "miss": 2,
        "hit_memory": 1,
        "bypass": 1,
        "prompt_tokens": 6,
        "completion_tokens": 4,
    } == counts["draining"]
    assert {"requests": 1, "miss": 1, "prompt_tokens": 3, "completion_tokens": 2} == counts["stopped"]


async def test_what_waits_is_written(build_fleet, script, dial, redis_server):
    """Entries of the queue and notes that wait are in Redis when ``flushed`` is told, and the others count one less."""
    upstream = await script(Service())
    one, two = await build_fleet(upstream.url, limits=LONG)
    await two.until(lambda: two.sidecar.fleet.presence.count == 2)
    await one.ask()
    stream = await dial(one.sidecar.port, {**CHAT, "stream": True, "seed": 1})
    await stream.until(b'"One"')
    await one.until(lambda: not one.sidecar.fleet.remote.unwritten)
    answer = entry(position=one.sidecar.purges.position)
    for number in range(50):
        one.sidecar.store.share(key(number), answer)
    one.sidecar.fleet.log.note(key(0), answer, ("blue",))
    fleet = one.sidecar.fleet
    before = fleet.remote.unwritten, fleet.log.unwritten, redis_server.call("KEYS", "*{log}:t:*")
    stopping = asyncio.ensure_future(one.sidecar.stop())
    await one.until(lambda: told(one, "flushed"))
    written = len(entries(redis_server)), len(redis_server.call("KEYS", "*{log}:t:*")), len(members(redis_server))

    assert (50, 1, []) == before
    assert (51, 1, 1) == written
    assert [0] == [line["unwritten"] for line in told(one, "flushed")]
    assert not stopping.done()
    upstream.handler.streaming.go.set()
    assert TEXT == said((await stream.reply()).body)
    await stopping


async def test_redis_away(build_fleet, script, dial, redis_server):
    """A Redis that does not answer holds nothing up: the log tells that something waits, and the process ends."""
    upstream = await script(Service())
    (one,) = await build_fleet(upstream.url, 1, limits=LONG)
    await one.ask()
    stream = await dial(one.sidecar.port, {**CHAT, "stream": True, "seed": 1})
    await stream.until(b'"One"')
    await one.until(lambda: not one.sidecar.fleet.remote.unwritten)
    redis_server.pause()
    one.sidecar.store.share(key(1), entry(position=one.sidecar.purges.position))
    stopping = asyncio.ensure_future(one.sidecar.stop())
    await one.until(lambda: told(one, "flushed"))
    redis_server.resume()
    upstream.handler.streaming.go.set()
    reply = await stream.reply()
    await stopping

    assert ["warning"] == [line["level"] for line in told(one, "flushed")]
    assert TEXT == said(reply.body)
    assert "stopped" == json.loads(one.logs[-1])["event"]


async def test_alone(build_lab, script):
    """A process without Redis has nothing to flush, and does not tell so."""
    upstream = await script(Service())
    lab = await build_lab(upstream.url)
    await lab.sidecar.stop()

    assert ["draining", "stopped"] == [json.loads(line)["event"] for line in lab.logs][-2:]
