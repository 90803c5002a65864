"""
The bytes of one connection to Redis, in both directions.

The rule: only what redis-py needs of asyncio's ``StreamReader`` and ``StreamWriter``. A connection serves one command
at a time, so a reader takes everything that has come. Every byte is counted before a reader gets it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import cast

from sidecar.redis_link.replies import Garbled, Meter

MOST_UNREAD = 1024 * 1024
"""The most bytes that wait for a reader; then the server must wait."""

MOST_BYTES = 64 * 1024 * 1024
"""The most bytes of a reply, if the caller names no other bound."""


class RedisStream(asyncio.Protocol):
    """
    Reader and writer of one connection. At most one task reads, and at most one waits for room to write. A reply has at
    most *most* bytes; a longer or invalid one ends the connection. *full*: there is no room to write more.
    """

    _transport: asyncio.Transport

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._meter = Meter(most)
        self._came: list[bytes] = []
        self._unread = 0
        self._paused = False
        self.full = False
        self._over = False
        self._error: Exception | None = None
        self._reading: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._lost = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        state = "over, " if self._over else "paused, " if self._paused else ""
        return f"<RedisStream {state}{self._unread} bytes unread>"

    @property
    def fresh(self) -> bool:
        """Whether nothing is unread, and the server has not closed."""
        return not self._came and not self._over

    # What redis-py calls.

    async def read(self, _most: int = 0) -> bytes:
        """The bytes that have come, or that come next. Raises ``OSError`` if nothing comes any more, or ``Garbled``."""
        while not self._came:
            if self._over:
                raise self._end()
            self._reading = asyncio.get_running_loop().create_future()
            try:
                await self._reading
            finally:
                self._reading = None
        data = self._came[0] if len(self._came) == 1 else b"".join(self._came)
        self._came.clear()
        self._unread = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    def write(self, data: bytes) -> None:
        """Send *data*."""
        self._transport.write(data)

    def writelines(self, pieces: Iterable[bytes]) -> None:
        """Send *pieces*."""
        self._transport.write(b"".join(pieces))

    async def drain(self) -> None:
        """Wait until there is room to write more. Raises ``OSError`` where the connection is gone."""
        if self._room is not None:
            await self._room
        if self._over:
            raise self._end()

    def close(self) -> None:
        """Close now: bytes that a server does not take would hold the connection for as long as it pleases."""
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._transport.close()

    async def wait_closed(self) -> None:
        """Until it is closed."""
        await asyncio.shield(self._lost)

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        if self._over:
            return
        try:
            self._meter.count(data)
        except Garbled as garbled:
            self._over = True
            self._error = garbled
            self._transport.abort()
            _wake(self._reading)
            return
        self._came.append(data)
        self._unread += len(data)
        if self._unread > MOST_UNREAD and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        _wake(self._reading)

    def eof_received(self) -> None:
        """The server has closed; so do we."""
        self._over = True
        _wake(self._reading)

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone, for any reason."""
        self._over = True
        self._error = self._error or error
        for waiting in (self._reading, self._room, self._lost):
            _wake(waiting)

    def pause_writing(self) -> None:
        """The server reads slowly."""
        self.full = True
        self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """The server has read."""
        self.full = False
        _wake(self._room)
        self._room = None

    def _end(self) -> Exception:
        """Why nothing comes any more."""
        return self._error or ConnectionResetError("closed by the server")


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
