"""
Which entries leave a bounded cache: S3-FIFO and LRU.

The rule: order and cost only. A policy gets slots, says which of them must go, and never looks at their content. A hit
costs no more than ``touch``: in S3-FIFO one comparison and at most one addition. The other operations take constant
time for each slot that goes.

S3-FIFO (Yang and others, "FIFO queues are all you need for cache eviction", SOSP 2023) puts new slots into a small
queue of a tenth of the capacity. Slots with more than one hit by the time they leave it move to the main queue. The
others go, and a ghost queue remembers their keys for a while: a key that comes back soon enters the main queue at once.
So many keys that are asked for once pass through the small queue and do not disturb the main one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MOST_USES = 3
"""The most hits that count: a slot that once had many must not stay for ever."""

PATIENCE = 1000
"""The most slots that one step looks at before the next slot goes anyway: a cache full of hits never stalls."""


class CacheSlot(Struct, Generic[K, V], eq=False, gc=False):
    """
    A place in a cache. *cost* is in the unit of the policy's capacity; the members after it belong to the policy.

    Slots are many and live long, so the garbage collector does not follow them. The owner of a policy clears it before
    dropping it; otherwise the slots stay in memory.
    """

    key: K
    value: V
    cost: int
    uses: int = 0
    queue: Queue[K, V] | None = None
    older: CacheSlot[K, V] | None = None
    newer: CacheSlot[K, V] | None = None


class Policy(Protocol[K, V]):
    """
    Decides which slots leave. *cost* and *count* are the sums over all slots in the cache.

    ``add`` and ``resize`` return the slots that must go, already taken out; the owner forgets them.
    """

    @property
    def cost(self) -> int:
        """The sum of the slots' costs: never more than the capacity."""

    @property
    def count(self) -> int:
        """The number of slots: never more than the limit of entries, where there is one."""

    def touch(self, slot: CacheSlot[K, V]) -> None:
        """Record a hit of *slot*."""

    def add(self, slot: CacheSlot[K, V]) -> list[CacheSlot[K, V]]:
        """Take in *slot*, which costs no more than the whole capacity and whose key is not in the cache."""

    def resize(self, slot: CacheSlot[K, V], cost: int) -> list[CacheSlot[K, V]]:
        """*slot* has a newer value with another *cost*, within the capacity. It keeps its place."""

    def remove(self, slot: CacheSlot[K, V]) -> None:
        """Take *slot* out."""

    def clear(self) -> None:
        """Take out everything, and forget what was there."""

    def bound(self, capacity: int, entries: int) -> None:
        """Other bounds hold from the next ``add`` or ``shrink``."""

    def shrink(self, most: int) -> list[CacheSlot[K, V]]:
        """Take out slots past the bounds, at most *most*; none: the bounds hold."""

    def leave(self) -> list[CacheSlot[K, V]]:
        """Take out everything, the next to go first, for another policy to take in."""


class Lru(Generic[K, V]):
    """Evicts the slot without a hit for the longest time. Bounded by cost and, where not 0, by *entries*."""

    def __init__(self, capacity: int, entries: int = 0) -> None:
        self._capacity = capacity
        self._entries = entries
        self._slots: OrderedDict[CacheSlot[K, V], None] = OrderedDict()
        self._cost = 0

    def __repr__(self) -> str:
        return f"<Lru {self.cost} of {self._capacity} in {self.count} slots>"

    @property
    def cost(self) -> int:
        """The sum of the slots' costs."""
        return self._cost

    @property
    def count(self) -> int:
        """The number of slots."""
        return len(self._slots)

    def touch(self, slot: CacheSlot[K, V]) -> None:
        """Make *slot* the last to go."""
        self._slots.move_to_end(slot)

    def add(self, slot: CacheSlot[K, V]) -> list[CacheSlot[K, V]]:
        """Take in *slot*; the slots unused for longest go."""
        self._slots[slot] = None
        self._cost += slot.cost
        gone = []
        while self._cost > self._capacity or 0 < self._entries < len(self._slots):
            oldest, _ = self._slots.popitem(last=False)
            self._cost -= oldest.cost
            gone.append(oldest)
        return gone

    def resize(self, slot: CacheSlot[K, V], cost: int) -> list[CacheSlot[K, V]]:
        """*slot* has another *cost*. What is new counts as used."""
        self.remove(slot)
        slot.cost = cost
        return self.add(slot)

    def remove(self, slot: CacheSlot[K, V]) -> None:
        """Take *slot* out."""
        del self._slots[slot]
        self._cost -= slot.cost

    def clear(self) -> None:
        """Take out everything, and forget what was there."""
        self._slots.clear()
        self._cost = 0

    def bound(self, capacity: int, entries: int) -> None:
        """See ``Policy``."""
        self._capacity, self._entries = capacity, entries

    def shrink(self, most: int) -> list[CacheSlot[K, V]]:
        """See ``Policy``."""
        gone: list[CacheSlot[K, V]] = []
        while len(gone) < most and (self._cost > self._capacity or 0 < self._entries < len(self._slots)):
            gone.append(next(iter(self._slots)))
            self.remove(gone[-1])
        return gone

    def leave(self) -> list[CacheSlot[K, V]]:
        """See ``Policy``."""
        slots = list(self._slots)
        self.clear()
        return slots


class Queue(Generic[K, V]):
    """Slots from oldest to newest, linked through themselves, so that any of them can leave in constant time."""

    __slots__ = ("cost", "count", "newest", "oldest")

    def __init__(self) -> None:
        self.oldest: CacheSlot[K, V] | None = None
        self.newest: CacheSlot[K, V] | None = None
        self.cost = 0
        self.count = 0

    def push(self, slot: CacheSlot[K, V]) -> None:
        """Append *slot*, which is in no queue, as the newest."""
        slot.queue = self
        slot.older = newest = self.newest
        if newest is None:
            self.oldest = slot
        else:
            newest.newer = slot
        self.newest = slot
        self.cost += slot.cost
        self.count += 1

    def remove(self, slot: CacheSlot[K, V]) -> None:
        """Take out *slot*, which is in this queue."""
        older, newer = slot.older, slot.newer
        if older is None:
            self.oldest = newer
        else:
            older.newer = newer
        if newer is None:
            self.newest = older
        else:
            newer.older = older
        slot.queue = slot.older = slot.newer = None
        self.cost -= slot.cost
        self.count -= 1


class S3Fifo(Generic[K, V]):
    """
    S3-FIFO, bounded by cost and, where *entries* is not 0, by number.

    The small queue's share is a tenth (at least 1), main's share the rest. Both bound eviction, not admission: while
    the cache has room, nothing goes. The ghost queue is bounded like main, by the cost of the slots that it remembers
    (and by number). It remembers only hashes of keys: if two keys have one hash, a new slot merely enters main.
    """

    def __init__(self, capacity: int, entries: int = 0) -> None:
        self.bound(capacity, entries)
        self._small: Queue[K, V] = Queue()
        self._main: Queue[K, V] = Queue()
        self._ghosts: OrderedDict[int, int] = OrderedDict()
        self._ghosts_cost = 0

    def __repr__(self) -> str:
        return (
            f"<S3Fifo {self.cost} of {self._capacity} in {self._small.count} small and {self._main.count} main slots, "
            f"{len(self._ghosts)} ghosts>"
        )

    @property
    def cost(self) -> int:
        """The sum of the slots' costs."""
        return self._small.cost + self._main.cost

    @property
    def count(self) -> int:
        """The number of slots."""
        return self._small.count + self._main.count

    def touch(self, slot: CacheSlot[K, V]) -> None:
        """Count the hit."""
        if slot.uses < MOST_USES:
            slot.uses += 1

    def add(self, slot: CacheSlot[K, V]) -> list[CacheSlot[K, V]]:
        """Take in *slot*: among the main ones where its key left a ghost, else among the new ones."""
        gone = self._make_room(slot.cost)
        cost = self._ghosts.pop(hash(slot.key), None)
        if cost is None:
            self._small.push(slot)
        else:
            self._ghosts_cost -= cost
            self._main.push(slot)
        return gone

    def resize(self, slot: CacheSlot[K, V], cost: int) -> list[CacheSlot[K, V]]:
        """See ``Policy``. It becomes the newest of its queue, because a new value should not go at once."""
        queue = slot.queue
        assert queue is not None
        queue.remove(slot)
        slot.cost = cost
        gone = self._make_room(cost)
        queue.push(slot)
        return gone

    def remove(self, slot: CacheSlot[K, V]) -> None:
        """Take *slot* out."""
        assert slot.queue is not None
        slot.queue.remove(slot)

    def clear(self) -> None:
        """Take out everything, and forget what was there."""
        for queue in (self._small, self._main):
            while (slot := queue.oldest) is not None:
                queue.remove(slot)
        self._ghosts.clear()
        self._ghosts_cost = 0

    def bound(self, capacity: int, entries: int) -> None:
        """See ``Policy``."""
        self._capacity = capacity
        self._entries = entries
        self._small_capacity = max(1, capacity // 10)
        self._main_capacity = capacity - self._small_capacity
        self._small_entries = max(1, entries // 10) if entries else 0
        self._main_entries = entries - self._small_entries

    def shrink(self, most: int) -> list[CacheSlot[K, V]]:
        """See ``Policy``."""
        gone: list[CacheSlot[K, V]] = []
        while len(gone) < most and self.count and (self.cost > self._capacity or 0 < self._entries < self.count):
            self._let_go(gone)
        return gone

    def leave(self) -> list[CacheSlot[K, V]]:
        """See ``Policy``."""
        slots = []
        for queue in (self._small, self._main):
            while (slot := queue.oldest) is not None:
                queue.remove(slot)
                slots.append(slot)
        self.clear()
        return slots

    def _make_room(self, cost: int) -> list[CacheSlot[K, V]]:
        gone: list[CacheSlot[K, V]] = []
        small, main, most = self._small, self._main, self._capacity - cost
        while (small.cost + main.cost > most or 0 < self._entries <= self.count) and self.count:
            self._let_go(gone)
        return gone

    def _let_go(self, gone: list[CacheSlot[K, V]]) -> None:
        if self._is_full(self._small, self._small_capacity, self._small_entries) or not self._main.count:
            self._shrink_small(gone)
        else:
            self._shrink_main(gone)

    @staticmethod
    def _is_full(queue: Queue[K, V], capacity: int, entries: int) -> bool:
        return queue.cost >= capacity or 0 < entries <= queue.count

    def _shrink_small(self, gone: list[CacheSlot[K, V]]) -> None:
        """Move slots to main until a slot with at most one hit goes, or until main must let one go."""
        small, main = self._small, self._main
        for patience in range(PATIENCE, -1, -1):
            slot = small.oldest
            if slot is None:
                return
            small.remove(slot)
            if slot.uses <= 1 or not patience:
                self._remember(slot)
                gone.append(slot)
                return
            slot.uses = 0
            main.push(slot)
            if main.cost > self._main_capacity or 0 < self._main_entries < main.count:
                self._shrink_main(gone)
                return

    def _shrink_main(self, gone: list[CacheSlot[K, V]]) -> None:
        """Move slots with hits to the end, with one hit less, until one without hits comes up: that one goes."""
        main = self._main
        for patience in range(PATIENCE, -1, -1):
            slot = main.oldest
            if slot is None:
                return
            main.remove(slot)
            if not slot.uses or not patience:
                gone.append(slot)
                return
            slot.uses -= 1
            main.push(slot)

    def _remember(self, slot: CacheSlot[K, V]) -> None:
        ghosts = self._ghosts
        name = hash(slot.key)
        self._ghosts_cost += slot.cost - ghosts.pop(name, 0)
        ghosts[name] = slot.cost
        while self._ghosts_cost > self._main_capacity or 0 < self._main_entries < len(ghosts):
            _, cost = ghosts.popitem(last=False)
            self._ghosts_cost -= cost
