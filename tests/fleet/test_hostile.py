"""What answers is not Redis, or no good one: it takes no memory, costs three commands, and is told once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.model import Position
from sidecar.core.region.regions import Place
from sidecar.core.rules import Mode, RedisRule, RouteLimits
from sidecar.errors import FleetAway
from sidecar.fleet.lease import Grant, Leases
from sidecar.fleet.news import News
from sidecar.fleet.presence import Presence
from sidecar.fleet.purge_log_in_redis import Journal
from sidecar.fleet.quota import FleetQuota
from sidecar.fleet.region_board import RegionBoard
from sidecar.redis_link.link import RedisLink, TimeBudget
from sidecar.redis_link.names import RedisNames
from sidecar.store.values import Values
from sidecar.store.warm import _page
from tests.fleet.lookups import as_it_is
from tests.fleet.pods import ODD_REPLIES, impostor
from tests.redis_link.garbled import GARBLED, replies
from tests.store.remotes import Tasks, until

PLENTY = 30.0
ROOM = 256 * 1024 * 1024
"""Bytes that may be reserved: hardly more than an event loop's threads take, and less than any bomb."""

NAMES = RedisNames("team-a")
PLACE = Place("openai", "", "eu")
LIMITS = RouteLimits(requests_per_minute=600)

BAD = {
    **ODD_REPLIES,
    **{
        name: data
        for name, data in GARBLED.items()
        if name not in {"an endless status", "strings that are long together"}
    },
    "two at once": b"*0\r\n*0\r\n",
    "two numbers": b":1\r\n:1\r\n",
    "a redirection to nowhere": b"-MOVED\r\n",
    "a redirection of no slot": b"-MOVED x 127.0.0.1:1\r\n",
    "a short array": b"*1\r\n$5\r\nvalue\r\n",
    "a value without a life": b"*3\r\n$5\r\nvalue\r\n$1\r\n5\r\n$1\r\nx\r\n",
    "an error within": b"*3\r\n$5\r\nvalue\r\n:5\r\n-ERR x\r\n",
    "a lease for ever": b"*2\r\n$4\r\nheld\r\n:9223372036854775807\r\n",
}


class Notes:
    """Sealed by nobody."""

    def seal_note(self, text: bytes) -> bytes:
        return text

    def open_note(self, data: bytes) -> bytes | None:
        return data


class Pod:
    """A process before the server at *url*, with all its arms."""

    def __init__(self, url: str, **more: str) -> None:
        self.tasks = Tasks()
        self.told: list[tuple[str, dict[str, Any]]] = []
        clock = asyncio.get_running_loop().time
        self.link = RedisLink(
            RedisRule(url, timeout=PLENTY, **more),
            clock=clock,
            draw=lambda: -0.95,  # probes come after milliseconds
            lookup=as_it_is,
            spawn=self.tasks.spawn,
            tell=lambda event, /, **fields: self.told.append((event, fields)),
        )
        link, spawn = self.link, self.tasks.spawn
        self.bugs: list[BaseException] = []
        self.news = News(link, NAMES.news, spawn=spawn, draw=lambda: 0.0, report=self.bugs.append)
        self.leases = Leases(link, self.news, NAMES, timeout=PLENTY, spawn=spawn, draw=lambda: 0.5, random=bytes)
        self.journal = Journal(link, NAMES, Notes(), now=time.time, random=bytes)
        self.board = RegionBoard(link, NAMES, Notes(), findings=True, timeout=PLENTY, clock=clock, random=bytes)
        self.quota = FleetQuota(link, NAMES, timeout=PLENTY, spawn=spawn)
        self.presence = Presence(link, NAMES, member=bytes(12), clock=clock, draw=lambda: 0.5, spawn=spawn)
        self.values = Values(link.client)

    async def close(self) -> None:
        await self.news.close()
        await self.tasks.cancel()
        await self.link.close()

        assert [] == self.tasks.errors + self.bugs


async def look(pod: Pod) -> object:
    return await pod.leases.look(b"n" * 32, pod.leases.budget())


async def keep(pod: Pod) -> object:
    if not await pod.leases.keep(Grant(b"n" * 32, b"token"), b"value", 60.0):
        raise FleetAway("malformed", "not kept")
    return True


async def renew(pod: Pod) -> object:
    return await pod.leases._renew_one(Grant(b"n" * 32, b"token"))


async def purges(pod: Pod) -> object:
    return await pod.journal.exchange(Position(), {})


async def mode(pod: Pod) -> object:
    return await pod.journal.put_mode(Mode.NORMAL, time.time() + 60)


async def regions(pod: Pod) -> object:
    return await pod.board.exchange()


async def claim(pod: Pod) -> object:
    return await pod.board.claim(PLACE, 1.0)


async def quota(pod: Pod) -> object:
    return await pod.quota.take("chat", LIMITS, [1])


async def presence(pod: Pod) -> object:
    return await pod.presence.beat()


async def read(pod: Pod) -> object:
    return await pod.link.run(lambda _: pod.values.get(b"key"), TimeBudget(PLENTY))


async def write(pod: Pod) -> object:
    return await pod.link.run(lambda _: pod.values.set(b"key", b"value", 60.0), TimeBudget(PLENTY))


async def scan(pod: Pod) -> object:
    return await pod.link.run(_page({}, 0, b"*"), TimeBudget(PLENTY))


ASKS: dict[str, Callable[[Pod], Awaitable[object]]] = {
    each.__name__: each
    for each in (look, keep, renew, purges, mode, regions, claim, quota, presence, read, write, scan)
}
GOOD = {
    "keep": {"negative"},
    "read": {"nil", "no array", "text", "status"},  # any string: an entry says by itself whether it is ours
    "write": {"status"},
}
"""Of what is bad elsewhere."""

EACH = {*ODD_REPLIES, "a thousand million elements", "a long string", "two at once", "an error within"}
"""What is tried with whatever is asked; the rest is for the way of all."""


def reserved() -> int:
    """The most bytes that this process has ever had reserved."""
    fields = Path("/proc/self/status").read_text().split()
    return int(fields[fields.index("VmPeak:") + 1]) * 1024


@pytest.fixture
async def pods() -> AsyncIterator[Callable[[str], Pod]]:
    """Makes pods; at their end none has met a bug, and little was reserved."""
    made: list[Pod] = []

    def make(url: str, **more: str) -> Pod:
        made.append(Pod(url, **more))
        return made[-1]

    before = reserved()
    yield make
    for pod in made:
        await pod.close()

    assert reserved() < before + ROOM


async def reason(pod: Pod, ask: Callable[[Pod], Awaitable[object]]) -> str:
    """Why there is no answer."""
    try:
        await ask(pod)
    except FleetAway as away:
        return away.reason
    return "none"


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (bad, kind)
        for bad in BAD
        for kind in (ASKS if bad in EACH else ("look", "read"))
        if bad not in GOOD.get(kind, ())
    ],
)
async def test_a_bad_reply(pods: Callable[[str], Pod], bad: str, kind: str):
    """Three of them, whatever is asked, and nobody asks any more; the log has one line, without a word of them."""

    def answer(command: list[bytes]) -> bytes:
        return b"+PONG\r\n" if command[0] == b"PING" else BAD[bad]

    async with impostor(answer) as url:
        pod = pods(url)
        reasons = [await reason(pod, ASKS[kind]) for _ in range(4)]

        assert ["malformed"] * 3 == reasons[:3]
        assert reasons[3] in {"open", "malformed"}
        assert {"malformed"} == pod.link.errors.keys()
        await until(lambda: pod.link.breaker.openings)
        await until(lambda: pod.link.up)  # a probe is answered well, so it is tried again, and told no more
        for _ in range(3):
            await reason(pod, ASKS[kind])
        [(event, fields)] = pod.told
        assert ("redis-away", "malformed") == (event, fields["reason"])
        assert "ERR x" not in str(fields)


@pytest.mark.parametrize("bad", [":5\r\n", "+OK\r\n", "*1000000000\r\n", "$-1\r\n", "+PONG\r\n+PONG\r\n", "%0\r\n"])
async def test_a_probe_judges_too(pods: Callable[[str], Pod], bad: str):
    """What answers PING with anything but PONG is not back."""
    replies = [bad.encode()]

    async with impostor(lambda command: replies[0] if command[0] == b"PING" else b"*1\r\n:0\r\n") as url:
        pod = pods(url)
        for _ in range(3):
            await reason(pod, look)
        await until(lambda: pod.link.errors["malformed"] >= 6 or bad.startswith("+PONG"))

        assert bad.startswith("+PONG") or not pod.link.up
        replies[0] = b"+PONG\r\n"
        await until(lambda: pod.link.up)
        assert ["redis-away"] == [event for event, _ in pod.told]


async def test_back_again(pods: Callable[[str], Pod]):
    """It is told when what was answered badly is answered well."""
    replies = [b"*0\r\n"]

    async with impostor(lambda command: b"+PONG\r\n" if command[0] == b"PING" else replies[0]) as url:
        pod = pods(url)
        for _ in range(3):
            await reason(pod, look)
        await until(lambda: pod.link.up)
        replies[0] = b"*2\r\n$4\r\nheld\r\n:400\r\n"
        sight = await pod.leases.look(b"n" * 32, pod.leases.budget())

    assert (True, 0.4) == (sight.held, sight.seconds)
    assert ["redis-away", "redis-back"] == [event for event, _ in pod.told]


@pytest.mark.parametrize("after", ["at once", "late"])
async def test_one_reply_too_many(pods: Callable[[str], Pod], after: str):
    """It is never taken for the answer to the next command."""
    count = 0

    def answer(command: list[bytes]) -> bytes:
        nonlocal count
        count += 1
        return b"$1\r\n%d\r\n" % count + (b"$5\r\nwrong\r\n" if after == "at once" else b"")

    async with impostor(answer, late=b"$5\r\nwrong\r\n" if after == "late" else b"") as url:
        pod = pods(url)
        got = []
        for _ in range(5):
            got.append(await read(pod))
            await asyncio.sleep(0.01)

    assert [b"1", b"2", b"3", b"4", b"5"] == got


@pytest.mark.parametrize("bad", [*BAD.values(), b"+" + b"x" * 100_000], ids=[*BAD, "an endless status"])
async def test_hostile_news(pods: Callable[[str], Pod], bad: bytes):
    """A subscription that brings nonsense ends, and another is tried; nobody hears of it."""
    heard: list[bytes] = []
    asked = 0

    def answer(command: list[bytes]) -> bytes:
        nonlocal asked
        asked += command[0] == b"SUBSCRIBE"
        return b"*3\r\n$9\r\nsubscribe\r\n$11\r\nteam-a:news\r\n:1\r\n" + bad

    async with impostor(answer) as url:
        pod = pods(url)
        pod.news.subscribe(b"w", heard.append)
        pod.news.start()
        await until(lambda: pod.news.subscriptions or asked)
        await asyncio.sleep(0.05)

    assert [] == heard


WORDS = (
    b"-WRONGPASS %b\r\n",
    b"-ERR max number of clients reached %b\r\n",
    b"-NOPERM %b\r\n",
    b"-CLUSTERDOWN %b\r\n",
    b"-X %b\r\n",
    b"+%b\r\n",
    b"$%d\r\n%b\r\n",
)


@pytest.mark.parametrize("words", WORDS)
async def test_the_password_comes_back(pods: Callable[..., Pod], tmp_path: Path, words: bytes):
    """Who is shown it may say it: neither the log nor an error does."""
    secret = "correct-horse-battery" * 5
    (tmp_path / "password").write_text(secret)

    def answer(command: list[bytes]) -> bytes:
        return words % ((len(command[-1]), command[-1]) if b"%d" in words else command[-1])

    async with impostor(answer) as url:
        pod = pods(url, password_file=str(tmp_path / "password"))
        errors = []
        for _ in range(4):
            with pytest.raises(FleetAway) as caught:
                await look(pod)
            errors.append(str(caught.value))

        assert "horse" not in str(pod.told) + str(errors)


SLOTS = {
    "a number": b":1\r\n",
    "nil": b"*-1\r\n",
    "ranges of text": b"*1\r\n$3\r\nabc\r\n",
    "slots without end": b"*1\r\n*3\r\n:0\r\n:999999999999\r\n*2\r\n$9\r\n127.0.0.1\r\n:1\r\n",
    "below zero": b"*1\r\n*3\r\n:-5\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:1\r\n",
    "no server": b"*1\r\n*2\r\n:0\r\n:16383\r\n",
    "a server without a port": b"*1\r\n*3\r\n:0\r\n:16383\r\n*1\r\n$9\r\n127.0.0.1\r\n",
    "a port that is none": b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:99999\r\n",
    "a host that is a number": b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n:1\r\n:1\r\n",
    "an error within": b"*1\r\n-ERR x\r\n",
    "too many": b"*1000000000\r\n",
    "a long string": b"$10000000000\r\n",
}


@pytest.mark.parametrize("slots", SLOTS.values(), ids=SLOTS)
async def test_a_hostile_cluster(pods: Callable[[str], Pod], slots: bytes):
    """Slots that no Cluster has are asked for no more than those of one that is away."""
    async with impostor(lambda _: slots) as url:
        pod = pods(url.replace("redis://", "redis+cluster://").removesuffix("/0"))
        reasons = [await reason(pod, look) for _ in range(4)]

        assert [*["malformed"] * 3, "open"] == reasons
        assert ["redis-away"] == [event for event, _ in pod.told]


@pytest.mark.parametrize("commands", [b":1\r\n", b"*1\r\n:1\r\n", b"*1\r\n*0\r\n", b"*1000000000\r\n", b"*-1\r\n"])
async def test_a_hostile_list_of_commands(pods: Callable[[str], Pod], commands: bytes):
    """A Cluster that knows its slots, and no command."""

    def answer(command: list[bytes]) -> bytes:
        if command[0] == b"COMMAND":
            return commands
        return b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:%d\r\n" % port if command[0] == b"CLUSTER" else b":1\r\n"

    async with impostor(answer) as url:
        port = int(url.rpartition(":")[2].removesuffix("/0"))
        pod = pods(url.replace("redis://", "redis+cluster://").removesuffix("/0"))
        for _ in range(4):
            assert await reason(pod, look) in {"malformed", "open"}

        assert not pod.link.up


MASTERS = {
    **BAD,
    "a number": b":1\r\n",
    "a primary of numbers": b"*1\r\n*2\r\n:1\r\n:2\r\n",
    "a primary without an address": b"*1\r\n*4\r\n$4\r\nname\r\n$1\r\nm\r\n$5\r\nflags\r\n$6\r\nmaster\r\n",
    "a port that is none": b"*1\r\n*8\r\n$4\r\nname\r\n$1\r\nm\r\n$2\r\nip\r\n$1\r\na\r\n$4\r\nport\r\n$5\r\n99999\r\n"
    b"$5\r\nflags\r\n$6\r\nmaster\r\n",
}


@pytest.mark.parametrize("masters", MASTERS.values(), ids=MASTERS)
async def test_a_hostile_sentinel(pods: Callable[[str], Pod], masters: bytes):
    """Who names no primary is asked no more than one who is away."""
    async with impostor(lambda _: masters) as url:
        pod = pods(url.replace("redis://", "redis+sentinel://").replace("/0", "/m"))
        for _ in range(4):
            assert await reason(pod, look) in {"malformed", "error", "timeout", "open"}

        assert not pod.link.up
        assert ["redis-away"] == [event for event, _ in pod.told]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.binary(max_size=50) | replies(), min_size=1, max_size=3).map(b"".join), st.sampled_from(sorted(ASKS))
)
def test_anything(data: bytes, kind: str):
    """Whatever it answers, a command has an answer or ``FleetAway``, and nothing else."""

    async def story() -> None:
        async with impostor(lambda _: data, hang_up=True) as url:
            pod = Pod(url)
            reasons = {await reason(pod, ASKS[kind]) for _ in range(4)}
            await pod.close()

        assert reasons <= {"none", "malformed", "error", "refused", "timeout", "open"}
        assert 0 == pod.link.errors["other"]

    asyncio.run(story())
