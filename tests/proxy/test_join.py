"""Joining a flight with tags, what is for whom, and leaving: when the record is told, and what it says."""

import asyncio

import pytest

from sidecar.core.cache.policy import Serve
from sidecar.core.model import Entry, Form, Outcome
from sidecar.proxy.flight.opening import Opening
from sidecar.proxy.join import Coalescer
from sidecar.proxy.request import FetchMode
from tests.fetched import EMBEDDINGS, NOW, Answer, completion, whole

EMBED = {"model": "text-embedding-3-small", "input": "box"}


@pytest.fixture
def records():
    return []


@pytest.fixture
def coalescer(desks, records):
    """Gives a boarding for a desk."""

    def make(desk):
        return Coalescer(
            desk.flights,
            desk.origin,
            desk.access,
            desk.operations.acceptance,
            record=records.append,
            now=lambda: NOW,
            clock=desk.clock,
        )

    return make


async def board_and_leave(coalescer, desk, fetch):
    """Have a call sent, and leave it."""
    _, reader = desk.fly(fetch)
    await desk.settle()
    coalescer(desk).leave(fetch.draft, reader)


async def test_call_goes_on(desks, coalescer, records):
    """The caller's time ends when it leaves; what the call cost is told when it is over."""
    go = asyncio.Event()
    desk = desks(go, whole("seven"))
    fetch = desk.fetch_of(EMBED, target=EMBEDDINGS)
    await board_and_leave(coalescer, desk, fetch)
    fetch.draft.ended = 9.0

    assert ([], 1, 0) == (records, fetch.draft.running, fetch.draft.attempts)

    go.set()
    await desk.settle()
    [record] = records

    assert (9.0, 1, 200) == (record.seconds, record.attempts, record.upstream_status)


async def test_call_is_over_first(desks, coalescer, records):
    """Who goes on to another way has one record, and that at its own end."""
    go = asyncio.Event()
    desk = desks(go, whole("seven"))
    fetch = desk.fetch_of(EMBED, target=EMBEDDINGS)
    await board_and_leave(coalescer, desk, fetch)
    go.set()
    await desk.settle()

    assert ([], 0, 1) == (records, fetch.draft.running, fetch.draft.attempts)


async def test_cancelled_call(desks, coalescer, records):
    """A call that is given up because its caller left was made, and says so."""
    desk = desks(asyncio.Event())
    fetch = desk.fetch_of()
    await board_and_leave(coalescer, desk, fetch)
    fetch.draft.ended = 9.0
    await desk.settle()

    assert [1] == [record.attempts for record in records]


async def test_several_calls(desks, coalescer, records):
    """A caller that has left two calls behind has its record at the end of the last."""
    first, second = asyncio.Event(), asyncio.Event()
    desk = desks(first, second, whole("one"), whole("two"))
    fetch = desk.fetch_of(EMBED, target=EMBEDDINGS)
    for _ in range(2):
        await board_and_leave(coalescer, desk, fetch)
    fetch.draft.ended = 9.0
    first.set()
    await desk.settle()

    assert ([], 1) == (records, fetch.draft.running)

    second.set()
    await desk.settle()

    assert [2] == [record.attempts for record in records]


async def test_nothing_is_owed(desks, coalescer, records):
    """A caller that has had all tells its own record."""
    desk = desks(Answer(completion()))
    fetch = desk.fetch_of()
    _, reader = desk.fly(fetch)
    await reader.opening()
    while await reader.read():
        pass
    coalescer(desk).leave(fetch.draft, reader)

    assert ([], 0, 1) == (records, fetch.draft.running, fetch.draft.attempts)


ENTRY = Entry(200, (), b"{}", Form.WHOLE, "openai", "all", "gpt-4o", at=NOW, ttl=60.0, stale_if_error=600.0)


def tagged(desk, *tags, number=1, **fields):
    more = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    return desk.fetch_of(fields={b"x-sidecar-tags": ",".join(tags).encode(), **more}, number=number)


async def test_joining_with_tags(desks, coalescer):
    """Until the answer is kept it takes up the tags of those who join; from then on they are noted beside it."""
    desk = desks()
    join = coalescer(desk).join
    first, collapsed = join(desk.fetch_of(), FetchMode.COALESCE, proven=True)
    flight = first.flight
    joined = [collapsed, join(tagged(desk, "a", "b"), FetchMode.COALESCE, proven=True)[1]]
    desk.store.put(desk.fetch_of().key, ENTRY)
    flight.kept = ENTRY
    joined.append(join(tagged(desk, "c"), FetchMode.COALESCE, proven=True)[1])

    assert ([False, True, True], {"a", "b"}, 3) == (joined, flight.tags, flight.readers)
    assert ("c",) == desk.store.tags(desk.fetch_of().key)


async def test_joining_with_a_tag_that_cannot_be_noted(desks, coalescer):
    """Who could not be found by a purge of its tag does not join."""
    desk = desks()
    join = coalescer(desk).join
    first, _ = join(desk.fetch_of(), FetchMode.COALESCE, proven=True)
    first.flight.kept = ENTRY
    desk.store._log.note = lambda *_: False
    reader, collapsed = join(tagged(desk, "a"), FetchMode.COALESCE, proven=True)

    assert not collapsed
    assert reader.flight is not first.flight


@pytest.mark.parametrize(
    ("outcome", "collapsed", "room", "expected", "noted"),
    [
        pytest.param(Outcome.HIT_REDIS, False, True, None, ("a",), id="found"),
        pytest.param(Outcome.HIT_REDIS, True, True, None, ("a",), id="found-by-another"),
        pytest.param(Outcome.HIT_REDIS, False, False, FetchMode.BYPASS_STORE, (), id="found-no-room"),
        pytest.param(Outcome.STALE_ERROR, True, True, None, ("a",), id="a-spare-of-another"),
        pytest.param(Outcome.STALE_ERROR, True, False, FetchMode.BYPASS_STORE, (), id="a-spare-of-another-no-room"),
        pytest.param(Outcome.STALE_ERROR, False, False, None, (), id="its-own-spare-was-noted-before"),
        pytest.param(None, True, False, None, (), id="the-service's-answer"),
    ],
)
async def test_tags_of_what_was_found(outcome, collapsed, room, expected, noted, desks, coalescer):
    """An entry that serves instead of an answer has the caller's tags noted, or does not serve."""
    desk = desks()
    fetch = tagged(desk, "a")
    desk.store.put(fetch.key, ENTRY)
    if not room:
        desk.store._log.note = lambda *_: False
    opening = Opening(200, (), (), Form.WHOLE)
    if outcome is not None:
        opening = Opening(200, (), (), Form.WHOLE, found=Serve(ENTRY, 0, 60), outcome=outcome)

    assert expected is coalescer(desk).divert(fetch, opening, collapsed=collapsed, proven=False)
    assert noted == desk.store.tags(fetch.key)


@pytest.mark.parametrize(("age", "expected"), [(5, None), (60, FetchMode.PRIVATE)])
async def test_found_before_the_clock_was_set_back(age, expected, desks, coalescer):
    """An entry is no younger to who has joined than it was when it was found."""
    desk = desks()
    opening = Opening(200, (), (), Form.WHOLE, found=Serve(ENTRY, age, 60 - age))

    assert expected is coalescer(desk).divert(desk.fetch_of(), opening, collapsed=True, proven=False)
