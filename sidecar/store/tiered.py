"""
Memory in front of a remote tier: the store that the line is given.

The rule: memory is never waited for, and the remote tier only where memory had nothing; what comes from there is held
against the purges once more before it is in memory.
"""

from __future__ import annotations

from collections.abc import Iterable

from sidecar.core.model import Entry, Key, Position
from sidecar.core.purges import Purges
from sidecar.store.base import NOTHING, Fetched, Remote, Suffices
from sidecar.store.memory import Memory


class Nowhere:
    """The remote tier of a process that has none."""

    async def fetch(self, key: Key, suffices: Suffices, *, patience: float) -> Fetched:  # noqa: ARG002 - the port's
        """Nothing, at once."""
        return NOTHING

    def keep(self, key: Key, entry: Entry) -> None:
        """Nothing."""

    def delete(self, keys: Iterable[Key]) -> None:
        """Nothing."""

    async def close(self) -> None:
        """Nothing."""


class Tiered:
    """A ``Store`` of *memory*, and *remote* behind it. *purges* decide which entries of the remote tier are valid."""

    __slots__ = ("_purges", "_remote", "clear", "drop", "memory", "peek", "put")

    def __init__(self, memory: Memory, remote: Remote, purges: Purges) -> None:
        self.memory = memory
        self._remote = remote
        self._purges = purges
        # Memory's own methods, for a hit should not pay for a call that only passes it on.
        self.peek = memory.peek
        self.put = memory.put
        self.drop = memory.drop
        self.clear = memory.clear

    def __repr__(self) -> str:
        return f"<Tiered {self.memory!r} before {type(self._remote).__name__}>"

    @property
    def position(self) -> Position:
        """See ``Store``."""
        return self._purges.position

    async def fetch(self, key: Key, suffices: Suffices, *, patience: float) -> Fetched:
        """See ``Store``."""
        fetched = await self._remote.fetch(key, suffices, patience=patience)
        entry = fetched.entry
        if entry is None:
            return fetched
        return fetched if self.take(key, entry) else fetched._replace(entry=None)

    def take(self, key: Key, entry: Entry) -> bool:
        """Have an entry of the remote tier in memory, if it is newer than what is there. False: it has been purged."""
        if not self._purges.allows(key, entry):
            return False
        known = self.memory.peek(key)
        if known is None or known.at < entry.at:
            self.memory.put(key, entry)
        return True

    def share(self, key: Key, entry: Entry) -> None:
        """See ``Store``."""
        self._remote.keep(key, entry)

    def outdate(self, target: bytes, now: float) -> None:
        """See ``Store``."""
        self._purges.changes.note(target, now)
        self._remote.delete(self.memory.drop_target(target))
