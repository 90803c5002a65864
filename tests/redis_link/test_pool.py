"""Connections that outlive the calls they were opened for."""

import asyncio
import random
from contextlib import asynccontextmanager, suppress

import pytest
import uvloop
from redis.exceptions import ConnectionError  # noqa: A004  the client's own

from sidecar.core.rules import RedisRule
from sidecar.redis_link.client import build
from tests.fleet.lookups import as_it_is
from tests.redis_servers import RedisServer, eventually

KEYS = 64


@asynccontextmanager
async def building():
    """Builds clients, and closes them at the end, when none of their tasks may be left."""
    built, tasks = [], set()

    def spawn(work, *, name):
        task = asyncio.create_task(work, name=name)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    def make(url, **kwargs):
        built.append(build(RedisRule(url, **kwargs), spawn, as_it_is))
        return built[-1]

    yield make
    for client in built:
        await client.aclose()
    await settle()

    assert set() == tasks


@pytest.fixture
async def clients():
    """As ``building``."""
    async with building() as make:
        yield make


async def settle():
    """Let everything run that can, and hear what the kernel has."""
    for _ in range(5):
        await asyncio.sleep(0)


async def fill(client):
    """A value of its own for each key."""
    for index in range(KEYS):
        await client.set(b"key%d" % index, b"value%d" % index, px=600_000)


async def read(client, index):
    """Whether *index*'s value is what comes as its value."""
    return await client.get(b"key%d" % index) == b"value%d" % index


def connections(server):
    """How many connections *server* has, without the one that asks."""
    return server.call("CLIENT", "LIST").count(b"\n") - 1


class Door:
    """A port that takes connections and, as *greet* says, does something with them."""

    def __init__(self):
        self.came = 0
        self.writers = []

    async def open(self, *, shut):
        async def greet(reader, writer):
            self.came += 1
            self.writers.append(writer)
            if shut:
                writer.close()

        self.server = await asyncio.start_server(greet, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/1"

    async def close(self):
        self.server.close()
        for writer in self.writers:
            writer.close()
        await self.server.wait_closed()


@pytest.fixture
async def door():
    door = Door()
    yield door
    await door.close()


@pytest.mark.parametrize("steps", range(0, 40, 3))
async def test_a_cancelled_command_leaves_no_reply_behind(clients, redis_server, steps):
    """Wherever it was cancelled: the next command reads its own reply."""
    client = clients(redis_server.url, max_connections=1)
    await fill(client)
    task = asyncio.create_task(read(client, 0))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task

    assert [True] * KEYS == [await read(client, index) for index in range(KEYS)]


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_commands_cancelled_at_random_leave_no_reply_behind(redis_server, loop):
    """Many at once over few connections, half of them cancelled, on the product's event loop and the one without it."""
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(_cancel_at_random(redis_server))


async def _cancel_at_random(server):
    async with building() as clients:
        await _cancel_some(clients(server.url, max_connections=4))

        assert connections(server) <= 4


async def _cancel_some(client):
    draw = random.Random(20)
    await fill(client)
    for _ in range(30):
        tasks = {index: asyncio.create_task(read(client, index)) for index in draw.sample(range(KEYS), 16)}
        for task in draw.sample(list(tasks.values()), 8):
            for _ in range(draw.randrange(6)):
                await asyncio.sleep(0)
            task.cancel()
        results = await asyncio.gather(*tasks.values(), return_exceptions=True)

        assert {True} >= {result for result in results if not isinstance(result, asyncio.CancelledError)}
    assert [True] * KEYS == [await read(client, index) for index in range(KEYS)]


async def test_a_frozen_server_leaves_no_reply_behind(clients, redis_server):
    """Its late replies, to commands that were given up, go to connections that are closed."""
    client = clients(redis_server.url, max_connections=8)
    await fill(client)
    redis_server.pause()
    given_up = [asyncio.create_task(read(client, index)) for index in range(KEYS)]
    for _ in range(100):
        await asyncio.sleep(0)  # the loop goes on while nobody answers

    assert not any(task.done() for task in given_up)
    for task in given_up:
        task.cancel()
    await asyncio.gather(*given_up, return_exceptions=True)
    redis_server.resume()
    asked = [asyncio.create_task(read(client, index)) for index in reversed(range(KEYS))]

    assert [True] * KEYS == await asyncio.gather(*asked)


async def test_a_closed_connection_is_replaced(clients, redis_server):
    """An idle connection that the server closed is not tried."""
    client = clients(redis_server.url)
    await fill(client)
    redis_server.call("CLIENT", "KILL", "TYPE", "normal")
    await settle()

    assert await read(client, 1)


async def test_connecting_goes_on_without_who_waits(clients, door):
    """TLS may take longer than a call may wait: the connection is there for the next one."""
    client = clients(await door.open(shut=False), max_connections=1)
    for _ in range(20):
        task = asyncio.create_task(client.ping())
        await asyncio.sleep(0.001)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    assert 1 == door.came


async def test_a_port_that_hangs_up_costs_one_attempt(clients, door):
    """Nothing is tried again."""
    client = clients(await door.open(shut=True))
    with pytest.raises(ConnectionError):
        await client.ping()

    assert 1 == door.came


async def test_closing_fails_who_waits(clients, door):
    """Nobody is left waiting, and nothing is opened any more."""
    client = clients(await door.open(shut=False), max_connections=1)
    waiting = [asyncio.create_task(client.ping()) for _ in range(3)]
    await settle()
    await client.aclose()

    assert [ConnectionError] * 3 == [type(result) for result in await asyncio.gather(*waiting, return_exceptions=True)]


async def test_no_more_connections_than_the_rule_says(clients, redis_server):
    """And all of them serve whoever waits."""
    client = clients(redis_server.url, max_connections=3)
    await fill(client)

    assert [True] * 200 == await asyncio.gather(*(read(client, index % KEYS) for index in range(200)))
    assert 3 == connections(redis_server)


async def test_renewal_closes_what_is_idle(clients, redis_server):
    """What the connections lead to may be the primary no more."""
    client = clients(redis_server.url)
    await fill(client)
    await client.renew()
    await settle()
    eventually(lambda: connections(redis_server) == 0, "the connection is closed")

    assert await read(client, 2)


async def test_a_server_that_restarts(clients):
    """Dead connections are replaced, one for one."""
    with RedisServer() as server:
        client = clients(server.url)
        await asyncio.gather(*(client.ping() for _ in range(8)))
        server.restart()
        await settle()

        assert [True] * 8 == await asyncio.gather(*(client.ping() for _ in range(8)))
