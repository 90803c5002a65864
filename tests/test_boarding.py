"""Joining a flight with tags, what is for whom, and leaving: when the record is told, and what it says."""

import asyncio

import pytest

from sidecar.boarding import Boarding
from sidecar.core.model import Entry, Form, Outcome
from sidecar.core.policy import Serve
from sidecar.errand import Way
from sidecar.flight.opening import Opening
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


ENTRY = Entry(200, (), b"{}", Form.WHOLE, "openai", "all", "gpt-4o", at=NOW, ttl=60.0, stale_if_error=600.0)


def tagged(desk, *tags, number=1, **fields):
    more = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    return desk.errand(fields={b"x-sidecar-tags": ",".join(tags).encode(), **more}, number=number)


async def test_joining_with_tags(desks, boarding):
    """Until the answer is kept it takes up the tags of those who join; from then on they are noted beside it."""
    desk = desks()
    board = boarding(desk).board
    first, collapsed = board(desk.errand(), Way.SHARED, proven=True)
    flight = first.flight
    joined = [collapsed, board(tagged(desk, "a", "b"), Way.SHARED, proven=True)[1]]
    desk.store.put(desk.errand().key, ENTRY)
    flight.kept = ENTRY
    joined.append(board(tagged(desk, "c"), Way.SHARED, proven=True)[1])

    assert ([False, True, True], {"a", "b"}, 3) == (joined, flight.tags, flight.readers)
    assert ("c",) == desk.store.tags(desk.errand().key)


async def test_joining_with_a_tag_that_cannot_be_noted(desks, boarding):
    """Who could not be found by a purge of its tag does not join."""
    desk = desks()
    board = boarding(desk).board
    first, _ = board(desk.errand(), Way.SHARED, proven=True)
    first.flight.kept = ENTRY
    desk.store._log.note = lambda *_: False
    reader, collapsed = board(tagged(desk, "a"), Way.SHARED, proven=True)

    assert not collapsed
    assert reader.flight is not first.flight


@pytest.mark.parametrize(
    ("outcome", "collapsed", "room", "expected", "noted"),
    [
        pytest.param(Outcome.HIT_REDIS, False, True, None, ("a",), id="found"),
        pytest.param(Outcome.HIT_REDIS, True, True, None, ("a",), id="found-by-another"),
        pytest.param(Outcome.HIT_REDIS, False, False, Way.PAST, (), id="found-no-room"),
        pytest.param(Outcome.STALE_ERROR, True, True, None, ("a",), id="a-spare-of-another"),
        pytest.param(Outcome.STALE_ERROR, True, False, Way.PAST, (), id="a-spare-of-another-no-room"),
        pytest.param(Outcome.STALE_ERROR, False, False, None, (), id="its-own-spare-was-noted-before"),
        pytest.param(None, True, False, None, (), id="the-service's-answer"),
    ],
)
async def test_tags_of_what_was_found(outcome, collapsed, room, expected, noted, desks, boarding):
    """An entry that serves instead of an answer has the caller's tags noted, or does not serve."""
    desk = desks()
    errand = tagged(desk, "a")
    desk.store.put(errand.key, ENTRY)
    if not room:
        desk.store._log.note = lambda *_: False
    opening = Opening(200, (), (), Form.WHOLE)
    if outcome is not None:
        opening = Opening(200, (), (), Form.WHOLE, found=Serve(ENTRY, 0, 60), outcome=outcome)

    assert expected is boarding(desk).divert(errand, opening, collapsed=collapsed, proven=False)
    assert noted == desk.store.tags(errand.key)


@pytest.mark.parametrize(("age", "expected"), [(5, None), (60, Way.ALONE)])
async def test_found_before_the_clock_was_set_back(age, expected, desks, boarding):
    """An entry is no younger to who has joined than it was when it was found."""
    desk = desks()
    opening = Opening(200, (), (), Form.WHOLE, found=Serve(ENTRY, age, 60 - age))

    assert expected is boarding(desk).divert(desk.errand(), opening, collapsed=True, proven=False)
