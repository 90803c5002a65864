"""Who is there: processes count each other in a real Redis, and hold to their count where it has no room."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sidecar.errors import FleetAway
from sidecar.fleet.presence import MOST_REVISIONS
from tests.fleet.pods import NAMES, ODD_REPLIES, Pods, answering
from tests.redis_servers import RedisServer
from tests.store.remotes import until


@pytest.fixture
async def pods(redis_server: RedisServer) -> AsyncIterator[Pods]:
    async with Pods(redis_server) as pods:
        yield pods


async def test_counting(pods: Pods):
    """Processes count each other, and one that takes leave is gone for those that count anew."""
    one, other = pods.presence(1), pods.presence(2)

    assert (None, "<Presence not known>") == (one.count, repr(one))

    await one.beat()
    await other.beat()
    await one.beat()

    assert (2, 2, 2) == (one.count, other.count, pods.server.call("ZCARD", NAMES.pods))

    await other.close()
    third = pods.presence(3)
    await third.beat()

    assert (2, "<Presence 2>") == (third.count, repr(third))


async def test_leaving_twice(pods: Pods):
    """Who has signed off is not asked again; where Redis was away, the second time does it."""
    one = pods.presence(1)
    await one.beat()
    pods.links[0]._closed = True
    await one.close()

    assert 1 == pods.server.call("ZCARD", NAMES.pods)

    pods.links[0]._closed = False
    await one.close()
    commands = pods.links[0].commands["ok"]
    await one.close()

    assert (0, commands) == (pods.server.call("ZCARD", NAMES.pods), pods.links[0].commands["ok"])


async def test_silent_processes(pods: Pods):
    """Who gives no sign of life is gone; so is one whose sign is of another clock, and what isn't ours."""
    await pods.presence(1).beat()
    pods.server.call("ZADD", NAMES.pods, "1000", "old", "9e15", "future")
    one = pods.presence(2)
    await one.beat()

    assert 2 == one.count

    await until(lambda: not pods.server.call("EXISTS", NAMES.pods) or pods.server.call("PEXPIRE", NAMES.pods, 1))
    pods.server.call("SET", NAMES.pods, "x")
    third = pods.presence(3)
    await third.beat()

    assert 1 == third.count


@pytest.mark.parametrize(
    ("silence", "expected"), [(3.0, [3, 3, 3, 1]), (60.0, [3, 3, 3, 3, 1])], ids=["at once", "after a long silence"]
)
async def test_going_down_slowly(pods: Pods, silence: float, expected: list[int]):
    """
    A Redis that came back empty has seen only the first: the count before holds for as long as a sign of life; and for
    so long from the end of a silence that was longer.
    """
    times = iter((0.0, *(silence + 3.0 * beat for beat in range(6))))
    one = pods.presence(1, clock=lambda: next(times))
    for other in (2, 3):
        await pods.presence(other).beat()
    await one.beat()
    pods.server.call("FLUSHALL")
    counts = []
    for _ in expected:
        await one.beat()
        counts.append(one.count)

    assert expected == counts

    await pods.presence(2).beat()
    await one.beat()

    assert 2 == one.count


async def test_while_away(pods: Pods):
    """What was counted last holds; when Redis is back a sign is given at once."""
    link = pods.link()
    one = pods.presence(1, link=link)
    one.start()
    await until(lambda: 1 == one.count)
    pods.server.call("DEL", NAMES.pods)
    for hear in link.on_return:
        hear()
    await until(lambda: pods.server.call("EXISTS", NAMES.pods))
    pods.server.pause()
    with pytest.raises(FleetAway):
        await one.beat()

    assert 1 == one.count

    pods.server.resume()
    await one.close()

    assert 0 == pods.server.call("EXISTS", NAMES.pods)


async def test_a_full_redis(pods: Pods):
    """It takes no signs; nobody throws the others out for that, and what was counted last holds."""
    fleet = [pods.presence(member) for member in range(3)]
    for _ in range(2):
        for one in fleet:
            await one.beat()
    pods.server.call("CONFIG", "SET", "maxmemory", "1")
    for one in fleet * 2:
        with pytest.raises(FleetAway):
            await one.beat()

    assert (3, [3, 3, 3]) == (pods.server.call("ZCARD", NAMES.pods), [one.count for one in fleet])

    pods.server.call("CONFIG", "SET", "maxmemory", "0")
    await fleet[0].beat()

    assert 3 == fleet[0].count


async def test_full_of_what_is_not_ours(pods: Pods):
    """Another type is replaced when there is room."""
    pods.server.call("SET", NAMES.pods, "x", "PX", 60_000)
    pods.server.call("CONFIG", "SET", "maxmemory", "1")
    one = pods.presence(1)
    with pytest.raises(FleetAway):
        await one.beat()
    pods.server.call("CONFIG", "SET", "maxmemory", "0")
    await one.beat()

    assert 1 == one.count


async def test_rights(pods: Pods):
    """Few, and that to ask for the time."""
    rights = "-@all +acl +config +ping +eval +evalsha +pexpire +del +zadd +zcard +zremrangebyscore"
    pods.server.call("ACL", "SETUSER", "default", *rights.split())
    try:
        one = pods.presence(1)
        for _ in range(5):
            with pytest.raises(FleetAway, match=r"grant \+time"):
                await one.beat()

        assert None is one.count

        pods.server.call("ACL", "SETUSER", "default", "+time")
        await one.beat()

        assert 1 == one.count

        await one.close()
    finally:
        pods.server.call("ACL", "SETUSER", "default", "+@all")

    assert 0 == pods.server.call("EXISTS", NAMES.pods)


@pytest.mark.parametrize(
    "reply", [*ODD_REPLIES.values(), b"*0\r\n", b":0\r\n", b"-ERR x\r\n"], ids=[*ODD_REPLIES, "empty", "zero", "error"]
)
async def test_an_odd_reply(pods: Pods, reply: bytes):
    """It ends nothing: signs are given on, and the first good answer counts."""
    replies = [reply]
    async with answering(replies) as url:
        link = pods.link(url)
        one = pods.presence(1, link=link)
        one.start()
        await until(lambda: 1 == one.failures)

        assert None is one.count

        replies[0] = b"*2\r\n:4\r\n$3\r\nabc\r\n"
        for hear in link.on_return:
            hear()
        await until(lambda: 4 == one.count)

        assert ("abc",) == one.revisions

        replies[0] = reply
        await one.close()

    assert 1 == one.failures


async def test_revisions(pods: Pods):
    """Each process hears of every revision that one of them works by, and of none that nobody works by any more."""
    at = {1: "old", 2: "old", 3: "new"}
    one, two, three = (pods.presence(number, revision=lambda number=number: at[number]) for number in at)
    for each in (one, two, three, one):
        await each.beat()

    assert ({"old", "new"}, 3) == (set(one.revisions), one.count)

    at |= {1: "new", 2: "new"}
    for each in (one, two, three):
        await each.beat()
    pods.server.call("ZADD", NAMES.revisions, "1000", "old")  # its last sign is longer ago than a life
    await one.beat()

    assert ("new",) == one.revisions


async def test_too_many_revisions(pods: Pods):
    """Not all of them are told, and nothing breaks."""
    for number in range(MOST_REVISIONS + 5):
        await pods.presence(number, revision=lambda number=number: f"revision {number}").beat()
    one = pods.presence(99, revision=lambda: "mine")
    await one.beat()

    assert (MOST_REVISIONS, MOST_REVISIONS) == (len(one.revisions), len(set(one.revisions)))


async def test_a_bug(pods: Pods):
    """Whatever it is: a process that gives no more signs is counted by nobody."""
    times = iter((0.0,))

    def clock() -> float:
        if (now := next(times, None)) is None:
            raise ZeroDivisionError
        return now

    link = pods.link()
    one = pods.presence(1, link=link, clock=clock)
    one.start()
    await until(lambda: 1 == one.count)
    for failures in (1, 2):
        for hear in link.on_return:
            hear()
        await until(lambda failures=failures: failures == one.failures)

    assert 1 == one.count
