"""A listener on a real socket, a scripted line behind it, and clients that say exactly what they are told to."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
import uvloop

from sidecar.core.memory_budget import Ledger
from sidecar.core.model import Head
from sidecar.core.rules import Limits
from sidecar.errors import Refused
from sidecar.net.base import Admission, Pending, Request, Response
from sidecar.net.inbound.listener import Listener

MIB = 1024 * 1024


def whole(body: bytes, status: int = 200) -> Response:
    """A whole answer with *body*."""
    return Response(status, b"content-length: %d\r\n" % len(body), body)


@dataclass
class Line:
    """The line as the listener sees it, scripted: *admits*, *answers* and *recalls* may be replaced by a test."""

    deciding_fields: ClassVar = defaultdict(bool, {b"authorization": True, b"cache-control": True, b"x-team": True})

    admits: Callable[[Head], Admission] = lambda _: Admission(collect=True, plan="plan")
    answers: Callable[[Request], Response | Pending] = lambda request: whole(request.head.target)
    recalls: Callable[[Any, bytes], Response | None] = lambda _, __: None
    requests: list[Request] = field(default_factory=list)
    tried: list[tuple[Any, bytes]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def admit(self, head: Head) -> Admission:
        return self.admits(head)

    def answer(self, request: Request) -> Response | Pending:
        self.requests.append(request)
        return self.answers(request)

    def try_hit(self, plan: Any, body: bytes) -> Response | None:
        response = self.recalls(plan, body)
        if response is not None:
            self.tried.append((plan, body))
        return response

    def refuse(self, head: Head | None, error: Refused) -> Response:
        del head
        self.refusals.append(error.code)
        return whole(error.code.encode(), error.status)


@dataclass
class Reply:
    """An answer as a client read it."""

    status: int
    fields: dict[bytes, bytes]
    body: bytes
    lines: list[bytes]


@dataclass
class Peer:
    """A client on a raw socket."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> Reply:
        status, *lines = (await self.reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in lines)
        return Reply(int(status.split(b" ")[1]), fields, b"", lines)

    async def reply(self, *, empty: bool = False) -> Reply:
        reply = await self.head()
        if empty or reply.status in {100, 204, 304}:
            return reply
        if b"content-length" in reply.fields:
            return replace(reply, body=await self.reader.readexactly(int(reply.fields[b"content-length"])))
        if b"transfer-encoding" not in reply.fields:
            return replace(reply, body=await self.reader.read())
        body = bytearray()
        while size := int(await self.reader.readline(), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)
        return replace(reply, body=bytes(body))

    async def ask(self, data: bytes) -> Reply:
        self.send(data)
        return await self.reply()

    async def ended(self) -> bytes:
        """What comes until the connection is closed or reset."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""

    async def close(self) -> None:
        self.writer.close()
        await asyncio.wait([asyncio.ensure_future(self.writer.wait_closed())])

    def vanish(self) -> None:
        self.writer.transport.abort()


class Front:
    """A listener with all that a test wants to look at. Time stands still unless the test moves it."""

    def __init__(self, limits: Limits, memory: int, spool_dir: str) -> None:
        self.line = Line()
        self.ledger = Ledger(memory)
        self.now = 1000.0
        self.tasks: set[asyncio.Task[None]] = set()
        self.reported: list[BaseException] = []
        self.peers: list[Peer] = []
        self.port = 0
        self.listener = Listener(
            self.line,
            limits,
            self.ledger,
            spawn=self.spawn,
            clock=lambda: self.now,
            wall=lambda: 1_700_000_000.0,
            spool_dir=spool_dir,
            report=self.reported.append,
        )

    def spawn(self, coroutine, /, *, name):
        task = asyncio.create_task(coroutine, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def connect(self, limit: int = 64 * 1024) -> Peer:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", self.port, limit=limit))
        self.peers.append(peer)
        return peer

    def pass_time(self, seconds: float) -> None:
        self.listener.sweep()
        self.now += seconds
        self.listener.sweep()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop turn until *condition* holds."""
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
                await asyncio.sleep(0.001)

    async def quiet(self) -> None:
        """Close every client and wait until nothing is left of them."""
        for peer in self.peers:
            peer.vanish()
        await self.until(lambda: self.listener.connections == 0 and not self.tasks)


def pytest_asyncio_loop_factories(config, item):
    """Stories of the listener run on both event loops: the product's, and the one without it."""
    del config
    factories = {"asyncio": asyncio.new_event_loop}
    return {**factories, "uvloop": uvloop.new_event_loop} if "open_front" in item.fixturenames else factories


@pytest.fixture
async def open_front(tmp_path) -> AsyncIterator[Callable]:
    """Opens fronts; at the end none may have kept a connection, a task, or a byte of the ledger."""
    fronts: list[Front] = []

    async def start(limits: Limits | None = None, memory: int = 32 * MIB, spool_dir: str = "") -> Front:
        front = Front(limits or Limits(), memory, spool_dir or str(tmp_path))
        front.port = await front.listener.start("127.0.0.1", 0)
        fronts.append(front)
        return front

    yield start
    for front in fronts:
        await front.quiet()
        await front.listener.drain(1)

        assert 0 == front.ledger.held


@pytest.fixture
async def front(open_front) -> Front:
    """A front with default limits."""
    return await open_front()
