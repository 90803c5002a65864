"""The client before servers that do what a story says."""

from __future__ import annotations

import asyncio
import functools
import inspect
from contextlib import asynccontextmanager, suppress

import pytest
import uvloop

from sidecar.core.rules import Timeouts, UpstreamRule
from sidecar.net.outbound.client import Upstream
from sidecar.net.outbound.resolve import Resolver

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

NEVER = 3600.0


def story(test):
    """Run *test* on both event loops: their transports differ in what they do when a connection breaks."""

    @pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
    @functools.wraps(test)
    def run(loop, **arguments):
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(asyncio.wait_for(test(**arguments), 30))

    own = inspect.signature(test).parameters.values()
    run.__signature__ = inspect.Signature(
        [
            inspect.Parameter("loop", inspect.Parameter.KEYWORD_ONLY),
            *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own),
        ]
    )
    return run


class Script:
    """
    An upstream that answers the n-th request with the n-th of *answers* (the last one again and again), and records
    what it got. ``None`` in an answer list closes the connection.
    """

    def __init__(self, *answers):
        self.answers = answers
        self.requests = []
        self.connections = 0

    async def __call__(self, reader, writer):
        self.connections += 1
        while (request := await read_request(reader)) is not None:
            self.requests.append(request)
            answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
            if answer is None:
                return
            writer.write(answer)
            await writer.drain()


async def read_request(reader):
    """One request as bytes, None when the client has left."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            return head + await reader.readuntil(b"0\r\n\r\n")
        length = lower.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
        return head + await reader.readexactly(int(length or 0))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


@asynccontextmanager
async def serve(script, *, tls=None):
    """A server for *script*; yields its base URL."""
    tasks = set()

    async def connected(reader, writer):
        tasks.add(asyncio.current_task())
        with suppress(ConnectionError, asyncio.CancelledError):
            await script(reader, writer)
        writer.close()
        with suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Client:
    """An ``Upstream`` with the tests' defaults. *now* is its clock, which passes when told to."""

    def __init__(self, *, own=lambda _host, _port: False, environ=None, nameservers=(), **rule):
        self.tasks = []
        self.now = 0.0
        self.resolver = Resolver(nameservers, clock=lambda: self.now)
        self.upstream = Upstream(
            UpstreamRule(**rule),
            environ=environ or {},
            own=own,
            spawn=self.spawn,
            resolver=self.resolver,
            clock=lambda: self.now,
            draw=lambda: 0.5,
        )

    def spawn(self, coroutine, *, name):
        self.tasks.append(asyncio.get_running_loop().create_task(coroutine, name=name))
        return self.tasks[-1]

    async def send(self, base, target=b"/v1/x", *, method=b"POST", pairs=(), body=b"", streaming=False, **times):
        timeouts = Timeouts(**{"connect": 5.0, "first_byte": NEVER, "stream_first_byte": NEVER, "idle": NEVER} | times)
        return await self.upstream.send(
            method=method, base=base, target=target, pairs=pairs, body=body, timeouts=timeouts, streaming=streaming
        )

    async def call(self, base, target=b"/v1/x", **options):
        """The whole answer: status, pairs, body."""
        answer = await self.send(base, target, **options)
        return answer.status, answer.pairs, await everything(answer)

    @property
    def acquired(self):
        return len(self.upstream._pool._acquired)

    @property
    def pooled(self):
        return sum(map(len, self.upstream._pool._conns.values()))


async def everything(answer):
    body = b""
    while chunk := await answer.read():
        body += chunk
    return body


@asynccontextmanager
async def client(**options):
    it = Client(**options)
    await it.upstream.start()
    try:
        yield it
        await asyncio.gather(*it.tasks, return_exceptions=True)

        assert 0 == it.acquired
    finally:
        await it.upstream.close()
        await it.resolver.close()
        for task in it.tasks:
            task.cancel()
        await asyncio.gather(*it.tasks, return_exceptions=True)


def fault(raised):
    """What an ``UpstreamFailed`` says, without its words."""
    return raised.value.cause, raised.value.sent, raised.value.answered, raised.value.reused
