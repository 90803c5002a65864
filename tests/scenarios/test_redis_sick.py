"""Redis freezes, dies, comes back empty, runs full or was never there: no call fails, and it is used by itself."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from sidecar.core.model import Outcome
from tests.redis_servers import RedisServer, free_port
from tests.scenarios.answers import completion, said, whole
from tests.scenarios.conftest import CHAT
from tests.scenarios.redis_contents import written

KNOWN = range(5)


@pytest.fixture
async def box(script):
    """An upstream that tells which question it was asked."""

    async def answer(_head, body, writer):
        writer.write(whole(completion(f"Box {json.loads(body)['seed']}.")))

    return await script(answer)


async def ask(lab, number, **more):
    """Ask question *number*, and have the answer to it."""
    reply = await lab.ask({**CHAT, "seed": number}, **more)

    assert (200, f"Box {number}.") == (reply.status, said(reply.body))
    return reply


async def ask_all(labs, numbers):
    """Every lab every question, all at once."""
    await asyncio.gather(*(ask(lab, number) for lab in labs for number in numbers))


def lines(lab, event):
    """How often the log told *event*."""
    return sum(f'"{event}"'.encode() in line for line in lab.logs)


def link(lab):
    return lab.sidecar.fleet.link


def told(lab):
    """Whether Redis is used, as the metrics and as the page for people have it."""
    part = next(part for part in lab.sidecar.readiness().parts if part.name == "redis")
    return b"sidecar_redis_up 1.0" in lab.sidecar.metrics.exposition(), part.good


async def use_redis_again(labs):
    """Wait until every lab does, and see that one finds there what another wrote."""
    await labs[0].until(lambda: all(link(lab).up for lab in labs))
    writer, *readers = labs
    async with asyncio.timeout(10):
        for number in range(10_000, 20_000):  # a first try may meet what is left of the outage
            await ask(writer, number)
            await asyncio.sleep(0.02)
            await ask_all(readers, [number])
            if all(lab.records[-1].outcome is Outcome.HIT_REDIS for lab in readers):
                return


@asynccontextmanager
async def load(labs, start):
    """Fresh questions, each to every lab, one after the other, while the block runs."""
    running, asked = True, 0

    async def press():
        nonlocal asked
        while running:
            await ask_all(labs, [start + asked, *KNOWN])
            asked += 1

    pressing = asyncio.ensure_future(press())
    yield
    running = False
    await pressing

    assert asked > 0


async def test_frozen(build_fleet, box, redis_server):
    """Frozen under load, Redis costs no call anything but its deadline; thawed, every process uses it again."""
    labs = await build_fleet(box.url, redis={"timeout": 0.1})
    await ask_all(labs, KNOWN)
    redis_server.pause()
    async with load(labs, 100):
        await labs[0].until(lambda: not any(link(lab).up for lab in labs))
        asked = box.calls
        await labs[0].until(lambda: box.calls > asked + 20)

    assert [(False, False)] * 2 == [told(lab) for lab in labs]
    assert [(1, 0)] * 2 == [(lines(lab, "redis-away"), lines(lab, "redis-back")) for lab in labs]
    assert [1, 1] == [link(lab).breaker.openings for lab in labs]
    asked = box.calls
    await ask_all(labs, KNOWN)
    assert {Outcome.HIT_MEMORY} == {lab.records[-1].outcome for lab in labs}
    assert asked == box.calls
    async with load(labs, 5000):
        redis_server.resume()
        await use_redis_again(labs)

    assert [(True, True)] * 2 == [told(lab) for lab in labs]
    assert [1, 1] == [lines(lab, "redis-back") for lab in labs]


async def test_dead_and_back_empty(build_fleet, box):
    """A server that dies under load, and an empty one in its place: what is in memory stays, and both are used."""
    with RedisServer() as server:
        labs = await build_fleet(box.url, redis={"url": server.url})
        await ask_all(labs, KNOWN)
        async with load(labs, 100):
            server.kill()
            await labs[0].until(lambda: not any(link(lab).up for lab in labs))
            server.start()
            await use_redis_again(labs)
        await labs[0].until(lambda: all(lab.sidecar.fleet.log.counts["lost"] for lab in labs))
        asked = box.calls
        await ask_all(labs, KNOWN)

        assert asked == box.calls
        assert {Outcome.HIT_MEMORY} == {lab.records[-1].outcome for lab in labs}
        assert [0, 0] == [lab.sidecar.operations.purged for lab in labs]


async def test_flushed(build_fleet, box, redis_server):
    """``FLUSHALL`` on a server that goes on purges every memory."""
    labs = await build_fleet(box.url, 3)
    await ask_all(labs, KNOWN)
    redis_server.call("FLUSHALL")
    await labs[0].until(lambda: not any(lab.sidecar.memory.entries for lab in labs))
    asked = box.calls
    await ask_all(labs, KNOWN)

    assert asked + len(KNOWN) == box.calls


@pytest.mark.parametrize("frozen", [False, True], ids=["dead", "frozen"])
async def test_not_there_at_the_start(build_fleet, box, frozen):
    """A sidecar starts without its Redis, answers, and uses it when it comes."""
    with RedisServer() as server:
        server.pause() if frozen else server.kill()
        labs = await build_fleet(box.url, redis={"url": server.url, "timeout": 0.1, "warm": 10})
        await ask_all(labs, KNOWN)

        assert all(lab.sidecar.ready for lab in labs)
        server.resume() if frozen else server.start()
        await use_redis_again(labs)


async def test_full(build_fleet, box):
    """Where Redis takes no writes any more, reads go on, and no process takes it for sick."""
    with RedisServer() as server:
        one, two = await build_fleet(box.url, redis={"url": server.url})
        await ask_all([one], KNOWN)
        await one.until(lambda: one.settled() and not server.call("KEYS", "*:l"))
        server.call("CONFIG", "SET", "maxmemory", "1")
        await ask_all([two], KNOWN)

        assert {Outcome.HIT_REDIS} == {record.outcome for record in two.records}
        assert len(KNOWN) == box.calls
        await ask_all([one, two], range(100, 120))

        assert [0, 0] == [link(lab).breaker.openings for lab in (one, two)]
        assert [len(KNOWN)] == [len(server.call("KEYS", "*:e"))]
        server.call("CONFIG", "SET", "maxmemory", "0")
        await use_redis_again([one, two])


async def test_more_readers_than_connections(build_fleet, box, redis_server):
    """Five hundred reads at once share eight connections."""
    one, two = await build_fleet(box.url, redis={"timeout": 60.0, "max_connections": 8})
    for number in range(0, 500, 50):
        await ask_all([one], range(number, number + 50))
    await written(redis_server, 500)
    two.clocks.stand_still()  # so that the log of purges is no older than it was, however long this takes
    await ask_all([two], range(500))

    assert 0 == link(two).breaker.openings
    assert link(two).waits > 0
    assert {} == link(two).errors
    assert {Outcome.HIT_REDIS} == {record.outcome for record in two.records}
    assert 500 == box.calls


async def test_no_connection_in_time(build_fleet, box):
    """Who gets no connection in time goes upstream, and Redis isn't blamed for that."""
    [one] = await build_fleet(box.url, 1)
    [two] = await build_fleet(box.url, 1, redis={"timeout": 0.05, "max_connections": 8})
    await ask_all([one], range(50))
    await alone(two)
    before, errors, slots = link(two).breaker.openings, link(two).errors.copy(), link(two)._slots
    for _ in range(8):
        await slots.acquire()
    await ask_all([two], range(50))

    assert (before, errors) == (link(two).breaker.openings, link(two).errors)
    assert link(two).ran_out >= 50
    assert {Outcome.MISS} == {record.outcome for record in two.records}
    assert 100 == box.calls
    for _ in range(8):
        slots.release()


async def alone(lab):
    """Only calls use Redis from here on, and none has found it sick yet."""
    fleet = lab.sidecar.fleet
    await fleet.log.stop()
    await fleet.regions.stop()
    await fleet.presence.close()
    await fleet.news.close()
    await lab.sidecar.tasks.cancel("redis-revive")
    fleet.link.breaker.close(0.0)


class Silent:
    """A server that takes connections and never says a word."""

    def __init__(self):
        self.taken = []
        self._came = asyncio.Event()

    async def start(self):
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _take(self, reader, writer):
        self.taken.append(writer)
        self._came.set()
        await reader.read()
        writer.close()

    async def count(self):
        """How many connections there have been by now: they are taken in the order in which they came."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        name = writer.get_extra_info("sockname")
        while all(taken.get_extra_info("peername") != name for taken in self.taken):
            self._came.clear()
            await self._came.wait()
        writer.close()
        return len(self.taken)

    def stop(self):
        self._server.close()
        for writer in self.taken:
            writer.close()


@pytest.fixture
async def silent():
    server = Silent()
    await server.start()
    yield server
    server.stop()


async def test_silence_costs_one_deadline(build_fleet, box, silent):
    """Who never says a word is asked once for a call, and soon not at all."""
    redis = {"url": f"redis://127.0.0.1:{silent.port}/0", "timeout": 0.05}
    (lab,) = await build_fleet(box.url, 1, redis=redis)
    await alone(lab)
    link(lab).commands.clear()
    before = await silent.count()
    await ask(lab, 1)

    assert (1, 1) == (len(silent.taken) - before, link(lab).commands.total())
    for number in range(2, 50):
        await ask(lab, number)

    assert 3 == link(lab).commands["timeout"]
    assert link(lab).commands["open"] >= 45


async def test_a_dead_port_costs_one_attempt(build_fleet, box):
    """A port where nobody listens is tried once for a call, and soon not at all."""
    (lab,) = await build_fleet(box.url, 1, redis={"url": f"redis://127.0.0.1:{free_port()}/0"})
    await alone(lab)
    link(lab).errors.clear()
    link(lab).commands.clear()
    await ask(lab, 1)

    assert {"connect": 1} == link(lab).errors
    for number in range(2, 50):
        await ask(lab, number)

    assert 3 == link(lab).commands["error"]
    assert link(lab).commands["open"] >= 45
