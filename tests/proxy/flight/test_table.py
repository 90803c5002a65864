"""The table of flights: one a key, what becomes of abandoned ones, and that every story ends with nothing left."""

import asyncio
from itertools import count

import pytest

from sidecar.core.cache.purges import ALL, Scope, ScopeKind
from sidecar.errors import Cause, Refused, UpstreamFailed
from sidecar.proxy.flight.reader import Reader
from sidecar.proxy.flight.table import FINISHED_FOR_NOBODY

KIB = 1024


class CancelledAt:
    """Runs *coroutine*, and cancels the task it runs in when it waits for the *at*-th time."""

    def __init__(self, coroutine, at):
        self.coroutine = coroutine
        self.at = at
        self.waits = 0

    def __await__(self):
        steps, error = self.coroutine.__await__(), None
        while True:
            try:
                future = next(steps) if error is None else steps.throw(error)
            except StopIteration as stop:
                return stop.value
            error = None
            self.waits += 1
            if self.waits == self.at:
                asyncio.current_task().cancel()
            try:
                yield future
            except BaseException as thrown:  # noqa: BLE001 - it is handed on
                error = thrown


async def ran(awaitable):
    return await awaitable


def fetching(field, trail=None, *, sent=True, chunks=4, size=100):
    """A fetch that waits before each of its steps, and leaves its end in *trail*."""

    async def fetch(flight):
        await asyncio.sleep(0)
        flight.sent = sent
        await asyncio.sleep(0)
        flight.open(field.opening)
        for _ in range(chunks):
            await asyncio.sleep(0)
            await flight.push(bytes(size))
        await asyncio.sleep(0)
        if trail is not None:
            trail.append("whole")

    return fetch


STORIES = {
    "whole": ({}, {}),
    "generating": ({}, {"generating": True}),
    "never sent": ({}, {"sent": False}),
    "window": ({"limit": 100}, {"size": 200 * KIB}),
    "ledger refuses": ({"memory": 300 * KIB}, {"size": 200 * KIB}),
}


@pytest.mark.parametrize(("bounds", "call"), STORIES.values(), ids=STORIES)
@pytest.mark.parametrize("victim", ["owner", "other", "only", "fetch"])
async def test_cancelled_at_every_await(airfields, bounds, call, victim):
    """Whoever is cancelled at whichever await: nothing is left, and who stays gets the whole answer or an error."""
    generating = call.get("generating", False)
    how = {name: value for name, value in call.items() if name != "generating"}
    for at in count(1):
        field = airfields(**bounds)
        whole = 4 * how.get("size", 100)
        fetch = fetching(field, **how)
        cancelled = None
        if victim == "fetch":

            def flying(flight, at=at, fetch=fetch):
                nonlocal cancelled
                cancelled = CancelledAt(fetch(flight), at)
                return cancelled

            flight = field.lead(flying, generating=generating)
        else:
            flight = field.lead(fetch, generating=generating)
        readers = [field.read(Reader(flight)) for _ in range(1 if victim == "only" else 2)]
        if victim != "fetch":
            index = 1 if victim == "other" else 0
            cancelled = readers[index] = CancelledAt(readers[index], at)
        tasks = [field.spawn(ran(reader), name="reader") for reader in readers]
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        await field.settle()

        for reader, end in zip(readers, ends, strict=True):
            if victim == "fetch" and cancelled.waits >= at:
                assert isinstance(end, UpstreamFailed)
                assert Cause.DRAINING == end.cause

            elif reader is cancelled and cancelled.waits >= at:
                assert isinstance(end, asyncio.CancelledError)

            else:
                assert whole == len(end)

        field.check()

        assert [] == field.bugs

        if cancelled.waits < at:
            break

    assert at > 1


@pytest.mark.parametrize(
    ("sent", "generating", "expected"),
    [
        pytest.param(True, False, ["whole"], id="sent: finished for nobody"),
        pytest.param(True, True, [], id="generating: cancelled"),
        pytest.param(False, False, [], id="not sent: cancelled"),
        pytest.param(False, True, [], id="neither: cancelled"),
    ],
)
async def test_abandoned(airfield, sent, generating, expected):
    """A-5: what becomes of a call when its last reader leaves."""
    trail = []
    flight = airfield.lead(fetching(airfield, trail, sent=sent), generating=generating)
    reader = Reader(flight)
    await reader.opening()
    reader.leave()

    assert bool(expected) == (airfield.flights.find("key") is flight)

    await airfield.settle()

    assert expected == trail


async def test_finished_for_nobody_at_most(airfield):
    """No more than sixteen calls are finished for nobody; one that is may be joined again."""
    go = asyncio.Event()
    ends = []

    async def fetch(flight):
        flight.sent = True
        flight.open(airfield.opening)
        await go.wait()
        await flight.push(b"answer")
        ends.append(flight.key)

    readers = [Reader(airfield.lead(fetch, key)) for key in range(FINISHED_FOR_NOBODY + 2)]
    await airfield.settle()
    for reader in readers:
        reader.leave()
    await airfield.settle()

    assert "<Flights 16 flying, 16 joinable, 16 for nobody>" == repr(airfield.flights)

    again = airfield.reading(Reader(airfield.flights.find(0)))
    go.set()

    assert b"answer" == await again
    await airfield.settle()

    assert list(range(FINISHED_FOR_NOBODY)) == ends


async def test_cancelled_before_its_first_step(airfield):
    """A flight whose only reader leaves at once never starts, and lands."""
    started = []

    async def fetch(flight):
        started.append(flight)

    flight = airfield.lead(fetch)
    Reader(flight).leave()

    assert airfield.flights.find("key") is None

    await airfield.settle()

    assert [] == started
    assert Cause.DRAINING == flight.error.cause


async def test_shutdown(airfield):
    """Flights cancelled from outside tell their readers that the sidecar shuts down."""

    async def fetch(_):
        await asyncio.Event().wait()

    flights = [airfield.lead(fetch, key) for key in range(3)]
    readers = [airfield.reading(Reader(flight)) for flight in flights]
    flights[0].task.cancel()
    await airfield.settle()
    flights[1].task.cancel()
    flights[2].task.cancel()
    ends = await asyncio.gather(*readers, return_exceptions=True)

    assert [Cause.DRAINING] * 3 == [end.cause for end in ends]


async def test_newer_flight_takes_the_place(airfield):
    """A lead under a key that flies takes its place; both complete for their own readers, the earlier ends alone."""
    go, later_go = asyncio.Event(), asyncio.Event()

    def fetch_of(answer, go):
        async def fetch(flight):
            flight.open(airfield.opening)
            await go.wait()
            await flight.push(answer)

        return fetch

    earlier = airfield.lead(fetch_of(b"earlier", go))
    first = airfield.reading(Reader(earlier))
    later = airfield.lead(fetch_of(b"later", later_go))
    second = airfield.reading(Reader(later))
    await airfield.settle()

    assert airfield.flights.find("key") is later
    assert (True, False) == (earlier.superseded, later.superseded)
    assert not earlier.joinable

    go.set()

    assert b"earlier" == await first
    assert airfield.flights.find("key") is later

    third = airfield.reading(Reader(later))
    later_go.set()

    assert [b"later", b"later"] == await asyncio.gather(second, third)


OCR, CHAT = Scope(ScopeKind.TAG, "ocr"), Scope(ScopeKind.ROUTE, "chat")


@pytest.mark.parametrize(
    ("purged", "scopes", "detached"),
    [
        pytest.param([OCR], (ALL, OCR, CHAT), True, id="one of its scopes"),
        pytest.param([OCR, CHAT], (ALL, CHAT), True, id="one of several"),
        pytest.param([OCR], (ALL, CHAT), False, id="another scope"),
        pytest.param([ALL], (ALL, CHAT), True, id="all"),
        pytest.param([ALL], (), True, id="all, and no scope known"),
        pytest.param([], (ALL, CHAT), False, id="nothing"),
    ],
)
async def test_detached_by_a_purge(airfield, purged, scopes, detached):
    """What flies when its scope is purged serves those who wait, once; nobody joins, and it is not to be kept."""
    go = asyncio.Event()

    async def fetch(flight):
        flight.open(airfield.opening)
        await go.wait()
        await flight.push(b"answer")

    flight = airfield.flights.lead("key", fetch, generating=False, scopes=lambda: scopes)
    reader = airfield.reading(Reader(flight))
    await airfield.settle()

    assert int(detached) == airfield.flights.detach(purged)
    assert 0 == airfield.flights.detach(purged)
    assert (detached, not detached) == (flight.superseded, flight.joinable)
    assert (None if detached else flight) is airfield.flights.find("key")

    later = airfield.lead(fetch)
    second = airfield.reading(Reader(later))
    go.set()

    assert [b"answer"] * 2 == await asyncio.gather(reader, second)
    assert not later.superseded


async def test_outdated(airfield):
    """What flies to read a target that is changed serves those who wait, once; nobody joins, and it is not kept."""
    go = asyncio.Event()

    async def fetch(flight):
        flight.open(airfield.opening)
        await go.wait()
        await flight.push(b"answer")

    flights = [
        airfield.flights.lead(number, fetch, generating=False, target=target)
        for number, target in enumerate([b"a", b"b", b""])
    ]
    readers = [airfield.reading(Reader(flight)) for flight in flights]
    await airfield.settle()
    airfield.flights.outdate(b"a")
    airfield.flights.outdate(b"a")
    go.set()

    assert [True, False, False] == [flight.superseded for flight in flights]
    assert [False, True, True] == [flight.joinable for flight in flights]
    assert [b"answer"] * 3 == await asyncio.gather(*readers)


async def test_detached_with_nobody_waiting(airfield):
    """A call that is finished only to be kept is not, when what it brings must not be kept."""
    trail = []
    flight = airfield.lead(fetching(airfield, trail))
    reader = Reader(flight)
    await reader.opening()
    reader.leave()

    assert "<Flights 1 flying, 1 joinable, 1 for nobody>" == repr(airfield.flights)
    assert 1 == airfield.flights.detach([ALL])

    await airfield.settle()

    assert [] == trail


async def test_private_flight_is_detached(airfield):
    """What nobody can join can be kept all the same, and so is told of a purge."""
    flight = airfield.flights.lead(None, fetching(airfield), generating=False, scopes=lambda: (ALL, OCR))
    reader = airfield.reading(Reader(flight))

    assert 1 == airfield.flights.detach([OCR])
    assert flight.superseded
    assert 400 == len(await reader)


async def test_private_flight(airfield):
    """A flight without a key is found by nobody, and is not finished for nobody."""
    trail = []
    flight = airfield.lead(fetching(airfield, trail), None)
    reader = Reader(flight)

    assert airfield.flights.find(None) is None
    assert 1 == len(airfield.flights)

    await reader.opening()
    reader.leave()
    await airfield.settle()

    assert [] == trail


@pytest.mark.parametrize("opened", [False, True], ids=["before the head", "after the head"])
async def test_bug_in_a_fetch(airfield, opened):
    """A bug reaches the readers as an internal error, and the log."""
    bug = ValueError("a bug")

    async def fetch(flight):
        if opened:
            flight.open(airfield.opening)
        raise bug

    with pytest.raises(UpstreamFailed) as caught:
        await airfield.read(Reader(airfield.lead(fetch)))

    assert Cause.INTERNAL == caught.value.cause
    assert [bug] == airfield.bugs
    airfield.bugs.clear()


async def test_fetch_that_opens_nothing(airfield):
    """A fetch that ends without a head is a bug, and hangs nobody."""

    async def fetch(_):
        pass

    with pytest.raises(UpstreamFailed):
        await airfield.read(Reader(airfield.lead(fetch)))

    assert [AssertionError] == [type(bug) for bug in airfield.bugs]
    airfield.bugs.clear()


async def test_refusal_reaches_readers_as_it_is(airfield):
    """Errors of ours pass through unchanged, and are no bugs."""
    refused = Refused(503, "no-credential", "none")

    async def fetch(_):
        raise refused

    with pytest.raises(Refused) as caught:
        await airfield.read(Reader(airfield.lead(fetch)))

    assert refused is caught.value


def test_marks_expire(airfields):
    """A mark holds until its time, may be renewed, and is taken back by a shareable answer."""
    flights = airfields().flights
    flights.mark("key", 100.0)

    assert flights.marked("key", 99.9)
    assert not flights.marked("other", 0.0)
    assert not flights.marked("key", 100.0)
    assert not flights.marked("key", 99.0)  # it is forgotten

    flights.mark("key", 100.0)
    flights.mark("key", 200.0)

    assert flights.marked("key", 150.0)

    flights.unmark("key")
    flights.unmark("key")

    assert not flights.marked("key", 150.0)


def test_marks_are_bounded(airfields):
    """No more marks are kept than are allowed; the oldest goes first, a renewed one is new."""
    flights = airfields(marks=3).flights
    for key in ("a", "b", "c", "a", "d"):
        flights.mark(key, 100.0)

    assert [True, False, True, True] == [flights.marked(key, 0.0) for key in "abcd"]


async def test_reserved(airfield):
    """A flight may be joined before its fetch begins, and whoever has joined gets all of it."""
    flight = airfield.flights.reserve("key", generating=True)
    first = airfield.reading(Reader(flight))
    await airfield.settle()
    second = airfield.reading(Reader(airfield.flights.find("key")))
    airfield.flights.launch(flight, fetching(airfield))

    assert [400, 400] == [len(body) for body in await asyncio.gather(first, second)]


async def test_grounded(airfield):
    """One that needs no fetch is found no more; the next one under its key is another."""
    flight = airfield.flights.reserve("key", generating=True)
    reader = Reader(flight)
    later = airfield.flights.reserve("key", generating=True)
    airfield.flights.ground(flight)

    assert later is airfield.flights.find("key")

    airfield.flights.ground(later)
    reader.leave()

    assert airfield.flights.find("key") is None
    assert 0 == len(airfield.flights)


async def test_reserved_and_purged(airfield):
    """A purge detaches what has not begun, too."""
    scopes = (ALL, Scope(ScopeKind.TAG, "ocr"))
    flight = airfield.flights.reserve("key", generating=True, scopes=lambda: scopes)
    reader = Reader(flight)

    assert 1 == airfield.flights.detach([scopes[1]])
    assert airfield.flights.find("key") is None
    assert flight.superseded

    reader.leave()
    airfield.flights.ground(flight)
