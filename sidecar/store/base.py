"""
What the line needs of a store.

The rule: a store keeps and finds, and judges nothing. Whether an entry may still serve is policy's to say, so no
method takes the time; what a store returns may be stale, or dead and not yet reclaimed.
"""

from __future__ import annotations

from typing import Protocol

from sidecar.core.model import Entry, Key


class Store(Protocol):
    """
    Entries by key. Keys are compared whole: a store never returns the entry of another key of the same address.

    None of the methods raises: a store that is sick finds nothing and keeps nothing.
    """

    def peek(self, key: Key) -> Entry | None:
        """The entry in this process's memory. A hit: the entry's standing rises."""

    async def fetch(self, key: Key) -> Entry | None:
        """The entry in the tier behind memory. What is found there is in memory afterwards, if it fits."""

    def put(self, key: Key, entry: Entry) -> bool:
        """Keep *entry*, in place of an older one of this key. Tells whether it was kept."""

    def drop(self, key: Key) -> bool:
        """Forget the entry of *key*. Tells whether there was one."""

    def clear(self) -> None:
        """Forget everything."""


class Remote(Protocol):
    """A tier behind memory, as far as look-ups go."""

    async def fetch(self, key: Key) -> Entry | None:
        """The entry of *key*, None where there is none or the tier cannot say in time. Never raises."""
