"""The queue of what waits for the disk, and bodies that wait in it."""

import asyncio
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.memory_budget import Ledger
from sidecar.net.inbound import disk_queue
from sidecar.net.inbound.body import FLUSH, OBSERVED, Collection
from sidecar.net.inbound.disk_queue import HIGH, LOW, DiskQueue
from sidecar.net.inbound.spool import Spools

PIECE = 64 * 1024


class Sight:
    """An observer that has seen what it has seen."""

    def __init__(self):
        self.seen = b""

    def feed(self, chunk):
        self.seen += chunk


@pytest.fixture
def stuck():
    """Spools whose disk does nothing until ``go`` is set."""
    spools, go = Spools(""), threading.Event()
    spools._thread.submit(go.wait)
    yield spools, go
    go.set()
    spools.close()


def collection(spools, size=None, observe=None, changed=lambda: None):
    """A body for which memory has no room."""
    return Collection(
        size, limit=1 << 30, ledger=Ledger(0), spools=spools, observe=observe, changed=changed
    )  # fmt: skip


async def until_settled(*bodies):
    async with asyncio.timeout(60):
        while not all(body.settled for body in bodies):  # noqa: ASYNC110  a future of the loop is done meanwhile
            await asyncio.sleep(0)


@given(st.lists(st.tuples(st.sampled_from(["add", "written", "leave"]), st.integers(0, 3), st.integers(0, 3 * LOW))))
def test_what_waits(steps):
    """It is the sum of what bodies have; all but the one that changes it are notified of each change, in order."""
    queue, notified, had = DiskQueue(), [], {}
    bodies = [lambda number=number: notified.append((number, queue.full)) for number in range(4)]
    for what, number, size in steps:
        before, notified[:] = queue.full, []
        if what == "add":
            queue.add(bodies[number], size)
            had[number] = had.get(number, 0) + size
        elif what == "written":
            done = min(size, had.get(number, 0))
            queue.written(bodies[number], done)
            if number in had:
                had[number] -= done
        else:
            queue.leave(bodies[number])
            had.pop(number, None)

        waiting = sum(had.values())
        assert waiting == queue.waiting
        assert queue.full == (waiting > (LOW if before else HIGH))
        assert notified == ([] if before == queue.full else [(other, queue.full) for other in had if other != number])


async def test_many_bodies_on_a_slow_disk(stuck):
    """Their senders wait once the queue is full, also those whose bodies are small; the disk gets all bytes."""
    spools, go = stuck
    data = os.urandom(PIECE)
    count = HIGH // PIECE + 1
    settled = asyncio.Event()
    bodies = [collection(spools, changed=lambda: spools.queue.full or settled.set()) for _ in range(count)]
    for body in bodies[:-1]:
        body.add(data)
        assert not body.backed_up
    assert all(body.settled for body in bodies[:-1])
    bodies[-1].add(data)

    assert all(body.backed_up for body in bodies)
    assert not any(body.settled for body in bodies)
    late = collection(spools, size=3 * PIECE)
    assert late.backed_up

    go.set()
    await settled.wait()
    assert not any(body.backed_up for body in [*bodies, late])
    for body in [*bodies, late]:
        body.add(data)
        body.end()
    await until_settled(*bodies, late)
    files = [body.body() for body in bodies]
    assert 0 == spools.queue.waiting
    assert [2 * data] * count == [b"".join([chunk async for chunk in file.chunks()]) for file in files]
    for body in [*bodies, late]:
        body.close()


@pytest.mark.parametrize("end", ["close", "overflow"])
async def test_leaving_the_queue(stuck, end):
    """A body that is given up, or streams on, makes room for the others."""
    spools, _ = stuck
    turns = []
    large, other = collection(spools, 2 * HIGH), collection(spools, PIECE, changed=lambda: turns.append(None))
    large.add(bytes(HIGH + 1))
    assert other.backed_up
    if end == "close":
        large.close()
    else:
        large._limit = HIGH
        large.add(b"x")

    assert (False, 0, 2) == (other.backed_up, spools.queue.waiting, len(turns))
    for body in (large, other):
        body.close()


@pytest.mark.parametrize("size", [PIECE, OBSERVED + 1], ids=["small", "large"])
async def test_observed_on_a_slow_disk(stuck, size):
    """What goes to the disk early has been seen; a body that has stayed small is not read by an observer."""
    spools, go = stuck
    rest, observers = bytes(HIGH + 1), []

    def observe():
        observers.append(Sight())
        return observers[-1]

    filler, body = collection(spools, len(rest)), collection(spools, observe=observe)
    filler.add(rest)
    data = os.urandom(size)
    for at in range(0, size, PIECE // 2):
        body.add(data[at : at + PIECE // 2])
    body.end()
    go.set()
    await until_settled(body)

    assert [data] == [sight.seen for sight in observers]
    assert body.observer is (observers[0] if size > OBSERVED else None)
    assert data == b"".join([chunk async for chunk in body.body().chunks()])
    for each in (filler, body):
        each.close()


def test_bounds():
    """A body alone is written in its usual pieces before the queue is full, and when it has room again."""
    assert FLUSH < disk_queue.LOW < disk_queue.HIGH
