"""
A bare relay: ``python -m tests.bench.relay PORT UPSTREAM_PORT``.

The rule: what any proxy on this stack must spend on a call, and nothing else: a protocol class with llhttp in front,
aiohttp's client behind, hop-by-hop fields dropped, one task a call. No cache, no limits, no timeouts, no metrics.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import aiohttp
import httptools
import uvloop
from yarl import URL

_HOP_BY_HOP = {b"connection", b"host", b"content-length", b"keep-alive", b"transfer-encoding"}


class Relay(asyncio.Protocol):
    """One caller's connection."""

    def __init__(self, session: aiohttp.ClientSession, base: str, tasks: set[asyncio.Task[None]]) -> None:
        self._session = session
        self._base = base
        self._tasks = tasks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._target = b""
        self._pairs: list[tuple[str, str]] = []
        self._body: list[bytes] = []

    def on_url(self, target: bytes) -> None:
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() not in _HOP_BY_HOP:
            self._pairs.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_body(self, chunk: bytes) -> None:
        self._body.append(chunk)

    def on_message_complete(self) -> None:
        task = asyncio.get_running_loop().create_task(self._pass_on())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass_on(self) -> None:
        url = URL(self._base + self._target.decode("latin-1"), encoded=True)
        body = b"".join(self._body)
        async with self._session.post(url, data=body, headers=self._pairs, allow_redirects=False) as answer:
            head = b"HTTP/1.1 %d OK\r\n" % answer.status
            for name, value in answer.raw_headers:
                if name.lower() not in _HOP_BY_HOP:
                    head += b"%b: %b\r\n" % (name, value)
            whole = await answer.read()
        self._transport.write(head + b"content-length: %d\r\n\r\n%b" % (len(whole), whole))


async def _serve(port: int, upstream: int) -> None:
    tasks: set[asyncio.Task[None]] = set()
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
    ) as session:
        server = await asyncio.get_running_loop().create_server(
            lambda: Relay(session, f"http://127.0.0.1:{upstream}", tasks), "127.0.0.1", port, backlog=1024
        )
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
