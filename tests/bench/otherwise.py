"""
The sidecar with one part replaced: ``python -m tests.bench.otherwise PART ARGUMENT...``.

The rule: one part differs, all else is the sidecar with the arguments of its command; so a row can tell what the part
is worth. A part that is no longer where it was looked for ends the run. *PART*: ``streams``, callers' bytes come
through asyncio's ``StreamReader``; ``stock-redis``, redis-py's own client of one server in place of ours;
``no-head-memo``, every head is parsed; ``no-body-memo``, every body is read.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import uvloop

from sidecar.cli.main import main
from sidecar.net.inbound.head_memo import HeadMemo
from sidecar.net.inbound.listener import Listener
from sidecar.proxy import lookup
from sidecar.redis_link import link

MOST = 64 * 1024
"""Bytes that are read from a stream in one go."""


class Streams(uvloop.Loop):
    """
    A loop in which the sidecar's listener is fed by asyncio's streams. What it writes goes to the transport as ever, so
    the difference is what reading by streams costs.
    """

    async def create_server(self, factory: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        if not isinstance(getattr(factory, "__self__", None), Listener):
            return await super().create_server(factory, *args, **kwargs)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = factory()
            connection.connection_made(writer.transport)
            while data := await reader.read(MOST):
                connection.data_received(data)
            connection.eof_received()
            writer.close()
            connection.connection_lost(None)

        def accept() -> asyncio.StreamReaderProtocol:
            return asyncio.StreamReaderProtocol(asyncio.StreamReader(loop=self), serve, loop=self)

        return await super().create_server(accept, *args, **kwargs)


def stock_redis(host: str, port: int) -> Any:
    """
    redis-py's client as it comes, without its retries, with what the link needs besides. It serves the plain case and
    no more: no credentials, no TLS, no bounds for replies, one lookup of names by the system.
    """
    from redis.asyncio import Redis  # noqa: PLC0415  loaded only where it is measured
    from redis.asyncio.retry import Retry  # noqa: PLC0415  as above
    from redis.backoff import NoBackoff  # noqa: PLC0415  as above

    class Stock(Redis):
        async def ask(self, *command: Any) -> Any:
            return await self.execute_command(*command)

        async def probe(self) -> None:
            await self.ping()

        async def renew(self) -> None:
            await self.connection_pool.disconnect(inuse_connections=False)

    return Stock(host=host, port=port, max_connections=8, retry=Retry(NoBackoff(), 0))


def _build_stock(rule: Any, *_: Any, **__: Any) -> Any:
    at = urlsplit(rule.url)
    return stock_redis(at.hostname or "", at.port or 0)


def _nothing(*_: Any) -> None:
    return None


PARTS: dict[str, tuple[Any, str, Any]] = {
    "streams": (uvloop, "new_event_loop", Streams),
    "stock-redis": (link, "build", _build_stock),
    "no-head-memo": (HeadMemo, "find", _nothing),
    "no-body-memo": (lookup, "split_body", _nothing),
}
"""What is replaced, by where the program looks it up, its name there, and what takes its place."""


def replace(part: str) -> None:
    """Replace *part*. Raises ``AttributeError`` if the program no longer looks it up there."""
    owner, name, other = PARTS[part]
    getattr(owner, name)
    setattr(owner, name, other)


if __name__ == "__main__":
    replace(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
