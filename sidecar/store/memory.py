"""
The answers in this process's own memory.

The rule: a hit is one look-up, one comparison and one ``touch``; everything else waits until an entry is stored or
swept. The bound counts the bytes that the interpreter uses, not only those of the bodies. No entry has a timer:
``sweep`` is called now and then and touches only dead entries.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from itertools import chain, islice
from typing import TypeVar

from sidecar.core.cache.eviction import CacheSlot, Lru, Policy, S3Fifo
from sidecar.core.cache.held import MOST_NOTED, Held, hold
from sidecar.core.cache.purges import ALL, Scope, ScopeKind, taking
from sidecar.core.model import Entry, Key
from sidecar.core.rules import MemoryRule

OVERHEAD = 1216
"""
Bytes that an entry costs besides its content. Measured on CPython 3.11 (64 bits): 770 for the entry with its numbers
and texts, the key, the slot, and the shares of table and schedule; up to 1170 once S3-FIFO remembers as many ghosts.
"""

PAIR_OVERHEAD = 152
"""Bytes that a header field costs beside its name and value: a tuple, two ``bytes`` and a place among the others."""

TARGET_OVERHEAD = 512
"""Bytes that it costs to find an entry by its target: that, a set of one, and a place among the others."""
TAG_OVERHEAD = 64
"""Bytes that a noted tag costs beside its text: a ``str`` and a place among the others."""

GRAIN = 60.0
"""Seconds. Entries that die within one span of this length are removed together, at its end."""

CHUNK = 1000
"""The most entries that one step of a purge looks at: a few milliseconds if all of them go."""

MOST_UNFINISHED = 1000
"""The most scopes whose purge may go on at the same time; with more, everything is removed."""

_Slot = CacheSlot[Key, Held]
_Target = bytes

T = TypeVar("T")


def weigh(key: Key, entry: Entry, noted: tuple[str, ...] = ()) -> int:
    """Bytes that keeping *entry* costs, with the tags that are *noted* beside it."""
    texts = len(entry.model) + sum(map(len, entry.tags)) + TAG_OVERHEAD * len(noted) + sum(map(len, noted))
    rare = 0
    if entry.vary:
        rare = PAIR_OVERHEAD * len(entry.vary) + sum(map(len, chain.from_iterable(entry.vary)))
    if entry.target:
        rare += TARGET_OVERHEAD
    return OVERHEAD + PAIR_OVERHEAD * len(entry.headers) + sum(map(len, key)) + entry.size + texts + rare


class Memory:
    """
    Entries within the bounds of *rule*; when room is needed, those that the policy chooses leave. *now* is wall-clock
    seconds, *clock* seconds that run on.

    Counters, all since the start: *evictions*, entries that left for lack of room; *expired*, dead ones that were
    removed; *purged*, entries that a purge removed; *collisions*, look-ups that met another key of the same address.
    """

    __slots__ = (
        "_clock",
        "_due",
        "_now",
        "_policy",
        "_purging",
        "_rule",
        "_shrinking",
        "_slots",
        "_taken",
        "_targets",
        "_touch",
        "_unswept",
        "collisions",
        "evictions",
        "expired",
        "purged",
    )

    def __init__(self, rule: MemoryRule, *, now: Callable[[], float], clock: Callable[[], float]) -> None:
        self._rule = rule
        self._now = now
        self._clock = clock
        self._policy = _policy(rule)
        self._touch = self._policy.touch
        self._shrinking = False
        self._slots: dict[bytes, _Slot] = {}
        self._due: dict[float, set[_Slot]] = {}  # by the number of the span in which they can no longer serve anybody
        self._targets: dict[bytes, set[_Slot]] = {}
        self._purging: frozenset[Scope] = frozenset()
        self._taken = taking(())
        self._unswept: dict[bytes, _Slot] = {}  # older than the purge, and not checked yet
        self.evictions = 0
        self.expired = 0
        self.purged = 0
        self.collisions = 0

    def __repr__(self) -> str:
        return (
            f"<Memory {self.entries} entries, {self.bytes} of {self._rule.max_bytes} bytes, "
            f"{self.evictions} evicted, {self.expired} expired>"
        )

    @property
    def standing(self) -> str:
        """How full the memory is, for people."""
        return f"{self.entries} entries, {self.bytes} of {self._rule.max_bytes} bytes, {self.evictions} evicted"

    @property
    def entries(self) -> int:
        """The number of entries."""
        return len(self._slots)

    @property
    def bytes(self) -> int:
        """Bytes that the entries cost, overhead included: never more than ``max_bytes``, once they are shrunk to it."""
        return self._policy.cost

    def adopt(self, rule: MemoryRule) -> None:
        """
        The bounds of *rule* hold from now on, for entries that come. ``shrink`` must be called until it returns False:
        it brings those that are here within the bounds. Another way of eviction takes over all entries.
        """
        before, self._rule = self._rule, rule
        if rule.eviction != before.eviction:
            room = max(rule.max_bytes, self.bytes)
            slots = self._policy.leave()
            self._policy = _policy(replace(rule, max_bytes=room, max_entries=0))
            self._touch = self._policy.touch
            for slot in slots:
                self._policy.add(slot)
        self._shrinking = True
        self._bound()

    def shrink(self, budget: int = CHUNK) -> bool:
        """Evict at most *budget* entries past the bounds. Returns whether there is more to do."""
        if not self._shrinking:
            return False
        self._policy.bound(self._rule.max_bytes, self._rule.max_entries)
        gone = self._policy.shrink(budget)
        self._evict(gone)
        self._shrinking = len(gone) == budget
        self._bound()
        return self._shrinking

    def _bound(self) -> None:
        """Until it has shrunk, the present size is the bound: an entry that comes costs no more than usual."""
        rule, policy = self._rule, self._policy
        most = rule.max_entries and max(rule.max_entries, policy.count)
        policy.bound(max(rule.max_bytes, policy.cost), most)

    def find(self, key: Key) -> Held | None:
        """What is held of *key*, fresh or not."""
        slot = self._slots.get(key.address)
        if slot is None:
            return None
        if slot.key != key:
            self.collisions += 1
            return None
        if self._unswept and key.address in self._unswept and self._taken(key, slot.value):
            self._purge(slot)
            return None
        self._touch(slot)
        return slot.value

    def peek(self, key: Key) -> Entry | None:
        """The entry of *key*, fresh or not; as ``find``."""
        held = self.find(key)
        return None if held is None else held.entry

    def hold(self, entry: Entry) -> Held:
        """*entry* as this process holds it from now on, here or elsewhere."""
        return hold(entry, self._now(), self._clock())

    def put(self, key: Key, entry: Entry) -> bool:
        """
        Keep *entry*, in place of an older one of this key, whose noted tags it takes over.

        An entry too large to keep is refused, and the older one stays. An entry is also refused if another key holds
        its address; otherwise two such calls would push each other out again and again.
        """
        slot = self._slots.get(key.address)
        if slot is not None and slot.key != key:
            return False
        noted = () if slot is None else tuple([tag for tag in slot.value.noted if tag not in entry.tags])
        cost, rule = weigh(key, entry, noted), self._rule
        # an entry costs more than its size, so the size needs a look only where the cost is above its bound
        if cost > rule.max_bytes or (cost > rule.max_entry_bytes and entry.size > rule.max_entry_bytes):
            return False
        held = hold(entry, self._now(), self._clock(), noted)
        if slot is None:
            slot = self._slots[key.address] = CacheSlot(key, held, cost)
            gone = self._policy.add(slot)
        else:
            self._unschedule(slot)
            slot.value = held
            gone = self._policy.resize(slot, cost)
        self._due.setdefault(held.end // GRAIN, set()).add(slot)
        if entry.target:
            self._targets.setdefault(entry.target, set()).add(slot)
        if gone:
            self._evict(gone)
        return True

    def tags(self, key: Key) -> tuple[str, ...]:
        """The tags by which a purge removes what is held of *key*."""
        slot = self._slots.get(key.address)
        if slot is None or slot.key != key:
            return ()
        return slot.value.entry.tags + slot.value.noted

    def lacking(self, key: Key, entry: Entry, tags: tuple[str, ...]) -> tuple[str, ...]:
        """Those of *tags* that neither *entry* has nor are noted beside *key*."""
        slot = self._slots.get(key.address)
        noted = slot.value.noted if slot is not None and slot.key == key else ()
        return tuple([tag for tag in dict.fromkeys(tags) if tag not in entry.tags and tag not in noted])

    def note(self, key: Key, tags: tuple[str, ...]) -> None:
        """
        Note *tags*, which are ``lacking``, beside the entry of *key*: a purge of one of them removes it. If there is no
        room for so many, the entry is removed: then nothing is left that a purge could miss.
        """
        slot = self._slots.get(key.address)
        if slot is None or slot.key != key:
            return
        held = slot.value
        noted = held.noted + tags
        cost = weigh(key, held.entry, noted)
        if len(noted) > MOST_NOTED or cost > self._rule.max_bytes:
            self.drop(key)
            return
        slot.value = Held(held.entry, held.born, noted)
        self._evict(self._policy.resize(slot, cost))

    def drop(self, key: Key) -> bool:
        """Remove the entry of *key*. Returns whether there was one."""
        slot = self._slots.get(key.address)
        if slot is None or slot.key != key:
            return False
        self._policy.remove(slot)
        self._forget(slot)
        return True

    def drop_target(self, target: _Target) -> list[Key]:
        """Remove the entries of *target*. Returns their keys."""
        slots = list(self._targets.get(target, ()))
        for slot in slots:
            self._policy.remove(slot)
            self._forget(slot)
        return [slot.key for slot in slots]

    def clear(self) -> None:
        """Remove everything, also what the policy remembers; the counters go on."""
        self._policy.clear()
        self._slots.clear()
        self._due.clear()
        self._targets.clear()
        self._end_purge()

    def purge(self, scopes: Collection[Scope]) -> bool:
        """
        From now on serve none of the present entries of *scopes*. Returns whether there is more to do, if that takes
        longer than a moment: ``purge_on`` does it, step by step.

        A purge that comes while another goes on starts both anew, so it may remove entries that came between the two.
        """
        keys = {scope for scope in scopes if scope.kind is ScopeKind.KEY}
        for scope in keys:
            self._purge_address(scope.value)
        others = keys.symmetric_difference(scopes)
        if not others:
            return bool(self._unswept)
        unfinished = self._purging.union(others)
        if ALL in unfinished or len(unfinished) > MOST_UNFINISHED:
            unfinished = frozenset((ALL,))
        self._purging = unfinished
        self._taken = taking(unfinished)
        self._unswept = self._slots.copy()
        return self.purge_on()

    def purge_on(self, budget: int = CHUNK) -> bool:
        """Go on with a ``purge``: look at *budget* entries at most. Returns whether there is more to do."""
        for _ in range(min(budget, len(self._unswept))):
            _, slot = self._unswept.popitem()
            if self._taken(slot.key, slot.value):
                self._purge(slot)
        if self._unswept:
            return True
        self._end_purge()
        return False

    def walk(self, chunk: int = CHUNK) -> Iterator[list[tuple[Key, Held]]]:
        """All present entries, in lists of *chunk*; memory may change between two lists."""
        slots = list(self._slots.values())
        for start in range(0, len(slots), chunk):
            yield [(slot.key, slot.value) for slot in slots[start : start + chunk]]

    def sweep(self, clock: float, budget: int = 1000) -> int:
        """
        Remove entries that died at least ``GRAIN`` before *clock*, which runs on: at most *budget* of them.

        Returns their number; if it is *budget*, there may be more.
        """
        reclaimed = 0
        for span in [span for span in self._due if span < clock // GRAIN]:
            for slot in list(islice(self._due[span], budget - reclaimed)):
                self._policy.remove(slot)
                self._forget(slot)
                reclaimed += 1
        self.expired += reclaimed
        return reclaimed

    def _purge_address(self, digits: str) -> None:
        try:
            slot = self._slots.get(bytes.fromhex(digits))
        except ValueError:
            return
        if slot is not None:
            self._purge(slot)

    def _purge(self, slot: _Slot) -> None:
        self._policy.remove(slot)
        self._forget(slot)
        self.purged += 1

    def _end_purge(self) -> None:
        self._purging = frozenset()
        self._taken = taking(())
        self._unswept = {}

    def _evict(self, gone: list[_Slot]) -> None:
        for slot in gone:
            self._forget(slot)
        self.evictions += len(gone)

    def _forget(self, slot: _Slot) -> None:
        del self._slots[slot.key.address]
        self._unschedule(slot)

    def _unschedule(self, slot: _Slot) -> None:
        if self._unswept:
            self._unswept.pop(slot.key.address, None)
        _withdraw(self._due, slot.value.end // GRAIN, slot)
        if slot.value.entry.target:
            _withdraw(self._targets, slot.value.entry.target, slot)


def _policy(rule: MemoryRule) -> Policy[Key, Held]:
    policy = Lru if rule.eviction == "lru" else S3Fifo
    return policy(rule.max_bytes, rule.max_entries)


def _withdraw(index: dict[T, set[_Slot]], at: T, slot: _Slot) -> None:
    slots = index[at]
    slots.discard(slot)
    if not slots:
        del index[at]
