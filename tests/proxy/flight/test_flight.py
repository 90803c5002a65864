"""One fetch and its readers: who gets what, when, and what is held meanwhile."""

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.core.memory_budget import Ledger
from sidecar.core.model import Form, View
from sidecar.errors import Cause, UpstreamFailed
from sidecar.proxy.flight.flight import WINDOW, Flight
from sidecar.proxy.flight.opening import Opening
from sidecar.proxy.flight.reader import Reader

KIB = 1024
OPENING = Opening(200, (), (), Form.EVENTS)
BROKEN = UpstreamFailed(Cause.TRUNCATED)


def flight_of(*, limit=1024 * KIB, memory=64 * 1024 * KIB):
    """A flight on its own, fed by hand; its key is taken when it closes."""
    closed = []
    flight = Flight(
        "key",
        limit=limit,
        ledger=Ledger(memory),
        generating=True,
        on_close=closed.append,
        on_abandon=lambda _: False,
    )
    return flight, closed


def steps(coroutine):
    """Run *coroutine* to where it has to wait; True when it came to its end."""
    try:
        coroutine.send(None)
    except StopIteration:
        return True
    return False


def taken(reader):
    """All that *reader* can have without waiting."""
    flight, got = reader.flight, b""
    while chunk := flight.take(reader):
        got += chunk
    return got


async def test_one_fetch_for_a_hundred(airfield):
    """A-1: a hundred readers of one key get the same bytes out of one fetch."""
    fetched = []

    async def fetch(flight):
        fetched.append(flight)
        flight.open(airfield.opening)
        for number in range(50):
            await flight.push(b"%d," % number)
            await asyncio.sleep(0)

    flight = airfield.lead(fetch)
    answers = await asyncio.gather(*[airfield.reading(Reader(flight)) for _ in range(100)])

    assert [flight] == fetched
    assert {b"".join(b"%d," % number for number in range(50))} == set(answers)


async def test_late_reader_from_the_first_byte(airfield):
    """Who joins in the middle gets the answer from its beginning."""
    go = asyncio.Event()

    async def fetch(flight):
        flight.open(airfield.opening)
        await flight.push(b"one ")
        await go.wait()
        await flight.push(b"two")

    first = airfield.reading(Reader(airfield.lead(fetch)))
    await airfield.settle()
    late = airfield.reading(Reader(airfield.flights.find("key")))
    await airfield.settle()
    go.set()

    assert [b"one two", b"one two"] == await asyncio.gather(first, late)


async def test_pieces_of_a_late_reader():
    """A late reader catches up in pieces of at most 128 KiB, or one chunk where that is larger."""
    flight, _ = flight_of()
    flight.open(OPENING)
    owner = Reader(flight)
    for size in (50, 60, 40, 200, 1):
        await flight.push(bytes(size * KIB))
    late = Reader(flight)
    sizes = []
    while chunk := flight.take(late):
        sizes.append(len(chunk) // KIB)

    assert [110, 40, 200, 1] == sizes
    assert not owner.released


async def test_leader_leaves_in_the_middle(airfield):
    """A-4: the first caller leaves; the others complete, from the one fetch."""
    go = asyncio.Event()

    async def fetch(flight):
        flight.open(airfield.opening)
        await flight.push(b"one ")
        await go.wait()
        await flight.push(b"two")

    flight = airfield.lead(fetch, generating=True)
    leader, other = airfield.reading(Reader(flight)), airfield.reading(Reader(flight))
    await airfield.settle()
    leader.cancel()
    await airfield.settle()
    go.set()

    assert b"one two" == await other
    assert leader.cancelled()


@pytest.mark.parametrize("opened", [True, False], ids=["opened", "waiting"])
def test_owner_is_who_came_first(opened):
    """Only the first to join owns the answer, also when it has left and nobody else reads."""
    flight, _ = flight_of()
    first = Reader(flight)
    second = Reader(flight)
    first.leave()
    second.leave()
    if opened:
        flight.open(OPENING)

    assert (True, False, False) == (first.owner, second.owner, Reader(flight).owner)


async def test_release_at_the_head(airfield):
    """An answer for its owner alone: the others are let go at its head, those of the same credential stay."""
    go = asyncio.Event()

    async def fetch(flight):
        await go.wait()
        flight.release(lambda reader: reader.credential == b"mine")
        flight.open(airfield.opening)
        await flight.push(b"for me")

    flight = airfield.lead(fetch)
    tasks = [airfield.reading(Reader(flight, credential)) for credential in (b"mine", b"other", b"mine", b"")]
    await airfield.settle()
    go.set()

    assert [b"for me", None, b"for me", None] == await asyncio.gather(*tasks)
    assert airfield.flights.find("key") is None


async def test_narrowed(airfield):
    """Readers whose requests don't fit go at once; those that do stay, and more of them may join."""
    go = asyncio.Event()

    async def fetch(flight):
        flight.narrow(lambda fields: fields.get(b"x") == b"1")
        flight.open(airfield.opening)
        await go.wait()
        await flight.push(b"answer")

    flight = airfield.lead(fetch)
    asked = ({}, {b"x": b"1"}, {b"x": b"2"}, {})
    readers = [Reader(flight, fields=fields) for fields in asked]
    reading = [airfield.reading(reader) for reader in readers]
    await airfield.settle()

    assert [False, False, True, True] == [reader.released for reader in readers]
    assert (True, 2) == (flight.joinable, flight.readers)
    assert [False, True] == [flight.fits(fields) for fields in asked[:2]]
    reading.append(airfield.reading(Reader(flight, fields=asked[1])))
    go.set()
    assert [b"answer", b"answer", None, None, b"answer"] == await asyncio.gather(*reading)


@pytest.mark.parametrize("key", ["key", None])
async def test_narrowed_for_nobody(key, airfield):
    """A fetch that nobody reads along isn't cancelled because its answer is for few."""

    async def fetch(flight):
        flight.narrow(lambda _: False)
        await asyncio.sleep(0)
        flight.open(airfield.opening)
        await flight.push(b"answer")

    flight = airfield.lead(fetch, key)
    await airfield.settle()

    assert (6, True, None) == (flight.size, flight.over, flight.error)


async def test_release_with_nobody_left(airfield):
    """Where the owner has left and the rest is released, nobody reads: the fetch is cancelled."""
    go = asyncio.Event()
    read_on = []

    async def fetch(flight):
        flight.sent = True
        await go.wait()
        flight.release(lambda _: False)
        await asyncio.sleep(0)
        read_on.append(flight)

    flight = airfield.lead(fetch)
    owner, other = Reader(flight), airfield.reading(Reader(flight))
    await airfield.settle()
    owner.leave()
    go.set()
    await airfield.settle()

    assert await other is None
    assert [] == read_on
    assert flight.over


async def test_error_fans_out(airfield):
    """A-6: every waiter gets the one error; the next call tries anew."""

    async def fetch(_):
        await asyncio.sleep(0)
        raise BROKEN

    flight = airfield.lead(fetch)
    outcomes = await asyncio.gather(*[airfield.read(Reader(flight)) for _ in range(5)], return_exceptions=True)

    assert [BROKEN] * 5 == outcomes
    assert airfield.flights.find("key") is None


async def test_error_in_the_middle(airfield):
    """What came before a break is read first; then the error, not an end."""

    async def fetch(flight):
        flight.open(airfield.opening)
        await flight.push(b"half")
        raise BROKEN

    reader = Reader(airfield.lead(fetch))
    await reader.opening()

    assert b"half" == await reader.read()
    with pytest.raises(UpstreamFailed, match="truncated"):
        await reader.read()

    reader.leave()


async def test_empty_chunks_end_nothing():
    """Empty chunks are no end: what follows is read."""
    flight, _ = flight_of()
    reader = Reader(flight)
    flight.open(OPENING)
    await flight.push(b"")
    await flight.push(bytes(200 * KIB))
    await flight.push(b"")
    flight.finish()

    assert 200 * KIB == len(await reader.read())
    assert b"" == await reader.read()


async def test_empty_answer(airfield):
    """An answer without a body is one."""

    async def fetch(flight):
        flight.open(airfield.opening)

    assert b"" == await airfield.read(Reader(airfield.lead(fetch)))


async def test_released_reader_reads_nothing_on():
    """Reading on after a release is a bug that shows, not one that hangs."""
    flight, _ = flight_of()
    Reader(flight)
    other = Reader(flight)
    flight.release(lambda _: False)

    assert await other.opening() is None
    with pytest.raises(UpstreamFailed, match="released"):
        await other.read()


def test_leaving_twice():
    """Leaving twice is leaving once."""
    flight, _ = flight_of()
    reader = Reader(flight)
    Reader(flight)
    reader.leave()
    reader.leave()

    assert 1 == flight.readers


async def test_body():
    """The whole body is there as long as its start is."""
    flight, closed = flight_of(limit=3)
    Reader(flight)
    await flight.push(b"ab")

    assert b"ab" == flight.body()
    assert flight.joinable

    await flight.push(b"cd")

    assert flight.body() is None
    assert flight.windowed
    assert [flight] == closed


@pytest.mark.parametrize(
    ("limit", "memory"),
    [(512 * KIB, 64 * 1024 * KIB), (1024 * KIB, 512 * KIB)],
    ids=["past its limit", "ledger refuses"],
)
async def test_window(limit, memory):
    """
    Past its limit, or where the ledger refuses, joining closes and the slowest reader paces: what is held is never
    more than the window and one chunk, once the readers have caught up.
    """
    flight, closed = flight_of(limit=limit, memory=memory)
    flight.open(OPENING)
    fast, slow = Reader(flight), Reader(flight)
    for _ in range(8):
        assert steps(flight.push(bytes(64 * KIB)))

    assert not flight.windowed
    for reader in (fast, slow):
        assert 512 * KIB == len(taken(reader))

    for _ in range(4):
        assert steps(flight.push(bytes(64 * KIB)))

    assert flight.windowed
    assert [flight] == closed
    assert 256 * KIB == len(taken(fast))

    push = flight.push(bytes(64 * KIB))

    assert not steps(push)  # the slow one holds it up
    assert flight.held == WINDOW + 64 * KIB
    assert 0 == flight._buffer._ledger.held

    assert 128 * KIB == len(flight.take(slow))
    assert flight.held == 192 * KIB
    assert steps(push)

    flight.finish()
    fast.leave()
    slow.leave()

    assert 0 == flight.held


async def test_window_keeps_its_account():
    """Bytes that were counted stay counted until they are let go of."""
    flight, _ = flight_of(limit=512 * KIB)
    flight.open(OPENING)
    reader = Reader(flight)
    for _ in range(8):
        steps(flight.push(bytes(64 * KIB)))
    push = flight.push(bytes(64 * KIB))

    assert not steps(push)
    assert 512 * KIB == flight._buffer._ledger.held

    taken(reader)

    assert 0 == flight._buffer._ledger.held
    assert steps(push)

    reader.leave()
    flight.finish()

    assert 0 == flight._buffer._ledger.held


async def test_leaving_makes_room():
    """A slow reader that leaves no longer holds the others up; the last one that leaves holds up nobody."""
    flight, _ = flight_of(limit=1)
    flight.open(OPENING)
    fast, slow = Reader(flight), Reader(flight)
    push = flight.push(bytes(WINDOW + 1))

    assert not steps(push)

    taken(fast)

    assert not flight._room.done()

    slow.leave()

    assert steps(push)

    push = flight.push(bytes(WINDOW + 1))

    assert not steps(push)

    fast.leave()

    assert steps(push)
    assert 0 == flight.held


async def test_window_before_the_head():
    """Before the head is known nobody can read, so nobody is waited for; the fetch hears that it is time to open."""
    flight, _ = flight_of(limit=1)
    reader = Reader(flight)

    assert steps(flight.push(bytes(WINDOW + 1)))
    assert flight.windowed

    flight.open(OPENING)
    push = flight.push(b"x")

    assert not steps(push)
    assert WINDOW + 2 == len(taken(reader))
    assert steps(push)


async def test_window_of_nobody_is_cancelled(airfields):
    """An answer that is finished for nobody, and turns out too large to be kept, is not finished."""
    field = airfields(limit=10)
    go = asyncio.Event()
    read_on = []

    async def fetch(flight):
        flight.sent = True
        flight.open(field.opening)
        await go.wait()
        await flight.push(bytes(11))
        await asyncio.sleep(0)
        read_on.append(flight)

    flight = field.lead(fetch)
    reader = Reader(flight)
    await field.settle()
    reader.leave()

    assert flight.for_nobody

    go.set()
    await field.settle()

    assert [] == read_on
    field.check()


class Costs:
    """Counts how often a reader's place is looked at."""

    def __init__(self):
        self.looks = 0


@pytest.mark.parametrize("limit", [1024 * KIB, 1], ids=["whole", "window"])
async def test_reading_costs_no_look_at_the_others(limit, monkeypatch):
    """A round of a thousand readers looks at each reader's place a few times, not a thousand times."""
    costs = Costs()
    flight, _ = flight_of(limit=limit)
    flight.open(OPENING)
    readers = [Reader(flight) for _ in range(1000)]
    trim = flight._trim

    def counted():
        costs.looks += len(flight._readers)
        trim()

    monkeypatch.setattr(flight, "_trim", counted)
    for _ in range(10):
        assert steps(flight.push(b"chunk"))
        assert {b"chunk"} == {flight.take(reader) for reader in readers}

    for reader in readers:
        reader.leave()

    assert costs.looks <= 30 * 1000


@pytest.mark.parametrize("ended", [True, False], ids=["at the end", "at the last event"])
async def test_whole(ended):
    """
    The whole body comes when all that counts is there, and takes nothing from what is read. Nobody waits for the
    connection's end, nor minds how it ends.
    """
    flight, _ = flight_of()
    reader = Reader(flight)
    flight.open(OPENING)
    await flight.push(b"one ")
    whole = reader.whole()

    assert not steps(whole)

    await flight.push(b"two")
    flight.complete = True
    if ended:
        flight.finish()

    with pytest.raises(StopIteration) as found:
        whole.send(None)

    assert b"one two" == found.value.value
    assert ended == flight.over
    assert b"one two" == await reader.whole()
    assert b"one two" == await reader.read()


@pytest.mark.parametrize("limit", [1, 6], ids=["at once", "in the middle"])
async def test_whole_of_too_much(limit):
    """An answer that cannot be kept whole is not waited for to its end, and loses nothing by that."""
    flight, _ = flight_of(limit=limit)
    reader = Reader(flight)
    flight.open(OPENING)
    await flight.push(b"abcde")
    if limit > 1:
        whole = reader.whole()

        assert not steps(whole)

        await flight.push(b"fgh")
        with pytest.raises(StopIteration) as ended:
            whole.send(None)

        assert ended.value.value is None
    else:
        assert await reader.whole() is None

    assert b"abcdefgh"[: flight.size] == taken(reader)


async def test_whole_of_a_broken_answer():
    """Where it breaks there is no whole; the error says why."""
    flight, _ = flight_of()
    reader = Reader(flight)
    flight.open(OPENING)
    await flight.push(b"half")
    flight.fail(BROKEN)
    with pytest.raises(UpstreamFailed, match="truncated"):
        await reader.whole()


async def test_satisfied():
    """A reader has had it all when the last event has come and none of it is left to read."""
    flight, _ = flight_of()
    flight.open(OPENING)
    first, second = Reader(flight), Reader(flight)
    await flight.push(b"last event")

    assert not first.satisfied

    await first.read()

    assert not first.satisfied

    flight.complete = True

    assert (True, False) == (first.satisfied, second.satisfied)
    assert (False, True) == (flight.ahead(first), flight.ahead(second))

    await flight.push(b"tail")

    assert not first.satisfied


async def test_views_are_made_once_for_all():
    """What one reader's view is made into stands there for the others."""
    flight, _ = flight_of()
    first, second = Reader(flight), Reader(flight)
    first.flight.views[View(stream=True)] = b"converted"

    assert {View(stream=True): b"converted"} == second.flight.views


class Story(RuleBasedStateMachine):
    """Any order of pushing, joining, reading, leaving and ending, against the bytes that were pushed."""

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.flight, _ = flight_of(limit=600 * KIB, memory=500 * KIB)
        self.flight.open(OPENING)
        self.ledger = self.flight._buffer._ledger
        self.truth = b""
        self.got = {}
        self.push = None
        self.count = 0

    @precondition(lambda self: self.push is None and not self.flight.over)
    @rule(size=st.sampled_from([0, 1, 3 * KIB, 60 * KIB, 130 * KIB, 300 * KIB]))
    def pushes(self, size):
        self.count += 1
        chunk = self.count.to_bytes(4, "big") * (size // 4) + bytes(size % 4)
        self.truth += chunk
        self.push = self.runner.get_loop().create_task(self.flight.push(chunk))
        self._spin()
        if self.push is not None:
            assert self.flight.windowed
            assert self.got

    @precondition(lambda self: self.flight.joinable)
    @rule()
    def joins(self):
        self.got[Reader(self.flight)] = b""

    @precondition(lambda self: self.got)
    @rule(data=st.data())
    def reads(self, data):
        reader = data.draw(st.sampled_from(list(self.got)))
        self.got[reader] += self.flight.take(reader)
        self._spin()

    @precondition(lambda self: self.got)
    @rule(data=st.data())
    def leaves(self, data):
        reader = data.draw(st.sampled_from(list(self.got)))
        del self.got[reader]
        reader.leave()
        self._spin()

    @precondition(lambda self: self.push is None)
    @rule(whole=st.booleans())
    def ends(self, whole):
        if whole:
            self.flight.finish()
        else:
            self.flight.fail(BROKEN)

    def _spin(self):
        self.runner.run(asyncio.sleep(0))
        self.runner.run(asyncio.sleep(0))
        if self.push is not None and self.push.done():
            self.push.result()
            self.push = None

    @invariant()
    def prefixes(self):
        for reader, got in self.got.items():
            assert self.truth.startswith(got)
            assert len(got) == len(self.truth) or self.flight._buffer._chunks[reader.at - self.flight._buffer._first :]

    @invariant()
    def bounds(self):
        flight = self.flight

        assert sum(map(len, flight._buffer._chunks)) == flight.held
        assert 0 <= self.ledger.held == flight._buffer.taken <= flight.held
        if not flight.windowed:
            assert self.ledger.held == flight.held <= 500 * KIB
            assert self.truth == flight.body()

        if flight.windowed and self.got:
            assert min(reader.at for reader in self.got) == flight._buffer._first

        if flight.windowed and self.push is None and not flight.over:
            assert flight.held <= WINDOW

    def teardown(self):
        self.flight.finish()
        for reader, got in self.got.items():
            assert self.truth == got + taken(reader)
            reader.leave()

        self._spin()
        self.runner.close()

        assert self.push is None
        assert (0, 0) == (self.ledger.held, self.flight.held)


TestStory = Story.TestCase
TestStory.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_filled():
    """A whole body is added in one step; where it does not fit, nothing of it is kept and nobody waits."""
    flight, _ = flight_of(limit=8)
    Reader(flight)
    flight.fill(b"12345678")
    other, closed = flight_of(memory=4)
    Reader(other)
    other.fill(b"12345678")

    assert (b"12345678", False) == (flight.body(), flight.windowed)
    assert (None, 0, [other]) == (other.body(), other.held, closed)
