"""Who leaves a bounded cache, and how well that works on real traces."""

from __future__ import annotations

import json
import lzma
from collections.abc import Hashable, Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.cache.eviction import MOST_USES, PATIENCE, CacheSlot, Lru, Policy, S3Fifo

TRACES = Path(__file__).parents[3] / "../shared/data/traces"

POLICIES = [pytest.param(Lru, id="lru"), pytest.param(S3Fifo, id="s3-fifo")]


class Cache:
    """The least that a policy can serve: keys and their slots."""

    def __init__(self, policy: Policy[Hashable, None]) -> None:
        self.policy = policy
        self.slots: dict[Hashable, CacheSlot[Hashable, None]] = {}

    def ask(self, key: Hashable, cost: int = 1) -> bool:
        """Whether *key* was there; it is now."""
        slot = self.slots.get(key)
        if slot is not None:
            self.policy.touch(slot)
            return True
        slot = self.slots[key] = CacheSlot(key, None, cost)
        self.forget(self.policy.add(slot))
        return False

    def forget(self, gone: Iterable[CacheSlot[Hashable, None]]) -> None:
        for slot in gone:
            del self.slots[slot.key]

    def hits(self, keys: Iterable[Hashable]) -> int:
        return sum(map(self.ask, keys))


@pytest.fixture(scope="module")
def traces() -> dict[str, list[Hashable]]:
    """The keys of three public traces, in the order in which they were asked for."""
    if not TRACES.is_dir():
        pytest.skip("the public traces are not here: ../shared/data/traces")
    found: dict[str, list[Hashable]] = {}
    for name in ("adapt_size", "cache2k_web07"):
        with lzma.open(TRACES / f"{name}.csv.xz", "rt") as lines:
            found[name] = [line.partition(",")[0] for line in lines]
    with (TRACES / "mooncake_synthetic.jsonl").open() as lines:
        found["mooncake"] = [block for line in lines for block in json.loads(line)["hash_ids"]]
    return found


@pytest.mark.parametrize(
    ("trace", "policy", "percent", "expected"),
    [
        pytest.param(trace, policy, percent, expected, id=f"{trace}-{name}-{percent}%")
        for trace, name, policy, at_1, at_10 in [
            ("adapt_size", "lru", Lru, 24.3, 34.2),
            ("adapt_size", "s3-fifo", S3Fifo, 26.4, 37.4),
            ("cache2k_web07", "lru", Lru, 39.1, 55.7),
            ("cache2k_web07", "s3-fifo", S3Fifo, 43.8, 58.1),
            ("mooncake", "lru", Lru, 3.4, 26.0),
            ("mooncake", "s3-fifo", S3Fifo, 3.8, 26.1),
        ]
        for percent, expected in [(1, at_1), (10, at_10)]
    ],
)
def test_c1_published_hit_ratio(traces, trace, policy, percent, expected):
    """Each trace is hit as often as published, at a capacity of a share of its distinct keys."""
    keys = traces[trace]
    cache = Cache(policy(len(set(keys)) * percent // 100))

    assert expected == pytest.approx(100 * cache.hits(keys) / len(keys), abs=0.1)


@pytest.mark.parametrize(
    ("policy", "least", "most"), [pytest.param(Lru, 0, 0, id="lru"), pytest.param(S3Fifo, 900, 1000, id="s3-fifo")]
)
def test_c3_scan(policy, least, most):
    """A scan of things asked for once leaves a hot set alone in S3-FIFO, and wipes it out in LRU."""
    cache = Cache(policy(2000))
    hot = range(1000)
    for _ in range(3):
        cache.hits(hot)
    cache.hits(range(1000, 101_000))

    assert least <= sum(key in cache.slots for key in hot) <= most


def test_lru_order():
    """The slot that was not hit for the longest time goes."""
    cache = Cache(Lru(3))
    cache.hits("abcabad")

    assert {"a", "b", "d"} == set(cache.slots)


def test_one_hit_goes_from_small():
    """A slot hit once in the small queue goes; one hit twice moves on to main."""
    cache = Cache(S3Fifo(10))
    cache.hits("aab" + "bb" + "cdefghijk" + "lm")

    assert "a" not in cache.slots
    assert "b" in cache.slots


def test_ghost_enters_main():
    """A key that comes back soon is past the scan from its first moment on; one that comes back late is not."""
    cache = Cache(S3Fifo(10))
    cache.hits(range(11))
    cache.ask(0)
    cache.hits(range(100, 150))
    cache.ask(1)
    cache.hits(range(150, 200))

    assert 0 in cache.slots
    assert 1 not in cache.slots


def test_main_lets_go():
    """What is no longer asked for leaves main too, as soon as others move in."""
    cache = Cache(S3Fifo(10))
    cache.hits(key for key in "abcdefghi" for _ in range(3))
    for key in range(100):
        cache.hits([key, key, key])

    assert not set("abcdefghi") & set(cache.slots)


def test_hot_slots_never_stall():
    """A newcomer to a cache full of hot slots moves a bounded number of them, first out of small, later round main."""
    capacity = 20 * PATIENCE
    cache = Cache(S3Fifo(capacity))
    cache.hits(range(capacity))
    moved = []
    for newcomer in range(25):
        for slot in cache.slots.values():
            slot.uses = MOST_USES
        cache.ask(("newcomer", newcomer))
        moved.append(sum(slot.uses < MOST_USES for slot in cache.slots.values()))

        assert capacity == cache.policy.cost

    assert min(moved) >= PATIENCE
    assert max(moved) <= PATIENCE + 2


@pytest.mark.parametrize("policy", POLICIES)
def test_number_of_entries(policy):
    """A limit of entries holds where the costs alone would let more in, and the policy works within it."""
    cache = Cache(policy(10**9, 20))
    for key in range(100):
        cache.hits([key, "hot", "hot"])

    assert 20 == cache.policy.count == len(cache.slots)
    assert "hot" in cache.slots


def test_scan_with_a_number_of_entries():
    """Scan resistance does not hang on the bytes being what binds."""
    cache = Cache(S3Fifo(10**9, 200))
    hot = range(100)
    for _ in range(3):
        cache.hits(hot)
    cache.hits(range(1000, 11_000))

    assert sum(key in cache.slots for key in hot) >= 90


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("grown", "gone", "left"), [("e", "ab", "cde"), ("a", "bc", "ade")])
def test_resize(policy, grown, gone, left):
    """A slot that grows pushes out the oldest of the others."""
    cache = Cache(policy(10))
    cache.hits("abcde")
    pushed_out = cache.policy.resize(cache.slots[grown], 8)
    cache.forget(pushed_out)

    assert list(gone) == [slot.key for slot in pushed_out]
    assert 10 == cache.policy.cost
    assert set(left) == set(cache.slots)


@pytest.mark.parametrize("policy", POLICIES)
def test_clear(policy):
    """A cleared policy is as new: its slots are free, and nobody is remembered."""
    cache = Cache(policy(10))
    cache.hits(range(50))
    slots = list(cache.slots.values())
    cache.policy.clear()

    assert (0, 0) == (cache.policy.cost, cache.policy.count)
    assert all(slot.queue is slot.older is slot.newer is None for slot in slots)
    assert not cache.policy.add(slots[0])

    cache.policy.clear()

    assert repr(policy(10)) == repr(cache.policy)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        pytest.param(Lru(10), "<Lru 10 of 10 in 10 slots>", id="lru"),
        pytest.param(S3Fifo(10), "<S3Fifo 10 of 10 in 9 small and 1 main slots, 2 ghosts>", id="s3-fifo"),
    ],
)
def test_repr(policy, expected):
    """A policy tells its state."""
    Cache(policy).hits("aaabcdefghijkl")

    assert expected == repr(policy)


@pytest.mark.parametrize("policy", POLICIES)
@settings(deadline=None)
@given(
    entries=st.sampled_from([0, 1, 2, 7]),
    steps=st.lists(st.tuples(st.sampled_from("aardz"), st.integers(0, 15), st.integers(1, 20)), max_size=80),
)
def test_bounds(policy, entries, steps):
    """Whatever happens, neither bound is passed, and the sums are those of the slots that are there."""
    cache = Cache(policy(20, entries))
    for what, key, cost in steps:
        slot = cache.slots.get(key)
        if what == "a":
            cache.ask(key, cost)
        elif slot is not None and what == "r":
            cache.forget(cache.policy.resize(slot, cost))
        elif slot is not None and what == "d":
            cache.policy.remove(slot)
            del cache.slots[key]

        assert sum(slot.cost for slot in cache.slots.values()) == cache.policy.cost <= 20
        assert len(cache.slots) == cache.policy.count <= (entries or 20)


@settings(deadline=None)
@given(keys=st.lists(st.integers(0, 40), max_size=200), entries=st.sampled_from([0, 5]))
def test_ghosts_are_bounded(keys, entries):
    """The ghosts cost no more than main may, by cost and by number."""
    policy: S3Fifo[Hashable, None] = S3Fifo(30, entries)
    cache = Cache(policy)
    for key in keys:
        cache.ask(key, 1 + key % 7)

        assert sum(policy._ghosts.values()) == policy._ghosts_cost <= 27
        assert len(policy._ghosts) <= (entries - 1 if entries else 27)
