"""
Memory in front of a remote tier: the store that the proxy uses.

The rule: memory needs no waiting, and the remote tier is asked only if memory had nothing. Its entries are checked
against the purges again before they enter memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from sidecar.core.cache.beside import Asked, never
from sidecar.core.cache.purges import Purges
from sidecar.core.model import Entry, Key
from sidecar.store.base import NOTHING, Fetched, Remote, Suffices
from sidecar.store.memory import Memory


class Nowhere:
    """The remote tier of a process that has none, or of a caller that may not read it."""

    async def fetch(
        self,
        key: Key,  # noqa: ARG002 - the port's, as the others
        suffices: Suffices,  # noqa: ARG002
        *,
        patience: float,  # noqa: ARG002
        beside: Asked = never,  # noqa: ARG002
    ) -> Fetched:
        """Nothing, at once."""
        return NOTHING

    def keep(self, key: Key, entry: Entry) -> None:
        """Nothing."""

    def delete(self, keys: Iterable[Key]) -> None:
        """Nothing."""

    async def close(self) -> None:
        """Nothing."""


class Alone:
    """The log of purges of a process that has no fleet."""

    forgot = False

    def note(self, key: Key, entry: Entry, tags: tuple[str, ...]) -> bool:  # noqa: ARG002 - the port's
        """The note in memory is enough."""
        return True

    async def catch_up(self) -> None:
        """Nothing to do: no other process purges."""


class PurgeNotes(Protocol):
    """The part of the fleet's log of purges that memory needs; see ``fleet/purge_log.PurgeLog``."""

    forgot: bool
    """Redis may have lost the notes."""

    def note(self, key: Key, entry: Entry, tags: tuple[str, ...]) -> bool:
        """Make a purge of one of *tags* remove the entry of *key* in the whole fleet. False: there is no room."""

    async def catch_up(self) -> None:
        """Read the log, if this process has not run for a while."""


class Tiered:
    """
    A ``Store`` of *memory* with *remote* behind it. *purges* decide which entries of the remote tier are valid; *log*
    is the fleet's log of purges.
    """

    __slots__ = (
        "_log", "_remote", "clear", "drop", "find", "hold", "memory", "peek", "purges", "put", "tags",
    )  # fmt: skip

    def __init__(self, memory: Memory, remote: Remote, purges: Purges, log: PurgeNotes | None = None) -> None:
        self.memory = memory
        self._remote = remote
        self.purges = purges
        self._log: PurgeNotes = Alone() if log is None else log
        # These are memory's own methods, because a hit should not pay for a call that only passes it on.
        self.find = memory.find
        self.peek = memory.peek
        self.hold = memory.hold
        self.tags = memory.tags
        self.put = memory.put
        self.drop = memory.drop
        self.clear = memory.clear

    def __repr__(self) -> str:
        return f"<Tiered {self.memory!r} before {type(self._remote).__name__}>"

    async def fetch(self, key: Key, suffices: Suffices, *, patience: float, beside: Asked = never) -> Fetched:
        """Ask the remote tier; what is found there is in memory afterwards, if it fits."""
        fetched = await self._remote.fetch(key, suffices, patience=patience, beside=beside)
        entry = fetched.entry
        if entry is None:
            return fetched
        return fetched if self.take(key, entry) else fetched._replace(entry=None, verdict=None)

    def take(self, key: Key, entry: Entry) -> bool:
        """Put an entry of the remote tier into memory, if it is newer than the one there. False: it has been purged."""
        if not self.purges.allows(key, entry):
            return False
        known = self.memory.find(key)
        if known is None:
            self.memory.put(key, entry)
        elif known.entry.at < entry.at:
            self.memory.put(key, entry)
            # The tags noted for the older entry stay beside the new one, and the fleet must know them as long as this
            # one lives.
            noted = tuple([tag for tag in self.memory.tags(key) if tag not in entry.tags])
            if noted:
                self._log.note(key, entry, noted)
        return True

    async def catch_up(self) -> None:
        """Learn what has been purged since this process last ran."""
        await self._log.catch_up()

    def note(self, key: Key, entry: Entry, tags: tuple[str, ...]) -> bool:
        """Note *tags* beside the entry, here and in the fleet. False: that can't be seen to."""
        lacking = self.memory.lacking(key, entry, tags)
        if not lacking:
            return True
        if not self._log.note(key, entry, lacking):
            return False
        self.memory.note(key, lacking)
        return True

    async def note_again(self) -> None:
        """Tell the fleet all tags that are noted here, if it may have lost them; step by step."""
        if not self._log.forgot:
            return
        self._log.forgot = False
        for page in self.memory.walk():
            for key, held in page:
                if held.noted and not self._log.note(key, held.entry, held.noted):
                    self._log.forgot = True
                    return
            await asyncio.sleep(0)

    def share(self, key: Key, entry: Entry) -> None:
        """Keep *entry* in the remote tier, too."""
        self._remote.keep(key, entry)

    def outdate(self, target: bytes, now: float) -> None:
        """Drop what is kept of *target*, which has been changed."""
        self.purges.changes.note(target, now)
        self._remote.delete(self.memory.drop_target(target))
