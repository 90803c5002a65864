"""
The bytes of one answer on its way: kept whole up to a limit, past that in a window before the slowest reader.

The rule: what is kept whole is in the memory budget; a window is bounded by itself, and is not.
"""

from __future__ import annotations

from collections.abc import Iterable

from sidecar.core.memory_budget import Ledger

PIECE = 128 * 1024  # a late reader catches up in pieces of about this size


class AnswerBuffer:
    """
    The bytes as the chunks in which they came. A reader stands *at* the number of chunks that it has had.

    *limit* is how many bytes are kept whole. *size*: bytes that have come; *held*: those still kept, of which *taken*
    are in the *ledger*; *windowed*: the beginning may have been let go.
    """

    __slots__ = ("_behind", "_chunks", "_first", "_ledger", "_limit", "held", "size", "taken", "windowed")

    def __init__(self, limit: int, ledger: Ledger) -> None:
        self.size = 0
        self.held = 0
        self.taken = 0
        self.windowed = False
        self._limit = limit
        self._ledger = ledger
        self._chunks: list[bytes] = []
        self._first = 0  # the number, counted from the answer's start, of the first chunk still held
        self._behind = 0  # readers of a window that stand at its beginning

    def __repr__(self) -> str:
        return f"<AnswerBuffer {'window' if self.windowed else 'whole'} {self.size} bytes>"

    @property
    def end(self) -> int:
        """The number of chunks that have come."""
        return self._first + len(self._chunks)

    def holds(self, size: int) -> bool:
        """Whether an answer of *size* bytes can be kept whole."""
        return size <= self._limit

    def take(self, size: int) -> bool:
        """Take room for *size* bytes more; False where they cannot be kept whole any more. A window needs none."""
        if self.windowed:
            return True
        if self.size + size > self._limit or not self._ledger.take(size):
            return False
        self.taken += size
        return True

    def add(self, chunk: bytes) -> None:
        """Put *chunk* at the end."""
        self.size += len(chunk)
        self.held += len(chunk)
        self._chunks.append(chunk)

    def whole(self) -> bytes | None:
        """All bytes so far, or None where their start may have been let go."""
        return None if self.windowed else b"".join(self._chunks)

    def next(self, at: int) -> tuple[bytes, int]:
        """The next bytes for a reader *at* a chunk, about 128 KiB at most, ``b""`` for none; and its new place."""
        chunks, start = self._chunks, at - self._first
        if start >= len(chunks):
            return b"", at
        chunk, end = chunks[start], start + 1
        if len(chunk) < PIECE and end < len(chunks):
            size = len(chunk)
            while end < len(chunks) and size + len(chunks[end]) <= PIECE:
                size += len(chunks[end])
                end += 1
            chunk = b"".join(chunks[start:end])
        return chunk, self._first + end

    def left_behind(self, at: int) -> bool:
        """
        Whether the window can move now that a reader which stood *at* a chunk has gone on: it was the last one at the
        beginning. So a chunk costs a look at each reader, and no more.
        """
        if not self.windowed or at > self._first:
            return False
        self._behind -= 1
        return self._behind <= 0

    def trim(self, positions: Iterable[int]) -> None:
        """Let go of what every reader has had; *positions* is where they stand."""
        if not self.windowed:
            return
        standing = list(positions)
        slowest = min(standing, default=self.end)
        self._behind = standing.count(slowest)
        count = slowest - self._first
        if count > 0:
            self.held -= sum(map(len, self._chunks[:count]))
            del self._chunks[:count]
            self._first = slowest
        if self.taken > self.held:  # what comes from now on is bounded by the window, and is not in the ledger
            self._ledger.give(self.taken - self.held)
            self.taken = self.held

    def rewind(self) -> None:
        """Forget all of it: another answer comes in its place."""
        self._chunks.clear()
        self._ledger.give(self.taken)
        self.size = self.held = self.taken = self._first = 0

    def drop(self) -> None:
        """Let go of all of it, for nobody reads it any more."""
        self._ledger.give(self.taken)
        self.windowed = True
        self._chunks.clear()
        self.held = self.taken = 0
