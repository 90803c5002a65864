"""The memory tier: what it finds, what it counts, and that its bounds hold."""

from __future__ import annotations

import gc
import random
import tracemalloc

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from sidecar.core.cache.held import MOST_NOTED
from sidecar.core.cache.purges import ALL, Scope, ScopeKind
from sidecar.core.model import Entry, Form, Key, Usage
from sidecar.core.rules import MemoryRule
from sidecar.store.memory import CHUNK, GRAIN, MOST_UNFINISHED, OVERHEAD, Memory, weigh

EVICTIONS = ["s3-fifo", "lru"]


def key(number: int, proof: int | None = None) -> Key:
    """A key; two numbers have two addresses."""
    return Key(number.to_bytes(16, "big"), (number if proof is None else proof).to_bytes(32, "big"))


def entry(size: int = 100, *, at: float = 0.0, ttl: float = 60.0, stale: float = 0.0, if_error: float = 0.0) -> Entry:
    return Entry(
        status=200,
        headers=(),
        body=bytes(size),
        form=Form.WHOLE,
        service="openai",
        route="chat",
        model="",
        at=at,
        ttl=ttl,
        stale_while_revalidate=stale,
        stale_if_error=if_error,
    )


def made(rule: MemoryRule, times: list[float] | None = None) -> Memory:
    """An empty memory, at a time when both clocks are at 0; or *times*, wall clock and the one that runs on, say."""
    now = times if times is not None else [0.0, 0.0]
    return Memory(rule, now=lambda: now[0], clock=lambda: now[1])


def room_for(entries: int, size: int = 100) -> int:
    return entries * weigh(key(0), entry(size))


def test_peek():
    """What was put is found, as the same object, under its own key alone."""
    memory = made(MemoryRule())
    kept = entry()

    assert memory.put(key(1), kept)
    assert kept is memory.peek(key(1))
    assert memory.peek(key(2)) is None
    assert (1, weigh(key(1), kept)) == (memory.entries, memory.bytes)


def test_same_key_made_anew():
    """A key is found by its value, not by being the same object."""
    memory = made(MemoryRule())
    memory.put(key(2**100), entry())

    assert memory.peek(Key(bytes(bytearray(key(2**100).address)), bytes(bytearray(key(2**100).proof)))) is not None


def test_colliding_address_is_a_miss():
    """Another call of the same address finds nothing, is counted, and neither overwrites nor drops the first."""
    memory = made(MemoryRule())
    first = entry()
    memory.put(key(1), first)
    other = key(1, proof=2)

    assert memory.peek(other) is None
    assert 1 == memory.collisions
    assert not memory.put(other, entry())
    assert not memory.drop(other)
    assert first is memory.peek(key(1))
    assert 1 == memory.collisions


def test_replacing_charges_the_difference():
    """A newer entry of a key takes the older one's place, and its bytes only are counted."""
    memory = made(MemoryRule())
    for size in (1000, 50_000, 10):
        memory.put(key(1), entry(size))

        assert (1, weigh(key(1), entry(size))) == (memory.entries, memory.bytes)

    assert 0 == memory.evictions


@pytest.mark.parametrize(
    ("rule", "size", "kept"),
    [
        pytest.param(MemoryRule(max_entry_bytes=1000), 1000, True, id="as-large-as-an-entry-may-be"),
        pytest.param(MemoryRule(max_entry_bytes=1000), 1001, False, id="larger-than-an-entry-may-be"),
        pytest.param(MemoryRule(max_bytes=room_for(1)), 100, True, id="as-large-as-all-memory"),
        pytest.param(MemoryRule(max_bytes=room_for(1)), 101, False, id="larger-than-all-memory"),
        pytest.param(MemoryRule(max_bytes=0), 0, False, id="no-memory"),
    ],
)
def test_oversize(rule, size, kept):
    """What is too large is refused, pushes nobody out, and leaves an older answer of its key in place."""
    memory = made(rule)
    before = memory.put(key(1), entry(0))

    assert kept == memory.put(key(1), entry(size))
    assert before == (memory.peek(key(1)) is not None)
    assert 0 == memory.evictions


@pytest.mark.parametrize("eviction", EVICTIONS)
def test_least_wanted_leave(eviction):
    """When room is needed others leave, and are counted; one that is asked for stays."""
    memory = made(MemoryRule(max_bytes=room_for(10), eviction=eviction))
    for number in range(30):
        memory.put(key(number), entry())
        memory.peek(key(0))

    assert (10, 20) == (memory.entries, memory.evictions)
    assert memory.peek(key(0)) is not None


@pytest.mark.parametrize("eviction", EVICTIONS)
def test_max_entries(eviction):
    """The number of entries is bounded where the rule says so."""
    memory = made(MemoryRule(max_entries=3, eviction=eviction))
    for number in range(10):
        memory.put(key(number), entry())

    assert (3, 7) == (memory.entries, memory.evictions)


def test_drop_and_clear():
    """What was dropped or cleared is gone and costs nothing."""
    memory = made(MemoryRule())
    for number in range(3):
        memory.put(key(number), entry())

    assert memory.drop(key(0))
    assert not memory.drop(key(0))
    assert 2 == memory.entries

    memory.clear()

    assert (0, 0) == (memory.entries, memory.bytes)
    assert 0 == memory.sweep(1e9)
    assert memory.put(key(1), entry())


@pytest.mark.parametrize("eviction", EVICTIONS)
def test_c2_bytes_hold(eviction):
    """However sizes vary, the accounted bytes never pass the bound, and most of the room is used."""
    bound, sizes = 2**20, random.Random(7)
    memory = made(MemoryRule(max_bytes=bound, eviction=eviction))
    for number in range(3000):
        memory.put(key(number), entry(sizes.randrange(1000, 50_000)))

        assert memory.bytes <= bound

    assert memory.bytes > bound - 60_000


@pytest.mark.parametrize("eviction", EVICTIONS)
def test_accounting_is_honest(eviction):
    """What is accounted covers what the interpreter allocates, ghosts included, and not much more."""
    memory = made(MemoryRule(max_bytes=room_for(1000), eviction=eviction))
    draw = random.Random(7).randbytes
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(4000):
            kept = Entry(
                200,
                tuple((draw(12), draw(20)) for _ in range(4)),
                draw(200),
                Form.WHOLE,
                "openai",
                "chat",
                f"model-{number}",
                1e9 + number / 4,
                3600.5 + number,
                Usage(1000 + number, 2000 + number),
                seconds=number / 3,
            )
            memory.put(Key(draw(16), draw(32)), kept)
        spent, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 0.7 <= spent / memory.bytes <= 1.05
    assert memory.bytes / memory.entries > OVERHEAD + 200 + 4 * 32


@pytest.mark.parametrize("eviction", EVICTIONS)
def test_c3_scan(eviction):
    """A scan of answers asked for once leaves those asked for often in place under S3-FIFO only."""
    memory = made(MemoryRule(max_bytes=room_for(200), eviction=eviction))
    for number in range(100):
        memory.put(key(number), entry())
    for _ in range(2):
        for number in range(100):
            memory.peek(key(number))
    for number in range(1000, 6000):
        memory.put(key(number), entry())
    hits = sum(memory.peek(key(number)) is not None for number in range(100))

    assert (hits >= 90) == (eviction == "s3-fifo")


@pytest.mark.parametrize(
    ("kept", "death"),
    [
        pytest.param(entry(at=1000.0, ttl=200.0), 1200.0, id="fresh-only"),
        pytest.param(entry(at=1000.0, ttl=200.0, stale=300.0), 1500.0, id="stale-while-revalidate"),
        pytest.param(entry(at=1000.0, ttl=200.0, stale=300.0, if_error=900.0), 2100.0, id="stale-if-error"),
        pytest.param(entry(at=1000.5, ttl=0.0), 1000.5, id="never-fresh"),
    ],
)
def test_c4_sweep(kept, death):
    """An entry stays until it may serve no more, and is reclaimed within a grain after that, without a read."""
    memory = made(MemoryRule(), [kept.at, kept.at])
    memory.put(key(1), kept)

    assert 0 == memory.sweep(death)
    assert kept is memory.peek(key(1))
    assert 1 == memory.sweep(death + GRAIN)
    assert (0, 0, 1, 0) == (memory.entries, memory.bytes, memory.expired, memory.evictions)


def test_sweep_budget():
    """A sweep reclaims no more than its budget; the next goes on where it ended, and the living stay."""
    memory = made(MemoryRule())
    for number in range(25):
        memory.put(key(number), entry(ttl=number * 10.0))
    memory.put(key(99), entry(ttl=1e6))

    assert [10, 10, 5, 0] == [memory.sweep(1000.0, budget=10) for _ in range(4)]
    assert (1, 25) == (memory.entries, memory.expired)


def test_sweep_goes_by_the_newer_entry():
    """A replaced entry's death means nothing to the one in its place."""
    times = [0.0, 0.0]
    memory = made(MemoryRule(), times)
    memory.put(key(1), entry(at=0.0))
    times[:] = [10_000.0, 10_000.0]
    memory.put(key(1), entry(at=10_000.0))

    assert 0 == memory.sweep(9000.0)
    assert 1 == memory.sweep(11_000.0)


def test_no_clock_makes_it_younger():
    """An entry of another clock's future is as old as one of now, and from then on older by the clock that runs on."""
    times = [1000.0, 50.0]
    memory = made(MemoryRule(), times)
    for number, at in enumerate((990.0, 1000.0, 5000.0)):
        memory.put(key(number), entry(at=at))
    ages = []
    for now, clock in ((1000.0, 50.0), (1020.0, 70.0), (-9000.0, 80.0), (1045.0, 80.0)):
        times[:] = [now, clock]
        held = [memory.find(key(number)) for number in range(3)]
        ages.append([each.time(now, clock) - each.entry.at for each in held])

    assert [[10.0, 0.0, 0.0], [30.0, 20.0, 20.0], [40.0, 30.0, 30.0], [55.0, 45.0, 30.0]] == ages
    assert 3 == memory.sweep(50.0 + 60.0 + 2 * GRAIN)


def test_noted():
    """Tags noted beside an entry take it, cost something, and stay beside one that takes its place."""
    memory = made(MemoryRule())
    first = replace(entry(), tags=("own",))
    memory.put(key(1), first)

    assert ("a", "b") == memory.lacking(key(1), first, ("own", "a", "b", "a"))

    memory.note(key(1), ("a", "b"))

    assert ("own", "a", "b") == memory.tags(key(1))
    assert ("c",) == memory.lacking(key(1), first, ("a", "c"))
    assert memory.bytes == weigh(key(1), first, ("a", "b")) > weigh(key(1), first)

    memory.put(key(1), replace(entry(), tags=("b",)))

    assert ("b", "a") == memory.tags(key(1))
    assert [("b", "a")] == [kept.entry.tags + kept.noted for page in memory.walk() for _, kept in page]

    memory.purge([tag("own")])

    assert 1 == memory.entries

    memory.purge([tag("a")])

    assert (0, 0, ()) == (memory.entries, memory.bytes, memory.tags(key(1)))


def test_noted_beside_nothing():
    """Without an entry of the key, and where another key has its address, nothing is noted."""
    memory = made(MemoryRule())
    memory.note(key(1), ("a",))
    memory.put(key(2), entry())
    memory.note(key(2, proof=3), ("a",))

    assert ((), (), 1) == (memory.tags(key(1)), memory.tags(key(2)), memory.entries)
    assert ("a",) == memory.lacking(key(2, proof=3), entry(), ("a",))


def test_too_much_noted():
    """An entry beside which there is no room for another tag is forgotten: no purge can miss it."""
    memory = made(MemoryRule())
    memory.put(key(1), entry())
    memory.note(key(1), tuple(map(str, range(MOST_NOTED))))

    assert 1 == memory.entries

    memory.note(key(1), ("one more",))

    assert (0, 0) == (memory.entries, memory.bytes)


def test_noting_makes_room():
    """What is noted costs room, and others leave for it; what would cost more than there is is forgotten."""
    memory = made(MemoryRule(max_bytes=room_for(2), eviction="lru"))
    memory.put(key(1), entry())
    memory.put(key(2), entry())
    memory.note(key(2), ("a",))

    assert (1, 1, ("a",)) == (memory.entries, memory.evictions, memory.tags(key(2)))

    memory.note(key(2), tuple(f"{number:064}" for number in range(30)))

    assert (0, 0) == (memory.entries, memory.bytes)


def tagged(*tags: str, service: str = "openai") -> Entry:
    return Entry(200, (), b"", Form.WHOLE, service, "chat", "", 0.0, 60.0, tags=tags)


def tag(name: str) -> Scope:
    return Scope(ScopeKind.TAG, name)


def held(memory: Memory, numbers) -> list[int]:
    return [number for number in numbers if memory.peek(key(number)) is not None]


@pytest.mark.parametrize("eviction", EVICTIONS)
@pytest.mark.parametrize(
    ("scopes", "left"),
    [
        pytest.param([ALL], [], id="all"),
        pytest.param([tag("a")], [1, 3], id="tag"),
        pytest.param([tag("a"), Scope(ScopeKind.SERVICE, "other")], [1], id="two scopes"),
        pytest.param([Scope(ScopeKind.KEY, key(2).address.hex())], [0, 1, 3], id="key"),
        pytest.param([Scope(ScopeKind.KEY, key(2).address.hex()), tag("b")], [0, 3], id="key and tag"),
        pytest.param([Scope(ScopeKind.KEY, key(9).address.hex())], [0, 1, 2, 3], id="a key that is not here"),
        pytest.param([Scope(ScopeKind.KEY, "none")], [0, 1, 2, 3], id="no key at all"),
        pytest.param([], [0, 1, 2, 3], id="nothing"),
    ],
)
def test_purge(eviction, scopes, left):
    """What a purge takes is gone, costs nothing and is counted; the rest stays."""
    memory = made(MemoryRule(eviction=eviction))
    for number, kept in enumerate([tagged("a"), tagged("b"), tagged("b", "a"), tagged(service="other")]):
        memory.put(key(number), kept)

    assert not memory.purge(scopes)
    assert left == held(memory, range(4))
    assert (len(left), 4 - len(left)) == (memory.entries, memory.purged)
    assert sum(weigh(key(number), memory.peek(key(number))) for number in left) == memory.bytes


@pytest.mark.parametrize("scope", [ALL, tag("a")], ids=["all", "tag"])
def test_purge_goes_on(scope):
    """A large purge takes several steps; nothing of it is served between them, and what is put since then stays."""
    memory = made(MemoryRule())
    for number in range(3 * CHUNK):
        memory.put(key(number), tagged("a"))

    assert memory.purge([scope])
    assert 2 * CHUNK == memory.entries
    assert [] == held(memory, range(0, 3 * CHUNK, 7))

    fresh = tagged("a")
    memory.put(key(0), fresh)
    memory.put(key(1), fresh)
    memory.drop(key(2))

    assert memory.purge_on(10)
    while memory.purge_on():
        pass

    assert [0, 1] == held(memory, range(3 * CHUNK))
    assert fresh is memory.peek(key(0))
    assert 2 == memory.entries
    assert not memory.purge_on()


def test_purge_during_a_purge():
    """Another purge that comes meanwhile holds at once, and the first is not forgotten."""
    memory = made(MemoryRule())
    for number in range(2 * CHUNK):
        memory.put(key(number), tagged("ab"[number % 2]))

    assert memory.purge([tag("a")])
    assert memory.purge([tag("b")])
    assert [] == held(memory, range(2 * CHUNK))

    memory.put(key(1), tagged("b"))
    while memory.purge_on():
        pass

    assert [1] == held(memory, range(2 * CHUNK))
    assert memory.put(key(2), tagged("a"))  # what has ended takes nothing any more
    assert not memory.purge([tag("c")])
    assert [1, 2] == held(memory, range(2 * CHUNK))


def test_too_many_purges_at_once():
    """More scopes than are told apart are a purge of everything."""
    memory = made(MemoryRule())
    memory.put(key(1), tagged("a"))

    assert not memory.purge([tag(str(number)) for number in range(MOST_UNFINISHED + 1)])
    assert 0 == memory.entries


def test_clear_during_a_purge():
    """Nothing is left to purge when everything was forgotten."""
    memory = made(MemoryRule())
    for number in range(2 * CHUNK):
        memory.put(key(number), tagged("a"))
    memory.purge([tag("a")])
    memory.clear()
    memory.put(key(1), tagged("a"))

    assert not memory.purge_on()
    assert [1] == held(memory, [1])


def test_drop_target():
    """All entries of a target go at once, and nothing else does."""
    memory = made(MemoryRule())
    for number, target in enumerate([b"a" * 16, b"a" * 16, b"b" * 16, b""]):
        memory.put(key(number), replace(entry(), target=target))

    assert [key(0), key(1)] == sorted(memory.drop_target(b"a" * 16))
    assert [] == memory.drop_target(b"a" * 16)
    assert [2, 3] == held(memory, range(4))
    assert weigh(key(2), replace(entry(), target=b"b" * 16)) + weigh(key(3), entry()) == memory.bytes


def test_another_target_in_its_place():
    """An entry is found by the target that it has now."""
    memory = made(MemoryRule())
    memory.put(key(1), replace(entry(), target=b"a" * 16))
    memory.put(key(1), replace(entry(), target=b"b" * 16))

    assert [] == memory.drop_target(b"a" * 16)
    assert [key(1)] == memory.drop_target(b"b" * 16)


def test_walk():
    """All entries are seen once, though memory changes meanwhile."""
    memory = made(MemoryRule())
    for number in range(5):
        memory.put(key(number), entry(number))
    seen = []
    for chunk in memory.walk(2):
        seen.append([len(kept.entry.body) for _, kept in chunk])
        memory.clear()

    assert [[0, 1], [2, 3], [4]] == seen


def test_repr():
    """The tier tells its state."""
    memory = made(MemoryRule(max_bytes=room_for(1)))
    memory.put(key(1), entry())
    memory.put(key(2), entry())

    assert f"<Memory 1 entries, {room_for(1)} of {room_for(1)} bytes, 1 evicted, 0 expired>" == repr(memory)


TAGS = ("odd", "even")
TARGETS = (b"", b"a" * 16, b"b" * 16)


class Tier(RuleBasedStateMachine):
    """Any order of calls against a dict that knows what was put last."""

    eviction = "s3-fifo"
    keys = Bundle("keys")

    def __init__(self) -> None:
        super().__init__()
        self.times = [1e6, 0.0]
        bounds = MemoryRule(max_bytes=room_for(6), max_entry_bytes=3000, max_entries=5, eviction=self.eviction)
        self.memory = made(bounds, self.times)
        self.put_last: dict[Key, Entry] = {}
        self.put_at: dict[Key, float] = {}
        self.noted: dict[Key, set[str]] = {}

    @rule(target=keys, number=st.integers(0, 12))
    def some_key(self, number):
        return key(number)

    @rule(key=keys, size=st.integers(0, 4000), ttl=st.sampled_from([1.0, 100.0, 1e5]))
    def put(self, key, size, ttl):
        new = replace(entry(size, at=self.times[0], ttl=ttl), tags=(TAGS[size % 2],), target=TARGETS[size % 3])
        before = self.memory.peek(key)
        kept = self.memory.put(key, new)
        if before is None:
            self.noted.pop(key, None)
        if kept:
            self.put_last[key], self.put_at[key] = new, self.times[1]

        assert kept == (size <= 3000)
        assert (new if kept else before) is self.memory.peek(key)

    @rule(key=keys)
    def peek(self, key):
        found = self.memory.peek(key)

        assert found is None or found is self.put_last[key]

    @rule(key=keys)
    def drop(self, key):
        was_there = self.memory.peek(key) is not None

        assert was_there == self.memory.drop(key)
        assert self.memory.peek(key) is None

    @rule(changed=st.sampled_from(TARGETS[1:]))
    def drop_target(self, changed):
        doomed = {key(n) for n in range(13) if (kept := self.memory.peek(key(n))) and kept.target == changed}

        assert doomed == set(self.memory.drop_target(changed))
        assert not any(self.memory.peek(key) for key in doomed)

    @rule(key=keys, tag=st.sampled_from(TAGS))
    def note(self, key, tag):
        found = self.memory.peek(key)
        if found is not None:
            self.memory.note(key, self.memory.lacking(key, found, (tag,)))
            if tag not in found.tags:  # else it is the entry's own, and goes with it
                self.noted.setdefault(key, set()).add(tag)

            assert tag in self.memory.tags(key)

    @rule(by=st.sampled_from([-1e5, -1.0, 1.0, 1e5]))
    def set_the_wall_clock(self, by):
        self.times[0] += by

    @rule(later=st.sampled_from([0.0, 50.0, 1e3, 1e6]), budget=st.integers(1, 5))
    def sweep(self, later, budget):
        self.times[:] = [self.times[0] + later, self.times[1] + later]
        clock = self.times[1]

        assert self.memory.sweep(clock, budget) <= budget

        while self.memory.sweep(clock, budget):
            pass
        alive = {key(n): kept for n in range(13) if (kept := self.memory.peek(key(n)))}

        assert all(self.put_at[key] + kept.ttl + GRAIN > clock for key, kept in alive.items())

    @rule(tag=st.sampled_from(TAGS))
    def purge(self, tag):
        doomed = [key for key, kept in self.put_last.items() if tag in kept.tags or tag in self.noted.get(key, ())]
        self.memory.purge([Scope(ScopeKind.TAG, tag)])

        assert [None] * len(doomed) == [self.memory.peek(key) for key in doomed]

    @rule(budget=st.integers(1, 2))
    def purge_on(self, budget):
        self.memory.purge_on(budget)

    @rule()
    def clear(self):
        self.memory.clear()

        assert (0, 0) == (self.memory.entries, self.memory.bytes)

    @invariant()
    def bounds_hold(self):
        held = {key(n): kept for n in range(13) if (kept := self.memory.peek(key(n)))}  # drops what a purge takes

        assert len(held) == self.memory.entries <= 5
        weights = [weigh(k, kept, self.memory.find(k).noted) for k, kept in held.items()]

        assert sum(weights) == self.memory.bytes <= room_for(6)
        assert self.memory.entries == sum(map(len, self.memory._due.values()))
        assert sum(bool(kept.target) for kept in held.values()) == sum(map(len, self.memory._targets.values()))


class LruTier(Tier):
    """The same with the other policy."""

    eviction = "lru"


TestTier = Tier.TestCase
TestLruTier = LruTier.TestCase
TestTier.settings = TestLruTier.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
