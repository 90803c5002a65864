"""What is read again and again: when, and what is told of what goes wrong with it."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.fleet import poll as following
from sidecar.fleet.poll import Alarm, Following
from tests.store.remotes import Tasks


class Source:
    """What is read: how often it was, and an event for the next time."""

    def __init__(self):
        self.reads = 0
        self.tasks = Tasks()
        self._read = asyncio.Event()

    async def exchange(self):
        await asyncio.sleep(0)
        self.reads += 1
        self._read.set()

    async def next(self):
        self._read.clear()
        await asyncio.wait_for(self._read.wait(), 10)

    def follow(self, *, poll=3600.0, draw=0.0):
        return Following(self.exchange, poll=lambda: poll, draw=lambda: draw, spawn=self.tasks.spawn, name="followed")


async def test_read_at_start():
    """What there is is known when the start is over; after that it is read where there is a reason to."""
    source = Source()
    follower = source.follow()

    assert "<Following followed, not started>" == repr(follower)

    await follower.start()
    for _ in range(10):
        await asyncio.sleep(0)

    assert 1 == source.reads
    assert "<Following followed>" == repr(follower)

    await follower.stop()


async def test_read_without_news():
    """It is read again after a while."""
    source = Source()
    follower = source.follow(poll=0.01)
    await follower.start()
    await source.next()
    await source.next()
    await follower.stop()

    assert source.reads >= 3


async def test_nudged():
    """News has it read at once, also before the start; all that comes meanwhile is one reading."""
    source = Source()
    follower = source.follow()
    follower.nudge()
    await follower.start()
    await source.next()
    for _ in range(5):
        follower.nudge()
    await source.next()
    for _ in range(10):
        await asyncio.sleep(0)

    assert 3 == source.reads

    await follower.stop()


async def test_spread(monkeypatch):
    """Where many hear the news at once, each waits for a part of a moment of its own."""
    source = Source()
    slept = []
    sleep = asyncio.sleep

    async def note(seconds):
        slept.append(seconds)
        await sleep(0)

    follower = source.follow(draw=0.5)
    await follower.start()
    monkeypatch.setattr(asyncio, "sleep", note)
    follower.nudge()
    await source.next()
    await follower.stop()

    assert following.SPREAD_SECONDS / 2 in slept


@pytest.mark.parametrize("started", [True, False])
async def test_stop(started):
    """No task is left, and nothing is read any more, however often it is stopped."""
    source = Source()
    follower = source.follow()
    if started:
        await follower.start()
    await follower.stop()
    await follower.stop()
    follower.nudge()
    for _ in range(10):
        await asyncio.sleep(0)

    assert int(started) == source.reads
    assert not source.tasks._tasks


def test_alarm():
    """A line for each thing that is wrong, once; again where it was over, or something else was wrong in between."""
    told = []
    alarm = Alarm(lambda event, /, *, level, fault: told.append((event, level, fault)), "log-fault")
    alarm.ring("one")
    alarm.ring("one")
    alarm.ring("two")
    alarm.ring("one")
    alarm.over()
    alarm.ring("one")
    alarm.bug(ValueError("of a secret"))

    assert ["one", "two", "one", "one", "ValueError"] == [fault for _, _, fault in told]
    assert {("log-fault", "error")} == {(event, level) for event, level, _ in told}
    assert "<Alarm log-fault: ValueError>" == repr(alarm)
