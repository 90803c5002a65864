"""
A tier behind memory without Redis, for processes that live in one event loop.

The rule: it keeps the same contract as the tier in Redis. Nothing here can be away or slow, so it shows the contract
plainly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from sidecar.core.cache.beside import Asked, Beside, never
from sidecar.core.model import Entry, Key
from sidecar.store.base import NOTHING, Fetched, Suffices
from sidecar.store.lifetime import aligned, life

MARK_SECONDS = 1.0
"""How long the mark stays that a fetch ended without an answer to share."""

MOST = 1024
"""The most entries; the oldest leave first."""


class SharedTier:
    """What several ``MemoryRemote`` share. *clock* is monotonic seconds, the one time of all of them."""

    __slots__ = ("_waiting", "clock", "entries", "leases", "marks", "seconds", "stuck")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.entries: dict[Key, tuple[Entry, float]] = {}
        self.leases: dict[Key, MemoryLease] = {}
        self.seconds: dict[Key, MemoryLease] = {}
        self.stuck: set[Key] = set()
        self.marks: dict[tuple[Key, bool], float] = {}  # by key, and whether of the second lease
        self._waiting: dict[Key, set[asyncio.Future[None]]] = {}

    def __repr__(self) -> str:
        return f"<SharedTier {len(self.entries)} entries, {len(self.leases)} leases>"

    def find(self, key: Key) -> tuple[Entry, float] | None:
        """The entry of *key* and how many seconds it has to live."""
        entry, end = self.entries.get(key, (None, 0.0))
        left = end - self.clock()
        if entry is not None and left > 0:
            return entry, left
        self.entries.pop(key, None)
        return None

    def store(self, key: Key, entry: Entry, seconds: float) -> None:
        """Put *entry* there for *seconds*."""
        self.entries.pop(key, None)
        self.entries[key] = (entry, self.clock() + seconds)
        if len(self.entries) > MOST:
            del self.entries[next(iter(self.entries))]

    def expire(self, key: Key) -> None:
        """The lease on *key* runs out, as it does when its holder dies."""
        self.leases.pop(key, None)
        self.stuck.discard(key)
        self.wake(key)

    def marked(self, key: Key, *, second: bool = False) -> bool:
        """Whether a fetch had no answer to share, a moment ago; *second*: one beside another."""
        if self.marks.get((key, second), 0.0) > self.clock():
            return True
        self.marks.pop((key, second), None)
        return False

    def wake(self, key: Key) -> None:
        """Wake those who wait for *key*, so that they look again."""
        for waiter in self._waiting.pop(key, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, key: Key, seconds: float) -> None:
        """Wait until there may be something new about *key*, at most *seconds*."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(key, set())
        waiting.add(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            pass
        finally:
            waiting.discard(waiter)
            if not waiting and self._waiting.get(key) is waiting:
                del self._waiting[key]


class MemoryRemote:
    """
    One process's ``Remote`` in *shared*. *admits* says whether purges allow an entry to serve and be kept; *now* is
    this process's wall clock. *report* gets bugs.

    Counters: *hits*, *waits* for another process and *takeovers* of its lease after waiting.
    """

    __slots__ = ("_admits", "_now", "_report", "_shared", "hits", "takeovers", "waits")

    def __init__(
        self,
        shared: SharedTier,
        *,
        admits: Callable[[Key, Entry], bool],
        now: Callable[[], float],
        report: Callable[[BaseException], None],
    ) -> None:
        self._shared = shared
        self._admits = admits
        self._now = now
        self._report = report
        self.hits = 0
        self.waits = 0
        self.takeovers = 0

    def __repr__(self) -> str:
        return f"<MemoryRemote {self.hits} hits, {self.waits} waits, {self._shared!r}>"

    async def fetch(self, key: Key, suffices: Suffices, *, patience: float, beside: Asked = never) -> Fetched:
        """Read the entry of *key*, or take the lease on it, or wait for the one that has it."""
        shared = self._shared
        until = shared.clock() + patience
        waited = False
        while True:
            entry = self._find(key)
            try:
                verdict = None if entry is None else suffices(entry)
                if verdict:
                    self.hits += 1
                    return Fetched(entry, waited=waited, verdict=verdict)
            except Exception as error:  # noqa: BLE001 - a bug here must cost the caller no more than a look-up
                self._report(error)
                return NOTHING
            when = beside()
            if when is Beside.LOOK and key not in shared.leases:
                return Fetched(entry, None, waited)
            lease = self._take(key, when)
            if lease is not None:
                self.takeovers += waited and not lease.second
                return Fetched(entry, lease, waited, lease.second)
            left = until - shared.clock()
            if left <= 0 or shared.marked(key):
                return Fetched(entry, None, waited)
            self.waits += not waited
            waited = True
            await shared.wait(key, left)

    def keep(self, key: Key, entry: Entry) -> None:
        """Store *entry* at once."""
        self._store(key, entry)

    def delete(self, keys: Iterable[Key]) -> None:
        """Delete the entries of *keys* at once."""
        for key in keys:
            self._shared.entries.pop(key, None)

    async def close(self) -> None:
        """Nothing is under way, and there are no connections."""

    def hand_in(self, lease: MemoryLease, entry: Entry | None, *, failed: bool) -> None:
        """Store *entry*, or note that there is none, if *lease* still holds, and give it back."""
        shared, key = self._shared, lease.key
        leases = shared.seconds if lease.second else shared.leases
        if leases.get(key) is not lease:
            return
        del leases[key]
        if not lease.second:
            shared.stuck.discard(key)
        if entry is not None:
            failed = not self._store(key, entry) and self._admitted(key, entry)
        if failed:
            shared.marks[key, lease.second] = shared.clock() + MARK_SECONDS
        shared.wake(key)

    def _admitted(self, key: Key, entry: Entry) -> bool:
        try:
            return self._admits(key, entry)
        except Exception as error:  # noqa: BLE001 - as in fetch
            self._report(error)
            return False

    def _find(self, key: Key) -> Entry | None:
        found = self._shared.find(key)
        if found is None or not self._admitted(key, found[0]):
            return None
        return aligned(*found, self._now())

    def stall(self, lease: MemoryLease, *, stuck: bool) -> None:
        """If *lease* still holds, note that its call is *stuck*, or goes on after all."""
        shared, key = self._shared, lease.key
        if lease.second or shared.leases.get(key) is not lease:
            return
        if stuck:
            shared.stuck.add(key)
            shared.wake(key)
        else:
            shared.stuck.discard(key)

    def _take(self, key: Key, when: Beside) -> MemoryLease | None:
        shared = self._shared
        if shared.marked(key):
            return None
        leases, second = shared.leases, key in shared.leases
        if second:
            if when is not Beside.NOW and not (when is Beside.STUCK and key in shared.stuck):
                return None
            leases = shared.seconds
        if key in leases or shared.marked(key, second=second):
            return None
        lease = leases[key] = MemoryLease(self, key, second=second)
        return lease

    def _store(self, key: Key, entry: Entry) -> bool:
        seconds = life(entry, self._now())
        if seconds <= 0 or not self._admitted(key, entry):
            return False
        self._shared.store(key, entry, seconds)
        return True


class MemoryLease:
    """A ``Lease`` of *remote* on *key*."""

    __slots__ = ("_remote", "key", "second")

    def __init__(self, remote: MemoryRemote, key: Key, *, second: bool) -> None:
        self._remote = remote
        self.second = second
        self.key = key

    def __repr__(self) -> str:
        return f"<MemoryLease {self.key!r}>"

    def keep(self, entry: Entry) -> None:
        """Store *entry* and give the lease back."""
        self._remote.hand_in(self, entry, failed=False)

    def stall(self, *, stuck: bool) -> None:
        """Tell those who wait whether the call is *stuck*."""
        self._remote.stall(self, stuck=stuck)

    def release(self, *, failed: bool) -> None:
        """Give the lease back without an answer."""
        self._remote.hand_in(self, None, failed=failed)
