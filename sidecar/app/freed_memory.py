"""
Overwrites memory that is free but still holds what stood in it.

The rule: it works in short steps, and promises nothing: it overwrites what it can take. That is the free blocks of the
interpreter and of the main heap, and the buffer into which the event loop reads from sockets; whole free pages of every
heap go back to the system. The heap is glibc's; with another one it keeps its content until that is used again.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

SIZES = (65536, 16384, 4096, 1024, 512, 256, 128, 64)
"""Sizes of the blocks by which free memory is taken, the largest first: a block fits into a gap of its size or more."""

KEPT_SIZES = range(24, 1049, 16)
"""The sizes of which each thread keeps some freed blocks for itself, untouched also by ``MALLOC_PERTURB_``."""

KEPT = 8
"""At least as many blocks of a size as a thread keeps."""

STEP = 500
"""Blocks in one step: a few milliseconds."""

MOST_STEPS = 400
"""More steps are not worth their time: then so much memory is free that it is in whole pages, which are given back."""

SMALL_SIZES = range(64, 513, 16)
"""Sizes of the interpreter's own small blocks that have room for more than a few words."""

SMALL_BYTES = 1024 * 1024
"""How much is taken of each of these sizes."""

READ_BYTES = 256_000
"""The size of uvloop's buffer for reading."""


async def overwrite() -> None:
    """Overwrite what is free now. What only refers to itself is freed first: the interpreter may leave it for long."""
    gc.collect()
    for size in SMALL_SIZES:
        _overwrite_small(size)
        await asyncio.sleep(0)
    with suppress(OSError, AttributeError):
        heap = _Heap(ctypes.CDLL(None))
        for _ in heap.steps():
            await asyncio.sleep(0)
    with suppress(OSError, AttributeError):
        await _overwrite_read_buffer()


def _overwrite_small(size: int) -> None:
    """Take blocks of *size*, which come cleared, and let them go again."""
    room = size - sys.getsizeof(b"")
    blocks = [bytes(room) for _ in range(SMALL_BYTES // size)]
    del blocks


class _Heap:
    """The heap of *libc*, which must be glibc; else there is an ``AttributeError``."""

    def __init__(self, libc: Any) -> None:
        self._trim, self._top = libc.malloc_trim, libc.sbrk
        self._malloc, self._free, self._clear = libc.malloc, libc.free, libc.memset
        self._size = libc.malloc_usable_size
        self._top.restype = self._malloc.restype = ctypes.c_void_p
        self._top.argtypes = [ctypes.c_ssize_t]
        self._malloc.argtypes = [ctypes.c_size_t]
        self._free.argtypes = [ctypes.c_void_p]
        self._free.restype = None
        self._size.argtypes = [ctypes.c_void_p]
        self._size.restype = ctypes.c_size_t
        self._clear.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

    def steps(self) -> Iterator[None]:
        """
        Give free pages back; then take what is left between used blocks, clear it and free it again. A size is done
        when the heap would have to grow for it.
        """
        self._trim(0)
        taken: list[int] = []
        try:
            for size in KEPT_SIZES:
                self._take(size, taken, KEPT)
            yield
            for size in SIZES:
                while len(taken) < STEP * MOST_STEPS and self._take(size, taken):
                    yield
        finally:
            for block in taken:
                self._free(block)
            self._trim(0)

    def _take(self, size: int, taken: list[int], count: int = STEP) -> bool:
        """Take and clear *count* blocks of *size*, or fewer. Returns whether there may be more."""
        top = self._top(0)
        for _ in range(count):
            block = self._malloc(size)
            if not block:
                return False
            self._clear(block, 0, self._size(block))
            taken.append(block)
            if self._top(0) != top:
                return False
        return True


async def _overwrite_read_buffer() -> None:
    """Let the event loop read zeros, as many as its buffer has room for, in one go."""
    loop = asyncio.get_running_loop()
    read, write = os.pipe()
    ended = loop.create_future()
    try:
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 2 * READ_BYTES)
        os.set_blocking(write, False)
        os.write(write, bytes(READ_BYTES))
        transport, _ = await loop.connect_read_pipe(lambda: _Zeros(ended), os.fdopen(read, "rb", 0))
    except BaseException:
        with suppress(OSError):
            os.close(read)
        raise
    finally:
        os.close(write)
    try:
        await ended
    finally:
        transport.close()


class _Zeros(asyncio.Protocol):
    """Reads to the end, and says so."""

    def __init__(self, ended: asyncio.Future[None]) -> None:
        self._ended = ended

    def connection_lost(self, _: Exception | None) -> None:
        """All has been read."""
        if not self._ended.done():
            self._ended.set_result(None)
