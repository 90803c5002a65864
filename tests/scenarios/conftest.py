"""
The whole sidecar in one process, with a stand-in provider and scripted upstreams, over real sockets.

The fixture ``lab`` builds one; a story asks it, and looks at what came back and at what the upstreams saw.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop

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
from tests.cluster.fixtures import api, api_server, install  # noqa: F401  fixtures
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
from tests.scenarios.caller import Caller, Reply  # noqa: F401  as above
from tests.scenarios.clocks import LabClocks
from tests.scenarios.eavesdropping import TOLD, Eavesdropper
from tests.scenarios.lab import (  # noqa: F401  as above
    CHAT,
    CHAT_PATH,
    KEY,
    OWN_RETRIES,
    TOKEN,
    VENDORS,
    Ear,
    Handler,
    Lab,
    Script,
)
from tests.scenarios.oracle import oracle  # noqa: F401  a fixture
from tests.scenarios.regions import pair, upstream  # noqa: F401  fixtures
from tests.scenarios.rules_on_disk import disk  # noqa: F401  a fixture
from tests.scenarios.sources import build_api, build_pods, source  # noqa: F401  fixtures

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
        scripted = Script(handler)
        await scripted.start()
        running.append(scripted)
        return scripted

    yield start
    for each in running:
        await each.stop()


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
