"""
The least that a cache's listener does, written three ways: ``python -m tests.bench.listener PORT UPSTREAM_PORT WAY``.

The rule: the ways differ in how bytes reach the work, and in nothing else. *WAY*: ``protocol``, a protocol class with
llhttp; ``streams``, asyncio's reader and writer with llhttp; ``web``, a handler of ``aiohttp.web``. The work is that of
the sidecar: the body's canonical form, the key, a look into a dict, and the answer's bytes. No policy, no limits, no
deadlines, no metrics, no log.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

import httptools
import uvloop
from aiohttp import web

from sidecar.core.key import canonical
from sidecar.core.key.body_memo import BodyParts, certain, split_body
from sidecar.core.key.fingerprint import prefix, seal
from sidecar.core.memo import Memo
from sidecar.core.model import Key
from sidecar.dialects.openai.dialect import OPENAI
from tests.bench import bodies
from tests.bench.load import Caller

WAYS = ("protocol", "streams", "web")

_SECRET = bytes(32)
_MOST = 64 * 1024
_FIELDS = {"Server": "bench", "Content-Type": "application/json"}
_HEAD = b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


class Cache:
    """
    Answers by key. What has not been asked before is asked of the provider on *upstream*, while everybody waits: in a
    row of hits that is one call, before the clock runs.
    """

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._answers: dict[Key, bytes] = {}
        self._keys: Memo[bytes | BodyParts, Key] = Memo(1024, 4 * 1024 * 1024)
        endpoint = OPENAI.locate(b"POST", "/v1/chat/completions")
        assert endpoint is not None
        self._endpoint = endpoint
        self._before = prefix(
            partition=bytes(16), service="openai", resource="", endpoint=endpoint.name, method=b"POST",
            path="/v1/chat/completions", query=b"", headers=(),
        )  # fmt: skip

    def answer(self, target: bytes, fields: dict[bytes, bytes], body: bytes) -> bytes:
        """The body of the answer to a call."""
        assert target.endswith(b"/v1/chat/completions")
        key = self._key(fields, body)
        answer = self._answers.get(key)
        if answer is None:
            with Caller(self._upstream) as caller:
                answer = self._answers[key] = caller.call(bodies.request(body))
        return answer

    def _key(self, fields: dict[bytes, bytes], body: bytes) -> Key:
        """As the sidecar's line finds it, memo of bodies included."""
        key = self._keys.get(body)
        if key is None:
            pieces = split_body(body, self._endpoint.ignored)
            key = self._keys.get(pieces)
            if key is not None:
                self._keys.put(body, key, len(body))
        if key is None:
            reading = canonical.read(body, self._endpoint, fields.get(b"content-type", b""), _SECRET)
            assert not reading.facts.bypass
            key = seal(_SECRET, self._before, "gpt-4o-mini", reading)
            if certain(pieces, self._endpoint.ignored):
                self._keys.put(pieces, key, len(body))
        return key


class Requests:
    """Requests out of bytes, by llhttp's callbacks; each whole one is answered by *write*."""

    def __init__(self, cache: Cache, write: Callable[[bytes], object]) -> None:
        self._cache = cache
        self._write = write
        self._parser = httptools.HttpRequestParser(self)
        self.feed = self._parser.feed_data

    def on_message_begin(self) -> None:
        self._target = b""
        self._fields: dict[bytes, bytes] = {}
        self._body: list[bytes] = []

    def on_url(self, target: bytes) -> None:
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields[name.lower()] = value

    def on_body(self, chunk: bytes) -> None:
        self._body.append(chunk)

    def on_message_complete(self) -> None:
        answer = self._cache.answer(self._target, self._fields, b"".join(self._body))
        self._write(_HEAD % len(answer) + answer)


class Connection(asyncio.Protocol):
    """The first way."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._feed = Requests(self._cache, transport.write).feed

    def data_received(self, data: bytes) -> None:
        self._feed(data)


async def serve_streams(cache: Cache, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The second way."""
    feed = Requests(cache, writer.write).feed
    while data := await reader.read(_MOST):
        feed(data)
        await writer.drain()
    writer.close()


async def serve_web(cache: Cache, request: web.BaseRequest) -> web.StreamResponse:
    """The third way."""
    body = await request.read()
    fields = {name.lower(): value for name, value in request.raw_headers}
    return web.Response(body=cache.answer(request.rel_url.raw_path.encode(), fields, body), headers=_FIELDS)


async def _listen(way: str, port: int, upstream: int) -> None:
    cache = Cache(upstream)
    loop = asyncio.get_running_loop()
    start: Callable[[], Awaitable[asyncio.Server]]
    if way == "streams":
        start = partial(asyncio.start_server, partial(serve_streams, cache), "127.0.0.1", port, backlog=1024)
    elif way == "web":
        server = web.Server(partial(serve_web, cache), access_log=None)
        start = partial(loop.create_server, server, "127.0.0.1", port, backlog=1024)
    else:
        start = partial(loop.create_server, partial(Connection, cache), "127.0.0.1", port, backlog=1024)
    await (await start()).serve_forever()


if __name__ == "__main__":
    uvloop.run(_listen(sys.argv[3], int(sys.argv[1]), int(sys.argv[2])))
