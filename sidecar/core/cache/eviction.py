"""
Which entries leave a bounded cache: S3-FIFO and LRU.

The rule: order and cost only. A policy is handed slots, says which of them have to go, and never looks at what they
hold. A hit costs no more than ``touch``, in S3-FIFO a comparison and at most an addition; the other operations take
constant time for each slot that goes.

S3-FIFO (Yang and others, "FIFO queues are all you need for cache eviction", SOSP 2023) puts newcomers into a small
queue of a tenth of the capacity. Those that were asked for more than once by the time they leave it move on to the main
queue; the others go, and are remembered for a while in a ghost queue: one that comes back soon enters the main queue
at once. So a scan of things asked for once passes through the small queue and leaves the main one alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MOST_USES = 3
"""More hits than this don't count: a slot that was hot once must not stay for ever."""

PATIENCE = 1000
"""Slots that one step looks at before the next goes in any case, so that a cache full of hot slots never stalls."""


class CacheSlot(Struct, Generic[K, V], eq=False, gc=False):
    """
    A place in a cache. *cost* is in the unit of the policy's capacity; the members after it are the policy's own.

    Slots are many and live long, so the garbage collector does not follow them: whoever drops a whole policy clears it
    first, or its slots stay.
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
    What decides who leaves. *cost* and *count* are what the slots in the cache sum up to.

    ``add`` and ``resize`` return the slots that have to go, already taken out: the owner forgets them.
    """

    @property
    def cost(self) -> int:
        """The sum of the slots' costs: never more than the capacity."""

    @property
    def count(self) -> int:
        """The number of slots: never more than the limit of entries, where there is one."""

    def touch(self, slot: CacheSlot[K, V]) -> None:
        """*slot* was hit."""

    def add(self, slot: CacheSlot[K, V]) -> list[CacheSlot[K, V]]:
        """Take in *slot*, which costs no more than the whole capacity and whose key is not in the cache."""

    def resize(self, slot: CacheSlot[K, V], cost: int) -> list[CacheSlot[K, V]]:
        """*slot* holds something newer of its key, of another *cost* within the capacity. It keeps its standing."""

    def remove(self, slot: CacheSlot[K, V]) -> None:
        """Take *slot* out."""

    def clear(self) -> None:
        """Take out everything, and forget what was there."""


class Lru(Generic[K, V]):
    """The slot that was not hit for the longest time goes first. Bounded by cost and, where not 0, by *entries*."""

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

    The small queue's share is a tenth (at least 1), main's the rest; both bound eviction, not admission: while the
    cache has room nothing goes. The ghost queue is bounded like main, by what the slots it remembers had cost (and by
    number). It remembers the keys' hashes only: two keys of one hash would merely let a newcomer into main.
    """

    def __init__(self, capacity: int, entries: int = 0) -> None:
        self._capacity = capacity
        self._entries = entries
        self._small_capacity = max(1, capacity // 10)
        self._main_capacity = capacity - self._small_capacity
        self._small_entries = max(1, entries // 10) if entries else 0
        self._main_entries = entries - self._small_entries
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
        """
        *slot* has another *cost*. It is the newest of its queue then: what was just brought anew should not be what
        goes.
        """
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

    def _make_room(self, cost: int) -> list[CacheSlot[K, V]]:
        gone: list[CacheSlot[K, V]] = []
        while self.count and (self.cost + cost > self._capacity or 0 < self._entries <= self.count):
            if self._is_full(self._small, self._small_capacity, self._small_entries) or not self._main.count:
                self._shrink_small(gone)
            else:
                self._shrink_main(gone)
        return gone

    @staticmethod
    def _is_full(queue: Queue[K, V], capacity: int, entries: int) -> bool:
        return queue.cost >= capacity or 0 < entries <= queue.count

    def _shrink_small(self, gone: list[CacheSlot[K, V]]) -> None:
        """Move slots on to main, until one goes that was not hit more than once or main has to let one go."""
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
        """Send slots round that were hit, one hit the less, until one comes up that was not: it goes."""
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
