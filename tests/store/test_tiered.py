"""Memory in front of a remote tier."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from msgspec.structs import replace

from sidecar.core.cache.beside import Asked
from sidecar.core.cache.purges import Purges, Scope, ScopeKind, Tail
from sidecar.core.model import Entry, Form, Key, Position
from sidecar.core.rules import MemoryRule
from sidecar.store.base import NOTHING, Fetched, Store, Suffices
from sidecar.store.memory import Memory
from sidecar.store.tiered import Nowhere, Tiered

KEY = Key(b"a" * 16, b"p" * 32)
LOG = b"i" * 16
ENTRY = Entry(
    200, (), b"answer", Form.WHOLE, "openai", "chat", "", at=100.0, ttl=60.0, tags=("red",), position=Position(LOG, 5)
)
LEASE = object()


def memory_of(**rule: int) -> Memory:
    """An empty memory, 10 s after the entry was made."""
    return Memory(MemoryRule(**rule), now=lambda: 110.0, clock=lambda: 50.0)


def enough(entry: Entry) -> bool:
    return True


class Shelf:
    """A remote tier that has *fetched*, and knows what it was asked and given. *meanwhile*: before it answers."""

    def __init__(self, fetched: Fetched = NOTHING, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.fetched = fetched
        self.meanwhile = meanwhile
        self.asked: list[tuple[Key, Suffices, float]] = []
        self.kept: list[tuple[Key, Entry]] = []
        self.deleted: list[Key] = []

    async def fetch(self, key: Key, suffices: Suffices, *, patience: float, beside: Asked) -> Fetched:
        self.asked.append((key, suffices, patience))
        self.meanwhile()
        return self.fetched

    def keep(self, key: Key, entry: Entry) -> None:
        self.kept.append((key, entry))

    def delete(self, keys: Iterable[Key]) -> None:
        self.deleted += keys

    async def close(self) -> None:
        """Nothing."""


@pytest.fixture
def purges() -> Purges:
    """At position 5 of the log."""
    known = Purges()
    known.learn(Tail(LOG, 5), 0.0)
    return known


async def test_nothing_behind_memory(purges):
    """Without a remote tier a fetch finds nothing, not even what memory holds."""
    store: Store = Tiered(memory_of(), Nowhere(), purges)
    store.put(KEY, ENTRY)
    store.share(KEY, ENTRY)

    assert NOTHING == await store.fetch(KEY, enough, patience=1.0)
    assert ENTRY is store.peek(KEY)
    assert await Nowhere().close() is None


async def test_fetched_is_in_memory(purges):
    """What the remote tier had is found in memory the next time; it is asked as the store was."""
    shelf = Shelf(Fetched(ENTRY, waited=True))
    store = Tiered(memory_of(), shelf, purges)

    assert store.peek(KEY) is None
    assert Fetched(ENTRY, waited=True) == await store.fetch(KEY, enough, patience=2.5)
    assert ENTRY is store.peek(KEY)
    assert [(KEY, enough, 2.5)] == shelf.asked


async def test_nothing_fetched(purges):
    """A lease without an entry is handed on, and memory stays as it is."""
    store = Tiered(memory_of(), Shelf(Fetched(lease=LEASE)), purges)

    assert Fetched(lease=LEASE) == await store.fetch(KEY, enough, patience=0.0)
    assert store.peek(KEY) is None


async def test_fetched_too_large_for_memory(purges):
    """What does not fit into memory is still fetched."""
    store = Tiered(memory_of(max_entry_bytes=1), Shelf(Fetched(ENTRY)), purges)

    assert Fetched(ENTRY) == await store.fetch(KEY, enough, patience=0.0)
    assert store.peek(KEY) is None


@pytest.mark.parametrize(
    ("known", "expected"), [(99.0, 100.0), (100.0, 100.0), (101.0, 101.0)], ids=["older", "as old", "newer"]
)
async def test_the_newer_stays(known, expected, purges):
    """What is fetched takes the place of an older entry, never that of a newer one."""
    store = Tiered(memory_of(), Shelf(Fetched(ENTRY)), purges)
    store.put(KEY, replace(ENTRY, at=known))
    await store.fetch(KEY, enough, patience=0.0)

    assert expected == store.peek(KEY).at


@pytest.mark.parametrize(
    "purged",
    [
        lambda purges: purges.learn(Tail(LOG, 6, purges=((Scope(ScopeKind.TAG, "red"), 6),)), 0.0),
        lambda purges: purges.apply([Scope(ScopeKind.ROUTE, "chat")]),
        lambda purges: purges.learn(Tail(b"j" * 16, 0), 0.0),
    ],
    ids=["in the log", "waiting for the log", "with the log"],
)
async def test_purged_meanwhile(purged, purges):
    """What is purged while it is fetched is neither found nor in memory; a lease that came with it is."""
    shelf = Shelf(Fetched(ENTRY, LEASE, waited=True), lambda: purged(purges))
    store = Tiered(memory_of(), shelf, purges)

    assert Fetched(None, LEASE, waited=True) == await store.fetch(KEY, enough, patience=0.0)
    assert store.peek(KEY) is None


async def test_what_else_is_purged(purges):
    """A purge of something else takes nothing, nor does one that came before the entry's call was sent."""
    red = Scope(ScopeKind.TAG, "red")
    tail = Tail(LOG, 7, purges=((red, 4), (Scope(ScopeKind.TAG, "blue"), 7)))
    store = Tiered(memory_of(), Shelf(Fetched(ENTRY), lambda: purges.learn(tail, 0.0)), purges)

    assert Fetched(ENTRY) == await store.fetch(KEY, enough, patience=0.0)


def test_position(purges):
    """It is that of the purges that are known."""
    store = Tiered(memory_of(), Nowhere(), purges)
    before = store.purges.position
    purges.learn(Tail(LOG, 9), 0.0)

    assert (Position(LOG, 5), Position(LOG, 9)) == (before, store.purges.position)


def test_share(purges):
    """It reaches the remote tier, and not memory."""
    shelf = Shelf()
    store = Tiered(memory_of(), shelf, purges)
    store.share(KEY, ENTRY)

    assert [(KEY, ENTRY)] == shelf.kept
    assert store.peek(KEY) is None


def test_drop_and_clear(purges):
    """Both reach memory."""
    store = Tiered(memory_of(), Nowhere(), purges)
    store.put(KEY, ENTRY)

    assert store.drop(KEY)
    assert not store.drop(KEY)

    store.put(KEY, ENTRY)
    store.clear()

    assert store.peek(KEY) is None


@pytest.mark.parametrize(("at", "found"), [(99.0, False), (100.0, False), (100.5, True)])
async def test_outdated(at, found, purges):
    """What a change makes out of date leaves memory and the remote tier, and is not taken from there again."""
    kept = replace(ENTRY, at=at, target=b"t" * 16)
    shelf = Shelf(Fetched(kept, LEASE))
    store = Tiered(memory_of(), shelf, purges)
    store.put(KEY, kept)
    store.outdate(b"t" * 16, 100.0)

    assert store.peek(KEY) is None
    assert [KEY] == shelf.deleted
    assert Fetched(kept if found else None, LEASE) == await store.fetch(KEY, enough, patience=0.0)
    assert found == (store.peek(KEY) is not None)


def test_nothing_is_outdated(purges):
    """A change of something else takes nothing, not even without a tier behind memory."""
    store = Tiered(memory_of(), Nowhere(), purges)
    store.put(KEY, replace(ENTRY, target=b"t" * 16))
    store.outdate(b"u" * 16, 1e9)

    assert store.peek(KEY) is not None


def test_repr(purges):
    """The store names its tiers."""
    memory = memory_of()

    assert f"<Tiered {memory!r} before Nowhere>" == repr(Tiered(memory, Nowhere(), purges))


class Log:
    """The fleet's log as far as it goes by notes: those that came, while there is room."""

    def __init__(self) -> None:
        self.noted: list[tuple[Key, float, tuple[str, ...]]] = []
        self.room = True
        self.forgot = False
        self.caught_up = 0

    def note(self, key: Key, entry: Entry, tags: tuple[str, ...]) -> bool:
        if self.room:
            self.noted.append((key, entry.at, tags))
        return self.room

    async def catch_up(self) -> None:
        self.caught_up += 1


async def test_note(purges):
    """A tag that the entry has not is noted in memory and told to the fleet, once."""
    log = Log()
    store: Store = Tiered(memory_of(), Nowhere(), purges, log)
    store.put(KEY, ENTRY)
    done = [store.note(KEY, ENTRY, tags) for tags in (("red",), ("red", "blue"), ("blue",))]
    await store.catch_up()

    assert ([True] * 3, [(KEY, 100.0, ("blue",))]) == (done, log.noted)
    assert (("red", "blue"), 1) == (store.tags(KEY), log.caught_up)


async def test_no_room_to_note(purges):
    """Where the fleet cannot be told nothing is noted here; what has been noted before needs no room."""
    log = Log()
    store = Tiered(memory_of(), Nowhere(), purges, log)
    store.put(KEY, ENTRY)
    store.note(KEY, ENTRY, ("blue",))
    log.room = False

    assert [True, True, False] == [store.note(KEY, ENTRY, tags) for tags in (("red",), ("blue",), ("green",))]
    assert ("red", "blue") == store.tags(KEY)


async def test_note_of_what_is_not_in_memory(purges):
    """An entry that does not fit into memory is noted in the fleet all the same."""
    log = Log()
    store = Tiered(memory_of(max_entry_bytes=1), Nowhere(), purges, log)

    assert store.note(KEY, ENTRY, ("red", "blue"))
    assert ([(KEY, 100.0, ("blue",))], ()) == (log.noted, store.tags(KEY))


async def test_newer_one_fetched(purges):
    """What another process fetched keeps what was noted here, and the fleet hears for how long."""
    log = Log()
    store = Tiered(memory_of(), Shelf(Fetched(replace(ENTRY, at=105.0, tags=("green",)))), purges, log)
    store.put(KEY, ENTRY)
    store.note(KEY, ENTRY, ("blue", "green"))
    await store.fetch(KEY, enough, patience=0.0)

    assert [(KEY, 100.0, ("blue", "green")), (KEY, 105.0, ("blue",))] == log.noted
    assert ("green", "blue") == store.tags(KEY)


async def test_note_again(purges):
    """Where the fleet may have forgotten it is told again all that is noted here, as far as there is room."""
    log = Log()
    store = Tiered(memory_of(), Nowhere(), purges, log)
    for number in range(3):
        store.put(Key(bytes([number]) * 16, bytes(32)), replace(ENTRY, at=100.0 + number))
    for number in range(2):
        store.note(Key(bytes([number]) * 16, bytes(32)), replace(ENTRY, at=100.0 + number), ("blue",))
    first = list(log.noted)
    await store.note_again()
    same = list(log.noted)
    log.forgot = True
    await store.note_again()

    assert (first, 2 * first, False) == (same, log.noted, log.forgot)

    log.forgot, log.room = True, False
    await store.note_again()

    assert log.forgot


async def test_hold(purges):
    """What was found behind memory is as old here as by the wall clock, and from now on by the one that runs on."""
    held = Tiered(memory_of(), Nowhere(), purges).hold(ENTRY)

    assert (ENTRY, 40.0, ()) == (held.entry, held.born, held.noted)
