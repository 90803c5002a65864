"""How an answer ends that has no length: whole by a clean end of its connection, broken by a reset."""

import asyncio

import pytest

from sidecar.net.base import Pending
from tests.net.conftest import whole

OLD = b"GET /a HTTP/1.0\r\nHost: h\r\n\r\n"


async def _cuts(exchange):
    exchange.abort()


async def _fails(exchange):
    raise RuntimeError("a bug")


async def _stops(exchange):
    """Returns without an end."""


async def _stands_still(exchange):
    await asyncio.Event().wait()


def half(then):
    async def run(exchange):
        exchange.begin(200, (), None)
        await exchange.write(b"half")
        await then(exchange)

    return lambda _: Pending(run)


async def read(peer, started: asyncio.Event) -> bytes:
    """All bytes up to a clean end; raises ``ConnectionResetError`` at a reset."""
    got = b""
    while chunk := await peer.reader.read(65536):
        got += chunk
        if got.endswith(b"half"):
            started.set()
    return got


@pytest.mark.parametrize("then", [_cuts, _fails, _stops])
async def test_broken_off(front, then):
    """Whatever breaks an answer of HTTP/1.0 off, it does not look like an answer that came to its end."""
    front.line.answers = half(then)
    peer = await front.connect()
    peer.send(OLD)

    with pytest.raises(ConnectionResetError):
        await read(peer, asyncio.Event())


@pytest.mark.parametrize("how", ["drain", "half-close", "deadline"])
async def test_broken_off_by_the_listener(front, how):
    """The same where it is the listener that gives up: at the end of the grace, for who has left half, is slow."""

    async def flood(exchange):
        while True:
            await exchange.write(bytes(64 * 1024))

    front.line.answers = half(flood if how == "deadline" else _stands_still)
    peer = await front.connect()
    peer.send(OLD)
    if how == "deadline":
        peer.writer.transport.pause_reading()
        await front.until(lambda: bool(front.listener._open))
        (connection,) = front.listener._open
        await front.until(lambda: connection._wire is not None and connection._wire.paused)
        front.pass_time(31)
        await front.until(lambda: front.listener.connections == 0)
        peer.writer.transport.resume_reading()
        with pytest.raises(ConnectionResetError):
            await read(peer, asyncio.Event())
        return
    started = asyncio.Event()
    reading = asyncio.ensure_future(read(peer, started))
    await started.wait()
    if how == "drain":
        await front.listener.drain(0)
    else:
        peer.writer.write_eof()

    with pytest.raises(ConnectionResetError):
        await reading


async def test_whole(front):
    """An answer that is whole ends its connection cleanly, however much of it is still on its way."""
    size = 4 * 1024 * 1024

    async def run(exchange):
        exchange.begin(200, (), None)
        await exchange.write(bytes(size))
        exchange.end()

    front.line.answers = lambda _: Pending(run)
    peer = await front.connect()
    peer.send(OLD)

    assert bytes(size) == (await peer.reply()).body


async def test_nothing_to_break(front):
    """An answer without a body, or at once, needs no such care."""

    async def run(exchange):
        exchange.begin(200, (), None)
        exchange.end()

    front.line.answers = lambda request: Pending(run) if request.head.method == b"HEAD" else whole(b"x")
    peer = await front.connect()
    peer.send(OLD.replace(b"GET", b"HEAD").replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"))

    assert b"keep-alive" == (await peer.reply(empty=True)).fields[b"connection"]
    assert b"x" == (await peer.ask(OLD)).body
    assert b"" == await peer.reader.read()
