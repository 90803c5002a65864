"""The queue of writes that nobody waits for: its bounds, its order, its end."""

from __future__ import annotations

import asyncio

from sidecar.core.model import Entry, Key
from sidecar.store.write_behind import WriteBehind
from tests.store.remotes import Tasks, entry, key, until


class Slow:
    """Writes when it is let."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun: list[Key] = []
        self.written: list[tuple[Key, bytes]] = []
        self.keeps = True

    async def __call__(self, key: Key, entry: Entry) -> bool:
        self.begun.append(key)
        await self.gate.wait()
        self.written.append((key, entry.body))
        return self.keeps


async def test_order():
    """Oldest first; a newer entry of a key takes the place of the one that waits, and its turn."""
    write = Slow()
    behind = WriteBehind(write, spawn=Tasks().spawn)
    for number, body in ((1, b"a"), (2, b"b"), (3, b"c"), (2, b"d")):
        behind.put(key(number), entry(body))

    write.gate.set()
    await behind.close(60)

    assert [(key(1), b"a"), (key(2), b"d"), (key(3), b"c")] == write.written
    assert (3, 0, 0, 0) == (behind.written, behind.drops, behind.depth, behind.bytes)


async def test_number():
    """No more than so many wait; what is refused is counted, and a newer entry of one that waits is not refused."""
    write = Slow()
    behind = WriteBehind(write, spawn=Tasks().spawn, max_entries=2)

    kept = [behind.put(key(number), entry()) for number in (1, 2, 3, 2)]

    assert [True, True, False, True] == kept
    assert (2, 1) == (behind.depth, behind.drops)
    write.gate.set()
    await behind.close(60)


async def test_bytes():
    """No more bytes than that; those of an entry replaced or being written count no more."""
    write = Slow()
    behind = WriteBehind(write, spawn=Tasks().spawn, max_bytes=3 * entry().size)
    big = entry(bytes(2 * entry().size - len(entry().headers[0][0]) - len(entry().headers[0][1])))

    kept = [behind.put(key(1), big), behind.put(key(2), big), behind.put(key(1), entry()), behind.put(key(2), big)]

    assert [True, False, True, True] == kept
    assert 3 * entry().size == behind.bytes
    await until(lambda: write.begun)
    assert 2 * entry().size == behind.bytes
    write.gate.set()
    await behind.close(60)
    assert 0 == behind.bytes


async def test_refused():
    """What the write did not keep is counted among what was dropped."""
    write = Slow()
    write.keeps = False
    write.gate.set()
    behind = WriteBehind(write, spawn=Tasks().spawn)

    behind.put(key(1), entry())
    await behind.close(60)

    assert (0, 1) == (behind.written, behind.drops)


async def test_end():
    """What isn't written in time at the end is dropped."""
    write = Slow()
    tasks = Tasks()
    behind = WriteBehind(write, spawn=tasks.spawn)
    for number in (1, 2, 3):
        behind.put(key(number), entry())
    await until(lambda: write.begun)

    await behind.close(0.01)
    await tasks.cancel()

    assert [] == write.written
    assert (2, 0, 0) == (behind.drops, behind.depth, behind.bytes)


async def test_again():
    """It goes on after it has been empty."""
    write = Slow()
    write.gate.set()
    behind = WriteBehind(write, spawn=Tasks().spawn)

    for number in (1, 2):
        behind.put(key(number), entry())
        await until(lambda wanted=number: wanted == behind.written)

    assert [key(1), key(2)] == write.begun
    await behind.close(60)


async def test_flush():
    """Whoever waits for it goes on when all is written, the entry under way too; more may come afterwards."""
    write = Slow()
    behind = WriteBehind(write, spawn=Tasks().spawn)
    await behind.flush()
    for number in (1, 2):
        behind.put(key(number), entry())
    await until(lambda: write.begun)
    flushing = asyncio.ensure_future(behind.flush())
    await asyncio.sleep(0)
    before = behind.unwritten, flushing.done()
    write.gate.set()
    await flushing

    assert (2, False) == before
    assert (0, 2) == (behind.unwritten, behind.written)
    assert behind.put(key(3), entry())
    await behind.close(60)
    assert 3 == behind.written
