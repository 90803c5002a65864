"""Who owns the tasks: none is lost, nor what it raises. What is done in a thread."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest

from sidecar.tasks import CONVERTED_IN_LOOP, SCANNED_IN_LOOP, Tasks, in_thread_if_large


@pytest.fixture
def bugs():
    return []


@pytest.fixture
def tasks(bugs):
    return Tasks(bugs.append)


async def fail():
    raise ValueError("a bug")


async def test_runs_unheld(tasks):
    """A task that waits for what nobody else knows is held nevertheless."""
    waited, done = [], asyncio.Event()

    async def work():
        waiter = asyncio.get_running_loop().create_future()
        waited.append((asyncio.current_task().get_name(), weakref.ref(waiter)))
        await waiter
        done.set()

    tasks.spawn(work(), name="work")
    await asyncio.sleep(0)
    gc.collect()
    [(name, waiter)] = waited

    assert ("work", "<Tasks 1 running>") == (name, repr(tasks))

    waiter().set_result(None)
    await asyncio.wait_for(done.wait(), 10)
    await asyncio.sleep(0)

    assert "<Tasks 0 running>" == repr(tasks)


async def test_report(tasks, bugs):
    """What a task raises is told of; that it was cancelled is not."""
    failing, waiting = tasks.spawn(fail(), name="failing"), tasks.spawn(asyncio.sleep(3600), name="waiting")
    await asyncio.wait([failing])
    waiting.cancel()
    await asyncio.wait([waiting])
    await asyncio.sleep(0)

    assert ["a bug"] == [str(bug) for bug in bugs]


async def test_cancel_some(tasks, bugs):
    """Those of a name, or all; it is waited for until they have cleaned up."""
    cleaned = []

    async def work(what):
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            cleaned.append(what)

    for what in ("a", "b", "a"):
        tasks.spawn(work(what), name=what)
    await asyncio.sleep(0)
    await tasks.cancel("a")

    assert ["a", "a"] == cleaned

    await tasks.cancel()
    await tasks.cancel()
    await asyncio.sleep(0)

    assert ["a", "a", "b"] == cleaned
    assert ([], "<Tasks 0 running>") == (bugs, repr(tasks))


async def test_cancel_one_that_fails(tasks, bugs):
    """One that raises while it is cancelled keeps none of the others from being waited for."""
    cleaned = []

    async def break_down():
        try:
            await asyncio.sleep(3600)
        finally:
            raise ValueError("while leaving")

    async def clean_up():
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(True)

    tasks.spawn(break_down(), name="one")
    tasks.spawn(clean_up(), name="two")
    await asyncio.sleep(0)
    await tasks.cancel()

    assert [True] == cleaned
    assert ["while leaving"] == [str(bug) for bug in bugs]


@pytest.mark.parametrize("most", [CONVERTED_IN_LOOP, SCANNED_IN_LOOP])
async def test_large_work_is_done_in_a_thread(most):
    """Work of *most* bytes is done in the loop, of one more in a thread. Its result and its error come back."""

    def work(*given, **named):
        if named:
            raise ValueError("a bug")
        return threading.current_thread() is threading.main_thread(), given

    assert (True, (1, 2)) == await in_thread_if_large(most, most, work, 1, 2)
    assert (False, (1, 2)) == await in_thread_if_large(most + 1, most, work, 1, 2)
    for size in (most, most + 1):
        with pytest.raises(ValueError, match="a bug"):
            await in_thread_if_large(size, most, work, named=1)
