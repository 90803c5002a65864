"""How long an answer is waited for."""

import asyncio

import pytest

from sidecar.redis_link.deadline import GRACE_TURNS, Deadline


async def turns(count):
    """As many turns of the loop."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_silence_ends_in_time():
    """What never comes is given up, and that is not our fault."""
    deadline = Deadline(0.0)
    with pytest.raises(TimeoutError):
        async with deadline:
            await asyncio.Event().wait()

    assert deadline.punctual


async def test_what_has_come_is_read():
    """An answer that is there at the deadline, and needs some turns of the loop to be read, is had."""
    async with Deadline(0.0) as deadline:
        await turns(GRACE_TURNS)

    assert not deadline.punctual


async def test_what_has_not_come_is_not_waited_for():
    """The turns are few."""
    with pytest.raises(TimeoutError):
        async with Deadline(0.0):
            await turns(100)


async def test_held_up():
    """A deadline that was past long ago when the process had time for it proves nothing."""
    deadline = Deadline(-1.0)
    with pytest.raises(TimeoutError):
        async with deadline:
            await asyncio.Event().wait()

    assert not deadline.punctual


async def test_expired():
    """It can be made to end before its time, once; when it is over that means nothing."""
    deadline = Deadline(60.0)
    asyncio.get_running_loop().call_soon(deadline.expire)
    asyncio.get_running_loop().call_soon(deadline.expire)
    with pytest.raises(TimeoutError):
        async with deadline:
            await asyncio.Event().wait()
    deadline.expire()

    assert not deadline.punctual


async def test_a_caller_who_leaves():
    """Cancellation from outside is no timeout."""

    async def wait():
        async with Deadline(60.0):
            await asyncio.Event().wait()

    waiting = asyncio.ensure_future(wait())
    await turns(2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
