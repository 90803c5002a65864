"""
The bytes of one answer while it comes: all bytes up to a limit, after that a window from the slowest reader on.

The rule: an answer that is kept whole counts in the memory budget. A window has its own limit, and does not count.
"""

from __future__ import annotations

from collections.abc import Iterable

from sidecar.core.memory_budget import Ledger

PIECE = 128 * 1024  # a late reader catches up in pieces of about this size


class AnswerBuffer:
    """
    The bytes, in the chunks in which they came. *at* of a reader is the number of chunks that it has received.

    *limit*: bytes that are kept whole. *size*: bytes that have come. *held*: bytes still kept; *taken* of them are
    counted in the *ledger*. *windowed*: the beginning may have been dropped.
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
        """The number of chunks that have come, dropped ones included."""
        return self._first + len(self._chunks)

    def holds(self, size: int) -> bool:
        """Whether an answer of *size* bytes can be kept whole."""
        return size <= self._limit

    def take(self, size: int) -> bool:
        """Reserve room for *size* more bytes; False if they cannot be kept whole any more. A window needs no room."""
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
        """All bytes so far, or None if the beginning may have been dropped."""
        return None if self.windowed else b"".join(self._chunks)

    def next(self, at: int) -> tuple[bytes, int]:
        """The next bytes for a reader *at* a chunk, about 128 KiB at most, ``b""`` if none; and its new position."""
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
        Whether the window can move after a reader that stood *at* a chunk has gone on: true if it was the last one at
        the beginning. So each chunk needs only one check of all readers.
        """
        if not self.windowed or at > self._first:
            return False
        self._behind -= 1
        return self._behind <= 0

    def trim(self, positions: Iterable[int]) -> None:
        """Drop the chunks that every reader has received; *positions* are the readers' positions."""
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
        if self.taken > self.held:  # from now on the window limits the bytes, so the ledger does not
            self._ledger.give(self.taken - self.held)
            self.taken = self.held

    def rewind(self) -> None:
        """Drop all bytes: another answer comes in place of this one."""
        self._chunks.clear()
        self._ledger.give(self.taken)
        self.size = self.held = self.taken = self._first = 0

    def drop(self) -> None:
        """Drop all bytes, because no reader is left."""
        self._ledger.give(self.taken)
        self.windowed = True
        self._chunks.clear()
        self.held = self.taken = 0
