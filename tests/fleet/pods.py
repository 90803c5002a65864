"""Processes at one server, and a server whose answers are not those of Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import hiredis

from sidecar.core.rules import RedisRule
from sidecar.fleet.presence import Presence
from sidecar.fleet.quota import FleetQuota
from sidecar.redis_link.link import RedisLink
from sidecar.redis_link.names import RedisNames
from tests.fleet.lookups import as_it_is
from tests.redis_servers import RedisServer
from tests.store.remotes import Tasks

NAMES = RedisNames("team-a")


class Pods:
    """Processes at *server*, inside ``async with``; at its end all that is in there has an end, too."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.tasks = Tasks()
        self.links: list[RedisLink] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.resume()
        self.server.call("CONFIG", "SET", "maxmemory", "0")
        await self.tasks.cancel()
        for link in self.links:
            await link.close()

        assert [] == [name for name in self.server.call("KEYS", "*") if self.server.call("PTTL", name) == -1]
        assert [] == self.tasks.errors

    def link(self, url: str = "") -> RedisLink:
        link = RedisLink(
            RedisRule(url or self.server.url, timeout=5.0),
            clock=asyncio.get_running_loop().time,
            draw=lambda: 0.5,
            lookup=as_it_is,
            spawn=self.tasks.spawn,
            tell=lambda *_, **__: None,
        )
        self.links.append(link)
        return link

    def quota(self, *, timeout: float = 5.0, link: RedisLink | None = None) -> FleetQuota:
        return FleetQuota(link or self.link(), NAMES, timeout=timeout, spawn=self.tasks.spawn)

    def presence(
        self,
        member: int,
        *,
        life: float = 10.0,
        link: RedisLink | None = None,
        clock: Callable[[], float] | None = None,
        revision: Callable[[], str] = str,
        note: Callable[[], bytes] = bytes,
    ) -> Presence:
        return Presence(
            link or self.link(),
            NAMES,
            member=member.to_bytes(12, "big"),
            clock=clock or asyncio.get_running_loop().time,
            draw=lambda: 0.5,
            spawn=self.tasks.spawn,
            revision=revision,
            note=note,
            life=life,
        )


ODD_REPLIES = {
    "nil": b"$-1\r\n",
    "no array": b"*-1\r\n",
    "text": b"$6\r\nabcdef\r\n",
    "status": b"+OK\r\n",
    "negative": b":-1\r\n",
    "nested": b"*6\r\n*1\r\n:1\r\n$-1\r\n*0\r\n:1\r\n:1\r\n:1\r\n",
    "errors": b"*2\r\n-ERR a\r\n:1\r\n",
}
"""No script of ours answers so."""


@asynccontextmanager
async def answering(replies: list[bytes]) -> AsyncIterator[str]:
    """The URL of a server that answers each command with the first of *replies*, as it is then."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader()
        while received := await reader.read(65536):
            commands.feed(received)
            while commands.gets() is not False:
                writer.write(replies[0])
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()


@asynccontextmanager
async def impostor(
    answer: Callable[[list[bytes]], bytes], *, late: bytes = b"", hang_up: bool = False
) -> AsyncIterator[str]:
    """
    The URL of a server that answers each command as *answer* says, and says *late* a moment after each answer. With
    *hang_up* it closes after each, so that nobody waits for the rest of what isn't whole.
    """
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        commands = hiredis.Reader()
        try:
            while received := await reader.read(65536):
                commands.feed(received)
                while (command := commands.gets()) is not False:
                    writer.write(answer(command))
                    if hang_up:
                        writer.close()
                if late:
                    await asyncio.sleep(0.001)
                    writer.write(late)
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()
        for writer in writers:
            writer.close()
