"""Logins that end, over a real Redis: connections log in anew, and stay."""

import asyncio
import random
import time

import pytest

from sidecar.core.rules import AzureIdentity, RedisRule
from sidecar.errors import FleetAway
from sidecar.redis_link.client import build
from sidecar.redis_link.link import RedisLink, TimeBudget
from sidecar.redis_link.login import Login
from tests.fleet.lookups import as_it_is
from tests.redis_servers import RedisServer, eventually

PLENTY = 30.0


class Source:
    """Logins as a test hands them out."""

    def __init__(self, *logins):
        self.login = logins[0] if logins else None
        self.fault = "" if logins else "the endpoint is down"
        self.doubted = []
        self.came = asyncio.Event()

    def current(self):
        return self.login

    async def newer(self, known):
        while self.login is None or self.login is known:
            self.came.clear()
            await self.came.wait()
        return self.login

    def left(self, login):
        return 0.0

    def refused(self, login):
        self.doubted.append(login.user)

    def give(self, login):
        self.login = login
        self.came.set()


class World:
    """A server with users, and links to it; *told* are their events."""

    def __init__(self, server):
        self.server = server
        self.tasks = set()
        self.told = []
        self.links = []

    def spawn(self, work, *, name):
        task = asyncio.create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def user(self, number, password=None):
        """Login number *number*, which the server takes."""
        login = Login(f"pod-{number}", password or f"correct-horse-{number}", float(number))
        self.server.call("ACL", "SETUSER", login.user, "on", f">{login.password}", "~*", "&*", "+@all")
        return login

    def link(self, source, **rule):
        link = RedisLink(
            RedisRule(self.server.url, credential=AzureIdentity("workload"), **rule),
            clock=time.monotonic,
            draw=random.Random(3).random,
            spawn=self.spawn,
            lookup=as_it_is,
            tell=lambda name, /, **fields: self.told.append((name, fields)),
            logins=source,
        )
        self.links.append(link)
        link.start()
        return link

    def clients(self, login):
        """The ids of the connections that *login* is in use on."""
        lines = self.server.call("CLIENT", "LIST").decode().splitlines()
        told = [dict(word.partition("=")[::2] for word in line.split(" ")) for line in lines]
        return {each["id"] for each in told if each["user"] == login.user}


@pytest.fixture
async def world():
    with RedisServer() as server:
        world = World(server)
        yield world
        for link in world.links:
            await link.close()
        for _ in range(5):
            await asyncio.sleep(0)

        assert set() == world.tasks


async def until(condition):
    async with asyncio.timeout(PLENTY):
        while not condition():  # noqa: ASYNC110  a server has no events for tests
            await asyncio.sleep(0.002)


async def ping(link):
    return await link.run(lambda client: client.ping(), TimeBudget(PLENTY))


async def test_idle_connections(world):
    """All that nobody uses log in anew, over the connections that are open."""
    source = Source(world.user(1))
    link = world.link(source)
    await asyncio.gather(*(ping(link) for _ in range(8)))
    before = world.clients(source.login)
    source.give(second := world.user(2))
    await until(lambda: before == world.clients(second))

    assert len(before) > 1
    assert {} == link.errors


async def test_the_only_connection_under_load(world):
    """Callers who use it all the time do not keep it from logging in, and none of them is disturbed."""
    source = Source(first := world.user(1))
    link = world.link(source, max_connections=1)
    running = True

    async def press():
        while running:
            assert await ping(link)

    lanes = [asyncio.ensure_future(press()) for _ in range(5)]
    for number in range(2, 7):
        await until(lambda: link.commands["ok"] > 20)
        link.commands.clear()
        source.give(second := world.user(number))
        await until(lambda second=second: world.clients(second))
    running = False
    await asyncio.gather(*lanes)

    assert set() == world.clients(first)
    assert 1 == len(world.clients(second))
    assert {"ok"} == set(link.commands)


async def test_a_refusal_over_an_open_connection(world):
    """The former login still holds there; it is said once, without the password, and another login is asked for."""
    source = Source(first := world.user(1))
    link = world.link(source)
    await asyncio.gather(*(ping(link) for _ in range(8)))
    before = world.clients(first)
    source.give(Login("nobody", "a-token-of-somebody", 2.0))
    await until(lambda: len(source.doubted) == len(before))

    assert before == world.clients(first)
    assert await ping(link)
    ((name, fields),) = world.told
    assert ("redis-login-refused", "nobody", "workload_identity") == (name, fields["user"], fields["credential"])
    assert "a-token" not in str(world.told)
    source.give(third := world.user(3))
    await until(lambda: before == world.clients(third))


async def test_a_login_that_has_ended(world):
    """A connection that the server has closed does not log in; the next command opens another, with the new login."""
    source = Source(first := world.user(1))
    link = world.link(source, max_connections=1)
    await ping(link)
    (connection,) = link.client.connection_pool._available_connections
    world.server.call("ACL", "DELUSER", first.user)
    await until(lambda: not connection.fresh)
    source.give(second := world.user(2))
    assert await ping(link)
    await until(lambda: world.clients(second))


async def test_no_login(world):
    """Redis counts as away without being connected to, and is used as soon as there is a login."""
    source = Source()
    link = world.link(source)
    world.server.call("CONFIG", "RESETSTAT")
    with pytest.raises(FleetAway) as caught:
        await ping(link)

    assert "credential" == caught.value.reason
    ((name, fields),) = world.told
    assert ("redis-away", "credential", "the endpoint is down", "warning") == (
        name, fields["reason"], fields["detail"], fields["level"],
    )  # fmt: skip
    assert not link.up
    assert b"total_connections_received:1\r\n" in world.server.call("INFO", "stats")  # the one that asks
    source.give(world.user(1))
    await until(lambda: link.up)

    assert await ping(link)
    assert "redis-back" == world.told[-1][0]


async def test_a_login_that_new_connections_are_refused(world):
    """It is reported to where it came from."""
    source = Source(Login("nobody", "a-token-of-somebody", 1.0))
    link = world.link(source)
    with pytest.raises(FleetAway) as caught:
        await ping(link)

    assert "refused" == caught.value.reason
    assert "nobody" in source.doubted
    assert "a-token" not in str(world.told)


async def test_in_clear_only_on_this_machine(world):
    """A Cluster or a Sentinel may name any server: a token goes to none elsewhere without TLS."""

    async def elsewhere(_host):
        return ("192.0.2.1",)

    client = build(RedisRule(world.server.url), world.spawn, elsewhere, logins=Source(world.user(1)))
    with pytest.raises(Exception, match="in clear; use rediss"):
        await client.ping()
    await client.aclose()


async def test_a_sentinel_without_users(world):
    """It is asked without a login, and its refusal says nothing of the token; each new connection tries again."""
    sentinel = f"sentinel monitor cache 127.0.0.1 {world.server.port} 1\n"
    with RedisServer(sentinel=sentinel) as watcher:
        source = Source(first := world.user(1))
        rule = RedisRule(f"redis+sentinel://127.0.0.1:{watcher.port}/cache")
        client = build(rule, world.spawn, as_it_is, logins=source)
        assert await client.ping()

        assert [] == source.doubted
        assert world.clients(first)
        (asked,) = client.connection_pool.sentinel_manager.sentinels
        (connection,) = asked.connection_pool._available_connections
        assert connection.credential_provider is not None
        await client.aclose()


async def test_frozen(world):
    """A server that does not answer a login in time loses the connection, and callers the time they have."""
    source = Source(first := world.user(1))
    link = world.link(source, max_connections=1)
    await ping(link)
    world.server.pause()
    connection = link.client.connection_pool._available_connections[0]
    logging_in = asyncio.ensure_future(connection.log_in(Login("x", "y", 9.0)))
    await asyncio.sleep(0)
    logging_in.cancel()
    await asyncio.gather(logging_in, return_exceptions=True)

    assert not connection.fresh
    world.server.resume()
    await asyncio.to_thread(eventually, lambda: not world.clients(first), "the connection is gone")
    assert await ping(link)
