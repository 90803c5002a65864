"""
Memory in front of a remote tier: the store that the line is given.

The rule: memory is never waited for, and the remote tier only where memory had nothing.
"""

from __future__ import annotations

from sidecar.core.model import Entry, Key
from sidecar.store.base import Remote
from sidecar.store.memory import Memory


class Nowhere:
    """The remote tier of a process that has none."""

    async def fetch(self, key: Key) -> Entry | None:  # noqa: ARG002 - the port's parameter
        """Nothing, at once."""
        return None


class Tiered:
    """A ``Store`` of *memory*, and *remote* behind it."""

    __slots__ = ("_remote", "clear", "drop", "memory", "peek", "put")

    def __init__(self, memory: Memory, remote: Remote) -> None:
        self.memory = memory
        self._remote = remote
        # Memory's own methods, for a hit should not pay for a call that only passes it on.
        self.peek = memory.peek
        self.put = memory.put
        self.drop = memory.drop
        self.clear = memory.clear

    def __repr__(self) -> str:
        return f"<Tiered {self.memory!r} before {type(self._remote).__name__}>"

    async def fetch(self, key: Key) -> Entry | None:
        """See ``Store``."""
        entry = await self._remote.fetch(key)
        if entry is not None:
            self.memory.put(key, entry)
        return entry
