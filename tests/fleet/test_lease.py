"""The fleet's leases in a real Redis: who has one, for how long, and what one that was lost can still do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from sidecar.core.cache.beside import Beside
from sidecar.core.rules import RedisRule
from sidecar.errors import FleetAway
from sidecar.fleet.lease import MARK_SECONDS, SPREAD_SECONDS, LeaseLook, Leases
from sidecar.redis_link.link import RedisLink
from sidecar.redis_link.names import RedisNames
from tests.fleet.lookups import as_it_is
from tests.redis_servers import RedisServer
from tests.store.remotes import Tasks, until

NAME = b"a-name-of-thirty-two-characters_"
NAMES = RedisNames("team-a")
ENTRY, LEASE = NAMES.entry(NAME), NAMES.lease(NAME)


class Told:
    """News that the test tells."""

    def __init__(self) -> None:
        self.up = False
        self.hear: Callable[[bytes], None] = lambda _: None

    def subscribe(self, kind: bytes, hear: Callable[[bytes], None]) -> None:
        assert b"w" == kind
        self.hear = hear


class Pods:
    """Processes with leases at one server."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.tasks = Tasks()
        self.links: list[RedisLink] = []
        self.tokens = 0

    def pod(self, *, seconds: float = 50.0, timeout: float = 5.0, draw: float = 0.5) -> tuple[Leases, Told]:
        link = RedisLink(
            RedisRule(self.server.url, timeout=timeout),
            clock=asyncio.get_running_loop().time,
            draw=lambda: draw,
            lookup=as_it_is,
            spawn=self.tasks.spawn,
            tell=lambda *_, **__: None,
        )
        self.links.append(link)
        news = Told()
        leases = Leases(
            link,
            news,
            NAMES,
            timeout=timeout,
            spawn=self.tasks.spawn,
            draw=lambda: draw,
            random=self.count,
            seconds=seconds,
        )
        return leases, news

    def count(self, size: int) -> bytes:
        self.tokens += 1
        return self.tokens.to_bytes(size, "big")


@pytest.fixture
async def pods(redis_server: RedisServer) -> AsyncIterator[Pods]:
    pods = Pods(redis_server)
    yield pods
    redis_server.resume()
    await pods.tasks.cancel()
    for link in pods.links:
        await link.close()
    assert [] == [name for name in redis_server.call("KEYS", "*") if redis_server.call("PTTL", name) == -1]
    assert [] == pods.tasks.errors


async def look(leases: Leases, *, seen: bytes = b"", note: bytes = b"") -> LeaseLook:
    return await leases.look(NAME, leases.budget(), seen=seen, note=note)


async def test_look(pods: Pods):
    """A look takes the lease where there is nothing, sees that it is held, and finds the value once it is kept."""
    one, other = pods.pod()[0], pods.pod()[0]

    taken = await look(one)
    held = await look(other)
    kept = await one.keep(taken.grant, b"value", 30.0)
    found = await look(other)

    assert (None, False) == (taken.value, taken.held)
    assert (None, None, True) == (held.value, held.grant, held.held)
    assert 40 < held.seconds <= 50
    assert kept
    assert (b"value", None, False) == (found.value, found.grant, found.held)
    assert 20 < found.seconds <= 30
    assert None is pods.server.call("GET", LEASE)


async def test_no_right_to_read(pods: Pods):
    """Who may not read what is there takes nothing of it away."""
    one, other = pods.pod()[0], pods.pod()[0]
    taken = await look(one)
    await one.keep(taken.grant, b"value", 30.0)
    pods.server.call("ACL", "SETUSER", "default", "-getrange")
    try:
        with pytest.raises(FleetAway):
            await look(other)
    finally:
        pods.server.call("ACL", "SETUSER", "default", "+getrange")

    assert b"value" == pods.server.call("GET", ENTRY)


async def test_seen(pods: Pods):
    """A value of no use is not sent again: the lease is taken, or held; another value is found."""
    one, other = pods.pod()[0], pods.pod()[0]
    old, new = b"1" * 100, b"1" * 99 + b"2"
    await one.keep((await look(one)).grant, old, 30.0)

    taken = await look(one, seen=old[-32:])
    held = await look(other, seen=old[-32:])
    await one.keep(taken.grant, new, 30.0)
    found = await look(other, seen=old[-32:])

    assert (True, True, new) == (taken.grant is not None, held.held, found.value)


async def test_fence(pods: Pods):
    """Who has lost its lease, to another or to nobody, keeps nothing and gives nothing back."""
    one, other = pods.pod()[0], pods.pod()[0]
    lost = (await look(one)).grant
    pods.server.call("DEL", LEASE)

    to_nobody = await one.keep(lost, b"first", 30.0)
    again = (await look(one)).grant
    pods.server.call("DEL", LEASE)
    theirs = (await look(other)).grant
    to_other = await one.keep(again, b"second", 30.0)
    one.release(again, failed=True)
    await until(lambda: not one._begun)

    assert (False, False, 2) == (to_nobody, to_other, one.lost)
    assert theirs.token == pods.server.call("GET", LEASE)
    assert None is pods.server.call("GET", ENTRY)


async def test_renewal(pods: Pods):
    """A lease is renewed as long as it is held, however short it is; one task does it for all, and ends after them."""
    one, _ = pods.pod(seconds=0.3)
    grant = (await look(one)).grant
    more = [(await one.look(b"%032d" % number, one.budget())).grant for number in range(5)]
    task = one._minding

    before = pods.server.call("PTTL", LEASE)
    while pods.server.call("PTTL", LEASE) <= before:  # falls until it is renewed
        before = pods.server.call("PTTL", LEASE)
        await asyncio.sleep(0.01)
    assert task is one._minding
    for each in (grant, *more):
        one.release(each, failed=False)
    await asyncio.wait([task])
    await one.close(5.0)  # giving back goes on beside it

    assert [] == pods.server.call("KEYS", "*")
    assert 0 == one.lost


async def test_renewal_of_another(pods: Pods):
    """What another process has taken meanwhile is not renewed but lost, which its fetch can know."""
    one, _ = pods.pod(seconds=0.3)
    grant = (await look(one)).grant

    pods.server.call("SET", LEASE, b"x" * 24, "PX", 50_000)
    await until(lambda: grant.lost)

    assert (1, 0) == (one.lost, len(one._grants))
    assert 40_000 < pods.server.call("PTTL", LEASE) <= 50_000


async def test_forgotten(pods: Pods):
    """A lease that nobody holds any more is not renewed."""
    one, _ = pods.pod(seconds=0.15)
    await look(one)

    await asyncio.wait([one._minding])

    assert 0 == len(one._grants)


async def test_died(pods: Pods):
    """The lease of a holder that is no more runs out, and another takes it."""
    one, other = pods.pod(seconds=0.1)[0], pods.pod()[0]
    dead = (await look(one)).grant
    one._minding.cancel()

    sight = await look(other)
    while sight.grant is None:
        await other.wait(NAME, sight.seconds)
        sight = await look(other)

    assert not await one.keep(dead, b"value", 30.0)
    assert sight.grant.token == pods.server.call("GET", LEASE)


async def idle(leases: Leases) -> None:
    """Wait for what was begun."""
    await asyncio.gather(*leases._begun)


async def test_stuck(pods: Pods):
    """That the holder is stuck stands in its lease once, beside those who wait, and is taken away; it lives on."""
    one, other = pods.pod()[0], pods.pod()[0]
    grant = (await look(one)).grant
    await look(other, note=b"1")
    for _ in range(2):
        one.stall(grant, stuck=True)
        await idle(one)
    marked = pods.server.call("GET", LEASE)
    await look(other, note=b"1")
    one.stall(grant, stuck=False)
    await idle(one)

    assert grant.token + b"+?" == marked
    assert grant.token + b"++" == pods.server.call("GET", LEASE)
    assert 40_000 < pods.server.call("PTTL", LEASE) <= 50_000
    assert await one.keep(grant, b"value", 30.0)


async def test_stuck_and_lost(pods: Pods):
    """Nothing is said of a lease that is another's by now."""
    one, other = pods.pod()[0], pods.pod()[0]
    lost = (await look(one)).grant
    pods.server.call("DEL", LEASE)
    held = (await look(other)).grant
    one.stall(lost, stuck=True)
    await idle(one)

    assert held.token == pods.server.call("GET", LEASE)


async def test_second(pods: Pods):
    """Of those who wait one takes the second lease, which is given back with the value; the first stays as it is."""
    one, other = pods.pod()[0], pods.pod()[0]
    grant = (await look(one)).grant
    await look(other, note=b"1")
    one.stall(grant, stuck=True)
    await idle(one)
    second = await other.look(NAME, other.budget(), beside=Beside.STUCK)
    third = await one.look(NAME, one.budget(), beside=Beside.NOW)

    assert second.grant is not None
    assert second.grant.second
    assert (None, True) == (third.grant, third.held)
    assert await other.keep(second.grant, b"value", 30.0)
    assert [grant.token + b"+?", None] == [pods.server.call("GET", key) for key in (LEASE, NAMES.second(NAME))]


@pytest.mark.parametrize("failed", [False, True])
async def test_release(pods: Pods, failed: bool):
    """A lease given back is free; after a failure there is a mark for a moment instead."""
    one, other = pods.pod()[0], pods.pod()[0]

    one.release((await look(one)).grant, failed=failed)
    await until(lambda: not one._begun)
    left = pods.server.call("PTTL", LEASE)
    sight = await look(other)

    if failed:
        assert (b"-", True) == (pods.server.call("GET", LEASE), 0 < left <= MARK_SECONDS * 1000)
        assert LeaseLook(None, sight.seconds) == sight
    else:
        assert sight.grant is not None


@pytest.mark.parametrize("how", ["kept", "released", "failed"])
@pytest.mark.parametrize("waiting", [0, 1, 3])
async def test_news(pods: Pods, how: str, waiting: int):
    """News are told where somebody waits, with how many they are, and nowhere else."""
    one, others = pods.pod()[0], [pods.pod()[0] for _ in range(waiting)]
    grant = (await look(one)).grant
    for other in others:
        await look(other, note=b"1")
        await look(other, note=b"0")
    link = pods.links[0]
    client = link.subscriber()
    pubsub = client.pubsub(ignore_subscribe_messages=True)
    await pubsub.subscribe(NAMES.news)
    await pubsub.get_message(timeout=5)

    if how == "kept":
        await one.keep(grant, b"value", 30.0)
    else:
        one.release(grant, failed=how == "failed")
        await until(lambda: not one._begun)
    pods.server.call("PUBLISH", NAMES.news, b"end")
    heard = []
    while heard[-1:] != [b"end"]:
        message = await pubsub.get_message(timeout=5)
        if message is not None:
            heard.append(message["data"])
    await pubsub.aclose()
    await client.aclose()

    assert ([b"w:%b:%d" % (NAME, waiting)] if waiting else []) == heard[:-1]


async def test_noted_anew(pods: Pods):
    """Who goes on waiting when the lease has a new holder is noted there."""
    one, other = pods.pod()[0], pods.pod()[0]
    await look(one)
    await look(other, note=b"1")
    pods.server.call("DEL", LEASE)
    grant = (await look(one)).grant

    await look(other, note=b"0")
    await look(other, note=b"0")

    assert grant.token + b"+" == pods.server.call("GET", LEASE)


async def test_waiting(pods: Pods):
    """Who waits is woken by news of its name, and not by others'; and goes on when its time is up."""
    one, news = pods.pod(draw=0.0)
    waiting = asyncio.create_task(one.wait(NAME, 1e6))
    await asyncio.sleep(0)

    news.hear(b"%032d:1" % 7)
    news.hear(b"")
    await asyncio.sleep(0)
    other = waiting.done()
    news.hear(NAME + b":1")
    await waiting
    await one.wait(NAME, 0.001)

    assert not other
    assert {} == one._waiting


@pytest.mark.parametrize("count", [b"1000000", b"-1", b"x", b"", b"\xb2"])
async def test_spread(pods: Pods, count: bytes):
    """Those who are woken are spread by their number, which is believed up to some thousands."""
    one, news = pods.pod(draw=0.01)
    waiting = asyncio.create_task(one.wait(NAME, 4096 * SPREAD_SECONDS * 0.5))
    await asyncio.sleep(0)

    news.hear(NAME + b":" + count)

    await waiting
    assert {} == one._waiting


async def test_ceiling(pods: Pods):
    """Who waits looks more rarely while news come."""
    one, news = pods.pod()

    without = one.ceiling
    news.up = True

    assert without < one.ceiling


async def test_lost_reply(pods: Pods):
    """The lease of a look whose reply was lost is given back when Redis answers again."""
    one, _ = pods.pod(timeout=0.05)
    await one.keep((await one.look(b"%032d" % 1, one.budget())).grant, b"", 1.0)
    pods.server.pause()
    for _ in range(3):
        with pytest.raises(FleetAway):
            await look(one)

    pods.server.resume()
    await until(lambda: pods.links[0].up)
    await until(lambda: not one._forsaken and not one._begun)

    assert None is pods.server.call("GET", LEASE)


async def test_keep_away(pods: Pods):
    """What can't be kept is lost without an error, and its lease given back when Redis answers again."""
    one, _ = pods.pod(timeout=0.05)
    grant = (await look(one)).grant
    pods.server.pause()

    keeping = asyncio.create_task(one.keep(grant, b"value", 30.0))
    for _ in range(3):
        with pytest.raises(FleetAway):
            await one.look(b"%032d" % 1, one.budget())
    kept = await keeping
    pods.server.resume()
    await until(lambda: pods.links[0].up)
    await until(lambda: not one._forsaken and not one._begun)

    assert not kept
    assert None is pods.server.call("GET", LEASE)


async def test_busy(pods: Pods):
    """What a holder does has time to wait for its turn, where a look would not."""
    one, _ = pods.pod(timeout=0.02)
    grant = (await look(one)).grant
    link = pods.links[0]
    while not link._slots.locked():
        await link._slots.acquire()

    keeping = asyncio.create_task(one.keep(grant, b"value", 30.0))
    with pytest.raises(FleetAway, match="busy"):
        await look(one)
    link._slots.release()

    assert await keeping


async def test_close(pods: Pods):
    """At the end what is held is given back, and nothing is left to do."""
    one, _ = pods.pod()
    grants = [(await one.look(b"%032d" % number, one.budget())).grant for number in range(3)]

    await one.close(60)

    assert 3 == len(grants)
    assert [] == pods.server.call("KEYS", "*")
