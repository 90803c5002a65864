"""
The whole sidecar in one process, with a stand-in provider and scripted upstreams, over real sockets.

``lab`` builds one; a story asks it, and looks at what came back and at what the upstreams saw.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from yarl import URL

from sidecar.app.reload import Source
from sidecar.app.sidecar import Sidecar
from sidecar.cli.keygen import line
from sidecar.core.dialect import Kind
from sidecar.core.model import Record
from sidecar.core.rules import (
    CacheMode,
    CacheRule,
    Limits,
    Listen,
    Match,
    MemoryRule,
    RedisRule,
    Region,
    Route,
    Rules,
    SealRule,
    Service,
    Timeouts,
)
from sidecar.demo.provider import DemoProvider
from sidecar.dialects import DIALECTS
from tests.redis_servers import RedisServer
from tests.scenarios.answers import (  # noqa: F401  stories take them from here
    CLAUDE,
    CLAUDE_EVENTS,
    CLAUDE_PATH,
    CLAUDE_START,
    DONE,
    LAST_CHUNK,
    ROLE,
    STREAM_HEAD,
    USAGE,
    chat_events,
    chunk,
    chunks,
    claude_event,
    completion,
    delta,
    said,
    whole,
)
from tests.scenarios.caller import Caller, Reply
from tests.scenarios.clocks import LabClocks
from tests.scenarios.eavesdropping import TOLD, Eavesdropper
from tests.scenarios.sources import build_api, build_pods, source  # noqa: F401  fixtures

KEY = "Bearer sk-story"

TOKEN = "correct-horse-battery"  # pragma: allowlist secret

OWN_RETRIES = {"x-stainless-retry-count": "0"}

CHAT = {"model": "gpt-4o", "temperature": 0, "messages": [{"role": "user", "content": "What is in the box?"}]}

CHAT_PATH = "/openai/v1/chat/completions"


VENDORS = {name: replace(dialect, own_hosts=("127.0.0.1",)) for name, dialect in DIALECTS.items()}
"""The dialects, in stories whose upstream is the vendor itself; anywhere else it is a gateway."""

Handler = Callable[[bytes, bytes, asyncio.StreamWriter], Awaitable[None]]


class Ear(asyncio.StreamReader):
    """A reader that tells at once when its peer has gone, also while nobody reads."""

    def __init__(self) -> None:
        super().__init__(limit=1 << 20)
        self.gone = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.gone.set()

    def set_exception(self, exc: BaseException) -> None:
        super().set_exception(exc)
        self.gone.set()


class Script:
    """
    An upstream that does what a story says: ``handler(head, body, writer)`` for each request it reads.

    *seen* holds each request's head and body as they came over the wire; *open* its connections. A handler whose
    caller goes is cancelled, and *deserted* counts it; one that fails makes the story fail at its end.
    """

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.seen: list[tuple[bytes, bytes]] = []
        self.open = 0
        self.deserted = 0
        self.port = 0
        self._errors: list[BaseException] = []
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def calls(self) -> int:
        return len(self.seen)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: asyncio.StreamReaderProtocol(Ear(), self._accept), "127.0.0.1", 0, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        if self._errors:
            raise self._errors[0]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Ear)
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: Ear, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await self._body(head, reader)
                self.seen.append((head, body))
                if not await self._handle(head, body, reader, writer):
                    self.deserted += 1
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except Exception as error:  # noqa: BLE001  the story hears of it when the upstream stops
            self._errors.append(error)
        finally:
            self.open -= 1
            writer.close()

    async def _handle(self, head: bytes, body: bytes, reader: Ear, writer: asyncio.StreamWriter) -> bool:
        """Run the handler as long as its caller is there; False when the caller went first."""
        handling = asyncio.create_task(self._run(head, body, writer))
        leaving = asyncio.create_task(reader.gone.wait())
        try:
            await asyncio.wait((handling, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not handling.done() or isinstance(handling.exception(), ConnectionError):
                return False
            if isinstance(handling.exception(), RuntimeError) and writer.is_closing():
                return False  # what uvloop raises where asyncio has a ConnectionError
            handling.result()
            return True
        finally:
            handling.cancel()
            leaving.cancel()

    async def _run(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        await self.handler(head, body, writer)
        await writer.drain()

    async def _body(self, head: bytes, reader: asyncio.StreamReader) -> bytes:
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            body = b""
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += await reader.readexactly(size)
                await reader.readexactly(2)
            await reader.readexactly(2)
            return body
        _, found, rest = lower.partition(b"content-length:")
        return await reader.readexactly(int(rest.split(b"\r\n")[0])) if found else b""


@dataclass
class Lab:
    """One sidecar. *records* are its requests as it told them, *logs* its log lines."""

    sidecar: Sidecar
    clocks: LabClocks = field(default_factory=LabClocks)
    records: list[Record] = field(default_factory=list)
    logs: list[bytes] = field(default_factory=list)
    _session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.sidecar.port}"

    async def ask(
        self,
        body: Any = CHAT,
        *,
        path: str = CHAT_PATH,
        method: str = "POST",
        headers: dict[str, str | None] | None = None,
    ) -> Reply:
        """
        Make one call; *body* bytes as they are, anything else as JSON. A header of None is left out. Like the SDKs,
        this caller would try again by itself.
        """
        assert self._session is not None
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        wanted = {"authorization": KEY, "content-type": "application/json", **OWN_RETRIES, **(headers or {})}
        given = {name: value for name, value in wanted.items() if value is not None}
        async with self._session.request(
            method, URL(self.url + path, encoded=True), data=data or None, headers=given
        ) as response:
            received, broken = b"", False
            try:
                async for piece in response.content.iter_any():
                    received += piece
            except aiohttp.ClientPayloadError:
                broken = True
            found = {name.lower(): value for name, value in response.headers.items()}
            return Reply(response.status, found, received, broken)

    def settled(self) -> bool:
        """Nothing in flight, nothing held."""
        return not len(self.sidecar.flights) and self.held == 0

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop turn until *condition* holds; a story that never gets there fails here."""
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110  what is looked at has no events for tests
                await asyncio.sleep(0.002)

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks that run."""
        return sorted(task.get_name() for task in self.sidecar.tasks)

    @property
    def waiting(self) -> int:
        """How many callers wait in flights."""
        return sum(flight.readers for flight in self.sidecar.flights)

    @property
    def held(self) -> int:
        """Bytes of bodies and of answers under way, read ahead of their callers or not."""
        return self.sidecar.ledger.held

    async def settle(self) -> None:
        """Wait until nothing is in flight any more; a story that never gets there runs into its own limit."""
        async with asyncio.timeout(60):
            while not self.settled():  # noqa: ASYNC110  as in until
                await asyncio.sleep(0.005)


Dial = Callable[..., Awaitable[Caller]]

BuildLab = Callable[..., Awaitable[Lab]]

BuildFleet = Callable[..., Awaitable[list[Lab]]]


def pytest_asyncio_loop_factories(config: object, item: pytest.Item) -> dict[str, Callable[[], Any]]:
    """
    Stories with callers on raw sockets run on both event loops: the product's, and the one without it. Not those whose
    sidecar is a process of its own: it chooses its loop by itself.
    """
    del config
    factories: dict[str, Callable[[], Any]] = {"asyncio": asyncio.new_event_loop}
    both = {"dial", "build_lab"} <= set(getattr(item, "fixturenames", ()))
    return {**factories, "uvloop": uvloop.new_event_loop} if both else factories


@pytest.fixture
async def build_lab() -> AsyncIterator[BuildLab]:
    """Builds labs, and stops them."""
    labs: list[Lab] = []

    async def build(
        base: str,
        *,
        cache: CacheRule | None = None,
        routes: tuple[Route, ...] | None = None,
        limits: Limits | None = None,
        memory: MemoryRule | None = None,
        timeouts: Timeouts | None = None,
        services: tuple[Service, ...] | None = None,
        environ: Mapping[str, str] | None = None,
        on_disk: Source | None = None,
        **more: Any,
    ) -> Lab:
        region = Region("here", base)
        cached = Route(
            "cached",
            Match(kinds=frozenset(Kind) - {Kind.OTHER, Kind.MODELS, Kind.MODERATION}),
            cache or CacheRule(mode=CacheMode.DETERMINISTIC),
            timeouts=timeouts or Timeouts(),
        )
        rules = Rules(
            services=services
            or (
                Service("openai", VENDORS["openai"], (region,), path="/openai"),
                Service("anthropic", VENDORS["anthropic"], (region,), path="/anthropic"),
                Service("azure-openai", VENDORS["azure-openai"], (region,), path="/azure", resource=True),
            ),
            routes=(routes or (cached,)) + (Route("default", cache=CacheRule(mode=CacheMode.OFF)),),
            listen=Listen(port=0),
            health=Listen(port=0),
            admin=Listen(port=0),
            limits=limits or replace(Limits(), drain_seconds=2.0),
            memory=memory or MemoryRule(),
            **more,
        )
        logs: list[bytes] = []
        records: list[Record] = []
        clocks = LabClocks()
        sidecar = Sidecar(
            on_disk.load() if on_disk is not None else rules,
            environ=environ or {},
            write=logs.append,
            source=on_disk,
            sinks=(records.append,),
            clocks=clocks.handed_out(),
        )
        lab = Lab(sidecar, clocks, records, logs)
        await sidecar.start()
        lab._session = aiohttp.ClientSession(auto_decompress=False, connector=aiohttp.TCPConnector(limit=0))
        labs.append(lab)
        return lab

    yield build
    for lab in labs:
        assert lab._session is not None
        await lab._session.close()
        await lab.sidecar.stop()
    for lab in labs:
        assert [] == [line for line in lab.logs if b'"bug"' in line]


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    """A file with ``TOKEN``, for ``admin.token_file``."""
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return str(path)


@pytest.fixture
def redis_server(redis_server: RedisServer, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """The shared server, with somebody who reads along: no story tells it what it is about."""
    eavesdropper = Eavesdropper(redis_server)
    yield redis_server
    heard = eavesdropper.leave()
    if request.node.get_closest_marker("in_clear") is None:
        assert [] == sorted(set(TOLD.findall(heard)))


@pytest.fixture
def build_fleet(build_lab: BuildLab, redis_server: RedisServer, tmp_path: Path) -> BuildFleet:
    """Builds sidecars over one Redis; *redis* are members of its rule."""

    async def build(base: str, count: int = 2, *, redis: dict[str, Any] | None = None, **more: Any) -> list[Lab]:
        secrets = tmp_path / "cache.key"
        if not secrets.exists():
            secrets.write_text(line() + "\n")
        rule = RedisRule(**{"url": redis_server.url, "namespace": "team-a", "timeout": 1.0, **(redis or {})})
        rules = {"redis": rule, "seal": SealRule(str(secrets)), **more}
        return [await build_lab(base, **rules) for _ in range(count)]

    return build


@pytest.fixture
async def provider() -> AsyncIterator[DemoProvider]:
    """The stand-in provider."""
    running = DemoProvider()
    running.port = await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def lab(build_lab: BuildLab, provider: DemoProvider) -> Lab:
    """A sidecar before the stand-in provider."""
    return await build_lab(f"http://127.0.0.1:{provider.port}")


@pytest.fixture
async def script() -> AsyncIterator[Callable[[Handler], Awaitable[Script]]]:
    """Starts scripted upstreams, and stops them."""
    running: list[Script] = []

    async def start(handler: Handler) -> Script:
        upstream = Script(handler)
        await upstream.start()
        running.append(upstream)
        return upstream

    yield start
    for upstream in running:
        await upstream.stop()


@pytest.fixture
async def dial() -> AsyncIterator[Dial]:
    """
    Calls a lab from a raw socket: connects, sends, and leaves the answer to be read.

    *buffer*: bytes of the socket's receive buffer. *cut*: how much of the request is sent, as a slice's end.
    """
    callers: list[Caller] = []

    async def call(
        lab: Lab | int,
        body: Any = CHAT,
        *,
        path: str = CHAT_PATH,
        headers: dict[str, str] | None = None,
        buffer: int = 0,
        cut: int | None = None,
        version: str = "1.1",
    ) -> Caller:
        sock = socket.socket()
        sock.setblocking(False)
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        port = lab if isinstance(lab, int) else lab.sidecar.port
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=buffer or 1 << 16)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {
            "host": "localhost", "authorization": KEY, "content-type": "application/json",
            "content-length": str(len(data)), **OWN_RETRIES, **(headers or {}),
        }  # fmt: skip
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        writer.write((f"POST {path} HTTP/{version}\r\n{lines}\r\n".encode() + data)[:cut])
        callers.append(Caller(reader, writer))
        return callers[-1]

    yield call
    for caller in callers:
        caller.vanish()
    await asyncio.sleep(0)  # for uvloop, which closes in the next turn
