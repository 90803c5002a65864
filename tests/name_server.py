"""
A name server of the tests' own, on a loopback port: what it is asked and what it answers are a story's.

The rule: it reads and writes the wire format by itself (RFC 1035), so that it shares no code with what it tests.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

A, AAAA = 1, 28
NO_ERROR, SERVER_FAILED, NO_SUCH_NAME = 0, 2, 3


class NameServer(asyncio.DatagramProtocol):
    """
    Answers by *zone*: a name's addresses, a response code, None for silence, or what gives one of these each time it
    is asked. Names that aren't there don't exist. Answers hold for *ttl* seconds.

    *asked* are the names that were asked for, in order, with the type of record; *at* is where it listens.
    """

    def __init__(self) -> None:
        self.zone: dict[str, Sequence[str] | int | Callable[[int], Sequence[str] | int | None] | None] = {}
        self.ttl = 60
        self.asked: list[tuple[str, int]] = []
        self.at = ""
        self._transport: asyncio.DatagramTransport | None = None
        self._waiting: list[tuple[Callable[[], bool], asyncio.Event]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.at = "{}:{}".format(*transport.get_extra_info("sockname"))

    def connection_lost(self, exc: Exception | None) -> None:
        pass

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        number, _, _ = struct.unpack("!HHH", data[:6])
        labels, at = [], 12
        while size := data[at]:
            labels.append(data[at + 1 : at + 1 + size].decode())
            at += size + 1
        (kind,) = struct.unpack("!H", data[at + 1 : at + 3])
        question = data[12 : at + 5]
        name = ".".join(labels).lower()
        self.asked.append((name, kind))
        for holds, event in self._waiting:
            if holds():
                event.set()
        found = self.zone.get(name, NO_SUCH_NAME)
        if callable(found):
            found = found(kind)
        if found is None:
            return
        code, addresses = (found, ()) if isinstance(found, int) else (NO_ERROR, found)
        records = [self._record(address) for address in addresses if (":" in address) == (kind == AAAA)]
        head = struct.pack("!HHHHHH", number, 0x8180 | code, 1, len(records), 0, 0)
        self._transport.sendto(b"".join((head, question, *records)), addr)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for questions, until *holds*."""
        if not holds():
            event = asyncio.Event()
            self._waiting.append((holds, event))
            await event.wait()

    def times(self, name: str) -> int:
        """How often the addresses of *name* were asked for."""
        return self.asked.count((name, A))

    def _record(self, address: str) -> bytes:
        family, kind = (socket.AF_INET6, AAAA) if ":" in address else (socket.AF_INET, A)
        data = socket.inet_pton(family, address)
        return b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, self.ttl, len(data)) + data


@asynccontextmanager
async def name_server() -> AsyncIterator[NameServer]:
    """One that listens."""
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        NameServer, local_addr=("127.0.0.1", 0)
    )
    try:
        yield server
    finally:
        transport.close()
