"""
Writes that nobody waits for.

The rule: an entry put here is written when its turn comes, or dropped and counted. It delays nobody, and the queue
never exceeds its bounds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from sidecar.core.model import Entry, Key
from sidecar.tasks import Spawn

MAX_BYTES = 16 * 1024 * 1024
MAX_ENTRIES = 256


class WriteBehind:
    """
    Entries on their way to *write*, which returns whether it kept one, and does not raise. One at a time, oldest first;
    a newer entry of a key replaces one that still waits.

    *bytes* is the size of the waiting entries. Counters: *written*, and *drops*: entries refused for lack of room or
    not kept by *write*.
    """

    __slots__ = (
        "_draining", "_max_bytes", "_max_entries", "_spawn", "_waiting", "_write", "_writing", "bytes", "drops",
        "written",
    )  # fmt: skip

    def __init__(
        self,
        write: Callable[[Key, Entry], Awaitable[bool]],
        *,
        spawn: Spawn,
        max_bytes: int = MAX_BYTES,
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        self._write = write
        self._spawn = spawn
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._waiting: dict[Key, Entry] = {}
        self._draining: asyncio.Task[None] | None = None
        self._writing: asyncio.Future[None] | None = None  # done when the write under way has ended
        self.bytes = 0
        self.drops = 0
        self.written = 0

    def __repr__(self) -> str:
        return f"<WriteBehind {self.depth} waiting, {self.bytes} bytes, {self.drops} dropped>"

    @property
    def depth(self) -> int:
        """How many entries wait."""
        return len(self._waiting)

    @property
    def unwritten(self) -> int:
        """How many entries wait or are being written."""
        return self.depth + (self._writing is not None)

    def put(self, key: Key, entry: Entry) -> bool:
        """Queue *entry* for writing. Returns whether there was room."""
        earlier = self._waiting.get(key)
        freed = 0 if earlier is None else earlier.size
        if self.bytes - freed + entry.size > self._max_bytes or (
            earlier is None and len(self._waiting) >= self._max_entries
        ):
            self.drops += 1
            return False
        self._waiting[key] = entry
        self.bytes += entry.size - freed
        if self._draining is None or self._draining.done():
            self._draining = self._spawn(self._drain(), name="write-behind")
        return True

    def cancel(self, key: Key) -> None:
        """Do not write the entry of *key*, if it still waits."""
        entry = self._waiting.pop(key, None)
        if entry is not None:
            self.bytes -= entry.size

    def discard(self, admits: Callable[[Key, Entry], bool]) -> None:
        """Drop the waiting entries that *admits* does not allow, instead of holding them until their turn."""
        for key, entry in list(self._waiting.items()):
            if not admits(key, entry):
                self.cancel(key)
                self.drops += 1

    async def flush(self) -> None:
        """Wait until all that is here has been written or dropped."""
        if self._draining is not None:
            await asyncio.wait([self._draining])

    async def settle(self) -> None:
        """Wait until the write that is under way now, if any, has ended."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    async def close(self, seconds: float) -> None:
        """Write what waits, for at most *seconds*; the rest is dropped."""
        if self._draining is not None:
            await asyncio.wait([self._draining], timeout=seconds)
            self._draining.cancel()
        self.drops += len(self._waiting)
        self._waiting.clear()
        self.bytes = 0

    async def _drain(self) -> None:
        while self._waiting:
            key = next(iter(self._waiting))
            entry = self._waiting.pop(key)
            self.bytes -= entry.size
            self._writing = asyncio.get_running_loop().create_future()
            try:
                kept = await self._write(key, entry)
            finally:
                self._writing.set_result(None)
                self._writing = None
            if kept:
                self.written += 1
            else:
                self.drops += 1
