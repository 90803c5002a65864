"""
What the proxy needs from a store, and a store from the tier behind memory.

The rule: a store keeps and finds, and judges nothing. ``core/cache/policy`` decides whether an entry may still serve,
so no method takes the time. A returned entry may be stale, or dead and not yet removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from sidecar.core.cache.beside import Asked, never
from sidecar.core.cache.held import Held
from sidecar.core.cache.purges import Purges
from sidecar.core.model import Entry, Key

Suffices = Callable[[Entry], Any]
"""Judges an entry found behind memory. A false verdict: it does not answer the call, so somebody must fetch."""


class Lease(Protocol):
    """
    The fleet's permission, and duty, to fetch the answer of one key. It is renewed until it is given back once, by
    ``keep`` or ``release``. Both return at once and never raise; what they start is finished before the process ends.
    """

    def keep(self, entry: Entry) -> None:
        """Store *entry* for the fleet if the lease still holds, give the lease back and wake the waiting processes."""

    def stall(self, *, stuck: bool) -> None:
        """The call is *stuck*, so another process may fetch beside it; or it goes on after all. Returns at once."""

    def release(self, *, failed: bool) -> None:
        """
        Give the lease back without an answer. *failed*: there will be no answer for others, so each waiting call goes
        upstream itself; otherwise one of them takes the lease.
        """


class Fetched(NamedTuple):
    """
    What was found behind memory. An *entry* may not suffice (it may be stale). *lease*: nobody else fetches, so this
    process should; without a lease it fetches for itself alone. *waited*: another process held the lease meanwhile.
    *second*: that process still holds it and is stuck; this *lease* is the second one. *verdict*: what ``Suffices``
    has just said of an entry that suffices; None for any other.
    """

    entry: Entry | None = None
    lease: Lease | None = None
    waited: bool = False
    second: bool = False
    verdict: Any = None


NOTHING = Fetched()


class Store(Protocol):
    """
    Entries by key. Keys are compared whole: a store never returns the entry of another key of the same address.

    None of the methods raises: a store with a fault finds nothing and keeps nothing.
    """

    @property
    def purges(self) -> Purges:
        """
        The known purges: entries fetched from now on carry their ``position``. After its ``until`` this process must
        ``catch_up`` before it serves from memory.
        """

    def find(self, key: Key) -> Held | None:
        """The entry in this process's memory. The look-up counts as a hit for eviction."""

    def peek(self, key: Key) -> Entry | None:
        """The entry in this process's memory; as ``find``."""

    def hold(self, entry: Entry) -> Held:
        """*entry*, just found behind memory, as it is held."""

    def tags(self, key: Key) -> tuple[str, ...]:
        """The tags by which a purge removes what memory has of *key*: its entry's, and those noted beside it."""

    def note(self, key: Key, entry: Entry, tags: tuple[str, ...]) -> bool:
        """
        *entry* answers a call with *tags*: from now on a purge of one of them removes it, wherever in the fleet it is.
        False: that is not possible, so the entry must not answer the call.
        """

    async def catch_up(self) -> None:
        """If this process has not run for a while: learn what has been purged since, if Redis answers in time."""

    async def fetch(self, key: Key, suffices: Suffices, *, patience: float, beside: Asked = never) -> Fetched:
        """As ``Remote.fetch``. What is found there is in memory afterwards, if it fits."""

    def put(self, key: Key, entry: Entry) -> bool:
        """Keep *entry* in memory, in place of an older one of this key. Returns whether it was kept."""

    def share(self, key: Key, entry: Entry) -> None:
        """Keep *entry* behind memory, too, if there was no lease for it. Returns at once."""

    def drop(self, key: Key) -> bool:
        """Remove the entry of *key* from this process's memory. Returns whether there was one."""

    def clear(self) -> None:
        """Forget everything in this process's memory."""

    def outdate(self, target: bytes, now: float) -> None:
        """
        *target* was changed: its entries, in memory or behind it, no longer serve anybody in this process. Behind
        memory those that this process knows are deleted. Returns at once.
        """


class Remote(Protocol):
    """
    A tier behind memory, shared by the fleet. It uses no clock to judge entries: each entry carries its own times.

    None of the methods raises, except cancellation: a tier with a fault finds nothing, keeps nothing, and counts that.
    """

    async def fetch(self, key: Key, suffices: Suffices, *, patience: float, beside: Asked = never) -> Fetched:
        """
        Read the entry of *key*, or take the lease on it, in one round trip.

        If another process holds the lease, wait up to *patience* seconds for its answer, for the lease, or for the news
        that there will be no answer; 0: do not wait. *beside* says when to take the second lease. All commands of one
        call have one deadline.
        """

    def keep(self, key: Key, entry: Entry) -> None:
        """Store *entry* later, through a bounded queue; if the queue is full, drop it. Returns at once."""

    def delete(self, keys: Iterable[Key]) -> None:
        """Delete the entries of *keys*, as far as possible. Returns at once."""

    async def close(self) -> None:
        """Finish what was begun, within a second or two, and close connections."""
