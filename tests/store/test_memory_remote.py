"""The tier without Redis: what the contract doesn't say. See test_remote for what it does."""

from __future__ import annotations

import asyncio
from time import monotonic

from sidecar.store.memory_remote import MARK_SECONDS, MOST, MemoryRemote, SharedTier
from tests.store.remotes import always, enough, entry, key, never


class Time:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def remote(time: Time, shared: SharedTier | None = None) -> MemoryRemote:
    return MemoryRemote(shared or SharedTier(time), admits=always, now=time, report=lambda _: None)


async def test_expiry():
    """An entry is gone when its time is up."""
    time = Time()
    pod = remote(time)
    pod.keep(key(1), entry(at=time.now, ttl=60, stale_if_error=30))

    time.now += 89.9
    before = await pod.fetch(key(1), enough, patience=0)
    time.now += 0.1
    after = await pod.fetch(key(1), enough, patience=0)

    assert (True, False) == (before.entry is not None, after.entry is not None)


async def test_mark():
    """It is forgotten after a while that there was no answer to share."""
    time = Time()
    pod = remote(time)
    (await pod.fetch(key(1), enough, patience=0)).lease.release(failed=True)

    at_once = await pod.fetch(key(1), enough, patience=0)
    time.now += MARK_SECONDS
    later = await pod.fetch(key(1), enough, patience=0)

    assert (False, True) == (at_once.lease is not None, later.lease is not None)


async def test_bound():
    """There is an end to what is kept: the oldest leave."""
    time = Time()
    shared = SharedTier(time)
    pod = remote(time, shared)

    for number in range(MOST + 2):
        pod.keep(key(number), entry(at=time.now))

    assert MOST == len(shared.entries)
    assert [False, False, True] == [key(number) in shared.entries for number in (0, 1, 2)]


async def test_nothing_left():
    """Those who waited leave nothing behind, whether they were woken, gave up or were cancelled."""
    shared = SharedTier(monotonic)
    pod = remote(Time(), shared)
    lease = (await pod.fetch(key(1), never, patience=0)).lease
    waiting = [asyncio.create_task(pod.fetch(key(1), never, patience=patience)) for patience in (0.01, 60, 60)]
    await asyncio.sleep(0)

    waiting[1].cancel()
    await asyncio.wait(waiting[:2])
    lease.release(failed=True)
    await asyncio.wait(waiting)

    assert ({}, {}) == (shared._waiting, shared.leases)
