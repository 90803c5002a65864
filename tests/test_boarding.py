"""Leaving a flight: when the record of a caller that has left is told, and what it says."""

import asyncio

import pytest

from sidecar.boarding import Boarding
from tests.fetched import EMBEDDINGS, NOW, Answer, completion, whole

EMBED = {"model": "text-embedding-3-small", "input": "box"}


@pytest.fixture
def records():
    return []


@pytest.fixture
def boarding(desks, records):
    """Gives a boarding for a desk."""

    def make(desk):
        return Boarding(
            desk.flights, desk.origin, desk.accepted, record=records.append, now=lambda: NOW, clock=desk.clock
        )

    return make


async def board_and_leave(boarding, desk, errand):
    """Have a call sent, and leave it."""
    _, reader = desk.fly(errand)
    await desk.settle()
    boarding(desk).leave(reader, errand.draft)


async def test_call_goes_on(desks, boarding, records):
    """The caller's time ends when it leaves; what the call cost is told when it is over."""
    go = asyncio.Event()
    desk = desks(go, whole("seven"))
    errand = desk.errand(EMBED, target=EMBEDDINGS)
    await board_and_leave(boarding, desk, errand)
    errand.draft.ended = 9.0

    assert ([], 1, 0) == (records, errand.draft.running, errand.draft.attempts)

    go.set()
    await desk.settle()
    [record] = records

    assert (9.0, 1, 200) == (record.seconds, record.attempts, record.upstream_status)


async def test_call_is_over_first(desks, boarding, records):
    """Who goes on to another way has one record, and that at its own end."""
    go = asyncio.Event()
    desk = desks(go, whole("seven"))
    errand = desk.errand(EMBED, target=EMBEDDINGS)
    await board_and_leave(boarding, desk, errand)
    go.set()
    await desk.settle()

    assert ([], 0, 1) == (records, errand.draft.running, errand.draft.attempts)


async def test_cancelled_call(desks, boarding, records):
    """A call that is given up because its caller left was made, and says so."""
    desk = desks(asyncio.Event())
    errand = desk.errand()
    await board_and_leave(boarding, desk, errand)
    errand.draft.ended = 9.0
    await desk.settle()

    assert [1] == [record.attempts for record in records]


async def test_several_calls(desks, boarding, records):
    """A caller that has left two calls behind has its record at the end of the last."""
    first, second = asyncio.Event(), asyncio.Event()
    desk = desks(first, second, whole("one"), whole("two"))
    errand = desk.errand(EMBED, target=EMBEDDINGS)
    for _ in range(2):
        await board_and_leave(boarding, desk, errand)
    errand.draft.ended = 9.0
    first.set()
    await desk.settle()

    assert ([], 1) == (records, errand.draft.running)

    second.set()
    await desk.settle()

    assert [2] == [record.attempts for record in records]


async def test_nothing_is_owed(desks, boarding, records):
    """A caller that has had all tells its own record."""
    desk = desks(Answer(completion()))
    errand = desk.errand()
    _, reader = desk.fly(errand)
    await reader.opening()
    while await reader.read():
        pass
    boarding(desk).leave(reader, errand.draft)

    assert ([], 0, 1) == (records, errand.draft.running, errand.draft.attempts)
