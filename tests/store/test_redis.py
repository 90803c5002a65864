"""The fleet's tier in real Redis servers: what is beyond the contract, and all that may be wrong with one."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from sidecar.core.rules import SealRule
from sidecar.store.base import NOTHING
from sidecar.tasks import SCANNED_IN_LOOP
from tests.redis_servers import RedisCluster, RedisServer
from tests.store.remotes import LIMIT, NAMESPACE, NEW, OLD, Pod, RedisFleet, enough, entry, key, never, until

LONG = 25.0


@pytest.fixture
async def fleet(redis_server: RedisServer) -> AsyncIterator[RedisFleet]:
    fleet = RedisFleet(redis_server.url, redis_server.call)
    yield fleet
    redis_server.resume()
    await fleet.close()
    assert [] == fleet.immortal()
    assert [] == fleet.bugs
    assert [] == [error for pod in fleet.pods for error in pod.tasks.errors]


async def store(pod: Pod, number: int, body: bytes = b"an answer", **more: float) -> None:
    """Have an entry in Redis."""
    lease = (await pod.fetch(key(number), never, patience=LONG)).lease
    lease.keep(entry(body, **more))
    await until(lambda: not pod.leases._begun)


@contextmanager
def monitored(server: RedisServer) -> Iterator[bytearray]:
    """What MONITOR shows meanwhile."""
    seen = bytearray()
    with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
        connection.sendall(b"MONITOR\r\n")
        assert b"+OK\r\n" == connection.recv(5)
        yield seen
        server.call("ECHO", "the-end-of-it")
        while b"the-end-of-it" not in seen:
            seen += connection.recv(65536)


async def test_round_trips(fleet: RedisFleet, redis_server: RedisServer):
    """A look-up is one command, whether it finds, leases or is told that another process fetches."""
    one, other = fleet.pod(news=False), fleet.pod(news=False)
    await store(one, 1)
    await other.fetch(key(3), enough, patience=0)

    with monitored(redis_server) as seen:
        await one.fetch(key(1), enough, patience=0)
        await one.fetch(key(2), enough, patience=0)
        await other.fetch(key(2), enough, patience=0)

    assert 3 == seen.upper().count(b'"EVALSHA"')
    assert 0 == seen.count(b'"EVAL"')


@pytest.mark.parametrize("sealing", [SealRule(), SealRule(encrypt=False)], ids=["encrypted", "authenticated"])
async def test_nothing_told(fleet: RedisFleet, redis_server: RedisServer, sealing: SealRule):
    """MONITOR and the names of keys show no answer, no proof and no address."""
    one, other = fleet.pod(seal=sealing), fleet.pod(seal=sealing)
    answer = b"the quick brown fox"
    with monitored(redis_server) as seen:
        lease = (await one.fetch(key(7), enough, patience=0)).lease
        waiting = asyncio.create_task(other.fetch(key(7), enough, patience=LONG))
        await until(lambda: other.waits)
        lease.keep(entry(answer))
        await waiting
        one.keep(key(8), entry(answer))
        await until(lambda: one.behind.written)
    names = b" ".join(fleet.call("KEYS", "*"))

    assert all(found.startswith(f"{NAMESPACE}:{{".encode()) for found in names.split())
    for secret in (key(7).proof, key(7).proof.hex().encode(), key(7).address.hex().encode()):
        assert secret not in names
    assert key(7).address.hex().encode() not in seen
    assert (answer in seen) is not sealing.encrypt


async def test_thousand(fleet: RedisFleet):
    """Many calls at once on a few connections: one lease, one answer for all, and Redis is not taken for sick."""
    pods = [fleet.pod() for _ in range(4)]
    lease = (await pods[0].fetch(key(1), enough, patience=0)).lease
    waiting = [asyncio.create_task(pod.fetch(key(1), enough, patience=LONG)) for pod in pods for _ in range(250)]
    await until(lambda: [250] * 4 == [pod.waits for pod in pods])

    lease.keep(entry(b"for all"))
    found = await asyncio.gather(*waiting)

    assert {b"for all"} == {each.entry.body for each in found}
    assert [0] * 4 == [pod._link.breaker.openings for pod in pods]


async def test_without_news(fleet: RedisFleet):
    """Who waits finds out without news too, by looking."""
    one, other = fleet.pod(news=False), fleet.pod(news=False)
    lease = (await one.fetch(key(1), enough, patience=0)).lease
    waiting = asyncio.create_task(other.fetch(key(1), enough, patience=LONG))
    await until(lambda: other.waits)

    lease.keep(entry())

    assert (await waiting).entry is not None


async def test_busy_while_waiting(fleet: RedisFleet):
    """Who waits goes on waiting when a look has no turn, because so many others look."""
    one, other = fleet.pod(), fleet.pod(timeout=0.02)
    lease = (await one.fetch(key(1), enough, patience=0)).lease
    waiting = asyncio.create_task(other.fetch(key(1), enough, patience=LONG))
    await until(lambda: other.waits)
    for _ in range(fleet.rule.max_connections):
        await other._link._slots.acquire()
    await until(lambda: other._link.ran_out >= 2)

    lease.keep(entry())
    for _ in range(fleet.rule.max_connections):
        other._link._slots.release()

    assert (await waiting).entry is not None


async def test_large(fleet: RedisFleet):
    """What is large is sealed and opened beside the event loop, and found whole."""
    one, other = fleet.pod(), fleet.pod()
    body = random.Random(1).randbytes(4 * SCANNED_IN_LOOP)

    await store(one, 1, body)

    assert body == (await other.fetch(key(1), enough, patience=LONG)).entry.body


async def test_too_large(fleet: RedisFleet):
    """What is larger than the limit is not kept: those who wait go on alone."""
    pod = fleet.pod()
    await store(pod, 1, bytes(LIMIT + 1))
    pod.keep(key(2), entry(bytes(LIMIT + 1)))
    await pod.behind.close(LONG)

    assert [False] * 2 == [bool(await fleet.life(key(number))) for number in (1, 2)]
    assert NOTHING == await pod.fetch(key(1), enough, patience=0)
    assert 1 == pod.behind.drops


async def test_frozen(fleet: RedisFleet, redis_server: RedisServer):
    """A frozen Redis finds nothing and keeps nothing; thawed it is used, and no lost look has left a lease."""
    pod = fleet.pod(timeout=0.05)
    await store(pod, 1)
    held = (await pod.fetch(key(2), enough, patience=0)).lease
    redis_server.pause()

    frozen = [await pod.fetch(key(number), enough, patience=LONG) for number in (1, 3, 4, 5, 6)]
    held.keep(entry(b"lost"))
    pod.keep(key(7), entry())
    await until(lambda: pod.behind.drops)
    up = pod._link.up
    redis_server.resume()
    await until(lambda: pod._link.up)
    await until(lambda: not fleet.call("KEYS", "*:l"))

    assert [NOTHING] * 5 == frozen
    assert not up
    assert (await pod.fetch(key(1), enough, patience=0)).entry is not None
    assert ["redis-away", "redis-back"] == fleet.told


async def test_frozen_while_waiting(fleet: RedisFleet, redis_server: RedisServer):
    """Who waits doesn't wait for a Redis that doesn't answer."""
    one, other = fleet.pod(), fleet.pod(timeout=0.05)
    await one.fetch(key(1), enough, patience=0)
    waiting = asyncio.create_task(other.fetch(key(1), enough, patience=1e6))
    await until(lambda: other.waits)

    redis_server.pause()
    found = await waiting
    redis_server.resume()

    assert NOTHING._replace(waited=True) == found


async def test_killed(fleet: RedisFleet, redis_server: RedisServer):
    """A Redis that is gone finds nothing; a new one is empty, and used."""
    pod = fleet.pod(timeout=0.5)
    await store(pod, 1)
    held = (await pod.fetch(key(2), enough, patience=0)).lease
    redis_server.kill()

    gone = [await pod.fetch(key(1), enough, patience=LONG) for _ in range(4)]
    redis_server.start()
    await until(lambda: pod._link.up)
    held.keep(entry(b"of a lease that nobody remembers"))
    found = await pod.fetch(key(1), enough, patience=0)

    assert [NOTHING] * 4 == gone
    assert (None, True) == (found.entry, found.lease is not None)
    await until(lambda: not pod.leases._begun)
    assert 0 == await fleet.life(key(2))


async def test_flushed(fleet: RedisFleet):
    """After FLUSHALL nothing is found, and a lease of before keeps nothing."""
    pod = fleet.pod()
    await store(pod, 1)
    held = (await pod.fetch(key(2), enough, patience=0)).lease

    fleet.call("FLUSHALL")
    held.keep(entry())
    await until(lambda: pod.leases.lost)

    assert (None, None) == (
        (await pod.fetch(key(1), enough, patience=0)).entry,
        (await pod.fetch(key(2), enough, patience=0)).entry,
    )


WRONG = {
    "list": ("RPUSH", b"one"),
    "hash": ("HSET", b"one", b"two"),
    "empty": ("SETEX", 100, b""),
    "text": ("SETEX", 100, b"x"),
    "mark": ("SETEX", 100, b"-"),
    "long": ("SETEX", 100, bytes(100_000)),
    "for ever": ("SET", b"y" * 24),
}


@pytest.mark.parametrize("what", WRONG)
async def test_wrong_entry(fleet: RedisFleet, what: str):
    """Whatever stands where an entry should, it is as good as not there, and replaced."""
    pod = fleet.pod()
    command, *value = WRONG[what]
    fleet.call(command, fleet.entry_key(key(1)), *value)

    found = await pod.fetch(key(1), enough, patience=0)
    found.lease.keep(entry(b"right"))

    assert found.entry is None
    assert b"right" == (await pod.fetch(key(1), enough, patience=LONG)).entry.body


@pytest.mark.parametrize("what", WRONG)
async def test_wrong_lease(fleet: RedisFleet, what: str):
    """Whatever stands where a lease should and would not go away soon, the lease is to be had."""
    pod = fleet.pod()
    command, *value = WRONG[what]
    fleet.call(command, fleet.lease_key(key(1)), *value)

    lease = (await pod.fetch(key(1), enough, patience=0)).lease
    lease.keep(entry(b"right"))

    assert b"right" == (await pod.fetch(key(1), enough, patience=LONG)).entry.body


async def test_foreign(fleet: RedisFleet):
    """Another entry's envelope under this name, or a damaged one, is as good as not there, and counted."""
    pod = fleet.pod()
    await store(pod, 1)
    sealed = fleet.call("GET", fleet.entry_key(key(1)))
    fleet.call("SETEX", fleet.entry_key(key(2)), 100, sealed)
    fleet.call("SETEX", fleet.entry_key(key(3)), 100, sealed[:-1] + bytes([sealed[-1] ^ 1]))

    found = [await pod.fetch(key(number), enough, patience=0) for number in (2, 3)]

    assert [(None, True)] * 2 == [(each.entry, each.lease is not None) for each in found]
    assert {"forged": 2} == pod.seal.faults


async def test_changed_meanwhile(fleet: RedisFleet):
    """What takes the place of a useless value between two looks is found, and not fetched again."""
    pod = fleet.pod()
    await store(pod, 1, b"new")
    new = fleet.call("GET", fleet.entry_key(key(1)))
    await store(pod, 1, b"old")

    def suffices(found: object) -> bool:
        fleet.call("SETEX", fleet.entry_key(key(1)), 100, new)
        return found.body == b"new"

    found = await pod.fetch(key(1), suffices, patience=0)

    assert (b"new", None) == (found.entry.body, found.lease)


async def test_full(redis_server: RedisServer):
    """A Redis without memory for writes still finds what it has, gives no leases, and isn't taken for sick."""
    with RedisServer(options=("--maxmemory-policy", "noeviction")) as server:
        fleet = RedisFleet(server.url, server.call)
        pod = fleet.pod()
        await store(pod, 1)
        held = (await pod.fetch(key(2), enough, patience=0)).lease
        server.call("CONFIG", "SET", "maxmemory", 1)

        found = [await pod.fetch(key(number), enough, patience=0) for number in (1, 3)]
        held.keep(entry())
        pod.keep(key(4), entry())
        await until(lambda: pod.behind.drops)
        await until(lambda: not pod.leases._begun)

        assert [True, False] == [each.entry is not None for each in found]
        assert found[1].lease is None
        assert (True, []) == (pod._link.up, fleet.bugs)
        assert 1 == len(server.call("KEYS", "*"))
        await fleet.close()


async def test_rotation(fleet: RedisFleet):
    """With a new secret in front, what the old one named is found once there, and brought under the new one's name."""
    before, after, later = fleet.pod(secrets=(OLD,)), fleet.pod(secrets=(NEW, OLD)), fleet.pod(secrets=(NEW,))
    await store(before, 1, ttl=60)

    cold = await later.fetch(key(1), enough, patience=0)
    cold.lease.release(failed=False)
    found = await after.fetch(key(1), enough, patience=LONG)
    await until(lambda: not after.leases._begun)
    then = await later.fetch(key(1), enough, patience=0)

    assert None is cold.entry
    assert (b"an answer", None) == (found.entry.body, found.lease)
    assert b"an answer" == then.entry.body
    assert 50 < await fleet.life(key(1)) <= fleet.call("PTTL", fleet.entry_key(key(1), OLD)) / 1000 + 0.01


async def test_rotation_added(fleet: RedisFleet):
    """With the new secret behind the old one, what pods further ahead have written is found."""
    behind, ahead = fleet.pod(secrets=(OLD, NEW)), fleet.pod(secrets=(NEW, OLD))
    await store(ahead, 1)

    assert b"an answer" == (await behind.fetch(key(1), enough, patience=0)).entry.body


async def test_rotation_stale(fleet: RedisFleet):
    """What the old secret named and doesn't suffice comes with the lease."""
    before, after = fleet.pod(secrets=(OLD,)), fleet.pod(secrets=(NEW, OLD))
    await store(before, 1)

    found = await after.fetch(key(1), never, patience=0)

    assert (b"an answer", True) == (found.entry.body, found.lease is not None)


async def test_warm(fleet: RedisFleet):
    """
    A process that starts is handed what there is, whichever secret sealed it, as long as it is admitted; not more than
    it wants, and nothing else that stands in Redis.
    """
    old, new = fleet.pod(secrets=(OLD,)), fleet.pod(secrets=(NEW,))
    for number in range(5):
        await store(old, number, b"old")
        await store(new, 100 + number, b"new")
    await store(new, 200, b"purged")
    fleet.call("SETEX", f"{NAMESPACE}:{{{'x' * 32}}}:e", 100, b"garbage")
    fleet.call("SETEX", f"{NAMESPACE}:{{log}}:e", 100, b"garbage")
    fleet.call("SETEX", f"team-b:{{{'x' * 32}}}:e", 100, b"garbage")
    for number in range(500):
        fleet.call("SETEX", f"other-{number}", 100, b"")
    pod = fleet.pod(secrets=(NEW, OLD), admits=lambda _, found: found.body != b"purged")
    taken, some = {}, {}

    number = await pod.warm(taken.__setitem__, 1000)
    few = await pod.warm(some.__setitem__, 3)

    wanted = {key(number).proof: b"old" for number in range(5)} | {key(100 + n).proof: b"new" for n in range(5)}
    assert wanted == {found.proof: entry.body for found, entry in taken.items()}
    assert number >= len(taken)  # SCAN may show a key twice
    assert 3 == few >= len(some)
    assert all(entry.at <= time.time() for entry in taken.values())
    assert {"format"} == pod.seal.faults.keys()


async def test_warm_away(fleet: RedisFleet, redis_server: RedisServer):
    """A warm start from a sick Redis is none."""
    pod = fleet.pod(timeout=0.05)
    redis_server.pause()

    assert 0 == await pod.warm(lambda *_: None, 10)


async def test_close(fleet: RedisFleet):
    """At the end what was begun is finished, and leases that are held are given back."""
    one, other = fleet.pod(), fleet.pod()
    held = [(await one.fetch(key(number), enough, patience=0)).lease for number in (1, 2)]

    held[0].keep(entry(random.Random(1).randbytes(4 * SCANNED_IN_LOOP)))
    one.keep(key(3), entry())
    await one.close()

    found = [await other.fetch(key(number), enough, patience=0) for number in (1, 2, 3)]
    assert [True, False, True] == [each.entry is not None for each in found]
    assert found[1].lease is not None


async def test_cluster():
    """In a Cluster an entry and its lease have one slot; leases, news, writes behind and warm starts work."""
    with RedisCluster() as cluster:
        fleet = RedisFleet(cluster.url, cluster.servers[0].call)
        one, other = fleet.pod(), fleet.pod()
        taken = {}
        for number in range(8):
            lease = (await one.fetch(key(number), enough, patience=0)).lease
            waiting = asyncio.create_task(other.fetch(key(number), enough, patience=LONG))
            await until(lambda wanted=number + 1: wanted == other.waits)
            lease.keep(entry(b"%d" % number))
            assert b"%d" % number == (await waiting).entry.body
        one.keep(key(8), entry())
        await until(lambda: one.behind.written)
        await until(lambda: one.news.up)

        for number in range(9):
            slots = {cluster.servers[0].call("CLUSTER", "KEYSLOT", where(key(number)))
                     for where in (fleet.entry_key, fleet.lease_key)}  # fmt: skip
            assert 1 == len(slots)
        assert 9 == await other.warm(taken.__setitem__, 100) == len(taken)
        assert [] == fleet.bugs
        await fleet.close()
