"""
Request bodies on their way in: collected, or passed on as they arrive.

The rule: memory for a collected body is taken from the ledger first. If the ledger refuses, the body goes to disk; if
the disk fails, the body streams on. No byte is lost, and no call fails for lack of room.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from io import BytesIO

from sidecar.core.memory_budget import Ledger
from sidecar.net.base import Observer
from sidecar.net.inbound.spool import SpoolFile, Spools

OBSERVED = 256 * 1024
"""Bodies above this size are read by an observer while they are collected."""

FLUSH = 256 * 1024
"""More than this is written to disk at once; meanwhile about as much again may wait in memory."""

HIGH_WATER = 64 * 1024
"""A stream with so many unread bytes has its sender paused."""


class Collection:
    """
    A body that is being collected: in memory while the ledger allows, else in a spool file.

    *size* is its Content-Length, None when chunked. Past *limit* bytes, or if the disk fails, it has *overflowed* and
    must stream on from the bytes that it holds. *changed* is called whenever a write has ended.
    """

    def __init__(
        self,
        size: int | None,
        *,
        limit: int,
        ledger: Ledger,
        spools: Spools,
        observe: Callable[[], Observer] | None,
        changed: Callable[[], None],
    ) -> None:
        self._limit = limit
        self._ledger = ledger
        self._spools = spools
        self._observe = observe
        self._changed = changed
        self._known = size is not None
        self._held = 0
        self._waiting = 0
        self._writing: list[bytes] = []
        self._ended = False
        self._closed = False
        self._whole: BytesIO | None = None
        self.observer: Observer | None = None
        self.chunks: list[bytes] = []
        self.spool: SpoolFile | None = None
        self.total = 0
        self.overflowed = False
        if size is not None:
            if observe is not None and size > OBSERVED:
                self.observer = observe()
            self._hold(size)
            if size > OBSERVED and self.spool is None:
                self._whole = BytesIO()

    def __repr__(self) -> str:
        return f"<Collection {self.total} bytes, {self._held} held, {self.spool!r}>"

    @property
    def backed_up(self) -> bool:
        """The disk is behind, with this body or with all of them: the sender must wait."""
        if self._writing and self._waiting > FLUSH:
            return True
        return self.spool is not None and not (self._ended or self.overflowed) and self._spools.queue.full

    @property
    def settled(self) -> bool:
        """Nothing is being written: the bytes so far can be used."""
        return not self._writing

    def add(self, chunk: bytes) -> None:
        """The next bytes of the body."""
        self.total += len(chunk)
        self._waiting += len(chunk)
        if self._whole is None:
            self.chunks.append(chunk)
        else:  # one copy, and the chunk's memory serves the next one
            self._whole.write(chunk)
        if self.observer is not None:
            self.observer.feed(chunk)
        elif self.total > OBSERVED:
            self._begin_observing()
        if self.total > self._limit:
            self._overflow()
            if self._whole is not None:
                self.chunks, self._whole = [self._whole.getvalue()], None
        elif self.spool is not None:
            self._spools.queue.add(self._queue_changed, len(chunk))
        elif not self._known:
            self._hold(len(chunk))
        if self._is_due():
            self._flush()

    def end(self) -> None:
        """The body has come whole."""
        self._ended = True
        if self.total <= OBSERVED:
            self.observer = None
        if self._is_due():
            self._flush()

    def body(self) -> bytes | SpoolFile:
        """The whole body, once it has ended and is settled."""
        if self.spool is not None:
            self._spools.queue.leave(self._queue_changed)
            return self.spool
        if self._whole is not None:
            return self._whole.getvalue()
        body = self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)
        self.chunks.clear()
        return body

    def close(self) -> None:
        """Give memory and file back. Harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        self._give()
        if self.spool is not None:
            self._spools.queue.leave(self._queue_changed)
            self.spool.close()

    def _hold(self, size: int) -> None:
        if self._ledger.take(size):
            self._held += size
        else:
            self.spool = self._spools.create()
            self._spools.queue.add(self._queue_changed, self._waiting)

    def _begin_observing(self) -> None:
        if self._observe is not None:
            self.observer = self._observe()
            for earlier in self.chunks:  # none has gone to disk yet: see _flush
                self.observer.feed(earlier)

    def _overflow(self) -> None:
        self.overflowed = True
        if self.spool is not None:
            self._spools.queue.leave(self._queue_changed)

    def _is_due(self) -> bool:
        """Whether what waits is to be written now."""
        if self.spool is None or not self.chunks:
            return False
        return self._waiting > FLUSH or self._ended or self._spools.queue.full

    def _queue_changed(self) -> None:
        """The disk's queue is full, or not any more."""
        if self._is_due():
            self._flush()
        self._changed()

    def _give(self) -> None:
        self._ledger.give(self._held)
        self._held = 0

    def _flush(self) -> None:
        if self._writing or self.overflowed or self.spool is None:
            return
        if self.observer is None and not (self._known or self._ended):
            self._begin_observing()  # it may become large, and then an observer must have seen all of it
        self._writing, self.chunks, self._waiting = self.chunks, [], 0
        self.spool.append(self._writing).add_done_callback(self._written)

    def _written(self, write: asyncio.Future[None]) -> None:
        written, self._writing = self._writing, []
        if write.cancelled() or write.exception() is not None:
            self.chunks = written + self.chunks
            self._overflow()
        else:
            self._give()
            self._spools.queue.written(self._queue_changed, sum(map(len, written)))
        if self._closed:
            return
        if self._is_due():
            self._flush()
        self._changed()


class Inflow:
    """
    A body as it arrives; the ``Stream`` of ``net/base``.

    *wanted* is called when a reader has made room or waits. *spool* and *chunks* are the beginning of a body that was
    to be collected.
    """

    __slots__ = ("_ended", "_error", "_queue", "_spooled", "_taken", "_waiter", "_wanted", "buffered", "size")

    def __init__(
        self,
        size: int | None,
        wanted: Callable[[], None],
        spool: SpoolFile | None = None,
        chunks: Iterable[bytes] = (),
    ) -> None:
        self.size = size
        self._wanted = wanted
        self._spooled = None if spool is None else spool.chunks()
        self._queue = deque(chunks)
        self.buffered = sum(map(len, self._queue))
        self._ended = False
        self._taken = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Inflow of {self.size} bytes, {self.buffered} buffered{', ended' if self._ended else ''}>"

    @property
    def full(self) -> bool:
        """The sender should be paused."""
        return self.buffered >= HIGH_WATER

    @property
    def starved(self) -> bool:
        """A reader waits for bytes."""
        return self._waiter is not None

    def chunks(self) -> AsyncIterator[bytes]:
        """The body's bytes as they arrive. Can be read once."""
        if self._taken:
            raise RuntimeError("a stream is read once")
        self._taken = True
        return self

    def __aiter__(self) -> Inflow:
        return self

    async def __anext__(self) -> bytes:
        if self._spooled is not None:
            async for chunk in self._spooled:
                return chunk
            self._spooled = None
        while not self._queue:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                self._wanted()
                await self._waiter
            finally:
                self._waiter = None
        chunk = self._queue.popleft()
        self.buffered -= len(chunk)
        if not self.full:
            self._wanted()
        return chunk

    def feed(self, chunk: bytes) -> None:
        """The next bytes have arrived."""
        self._queue.append(chunk)
        self.buffered += len(chunk)
        self._wake()

    def end(self) -> None:
        """The body has come whole."""
        self._ended = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """The body will never be whole. Harmless if it is whole already."""
        if not self._ended and self._error is None:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
