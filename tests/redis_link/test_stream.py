"""The bytes of a connection to Redis."""

import asyncio
import socket
import struct
from contextlib import asynccontextmanager

import pytest

from sidecar.redis_link.stream import RedisStream

MEGABYTE = b"x" * 1024 * 1024


@asynccontextmanager
async def connecting():
    """A stream, and its other end as asyncio's own streams."""
    accepted = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda *ends: accepted.set_result(ends), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    _, stream = await asyncio.get_running_loop().create_connection(RedisStream, "127.0.0.1", port)
    reader, writer = await accepted
    yield stream, reader, writer
    stream.close()
    writer.close()
    server.close()


async def test_both_ways():
    """What one end writes the other reads; what is unread makes it stale."""
    async with connecting() as (stream, reader, writer):
        assert stream.fresh
        stream.write(b"ab")
        stream.writelines([b"cd", b"e"])
        await stream.drain()
        assert b"abcde" == await reader.readexactly(5)
        reading = asyncio.create_task(stream.read(1))
        await asyncio.sleep(0)
        writer.write(b"reply")
        assert b"reply" == await reading
        assert stream.fresh
        stream.data_received(b"one ")
        stream.data_received(b"two")
        assert not stream.fresh
        assert b"one two" == await stream.read(1)


async def test_the_server_closes():
    """What it has written is read, and then the end; nothing can be written."""
    async with connecting() as (stream, _, writer):
        writer.write(b"last words")
        writer.close()
        await writer.wait_closed()
        await stream.wait_closed()

        assert not stream.fresh
        assert b"last words" == await stream.read()
        with pytest.raises(ConnectionResetError):
            await stream.read()
        with pytest.raises(ConnectionResetError):
            await stream.drain()


async def test_the_connection_breaks():
    """Who reads is told how."""
    async with connecting() as (stream, _, writer):
        reading = asyncio.create_task(stream.read(1))
        await asyncio.sleep(0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        with pytest.raises(ConnectionResetError):
            await reading
        assert not stream.fresh


async def test_a_slow_server():
    """Who writes waits until there is room, or until the connection is gone."""
    async with connecting() as (stream, reader, writer):
        stream.write(16 * MEGABYTE)
        draining = asyncio.create_task(stream.drain())
        await asyncio.sleep(0.01)
        assert not draining.done()
        await reader.readexactly(16 * len(MEGABYTE))
        await draining

        stream.write(16 * MEGABYTE)
        draining = asyncio.create_task(stream.drain())
        await asyncio.sleep(0.01)
        writer.transport.abort()
        with pytest.raises(OSError):
            await draining


async def test_nobody_reads():
    """A server that sends what nobody asked for is held up, and heard again when somebody reads."""
    async with connecting() as (stream, _, writer):
        sent = b"$%d\r\n" % (8 * len(MEGABYTE)) + 8 * MEGABYTE + b"\r\n"
        writer.write(sent)
        async with asyncio.timeout(5):
            while "paused" not in repr(stream):  # noqa: ASYNC110  a stream that waits has no events for tests
                await asyncio.sleep(0.001)
        got = 0
        while got < len(sent):
            got += len(await stream.read())

        assert len(sent) == got


async def test_who_reads_may_leave():
    """The next one reads what comes then."""
    async with connecting() as (stream, _, writer):
        reading = asyncio.create_task(stream.read(1))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        writer.write(b"reply")

        assert b"reply" == await stream.read(1)


async def test_a_server_that_takes_nothing():
    """What it does not read holds no connection that has been given up, nor the memory of what was to be sent."""
    async with connecting() as (stream, reader, _):
        reader._transport.pause_reading()
        for _ in range(32):
            stream.write(MEGABYTE)
        stream.close()
        async with asyncio.timeout(10):
            await stream.wait_closed()

        assert 0 == stream._transport.get_write_buffer_size()
