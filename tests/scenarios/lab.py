"""What stories are told with: a sidecar with what came of it, and an upstream that does what a story says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any

import aiohttp
from yarl import URL

from sidecar.app.sidecar import Sidecar
from sidecar.core.model import Record
from sidecar.dialects import DIALECTS
from tests.scenarios.caller import Reply
from tests.scenarios.clocks import LabClocks

KEY = "Bearer sk-story"

TOKEN = "correct-horse-battery"  # pragma: allowlist secret

OWN_RETRIES = {"x-stainless-retry-count": "0"}

CHAT = {"model": "gpt-4o", "temperature": 0, "messages": [{"role": "user", "content": "What is in the box?"}]}

AT_REST = ["clean", "sweep"]
"""The tasks of a sidecar that does nothing for anybody."""

CHAT_PATH = "/openai/v1/chat/completions"

AS_BYTES = 1024 * 1024
"""aiohttp warns of larger bodies unless they are files."""


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
        sent = data if len(data) <= AS_BYTES else BytesIO(data)
        async with self._session.request(
            method, URL(self.url + path, encoded=True), data=sent if data else None, headers=given
        ) as response:
            pieces: list[bytes] = []
            broken = False
            try:
                async for piece in response.content.iter_any():
                    pieces.append(piece)  # noqa: PERF401  what has come before a break counts
            except aiohttp.ClientPayloadError:
                broken = True
            found = {name.lower(): value for name, value in response.headers.items()}
            return Reply(response.status, found, b"".join(pieces), broken)

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
