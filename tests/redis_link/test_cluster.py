"""The client of a Redis Cluster."""

import asyncio
import random
import time

import pytest

from sidecar.core.rules import RedisRule
from sidecar.errors import FleetAway
from sidecar.redis_link.link import RedisLink, Script, TimeBudget
from sidecar.redis_link.names import RedisNames
from tests.fleet.lookups import as_it_is
from tests.redis_servers import RedisCluster, free_port

PLENTY = 30.0
NAMES = RedisNames("team")


@pytest.fixture(scope="module")
def servers():
    """A Cluster for all tests here, each of which leaves it whole."""
    with RedisCluster() as cluster:
        yield cluster


@pytest.fixture
async def links():
    """Makes links, and closes them at the end, when none of their tasks may be left."""
    made, tasks = [], set()

    def spawn(work, *, name):
        task = asyncio.create_task(work, name=name)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    def make(url, **rule):
        link = RedisLink(
            RedisRule(url, **rule),
            clock=time.monotonic,
            draw=random.Random(20).random,
            lookup=as_it_is,
            spawn=spawn,
            tell=lambda *_, **__: None,
        )
        link.returned = asyncio.Event()
        link.on_return.append(link.returned.set)
        made.append(link)
        return link

    yield make
    for link in made:
        await link.close()
    for _ in range(5):
        await asyncio.sleep(0)

    assert set() == tasks


@pytest.fixture
async def link(links, servers):
    link = links(servers.url)
    yield link
    assert {} == {kind: count for kind, count in link.errors.items() if kind == "other"}


async def put(link, key, value, seconds=PLENTY):
    return await link.run(lambda client: client.set(key, value, px=600_000), TimeBudget(seconds))


async def get(link, key, seconds=PLENTY):
    return await link.run(lambda client: client.get(key), TimeBudget(seconds))


def migrating(servers, key):
    """Begin to move *key*'s slot. Returns where from, where to, and its number."""
    source = servers.owner(key)
    target = next(server for server in servers.servers[:3] if server is not source)
    slot = source.call("CLUSTER", "KEYSLOT", key)
    target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", servers.identity(source))
    source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", servers.identity(target))
    return source, target, slot


async def test_keys_are_found_where_they_are(link):
    """At once from the beginning, over all three primaries, however many connections that takes."""
    keys = [NAMES.entry(b"%d" % index) for index in range(100)]

    assert [True] * 100 == await asyncio.gather(*(put(link, key, key) for key in keys))
    assert keys == await asyncio.gather(*(get(link, key) for key in keys))
    assert {"ok": 200} == link.commands


async def test_an_entry_and_its_lease_are_in_one_slot(link):
    """One script may use both, on whichever server."""
    script = Script("redis.call('SET', KEYS[1], ARGV[1], 'PX', 60000) return redis.call('GET', KEYS[2])")
    for index in range(20):
        name = b"pair%d" % index
        await put(link, NAMES.lease(name), name)

        assert name == await link.evaluate(
            script, [NAMES.entry(name), NAMES.lease(name)], [b"entry"], TimeBudget(PLENTY)
        )


async def test_a_slot_that_moves(link, servers):
    """No command fails while it moves, nor after, and none is answered with another's reply."""
    keys = [b"{moving}%d" % index for index in range(40)]
    await asyncio.gather(*(put(link, key, key) for key in keys))
    source, target, slot = migrating(servers, keys[0])

    async def use():
        for key in keys:
            assert await get(link, key) == key
            assert await put(link, key + b"new", key)

    users = [asyncio.create_task(use()) for _ in range(6)]
    for key in source.call("CLUSTER", "GETKEYSINSLOT", slot, 1000):
        await asyncio.sleep(0)
        source.call("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
    await asyncio.gather(*users)
    for server in (target, source, *servers.servers[:3]):
        server.call("CLUSTER", "SETSLOT", slot, "NODE", servers.identity(target))

    assert keys == await asyncio.gather(*(get(link, key) for key in keys))
    assert {"ok"} == set(link.commands)


@pytest.mark.parametrize("steps", range(0, 60, 6))
async def test_a_cancelled_command_leaves_no_reply_behind(links, servers, steps):
    """Nor a connection that is never used again."""
    link = links(servers.url)
    await put(link, b"key", b"value")
    await put(link, b"{key}other", b"another")
    task = asyncio.create_task(get(link, b"{key}other"))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert [b"value"] * 3 == [await get(link, b"key") for _ in range(3)]
    [node] = [node for node in link.client.get_nodes() if node.port == servers.owner("key").port]
    assert len(node._connections) == len(node._free)


async def test_a_frozen_primary(link, servers):
    """It opens the breaker, and the Cluster is used again by itself when it thaws."""
    await put(link, b"key", b"value")
    owner = servers.owner("key")
    owner.pause()
    try:
        for _ in range(3):
            with pytest.raises(FleetAway, match="timeout"):
                await get(link, b"key", 0.02)

        assert not link.up
    finally:
        owner.resume()
    async with asyncio.timeout(PLENTY):
        await link.returned.wait()

    assert b"value" == await get(link, b"key")


async def test_servers_that_left_the_url(links, servers):
    """One that lives is enough to learn of the others."""
    hosts = f"127.0.0.1:{free_port()},127.0.0.1:{servers.servers[5].port}"

    assert await put(links(f"redis+cluster://{hosts}"), b"key", b"value")


async def test_nobody_there(links):
    """One error at once; the breaker counts it."""
    link = links(f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{free_port()}")
    for _ in range(3):
        with pytest.raises(FleetAway, match="error"):
            await get(link, b"key")

    assert not link.up
    assert {"cluster": 3} == link.errors


async def test_a_server_without_cluster(links, redis_server):
    """It says so."""
    with pytest.raises(FleetAway, match="Cluster mode is not enabled"):
        await get(links(redis_server.url.replace("redis://", "redis+cluster://").removesuffix("/0")), b"key")


async def test_subscriptions_lead_to_any_server(links, servers):
    """All hear what is published anywhere."""
    client = links(servers.url).subscriber()
    async with client.pubsub() as channel:
        await channel.subscribe(b"news")
        await channel.get_message(timeout=PLENTY)
        servers.servers[4].call("PUBLISH", "news", "there")

        assert b"there" == (await channel.get_message(timeout=PLENTY))["data"]
    await client.aclose()
