"""
The stand-in AI provider: a web server for OpenAI, Azure OpenAI, Anthropic, and Azure's document services.

The rule: it behaves like the real services on the wire (forms, headers, errors, failures) and says in each answer
that it is canned. It counts what reaches it, so that a test can tell a hit from a call.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET
from struct import pack
from typing import NoReturn
from uuid import uuid4

from aiohttp import web

from sidecar.demo.canned import Ask, Json
from sidecar.demo.documents.services import DocumentServices
from sidecar.demo.failure import Failure, FailureMode
from sidecar.demo.operations import (
    MODELS,
    OPERATIONS,
    UNKNOWN,
    Operation,
    RequestError,
    check,
    members,
    reply,
    vendor_of,
)
from sidecar.demo.vendors import Vendor, error, error_event, failure_words, headers
from sidecar.net.web_server import WebServer

_BODY_LIMIT = 1 << 30

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it arrived."""

    method: str
    target: str
    pairs: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @property
    def fields(self) -> dict[bytes, bytes]:
        """The header fields by lower-case name; of repeated ones the last."""
        return {name.lower(): value for name, value in self.pairs}


@dataclass(frozen=True, slots=True)
class _ProviderCall:
    """One call: *fresh* is its id, *number* its place among all calls, from 1."""

    request: web.Request
    vendor: Vendor
    operation: Operation
    body: bytes
    fresh: str
    number: int


class _CutShort(Exception):
    """Raised to break off an answer before its end."""


class DemoProvider:
    """
    A provider on a port of its own.

    *latency*: seconds before each answer's head; *token_interval*: seconds between two pieces of a stream; *failure*:
    which calls fail and how. All three may be changed while it runs. *clock* gives seconds since the epoch, *fresh*
    a new word of 32 hexadecimal digits for ids; *report* gets bugs.

    *calls* counts the calls that have arrived, *counts* the same by operation, *abandoned* those whose caller left
    before the end; *seen* keeps the last 64 requests. *documents* are the document services, with counts and faults of
    their own: of their calls, those that start an analysis are counted here, too, as ``analyze``.
    """

    def __init__(
        self,
        *,
        latency: float = 0.0,
        token_interval: float = 0.0,
        failure: Failure | None = None,
        clock: Callable[[], float] = time.time,  # noqa: TID251 - an argument, which this is only the default of
        fresh: Callable[[], str] = lambda: uuid4().hex,
        report: Callable[[BaseException], None] = lambda error: _LOG.error("a handler failed", exc_info=error),
    ) -> None:
        self.latency = latency
        self.token_interval = token_interval
        self.failure = failure
        self.counts: Counter[str] = Counter()
        self.abandoned = 0
        self.seen: deque[Seen] = deque(maxlen=64)
        self.documents = DocumentServices(clock=clock, fresh=fresh)
        self._clock = clock
        self._fresh = fresh
        self._report = report
        self._server: WebServer | None = None

    def __repr__(self) -> str:
        where = self._server or "stopped"
        return f"<DemoProvider {where}, {self.calls} calls, failing: {self.failure}>"

    @property
    def calls(self) -> int:
        """How many calls have arrived."""
        return self.counts.total()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen, on a free port where *port* is 0; the port. Raises ``OSError`` where that is not possible."""
        application = web.Application(client_max_size=_BODY_LIMIT)
        application.add_routes(self._routes())
        # A caller that leaves cancels its handler: that is how an abandoned call is noticed.
        server = WebServer(application, _refusal, report=self._report, shutdown=0.1, cancel=True)
        bound = await server.start(host, port)
        self._server = server
        return bound

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop()

    def _routes(self) -> Iterator[web.RouteDef]:
        for path, (vendor, operation) in OPERATIONS.items():
            yield web.post(path, self._handler(vendor, operation))
        for path in ("/v1/models", "/v1/models/{model}", "/openai/v1/models", "/openai/v1/models/{model}"):
            yield web.get(path, self._handler(None, None))
        yield web.route("*", "/{path:.*}", self._take_other)

    def _handler(
        self, known: Vendor | None, operation: Operation | None
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """
        The handler of one route. *known* is None if the headers show the vendor, *operation* is None for the list of
        models.
        """

        async def handle(request: web.Request) -> web.StreamResponse:
            vendor = known or vendor_of(request.path, request.headers)
            return await self._take(request, vendor, operation or MODELS[vendor])

        return handle

    async def _take_other(self, request: web.Request) -> web.StreamResponse:
        """Answer a call of a path that is none of the three vendors'."""
        if not self.documents.knows(request.path):
            return await self._take(request, vendor_of(request.path, request.headers), UNKNOWN)
        body = await request.read()
        self.seen.append(Seen(request.method, request.raw_path, request.raw_headers, body))
        if self.documents.starts(request.method, request.path):
            self.counts["analyze"] += 1
            await asyncio.sleep(self.latency)
        return self.documents.answer(request, body)

    async def _take(self, request: web.Request, vendor: Vendor, operation: Operation) -> web.StreamResponse:
        """Count one call and answer it."""
        body = await request.read()
        self.seen.append(Seen(request.method, request.raw_path, request.raw_headers, body))
        self.counts[operation.name] += 1
        number = self.calls
        failure = self.failure if self.failure and self.failure.strikes(number) else None
        try:
            return await self._serve(_ProviderCall(request, vendor, operation, body, self._fresh(), number), failure)
        except _CutShort:
            assert request.transport is not None
            request.transport.close()
        except (asyncio.CancelledError, ConnectionResetError):
            self.abandoned += 1
        # To the server, a cancelled handler is one whose caller has left: it says no more on this connection.
        raise asyncio.CancelledError

    async def _serve(self, call: _ProviderCall, failure: Failure | None) -> web.StreamResponse:
        """Answer one call, or fail as told."""
        mode = failure.mode if failure else None
        await asyncio.sleep(self.latency + (failure.seconds if failure and mode is FailureMode.SLOW else 0.0))
        if mode is FailureMode.RESET:
            _reset(call.request)
        around = headers(call.vendor, call.fresh, int(self.latency * 1000), remaining=max(0, 10_000 - call.number))
        try:
            document, frames = self._reply(call, failure)
        except RequestError as refused:
            document = error(call.vendor, refused.status, str(refused), f"req_{call.fresh}")
            if refused.retry_after:
                around |= {"retry-after": str(refused.retry_after), "retry-after-ms": f"{refused.retry_after}000"}
            return _document(call, document, around, refused.status)
        if frames is None:
            whole = _document(call, document, around)
            return await _half(call.request, whole) if mode is FailureMode.TRUNCATE else whole
        if mode in (FailureMode.TRUNCATE, FailureMode.STREAM_ERROR):
            del frames[len(frames) // 2 :]
        if mode is FailureMode.STREAM_ERROR:
            frames.append(error_event(call.vendor, f"req_{call.fresh}"))
        response = await self._stream(call.request, frames, around)
        if mode is FailureMode.TRUNCATE:
            raise _CutShort
        return response

    def _reply(self, call: _ProviderCall, failure: Failure | None) -> tuple[Json, list[bytes] | None]:
        """The answer. Raises ``RequestError`` if the vendor would refuse the call, or if the call is to fail so."""
        request, operation = call.request, call.operation
        named = request.match_info.get("model", "")
        deployed = bool(named) and request.method == "POST"
        check(call.vendor, operation, request.headers, versioned=not deployed or "api-version" in request.query)
        if failure and (status := failure.mode.status):
            waits = failure.retry_after if status in (429, 503) else 0
            raise RequestError(status, failure_words(status, failure.retry_after), retry_after=waits)
        asked = members(call.body, operation)
        ask = Ask(asked, named or str(asked.get("model") or ""), int(self._clock()), self._fresh)
        if failure and failure.mode is FailureMode.STREAM_ERROR and not ask.streams:
            raise RequestError(500, failure_words(500, 0))
        return reply(operation, ask)

    async def _stream(self, request: web.Request, frames: list[bytes], around: dict[str, str]) -> web.StreamResponse:
        """Send *frames*, one write each."""
        response = web.StreamResponse(headers=around | {"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for number, frame in enumerate(frames):
            if number and self.token_interval:
                await asyncio.sleep(self.token_interval)
            await response.write(frame)
        return response


def _refusal(status: int, code: str, message: str) -> web.Response:
    """The answer to a request that cannot be read. Nobody knows which vendor's API was meant."""
    return web.json_response(
        {"error": {"message": message, "type": "invalid_request_error", "code": code}}, status=status
    )


def _reset(request: web.Request) -> NoReturn:
    """Break off without a word: closing without lingering sends RST."""
    assert request.transport is not None
    request.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, pack("ii", 1, 0))
    raise _CutShort


def _document(call: _ProviderCall, document: Json, around: dict[str, str], status: int = 200) -> web.Response:
    """A whole answer: indented as OpenAI does it, compressed where the caller takes gzip."""
    indent = 2 if call.vendor is Vendor.OPENAI else None
    body = json.dumps(document, indent=indent, ensure_ascii=False).encode()
    response = web.Response(body=body, status=status, headers=around | {"content-type": "application/json"})
    if "gzip" in call.request.headers.get("accept-encoding", ""):
        response.enable_compression(web.ContentCoding.gzip)
    return response


async def _half(request: web.Request, whole: web.Response) -> web.StreamResponse:
    """Announce all of *whole*, send half, and break off."""
    assert isinstance(whole.body, bytes)
    response = web.StreamResponse(headers=whole.headers)
    response.content_length = len(whole.body)
    await response.prepare(request)
    await response.write(whole.body[: len(whole.body) // 2])
    raise _CutShort
