"""What every ``Remote`` does, by both arms."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Generator
from typing import Any

import pytest
from msgspec.structs import replace

from sidecar.core.cache.beside import Beside
from sidecar.core.model import Entry, Key
from sidecar.store.base import NOTHING, Fetched
from tests.redis_servers import RedisServer
from tests.store.remotes import Fleet, MemoryFleet, RedisFleet, enough, entry, key, never, until

LONG = 25.0
"""Patience that no test uses up, and shorter than a lease: a lease left behind isn't waited for."""


@pytest.fixture(params=["memory", "redis"])
async def fleet(request: pytest.FixtureRequest) -> AsyncIterator[Fleet]:
    if request.param == "memory":
        yield MemoryFleet()
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    redis = RedisFleet(server.url, server.call)
    yield redis
    assert [] == redis.immortal()
    await redis.close()
    assert [] == redis.immortal()
    assert [] == [error for pod in redis.pods for error in pod.tasks.errors]
    assert [] == redis.told


async def test_absent(fleet: Fleet):
    """Where there is nothing, the first gets the lease, and another learns that there is nothing for it."""
    one, other = fleet.pod(), fleet.pod()

    first = await one.fetch(key(1), enough, patience=0)
    second = await other.fetch(key(1), enough, patience=0)

    assert (None, True, False) == (first.entry, first.lease is not None, first.waited)
    assert NOTHING == second


async def test_deleted(fleet: Fleet):
    """What one deletes is gone for all; what it never knew is no matter."""
    one, other = fleet.pod(), fleet.pod()
    for number in (1, 2):
        (await one.fetch(key(number), enough, patience=0)).lease.keep(entry())
        await other.fetch(key(number), enough, patience=LONG)
    one.delete([key(1), key(3)])
    async with asyncio.timeout(5):
        while await fleet.life(key(1)):  # noqa: ASYNC110 - a server that others write to
            await asyncio.sleep(0.001)

    assert await fleet.life(key(2)) > 0
    assert (await other.fetch(key(1), enough, patience=0)).entry is None


async def test_found(fleet: Fleet):
    """What one keeps by its lease is found by all, whole."""
    one, other = fleet.pod(), fleet.pod()
    answer = entry(tags=("ocr",), stale_if_error=5.0, partition=bytes(16))

    (await one.fetch(key(1), enough, patience=0)).lease.keep(answer)
    found = [await pod.fetch(key(1), enough, patience=LONG) for pod in (one, other)]

    for each in found:
        assert (answer, None) == (replace(each.entry, at=answer.at), each.lease)
        assert answer.at - 1 < each.entry.at <= answer.at
    assert 1 == other.hits


async def test_keys(fleet: Fleet):
    """A key is compared whole: one of the same address and another proof finds nothing, and has a lease of its own."""
    pod = fleet.pod()

    first = await pod.fetch(key(1, address=7), enough, patience=0)
    first.lease.keep(entry())
    await pod.fetch(key(1, address=7), enough, patience=LONG)
    second = await pod.fetch(key(2, address=7), enough, patience=0)

    assert (None, True) == (second.entry, second.lease is not None)


async def test_waiting(fleet: Fleet):
    """Those who wait get the answer when it is there, and are told that they waited for it."""
    one, others = fleet.pod(), [fleet.pod() for _ in range(4)]
    lease = (await one.fetch(key(1), enough, patience=0)).lease
    waiting = [asyncio.create_task(pod.fetch(key(1), enough, patience=LONG)) for pod in others for _ in range(5)]
    await until(lambda: [5] * 4 == [pod.waits for pod in others])

    lease.keep(entry(b"the answer"))
    found = await asyncio.gather(*waiting)

    assert [(b"the answer", None, True)] * 20 == [(each.entry.body, each.lease, each.waited) for each in found]


async def test_patience(fleet: Fleet):
    """Who has waited long enough goes without an answer and without a lease."""
    one, other = fleet.pod(), fleet.pod()
    held = await one.fetch(key(1), enough, patience=0)

    found = await other.fetch(key(1), enough, patience=0.03)

    assert Fetched(None, None, waited=True) == found
    assert held.lease is not None


@pytest.mark.parametrize("how", ["released", "died"])
async def test_takeover(fleet: Fleet, how: str):
    """Where the holder gives up or dies, one of those who wait has the lease, and the others its answer."""
    one, others = fleet.pod(), [fleet.pod() for _ in range(3)]
    lease = (await one.fetch(key(1), enough, patience=0)).lease
    waiting = [asyncio.create_task(pod.fetch(key(1), enough, patience=LONG)) for pod in others]
    await until(lambda: all(pod.waits for pod in others))

    if how == "released":
        lease.release(failed=False)
    else:
        await fleet.expire(key(1))
    done, rest = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    (heir,) = [task.result() for task in done]
    heir.lease.keep(entry(b"its answer"))

    assert (None, True) == (heir.entry, heir.waited)
    assert [b"its answer"] * 2 == [task.entry.body for task in await asyncio.gather(*rest)]
    assert 1 == sum(pod.takeovers for pod in others)


async def test_failed(fleet: Fleet):
    """Where there is no answer to share, those who wait and those who come at once go on alone."""
    one, other = fleet.pod(), fleet.pod()
    lease = (await one.fetch(key(1), enough, patience=0)).lease
    waiting = asyncio.create_task(other.fetch(key(1), enough, patience=LONG))
    await until(lambda: other.waits)

    lease.release(failed=True)

    assert Fetched(None, None, waited=True) == await waiting
    assert NOTHING == await one.fetch(key(1), enough, patience=LONG)


def beside(when: Beside):
    return lambda: when


async def test_second_lease(fleet: Fleet):
    """Beside a holder that is stuck one process may fetch, and no more; all have the answer of whoever is first."""
    one, others = fleet.pod(), [fleet.pod() for _ in range(4)]
    lease = (await one.fetch(key(1), enough, patience=0)).lease
    stuck = beside(Beside.STUCK)
    waiting = [asyncio.create_task(pod.fetch(key(1), enough, patience=LONG, beside=stuck)) for pod in others]
    await until(lambda: all(pod.waits for pod in others))

    assert not any(task.done() for task in waiting)

    lease.stall(stuck=True)
    done, rest = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    (second,) = [task.result() for task in done]
    watching = asyncio.create_task(one.fetch(key(1), enough, patience=LONG, beside=beside(Beside.NOW)))
    await until(lambda: one.waits)

    assert (None, True, True) == (second.entry, second.waited, second.second)
    assert not any(task.done() for task in (*rest, watching))

    second.lease.keep(entry(b"the second"))
    found = [(each.entry.body, each.lease, each.second) for each in await asyncio.gather(*rest, watching)]

    assert [(b"the second", None, False)] * 4 == found
    assert 0 == sum(pod.takeovers for pod in (one, *others))

    lease.keep(entry(b"the first"))
    await until(lambda: not fleet.leased(key(1)))
    assert b"the first" == (await one.fetch(key(1), enough, patience=0)).entry.body


async def test_second_lease_of_the_holder_itself(fleet: Fleet):
    """The holder's own process need not wait for its own word; nobody else gets a third."""
    one, other = fleet.pod(), fleet.pod()
    lease = (await one.fetch(key(1), enough, patience=0)).lease
    second = await one.fetch(key(1), enough, patience=0, beside=beside(Beside.NOW))
    lease.stall(stuck=True)
    third = [
        await pod.fetch(key(1), enough, patience=0, beside=beside(when))
        for when in (Beside.STUCK, Beside.NOW)
        for pod in (one, other)
    ]

    assert (True, False) == (second.second, second.waited)
    assert [NOTHING] * 4 == third

    second.lease.release(failed=False)
    await until(lambda: not fleet.leased(key(1), second=True))
    again = await other.fetch(key(1), enough, patience=0, beside=beside(Beside.NOW))
    assert again.second


async def test_second_lease_that_failed(fleet: Fleet):
    """A second call that came to nothing is no word about the first: it is waited for, and nobody begins at once."""
    one, other = fleet.pod(), fleet.pod()
    lease = (await one.fetch(key(1), enough, patience=0)).lease
    second = (await one.fetch(key(1), enough, patience=0, beside=beside(Beside.NOW))).lease
    waiting = asyncio.create_task(other.fetch(key(1), enough, patience=LONG))
    await until(lambda: other.waits)
    second.release(failed=True)
    await until(lambda: not fleet.leased(key(1), second=True))

    assert NOTHING == await one.fetch(key(1), enough, patience=0, beside=beside(Beside.NOW))
    assert not waiting.done()

    lease.keep(entry(b"the first"))
    assert b"the first" == (await waiting).entry.body


async def test_no_longer_stuck(fleet: Fleet):
    """A holder that goes on after all is waited for; a lease that is not stuck, or gone, tells of nothing."""
    one, other = fleet.pod(), fleet.pod()
    lease = (await one.fetch(key(1), enough, patience=0)).lease
    for stuck in (True, True, False, False):
        lease.stall(stuck=stuck)
        await fleet.idle()
    found = await other.fetch(key(1), enough, patience=0, beside=beside(Beside.STUCK))

    assert NOTHING == found

    waiting = asyncio.create_task(other.fetch(key(1), enough, patience=LONG))
    await until(lambda: other.waits)
    lease.keep(entry())
    lease.stall(stuck=True)
    assert (await waiting).entry.body == entry().body


async def test_only_looking(fleet: Fleet):
    """Who only looks takes no lease, though there is one to be had; and hears of what another fetches."""
    one, other = fleet.pod(), fleet.pod()
    look = beside(Beside.LOOK)

    assert NOTHING == await one.fetch(key(1), enough, patience=LONG, beside=look)

    lease = (await other.fetch(key(1), enough, patience=0)).lease
    waiting = asyncio.create_task(one.fetch(key(1), enough, patience=LONG, beside=look))
    await until(lambda: one.waits)
    lease.keep(entry(b"an answer"))

    assert b"an answer" == (await waiting).entry.body


async def test_not_enough(fleet: Fleet):
    """An entry that doesn't suffice comes with the lease, or alone where another process has that; it is replaced."""
    one, other = fleet.pod(), fleet.pod()
    (await one.fetch(key(1), enough, patience=0)).lease.keep(entry(b"old"))
    await one.fetch(key(1), enough, patience=LONG)

    first = await one.fetch(key(1), never, patience=0)
    second = await other.fetch(key(1), never, patience=0)
    third = await other.fetch(key(1), enough, patience=0)
    waiting = asyncio.create_task(other.fetch(key(1), lambda found: found.body == b"new", patience=LONG))
    await until(lambda: other.waits)
    first.lease.keep(entry(b"new"))

    assert (b"old", True) == (first.entry.body, first.lease is not None)
    assert (b"old", None, False) == (second.entry.body, second.lease, second.waited)
    assert (b"old", None, False) == (third.entry.body, third.lease, third.waited)
    assert (b"new", True) == ((found := await waiting).entry.body, found.waited)


async def test_once(fleet: Fleet):
    """A lease is given back once: what comes after changes nothing."""
    one, other = fleet.pod(), fleet.pod()
    lease = (await one.fetch(key(1), enough, patience=0)).lease

    lease.keep(entry(b"kept"))
    lease.release(failed=True)
    lease.keep(entry(b"too late"))

    assert b"kept" == (await other.fetch(key(1), enough, patience=LONG)).entry.body


async def test_lost(fleet: Fleet):
    """Who lost the lease to another changes nothing any more; the other's answer is kept."""
    one, other, third = fleet.pod(), fleet.pod(), fleet.pod()
    lost = (await one.fetch(key(1), enough, patience=0)).lease
    await fleet.expire(key(1))
    lease = (await other.fetch(key(1), enough, patience=0)).lease
    waiting = asyncio.create_task(third.fetch(key(1), enough, patience=LONG))
    await until(lambda: third.waits)

    lost.keep(entry(b"of the one that lost it"))
    await one.close()
    lease.keep(entry(b"of the one that has it"))

    assert b"of the one that has it" == (await waiting).entry.body


async def test_life(fleet: Fleet):
    """What is kept lives as long as it may serve, stale or not, and no longer."""
    pod = fleet.pod()
    lease = (await pod.fetch(key(1), enough, patience=0)).lease

    lease.keep(entry(at=time.time() - 10, ttl=60, stale_while_revalidate=5, stale_if_error=30))
    await pod.fetch(key(1), enough, patience=LONG)

    assert 70 < await fleet.life(key(1)) <= 80


@pytest.mark.parametrize("skew", [300.0, -300.0], ids=["ahead", "behind"])
async def test_clocks(fleet: Fleet, skew: float):
    """Where the writer's clock is wrong, an entry lives in another process no longer than in the tier."""
    one, other = fleet.pod(now=lambda: time.time() + skew), fleet.pod()
    (await one.fetch(key(1), enough, patience=0)).lease.keep(entry(at=time.time() + skew, stale_if_error=40))

    found = (await other.fetch(key(1), enough, patience=LONG)).entry

    assert found.at + 60 + 40 <= time.time() + 100
    assert (60, 40) == (found.ttl, found.stale_if_error)


async def test_dead(fleet: Fleet):
    """An entry that may serve no more is not kept; who waited for it goes on alone."""
    one, other = fleet.pod(), fleet.pod()
    lease = (await one.fetch(key(1), enough, patience=0)).lease
    waiting = asyncio.create_task(other.fetch(key(1), enough, patience=LONG))
    await until(lambda: other.waits)

    lease.keep(entry(at=time.time() - 61))
    one.keep(key(2), entry(at=time.time() - 61))

    assert Fetched(None, None, waited=True) == await waiting
    await one.close()
    assert 0 == await fleet.life(key(1)) == await fleet.life(key(2))


async def test_keep(fleet: Fleet):
    """What is kept without a lease is there soon, in place of what was there."""
    one, other = fleet.pod(), fleet.pod()

    one.keep(key(1), entry(b"first"))
    one.keep(key(2), entry(b"other"))
    one.keep(key(1), entry(b"second"))
    await one.close()

    assert [b"second", b"other"] == [(await other.fetch(key(n), enough, patience=0)).entry.body for n in (1, 2)]


async def test_purged(fleet: Fleet):
    """A purged entry is as good as not there: it isn't served, its lease is to be had, and it is replaced."""
    purged: set[bytes] = set()
    one, other = (fleet.pod(admits=lambda _, found: found.body not in purged) for _ in range(2))
    (await one.fetch(key(1), enough, patience=0)).lease.keep(entry(b"old"))
    await one.fetch(key(1), enough, patience=LONG)

    purged.add(b"old")
    found = await other.fetch(key(1), enough, patience=0)
    found.lease.keep(entry(b"new"))

    assert found.entry is None
    assert b"new" == (await one.fetch(key(1), enough, patience=LONG)).entry.body


async def test_purged_meanwhile(fleet: Fleet):
    """What was purged while it was fetched is not kept, and one of those who wait fetches it anew."""
    purged: set[bytes] = set()
    one, other = (fleet.pod(admits=lambda _, found: found.body not in purged) for _ in range(2))
    lease = (await one.fetch(key(1), enough, patience=0)).lease
    waiting = asyncio.create_task(other.fetch(key(1), enough, patience=LONG))
    await until(lambda: other.waits)

    purged.add(b"old")
    lease.keep(entry(b"old"))
    one.keep(key(2), entry(b"old"))

    assert (await waiting).lease is not None
    await one.close()
    assert 0 == await fleet.life(key(1)) == await fleet.life(key(2))


async def test_bug(fleet: Fleet):
    """A bug of who judges is reported, never raised, and leaves no lease behind."""
    pod = fleet.pod()
    (await pod.fetch(key(1), enough, patience=0)).lease.keep(entry())
    await pod.fetch(key(1), enough, patience=LONG)

    found = await pod.fetch(key(1), lambda _: 1 // 0, patience=0)

    assert found.lease is None
    assert [ZeroDivisionError] == [type(error) for error in fleet.bugs]
    assert (await pod.fetch(key(1), never, patience=0)).lease is not None


async def test_bug_of_purges(fleet: Fleet):
    """Where it can't be told whether an entry was purged, it isn't served, and nothing is raised."""
    broken = False

    def admits(_: Key, __: Entry) -> bool:
        if broken:
            raise KeyError
        return True

    pod = fleet.pod(admits=admits)
    lease = (await pod.fetch(key(1), enough, patience=0)).lease
    pod.keep(key(2), entry())
    await until_kept(fleet, 2)
    broken = True

    lease.keep(entry())
    pod.keep(key(3), entry())
    found = [await pod.fetch(key(number), enough, patience=0) for number in (2, 3)]

    assert [None, None] == [each.entry for each in found]
    assert {KeyError} == {type(error) for error in fleet.bugs}


class _Cancelled:
    """
    *work*, which is cancelled when it awaits for the *step*-th time: before what it waits for happens, or, *late*, in
    the moment in which it has happened.
    """

    def __init__(self, work: Coroutine[Any, Any, Any], step: int, *, late: bool) -> None:
        self._work = work
        self._step = step
        self._late = late
        self.steps = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        resume, value = self._work.send, None
        try:
            while True:
                awaited = resume(value)
                now = self.steps == self._step
                self.steps += 1
                if now and not self._late:
                    asyncio.current_task().cancel()
                try:
                    value = yield awaited
                except BaseException as error:  # noqa: BLE001 - handed on
                    resume, value = self._work.throw, error
                else:
                    resume = self._work.send
                    if now and self._late:
                        resume, value = self._work.throw, asyncio.CancelledError()
        except StopIteration as done:
            return done.value


async def _run(work: _Cancelled) -> Any:
    return await work


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
@pytest.mark.parametrize("state", ["absent", "stale", "held"])
async def test_cancellation(fleet: Fleet, state: str, late: bool):
    """Wherever a fetch is cancelled, it leaves no lease behind, and nobody waits for ever."""
    one, other = fleet.pod(), fleet.pod()
    if state == "stale":
        one.keep(key(1), entry())
        await until_kept(fleet, 1)
    held = (await other.fetch(key(1), never, patience=0)).lease if state == "held" else None
    for step in range(100):
        cancelled = _Cancelled(one.fetch(key(1), never, patience=0.02), step, late=late)
        task = asyncio.create_task(_run(cancelled))
        await asyncio.wait([task])
        if not task.cancelled():
            if task.result().lease is not None:
                task.result().lease.release(failed=False)
            if cancelled.steps <= step:
                break
    else:
        pytest.fail("a fetch has more than 100 awaits")
    if held is not None:
        held.release(failed=False)

    assert (await other.fetch(key(1), never, patience=LONG)).lease is not None


async def until_kept(fleet: Fleet, number: int) -> None:
    """Wait until there is an entry of that key."""
    while not await fleet.life(key(number)):  # noqa: ASYNC110 - the tier has no events
        await asyncio.sleep(0.001)
