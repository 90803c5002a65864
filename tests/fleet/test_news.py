"""News over a real Redis: who hears what, and that a broken connection is replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sidecar.core.rules import RedisRule
from sidecar.errors import FleetAway
from sidecar.fleet import news as module
from sidecar.fleet.news import LONGEST, News
from sidecar.redis_link.link import RedisLink, TimeBudget
from tests.fleet.lookups import as_it_is
from tests.redis_servers import RedisServer
from tests.store.remotes import Tasks, until

CHANNEL = b"team-a:news"


class Pod:
    """A process that listens."""

    def __init__(self, server: RedisServer) -> None:
        self.bugs: list[BaseException] = []
        self.tasks = Tasks()
        self.link = RedisLink(
            RedisRule(server.url),
            clock=asyncio.get_running_loop().time,
            draw=lambda: 0.0,
            lookup=as_it_is,
            spawn=self.tasks.spawn,
            tell=lambda *_, **__: None,
        )
        self.news = News(self.link, CHANNEL, spawn=self.tasks.spawn, draw=lambda: 0.0, report=self.bugs.append)
        self.heard: list[bytes] = []
        self.news.subscribe(b"w", self.heard.append)

    async def close(self) -> None:
        await self.news.close()
        await self.link.close()
        await self.tasks.cancel()


@pytest.fixture
async def pod(redis_server: RedisServer) -> AsyncIterator[Pod]:
    pod = Pod(redis_server)
    yield pod
    redis_server.resume()
    await pod.close()
    assert not pod.news.up
    assert [] == pod.tasks.errors


def tell(server: RedisServer, news: bytes) -> int:
    """Tell *news*; returns how many heard."""
    heard: int = server.call("PUBLISH", CHANNEL, news)
    return heard


async def test_heard(pod: Pod, redis_server: RedisServer):
    """Each kind is told to those who asked for it; other kinds, long ones and nonsense to nobody."""
    purges: list[bytes] = []
    also: list[bytes] = []
    pod.news.subscribe(b"p", purges.append)
    pod.news.subscribe(b"w", also.append)
    pod.news.start()
    await until(lambda: pod.news.up)

    for word in (b"", b":", b"w", b"x:1", b"w:" + bytes(LONGEST), b"w:one:2", b"p:\xff", b"w:end"):
        tell(redis_server, word)
    await until(lambda: b"end" in pod.heard)

    assert [b"", b"one:2", b"end"] == pod.heard == also
    assert [b"\xff"] == purges
    assert 7 == pod.news.heard


async def test_bug(pod: Pod, redis_server: RedisServer):
    """A bug of who hears is reported, and the others hear all the same."""
    pod.news._hearers[b"w"].insert(0, lambda _: 1 // 0)
    pod.news.start()
    await until(lambda: pod.news.up)

    tell(redis_server, b"w:one")
    await until(lambda: pod.heard)

    assert [ZeroDivisionError] == [type(error) for error in pod.bugs]


async def test_cut(pod: Pod, redis_server: RedisServer):
    """A connection that breaks is replaced."""
    pod.news.start()
    await until(lambda: pod.news.up)

    redis_server.call("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: pod.news.subscriptions == 2)
    tell(redis_server, b"w:again")
    await until(lambda: pod.heard)

    assert [b"again"] == pod.heard


async def test_replaced(pod: Pod, redis_server: RedisServer):
    """With a newer login, another subscription takes over: the former goes after it has come, and no news is lost."""
    pod.news.start()
    await until(lambda: pod.news.up)
    for number in range(1, 6):
        for hear in pod.link.on_login:
            hear()
        sent = 0
        while pod.news.subscriptions == number:
            assert tell(redis_server, b"w:%d" % sent) >= 1
            sent += 1
            await asyncio.sleep(0)
        await until(lambda: tell(redis_server, b"x:") == 1)
        await until(lambda sent=sent: {b"%d" % each for each in range(sent)} <= set(pod.heard))
        pod.heard.clear()

    assert pod.news.up


async def test_not_replaced(pod: Pod, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch):
    """Without another connection the subscription that there is goes on."""
    pod.news.start()
    await until(lambda: pod.news.up)

    monkeypatch.setattr(pod.link, "subscriber", lambda: 1 // 0)
    for hear in pod.link.on_login:
        hear()
    await until(lambda: not pod.news._outdated)
    tell(redis_server, b"w:still")
    await until(lambda: pod.heard)

    assert ([b"still"], 1) == (pod.heard, pod.news.subscriptions)


async def test_silence(pod: Pod, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch):
    """A server that says nothing, asked for a word, is given up, and listened to again when it does."""
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.05)
    pod.news.start()
    await until(lambda: pod.news.up)

    redis_server.pause()
    await until(lambda: not pod.news.up)
    redis_server.resume()
    await until(lambda: pod.news.up)

    assert 2 <= pod.news.subscriptions


async def test_away(pod: Pod, redis_server: RedisServer):
    """While Redis is away nobody asks it; when it returns, news come again at once."""
    redis_server.kill()
    for _ in range(3):
        with pytest.raises(FleetAway):
            await pod.link.run(lambda client: client.ping(), TimeBudget(0.5))
    pod.news.start()
    await asyncio.sleep(0)

    redis_server.start()
    await until(lambda: pod.news.up)

    assert 1 == pod.news.subscriptions


async def test_quiet(pod: Pod, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch):
    """Where there are no news, a server that answers is listened to for ever over one connection."""
    redis_server.call("CONFIG", "RESETSTAT")
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.01)
    pod.news.start()
    await until(lambda: pod.news.up)

    await until(lambda: b"cmdstat_ping:calls=3" in redis_server.call("INFO", "commandstats"))

    assert (True, 1) == (pod.news.up, pod.news.subscriptions)


async def test_one_connection(pod: Pod, redis_server: RedisServer):
    """One connection listens, and none is left at the end."""
    pod.news.start()
    await until(lambda: pod.news.up)

    during = tell(redis_server, b"w:1")
    await pod.close()
    await until(lambda: not tell(redis_server, b"w:2"))

    assert 1 == during
