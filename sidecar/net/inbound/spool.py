"""
Bodies on disk: collected bodies that did not fit into memory.

The rule: every file operation runs on one thread of its own, in order, so the event loop never waits for a disk, and a
file is never closed during a read.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from sidecar.errors import ClientGone, Refused
from sidecar.net.inbound.disk_queue import DiskQueue

CHUNK = 256 * 1024


class Spools:
    """
    Makes spool files: *directory* (``""`` for the system's own), the thread that works on them, and the *queue* of what
    waits for it.
    """

    def __init__(self, directory: str) -> None:
        self.queue = DiskQueue()
        self._directory = directory or tempfile.gettempdir()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")

    def __repr__(self) -> str:
        return f"<Spools in {self._directory}>"

    def create(self) -> SpoolFile:
        """A new, empty file; the disk is first touched by its first ``append``."""
        return SpoolFile(self._directory, self._thread)

    def close(self) -> None:
        """End the thread after its pending work."""
        self._thread.shutdown(wait=False)


class SpoolFile:
    """
    A body in an unlinked file; the ``Spool`` of ``net/base``. It belongs to its request and to everything that shares
    it, and is gone when all of them have closed it. A later read raises ``ClientGone``.
    """

    __slots__ = ("_directory", "_file", "_owners", "_thread", "size")

    def __init__(self, directory: str, thread: ThreadPoolExecutor) -> None:
        self._directory = directory
        self._thread = thread
        self._file: IO[bytes] | None = None
        self._owners = 1
        self.size = 0

    def __repr__(self) -> str:
        return f"<SpoolFile {self.size} bytes{'' if self._owners else ' closed'}>"

    def append(self, chunks: Sequence[bytes]) -> asyncio.Future[None]:
        """
        Write *chunks* at the end; one call at a time. If that fails with ``OSError``, the file is as before, and the
        caller still has the chunks, so nothing is lost.
        """
        return asyncio.get_running_loop().run_in_executor(self._thread, self._write, chunks)

    def chunks(self) -> AsyncIterator[bytes]:
        """The body from its start, in chunks of at most 256 KiB. Raises ``Refused`` (503) if the disk lost it."""
        return _Reading(self)

    async def read(self, offset: int) -> bytes:
        """Up to 256 KiB from *offset*, ``b""`` at the end. Raises as ``chunks`` does."""
        size = min(CHUNK, self.size - offset)
        if not size:
            return b""
        if not self._owners:
            raise ClientGone("the request that owned this body is over")
        try:
            chunk = await asyncio.get_running_loop().run_in_executor(self._thread, self._read, offset, size)
        except OSError as error:
            raise Refused(503, "spool-lost", f"The request body could not be read back from disk: {error}.") from error
        if not chunk:
            raise Refused(503, "spool-lost", "The request body on disk is shorter than it was written.")
        return chunk

    def share(self) -> None:
        """Another owner needs the file, too, and will also close it."""
        self._owners += 1

    def close(self) -> None:
        """This owner needs it no longer; the last one closes the file after pending work."""
        if self._owners:
            self._owners -= 1
            if not self._owners:
                self._thread.submit(self._close)

    def _write(self, chunks: Sequence[bytes]) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115 - closed by close()
        rest = memoryview(b"".join(chunks))
        offset = self.size
        while rest:
            written = os.pwrite(self._file.fileno(), rest, offset)
            rest = rest[written:]
            offset += written
        self.size = offset

    def _read(self, offset: int, size: int) -> bytes:
        assert self._file is not None
        return os.pread(self._file.fileno(), size, offset)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()


class _Reading:
    """One reading of a spool file, from its start."""

    __slots__ = ("_offset", "_spool")

    def __init__(self, spool: SpoolFile) -> None:
        self._spool = spool
        self._offset = 0

    def __aiter__(self) -> _Reading:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._spool.read(self._offset)
        if not chunk:
            raise StopAsyncIteration
        self._offset += len(chunk)
        return chunk
