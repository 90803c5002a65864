"""The fleet's rates in a real Redis: two processes hold one limit, by the arithmetic of the core."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from sidecar.core.limits.rates import BRIMFUL, BURST_SECONDS, MOST_DEBT_SECONDS, Account, Pair, worth
from sidecar.core.rules import Route, RouteLimits
from sidecar.errors import FleetAway
from sidecar.fleet.quota import MOST_CHARGES
from sidecar.redis_link.names import RedisNames
from sidecar.upstream.limiter import Throttle
from tests.fleet.pods import NAMES, ODD_REPLIES, Pods, answering
from tests.redis_servers import RedisServer
from tests.store.remotes import until

KEY = NAMES.quota("chat")
SLOW = RouteLimits(tokens_per_minute=60, requests_per_minute=6)
"""So little that what fills in while a test runs is nothing: a token is a second, a request ten."""


@pytest.fixture
async def pods(redis_server: RedisServer) -> AsyncIterator[Pods]:
    async with Pods(redis_server) as pods:
        yield pods


def near(*seconds: float) -> Pair:
    """So much, or what the time that a test takes makes of it."""
    return pytest.approx(seconds, abs=0.9)


def test_names():
    """Nothing but the namespace is in clear, routes and namespaces don't mix, and a route's hash is in one slot."""
    digest = KEY.removeprefix(b"team-a:{").removesuffix(b"}:q")

    assert 32 == len(bytes.fromhex(digest.decode())) * 2
    assert KEY == RedisNames("team-a").quota("chat")
    assert 3 == len({KEY[7:], NAMES.quota("other")[7:], RedisNames("team-b").quota("chat")[7:]})
    assert b"team-a:{pods}" == NAMES.pods


async def test_one_limit(pods: Pods):
    """What one process takes is gone for the other."""
    one, other = pods.quota(), pods.quota()
    limits = RouteLimits(tokens_per_minute=60)
    first = await one.take("chat", limits, [1])
    second = await other.take("chat", limits, [1])
    third = await one.take("chat", limits, [2])

    assert (1, 1, 0) == (first.admitted, second.admitted, third.admitted)
    assert (near(2.0, 1.0), near(2.0, 0.0)) == (first.fill, second.fill)
    assert (near(0.0, 2.0), False, near(2.0, 0.0)) == (third.wait, third.reserved, third.fill)
    assert 2 == (await other.take("other", limits, [1, 1])).admitted


async def test_several_calls(pods: Pods):
    """As many as there is room for, in their order; the next one has a turn, if it comes within its patience."""
    taken = await pods.quota().take("chat", RouteLimits(tokens_per_minute=60), [1, 1, 3, 1], patience=5.0)
    later = await pods.quota().take("chat", RouteLimits(tokens_per_minute=60), [1], patience=1.0)

    assert (2, True, near(0.0, 2.0), near(2.0, -3.0)) == (taken.admitted, taken.reserved, taken.wait, taken.fill)
    assert (0, False, near(0.0, 4.0), near(2.0, -3.0)) == (later.admitted, later.reserved, later.wait, later.fill)


async def test_too_many_calls(pods: Pods):
    """One step charges a bounded number of them."""
    taken = await pods.quota().take("chat", RouteLimits(requests_per_minute=6_000_000), [1] * 1000)

    assert (MOST_CHARGES, False) == (taken.admitted, taken.reserved)


@pytest.mark.parametrize(
    "calls",
    [[(0, 1)], [(3, 1)], [(700, 1), (1, 1)], [(1, 0), (5, -2)], [(-100, 0)], [(10_000, 0)]],
    ids=str,
)
async def test_arithmetic(pods: Pods, calls: list[tuple[int, int]]):
    """The script comes to what the core comes to."""
    quota, account, price = pods.quota(), Account(), worth(SLOW)
    for tokens, requests in calls:
        quota.give("chat", SLOW, -tokens, -requests)
        fill = (await quota.take("chat", SLOW, [])).fill
        account.take(0.0, price, tokens, requests)

        assert near(*account.fill(0.0)) == fill

    taken = await quota.take("chat", SLOW, [1])

    assert near(*account.wait(0.0, price, 1)) == taken.wait


async def test_corrections(pods: Pods):
    """Those that nobody takes along come by themselves; what doesn't go into the bucket is lost."""
    one, other = pods.quota(), pods.quota()
    limits = RouteLimits(tokens_per_minute=60)
    await one.take("chat", limits, [100])
    one.give("chat", limits, 60)
    one.give("chat", limits, 0, 1)
    one.give("chat", limits, 35)
    await until(lambda: 2 == one.asked)

    assert near(2.0, -3.0) == (await other.take("chat", limits, [])).fill

    one.give("chat", limits, 1000)
    one.give("none", limits, 5)
    one.give("none", limits, -5)
    await one.close()

    assert (3, near(2.0, 1.0)) == (one.asked, (await other.take("chat", limits, [1])).fill)
    assert "<FleetQuota 3 asked, 0 corrections on their way, 0 lost>" == repr(one)


async def test_ceiling(pods: Pods):
    """Who has spent elsewhere is let in as if the bucket were no fuller than what was left there."""
    quota = pods.quota()
    taken = await quota.take("chat", SLOW, [1], ceiling=Pair(2.0, -10.0))

    assert (0, near(0.0, 11.0), near(2.0, -10.0)) == (taken.admitted, taken.wait, taken.fill)
    assert near(2.0, -10.0) == (await quota.take("chat", SLOW, [1], ceiling=BRIMFUL)).fill


@pytest.mark.parametrize(
    "write",
    [
        ("SET", KEY, "x"),
        ("HSET", KEY, "r", "x", "t", "nan"),
        ("HSET", KEY, "r", "9e15", "t", "inf"),
        ("RPUSH", KEY, "x"),
    ],
    ids=["string", "nonsense", "far-future", "list"],
)
async def test_not_ours(pods: Pods, write: tuple[str, ...]):
    """What somebody else wrote there is a full bucket, and is replaced."""
    pods.server.call(*write)
    quota = pods.quota()

    assert (1, near(-8.0, 1.0)) == ((taken := await quota.take("chat", SLOW, [1])).admitted, taken.fill)
    assert near(-8.0, 1.0) == (await quota.take("chat", SLOW, [])).fill


async def test_it_goes_by_itself(pods: Pods):
    """A route that nobody uses leaves nothing; the largest debt is forgiven, and then, too."""
    quota = pods.quota()
    await quota.take("chat", RouteLimits(tokens_per_minute=60), [1])
    soon = pods.server.call("PTTL", KEY)
    quota.give("chat", SLOW, -(10**12))
    taken = await quota.take("chat", SLOW, [])
    late = pods.server.call("PTTL", KEY)

    assert 55_000 < soon <= 62_000
    assert near(2.0, -MOST_DEBT_SECONDS) == taken.fill
    assert 655_000 < late <= 663_000


async def test_away(pods: Pods):
    """A Redis that doesn't answer is told of in time; corrections are lost then, and the call goes on."""
    quota = pods.quota(timeout=0.05)
    await quota.take("chat", SLOW, [1])
    pods.server.pause()
    quota.give("chat", SLOW, 1)
    for _ in range(3):
        with pytest.raises(FleetAway):
            await quota.take("chat", SLOW, [1])

    assert (1, False) == (quota.lost, quota.up)

    quota.give("chat", SLOW, 1)
    await until(lambda: 2 == quota.lost)


async def test_without_room(pods: Pods):
    """A Redis that can't write is one that is away: nobody is let in unaccounted."""
    quota = pods.quota()
    await quota.take("chat", SLOW, [1])
    pods.server.call("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(FleetAway):
        await quota.take("chat", SLOW, [1])
    pods.server.call("CONFIG", "SET", "maxmemory", "0")

    assert near(-8.0, 1.0) == (await quota.take("chat", SLOW, [])).fill


@pytest.mark.parametrize("reply", [*ODD_REPLIES.values(), b":5\r\n"], ids=[*ODD_REPLIES, "number"])
async def test_an_odd_reply(pods: Pods, reply: bytes):
    """What answers with anything else than the script is one that is away; a correction is lost, and the next sent."""
    async with answering([reply]) as url:
        quota = pods.quota(link=pods.link(url))
        with pytest.raises(FleetAway, match=r"\Amalformed: "):
            await quota.take("chat", SLOW, [1])
        for lost in (1, 2):
            quota.give("chat", SLOW, 1)
            await until(lambda lost=lost: lost == quota.lost)

        assert 0 == quota.asked


async def test_held_together(pods: Pods):
    """Two processes under more load than there is room for: together they use the limit, and no more than it."""
    limits = RouteLimits(tokens_per_minute=6_000_000, queue=50)
    route, real, used, over = Route("chat", limits=limits), 900, [0, 0], asyncio.Event()
    second = limits.tokens_per_minute / 60

    async def caller(throttle: Throttle, pod: int) -> None:
        while not over.is_set():
            turn = await throttle.enter(route, 3000)
            used[pod] += real
            await asyncio.sleep(0.01)
            turn.leave(tokens=real, throttled=False, seconds=0.01)

    throttles = [
        Throttle(quota=pods.quota(), pods=lambda: 2, clock=time.monotonic, spawn=pods.tasks.spawn) for _ in range(2)
    ]
    async with asyncio.TaskGroup() as group:
        for pod, throttle in enumerate(throttles):
            for _ in range(20):
                group.create_task(caller(throttle, pod))
        began = time.monotonic()
        await until(lambda: sum(used) >= 2 * second)
        over.set()
        spent, took = sum(used), time.monotonic() - began

    assert spent <= (took + BURST_SECONDS) * second * 1.05
    assert all(share > 0.2 * spent for share in used)
    assert [{("chat", cause): 0 for cause in ("queue", "deadline", "rate")}] * 2 == [
        dict(throttle.shed()) for throttle in throttles
    ]
    assert [0, 0] == [throttle.inside()["chat"] for throttle in throttles]


async def test_rights(pods: Pods):
    """Besides what the fleet's other scripts use, only the time is asked for; without it there is a share for each."""
    rights = "-@all +acl +config +ping +eval +evalsha +hmget +hset +pexpire +del"
    pods.server.call("ACL", "SETUSER", "default", *rights.split())
    try:
        quota = pods.quota()
        for _ in range(5):
            with pytest.raises(FleetAway, match=r"grant \+time"):
                await quota.take("chat", SLOW, [1])

        assert quota.up

        pods.server.call("ACL", "SETUSER", "default", "+time")

        assert 1 == (await quota.take("chat", SLOW, [1])).admitted
    finally:
        pods.server.call("ACL", "SETUSER", "default", "+@all")


async def test_without_the_right_to_read(pods: Pods):
    """What stands there is not lost for it, and the bucket is not full."""
    quota = pods.quota()
    await quota.take("chat", SLOW, [1])
    pods.server.call("ACL", "SETUSER", "default", "-hmget")
    try:
        with pytest.raises(FleetAway):
            await quota.take("chat", SLOW, [1])
    finally:
        pods.server.call("ACL", "SETUSER", "default", "+@all")

    assert near(-8.0, 1.0) == (await pods.quota().take("chat", SLOW, [])).fill
