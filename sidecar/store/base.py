"""
What the line needs of a store, and a store of what lies behind memory.

The rule: a store keeps and finds, and judges nothing. Whether an entry may still serve is policy's to say, so no
method takes the time; what a store returns may be stale, or dead and not yet reclaimed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from sidecar.core.cache.beside import Asked, never
from sidecar.core.cache.held import Held
from sidecar.core.cache.purges import Purges
from sidecar.core.model import Entry, Key, Position

Suffices = Callable[[Entry], bool]
"""Whether an entry found behind memory answers the call; where it doesn't, somebody has to fetch."""


class Lease(Protocol):
    """
    The fleet's permission, and duty, to fetch the answer of one key. It is renewed until it is given back, once, by
    ``keep`` or ``release``; both return at once and never raise, what they start is finished before the process ends.
    """

    def keep(self, entry: Entry) -> None:
        """Store *entry* for the fleet, if the lease is still ours, give the lease back and wake who waits."""

    def stall(self, *, stuck: bool) -> None:
        """The call is *stuck*, so another process may fetch beside it; or it goes on after all. Returns at once."""

    def release(self, *, failed: bool) -> None:
        """
        Give the lease back without an answer. *failed*: there will be none that others may have, so who waits goes
        upstream on its own; otherwise one of them takes the lease.
        """


class Fetched(NamedTuple):
    """
    What lies behind memory. An *entry* need not suffice (it may be stale). *lease*: nobody else fetches, so this
    process should; without one it fetches for itself alone. *waited*: another process held the lease meanwhile.
    *second*: it holds it still, and is stuck; this *lease* is the one beside it.
    """

    entry: Entry | None = None
    lease: Lease | None = None
    waited: bool = False
    second: bool = False


NOTHING = Fetched()


class Store(Protocol):
    """
    Entries by key. Keys are compared whole: a store never returns the entry of another key of the same address.

    None of the methods raises: a store that is sick finds nothing and keeps nothing.
    """

    @property
    def position(self) -> Position:
        """How far the fleet's purges are known: what an entry carries that is fetched from now on."""

    @property
    def purges(self) -> Purges:
        """What is known of purges. After its ``until`` this process must ``catch_up`` before it serves from memory."""

    def find(self, key: Key) -> Held | None:
        """What this process's memory holds. A hit: the entry's standing rises."""

    def peek(self, key: Key) -> Entry | None:
        """The entry in this process's memory; as ``find``."""

    def hold(self, entry: Entry) -> Held:
        """*entry*, which was found behind memory just now."""

    def tags(self, key: Key) -> tuple[str, ...]:
        """By which tags a purge takes what memory has of *key*: its entry's, and those noted beside it."""

    def note(self, key: Key, entry: Entry, tags: tuple[str, ...]) -> bool:
        """
        *entry* answers a call with *tags*: a purge of one of them takes it from now on, wherever in the fleet it is.
        False: that cannot be seen to, so it must not answer the call.
        """

    async def catch_up(self) -> None:
        """Where this process has not run for a while: learn what has been purged since, if Redis answers in time."""

    async def fetch(self, key: Key, suffices: Suffices, *, patience: float, beside: Asked = never) -> Fetched:
        """As ``Remote.fetch``. What is found there is in memory afterwards, if it fits."""

    def put(self, key: Key, entry: Entry) -> bool:
        """Keep *entry* in memory, in place of an older one of this key. Tells whether it was kept."""

    def share(self, key: Key, entry: Entry) -> None:
        """Keep *entry* behind memory too, where no lease was to be had for it. Returns at once."""

    def drop(self, key: Key) -> bool:
        """Forget the entry of *key* in this process's memory. Tells whether there was one."""

    def clear(self) -> None:
        """Forget everything in this process's memory."""

    def outdate(self, target: bytes, now: float) -> None:
        """
        *target* has been changed: what is kept of it, in memory or behind it, serves nobody in this process any more.
        Behind memory it is deleted as far as this process knows it. Returns at once.
        """


class Remote(Protocol):
    """
    A tier behind memory, shared by the fleet. Has no clock of its own kind of truth: an entry carries its times.

    None of the methods raises but for cancellation: a tier that is sick finds nothing, keeps nothing, and counts that.
    """

    async def fetch(self, key: Key, suffices: Suffices, *, patience: float, beside: Asked = never) -> Fetched:
        """
        Read the entry of *key*, or take the lease on it, in one round trip.

        Where another process holds the lease, waits up to *patience* seconds for its answer, for the lease, or for
        word that there will be no answer; 0: doesn't wait. *beside* tells when it takes the lease beside that process.
        All commands of one call of this together have one deadline.
        """

    def keep(self, key: Key, entry: Entry) -> None:
        """Store *entry* when there is time, behind a bounded queue; dropped where that is full. Returns at once."""

    def delete(self, keys: Iterable[Key]) -> None:
        """Delete the entries of *keys*, as far as that can be done. Returns at once."""

    async def close(self) -> None:
        """Finish what has been begun, within a second or two, and let go of connections."""
