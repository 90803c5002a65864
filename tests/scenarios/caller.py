"""Callers on raw sockets, and what callers get."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any


@dataclass
class Reply:
    """What a caller got. *broken* tells that the connection ended before the answer did."""

    status: int
    headers: dict[str, str]
    body: bytes
    broken: bool = False

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def cache(self) -> str:
        return self.headers.get("cache-status", "")


class Caller:
    """
    One caller on a raw socket: it reads no more of its answer than it is told to, and can vanish at any point.

    *body* is what has come of the answer's body, without its framing; *ended* tells that it is whole, *broken* that
    the connection ended before it was.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ended = False
        self.broken = False
        self._reader = reader
        self._writer = writer
        self._left: int | None = None
        self._pieces: list[bytes] = []

    @property
    def body(self) -> bytes:
        self._pieces = [b"".join(self._pieces)]
        return self._pieces[0]

    async def head(self) -> Caller:
        """Read the answer's head."""
        status, *lines = (await self._reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1").split("\r\n")
        self.status = int(status.split(" ")[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        if "content-length" in self.headers:
            self._left = int(self.headers["content-length"])
            self.ended = not self._left
        return self

    async def until(self, mark: bytes) -> None:
        """Read on until *mark* has come."""
        if not self.status:
            await self.head()
        while mark not in self.body:
            assert not self.ended, self.body
            assert not self.broken, self.body
            await self._more()

    async def reply(self) -> Reply:
        """Read the answer to its end, or to where it breaks."""
        try:
            if not self.status:
                await self.head()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.broken = True
        while not self.ended and not self.broken:
            await self._more()
        return Reply(self.status, self.headers, self.body, self.broken)

    def vanish(self) -> None:
        """Be gone, as a process that was killed."""
        self._writer.transport.abort()

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    def half_close(self) -> None:
        """Say that nothing more will be sent."""
        self._writer.write_eof()

    async def _more(self) -> None:
        try:
            if self._left is not None:
                piece = await self._reader.read(min(self._left, 1 << 16))
                self._left -= len(piece)
                self.ended, self.broken = not self._left, not piece
            elif "transfer-encoding" not in self.headers:  # until the connection is closed
                piece = await self._reader.read(1 << 16)
                self.ended = not piece
            else:
                size = int((await self._reader.readuntil(b"\r\n"))[:-2], 16)
                piece = (await self._reader.readexactly(size + 2))[:-2]
                self.ended = not size
            self._pieces.append(piece)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.broken = True
