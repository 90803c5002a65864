"""Leading a flight: what is found serves its leader, what isn't is fetched, and a lease never outlives either."""

import asyncio

import pytest
from msgspec.structs import replace

from sidecar.core.cache.purges import ALL, Purges, Tail
from sidecar.core.model import Position
from sidecar.core.rules import MemoryRule
from sidecar.errors import Cause, UpstreamFailed
from sidecar.proxy.fetch import Fetching
from sidecar.proxy.request import FetchMode
from sidecar.store.memory import Memory
from sidecar.store.memory_remote import MemoryRemote, SharedTier
from sidecar.store.tiered import Tiered
from tests.fetched import NOW, STREAM, Desk, completion, read, streamed, whole

LOG = Tail(b"log", 1)


class Pod(Desk):
    """A desk with a tier behind its memory, which it shares with others."""

    def __init__(self, shared, *script):
        super().__init__(*script)
        self.purges = Purges()
        self.purges.learn(LOG, NOW)
        remote = MemoryRemote(shared, admits=self.purges.allows, now=lambda: NOW, report=self.bugs.append)
        memory = Memory(MemoryRule(), now=lambda: NOW, clock=lambda: NOW)
        self.store = self.origin._store = self.receiver._store = Tiered(memory, remote, self.purges)
        self.fetching = Fetching(self.origin, self.access, self.store, self.flights, lambda _, __: None, lambda: NOW)

    def reserve(self, fetch):
        """A reserved flight on *fetch*, and its first reader."""
        flight = self.flights.reserve(fetch.key, generating=True)
        return flight, self.join(flight, fetch)

    async def ask(self, fetch):
        """The body of the answer to *fetch*, by way of a flight or without."""
        _, reader = self.reserve(fetch)
        try:
            found = await self.fetching.lead(fetch, reader, FetchMode.COALESCE)
            return found.entry.body if found is not None else (await read(reader))[1]
        finally:
            reader.leave()


@pytest.fixture
async def fleet():
    """Makes pods that share one tier, in which no lease may be left."""
    shared, made = SharedTier(lambda: NOW), []

    def make(*script):
        made.append(Pod(shared, *script))
        return made[-1]

    make.shared = shared
    yield make
    for pod in made:
        await pod.settle()

        assert set() == pod.tasks
        assert [] == pod.bugs
        assert 0 == len(pod.flights)
    assert {} == shared.leases


class Held:
    """Holds each ``fetch`` of *store* until it is let go; *error* is raised then."""

    def __init__(self, store, error=None):
        self.store = store
        self.error = error
        self.go = asyncio.Event()
        self.reached = 0

    def __getattr__(self, name):
        return getattr(self.store, name)

    async def fetch(self, key, suffices, *, patience, beside):
        self.reached += 1
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return await self.store.fetch(key, suffices, patience=patience, beside=beside)


async def test_found(fleet):
    """What is there as it stands is the leader's without a task, and in its memory."""
    one, two = fleet(whole()), fleet()
    fetch = two.fetch_of()
    await one.ask(one.fetch_of())
    flight, reader = two.reserve(fetch)
    found = await two.fetching.lead(fetch, reader, FetchMode.COALESCE)
    reader.leave()

    assert completion() == found.entry.body
    assert (None, False, set()) == (flight.task, flight.joinable, two.tasks)
    assert two.flights.find(fetch.key) is None
    assert found.entry is two.store.peek(fetch.key)
    assert Position(b"log", 1) == flight.position


@pytest.mark.parametrize("evicted", [False, True])
async def test_tags_of_what_is_replaced(evicted, fleet):
    """What takes the place of an entry behind memory keeps its tags, and those noted beside one in memory."""
    go = asyncio.Event()
    one, two = fleet(whole("old")), fleet(go, whole("new"))
    fetch = two.fetch_of(fields={b"x-sidecar-tags": b"second"})
    await one.ask(one.fetch_of(fields={b"x-sidecar-tags": b"first"}))
    await one.settle()
    ((key, (entry, end)),) = fleet.shared.entries.items()
    fleet.shared.entries[key] = (replace(entry, at=NOW - 1e6, ttl=60.0, stale_if_error=2e6), end)
    two.store.put(key, replace(entry, at=NOW - 2e6, tags=()))
    two.store.note(key, entry, ("noted",))
    asking = asyncio.ensure_future(two.ask(fetch))
    await two.settle()
    if evicted:
        two.store.drop(key)
    go.set()
    await asking

    assert {"first", "second", *([] if evicted else ["noted"])} == set(two.store.peek(key).tags)


async def test_not_found(fleet):
    """Where nothing is there, the flight fetches, and with the lease that came of the look the fleet has its answer."""
    one, two = fleet(whole()), fleet()

    assert completion() == await one.ask(one.fetch_of())

    await one.settle()

    assert {} == fleet.shared.marks
    assert completion() == await two.ask(two.fetch_of())


async def test_found_in_another_form(fleet):
    """What has to be converted first, and so may turn out not to be for this caller, comes by a flight."""
    one, two = fleet(streamed()), fleet()
    await one.ask(one.fetch_of(STREAM))
    fetch = two.fetch_of()
    _, reader = two.reserve(fetch)
    found = await two.fetching.lead(fetch, reader, FetchMode.COALESCE)
    opening, body = await read(reader)

    assert found is None
    assert one.store.peek(fetch.key).body == body == opening.found.entry.body


@pytest.mark.parametrize("there", [True, False], ids=["found", "not found"])
async def test_leader_cancelled(there, fleet):
    """Who has joined gets an answer, looked for or fetched; the position is of the look that brought it."""
    one, two = fleet(whole()), fleet(whole())
    if there:
        await one.ask(one.fetch_of())
    two.origin._store = held = Held(two.store)
    fetch, other = two.fetch_of(number=1), two.fetch_of(number=2)
    flight, reader = two.reserve(fetch)
    leading = two.spawn(two.fetching.lead(fetch, reader, FetchMode.COALESCE), name="leader")
    reading = two.spawn(read(two.join(flight, other)), name="reader")
    await two.settle()
    leading.cancel()
    await two.settle()
    two.purges.learn(LOG._replace(number=2), NOW)
    joined = two.spawn(read(two.join(two.flights.find(fetch.key), two.fetch_of(number=3))), name="reader")
    held.go.set()
    answers = [body for _, body in await asyncio.gather(reading, joined)]

    assert leading.cancelled()
    assert [completion()] * 2 == answers
    assert (2, 1) == (held.reached, flight.position.number)
    assert [0, 0 if there else 1] == [fetch.draft.attempts, other.draft.attempts]


async def test_leader_cancelled_alone(fleet):
    """Nobody looks for nobody."""
    pod = fleet()
    pod.origin._store = held = Held(pod.store)
    fetch = pod.fetch_of()
    flight, reader = pod.reserve(fetch)
    leading = pod.spawn(pod.fetching.lead(fetch, reader, FetchMode.COALESCE), name="leader")
    await pod.settle()
    leading.cancel()
    await pod.settle()

    assert leading.cancelled()
    assert (1, None, False, 0) == (held.reached, flight.task, flight.joinable, len(pod.flights))


async def test_cancelled_before_its_first_step(fleet):
    """A flight that the end of the process meets before it has begun leaves no lease, nor a mark that nobody shares."""
    pod = fleet(whole())
    fetch = pod.fetch_of()
    flight, reader = pod.reserve(fetch)

    assert await pod.fetching.lead(fetch, reader, FetchMode.COALESCE) is None
    assert 1 == len(fleet.shared.leases)

    flight.task.cancel()
    with pytest.raises(UpstreamFailed) as failed:
        await read(reader)

    assert Cause.DRAINING == failed.value.cause
    assert ({}, {}) == (fleet.shared.leases, fleet.shared.marks)


async def test_purged_meanwhile(fleet):
    """The lease of a flight that a purge has detached is given back at once: who asks anew need not wait for it."""
    pod = fleet(asyncio.Event(), whole())
    go = pod.client.script[0]
    pod.origin._store = held = Held(pod.store)
    fetch = pod.fetch_of()
    _, reader = pod.reserve(fetch)
    leading = pod.spawn(pod.fetching.lead(fetch, reader, FetchMode.COALESCE), name="leader")
    await pod.settle()
    pod.flights.detach([ALL])
    held.go.set()
    await leading
    leases = dict(fleet.shared.leases)
    reading = pod.spawn(read(reader), name="reader")
    await pod.settle()
    go.set()
    _, body = await reading

    assert (completion(), {}, False) == (body, leases, fetch.draft.stored)
    assert pod.flights.find(fetch.key) is None


async def test_bug_in_the_look(fleet):
    """It reaches the leader and all who have joined; nobody hangs."""
    pod = fleet()
    bug = RuntimeError("a bug")
    pod.origin._store = held = Held(pod.store, bug)
    fetch = pod.fetch_of()
    flight, reader = pod.reserve(fetch)
    leading = pod.spawn(pod.fetching.lead(fetch, reader, FetchMode.COALESCE), name="leader")
    reading = pod.spawn(read(pod.join(flight, pod.fetch_of(number=2))), name="reader")
    await pod.settle()
    held.go.set()
    told, failed = await asyncio.gather(leading, reading, return_exceptions=True)
    await pod.settle()

    assert (bug, Cause.INTERNAL) == (told, failed.cause)
    assert [bug] == pod.bugs
    pod.bugs.clear()


async def test_bug_in_what_follows_the_look(fleet):
    """Nothing is left of a flight whose leader fails on what it has found."""
    one, two = fleet(whole()), fleet()
    await one.ask(one.fetch_of())
    fetch = two.fetch_of()
    flight, reader = two.reserve(fetch)
    two.fetching._take = None
    with pytest.raises(TypeError):
        await two.fetching.lead(fetch, reader, FetchMode.COALESCE)

    assert (None, False, 0) == (flight.task, flight.joinable, len(two.flights))
