"""Request bodies: collected in memory or on disk, overflowing, or streaming through."""

import asyncio
import hashlib
import os
import resource

import pytest

from sidecar.core.rules import Limits
from sidecar.errors import ClientGone, Refused
from sidecar.net.base import Admission, Pending, Response
from sidecar.net.inbound.body import Inflow
from sidecar.net.inbound.spool import SpoolFile

MIB = 1024 * 1024
STREAM = Admission(collect=False, plan=None)


class Seen:
    """An observer that proves what it has seen."""

    def __init__(self) -> None:
        self.size = 0
        self._hash = hashlib.blake2b(digest_size=16)

    def feed(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self._hash.update(chunk)

    @property
    def digest(self) -> bytes:
        return self._hash.digest()


def ok(body: bytes) -> Response:
    return Response(200, b"content-length: %d\r\n" % len(body), body)


async def digest_of(body) -> bytes:
    seen = Seen()
    if isinstance(body, bytes):
        seen.feed(body)
    else:
        async for chunk in body.chunks():
            seen.feed(chunk)
    return b"%d %s" % (seen.size, seen.digest.hex().encode())


def proof(body: bytes) -> bytes:
    seen = Seen()
    seen.feed(body)
    return b"%d %s" % (len(body), seen.digest.hex().encode())


def digesting(request):
    """Answers with the size and digest of the body."""

    async def run(exchange):
        exchange.respond(ok(await digest_of(request.body)))

    return Pending(run)


def sized(body: bytes) -> bytes:
    return b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def chunked(body: bytes, size: int = 10_000) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % framed


FRAMES = pytest.mark.parametrize("frame", [sized, chunked])


@FRAMES
@pytest.mark.parametrize("size", [0, 1, 2048, 100_000, 256 * 1024, 256 * 1024 + 1, 3 * MIB])
@pytest.mark.parametrize("memory", [0, 300_000, 32 * MIB], ids=["no memory", "little memory", "memory"])
async def test_collected(open_front, frame, size, memory):
    """A body is collected whole, in memory or on disk, and observed in order when it is large."""
    front = await open_front(memory=memory)
    observers: list[Seen] = []

    def observe():
        observers.append(Seen())
        return observers[-1]

    front.line.admits = lambda _: Admission(collect=True, plan=None, observe=observe)
    front.line.answers = digesting
    peer = await front.connect()
    body = os.urandom(size)

    for _ in range(2):
        assert proof(body) == (await peer.ask(frame(body))).body
        await front.until(lambda: front.ledger.held == 0)
    request = front.line.requests[-1]
    assert (SpoolFile if size > memory else bytes) is type(request.body)
    assert not request.overflowed
    assert ([size] * 2 if size > 256 * 1024 else []) == [observer.size for observer in observers]
    assert front.ledger.peak <= memory
    if observers:
        assert request.observer is observers[-1]
        assert proof(body).endswith(observers[-1].digest.hex().encode())


@FRAMES
async def test_ledger_while_answering(front, frame):
    """What a body takes is held until its answer is done, not shorter and not longer."""
    release = asyncio.Event()

    async def wait(exchange):
        await release.wait()
        exchange.respond(ok(b""))

    front.line.answers = lambda _: Pending(wait)
    peer = await front.connect()
    peer.send(frame(bytes(5000)))
    await front.until(lambda: bool(front.line.requests))

    assert 5000 == front.ledger.held
    release.set()
    await peer.reply()
    await front.until(lambda: front.ledger.held == 0)


@FRAMES
async def test_large_body_on_disk(open_front, frame):
    """64 MB go to disk where the ledger is small, while other connections are served."""
    front = await open_front(memory=1 * MIB)
    front.line.answers = lambda request: ok(b"quick") if request.head.method == b"GET" else digesting(request)
    body = os.urandom(MIB) * 64
    peer, other = await front.connect(), await front.connect()
    peer.send(frame(body) if frame is sized else chunked(body, 1_000_000))
    quick = await other.ask(b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n")

    assert b"quick" == quick.body
    assert proof(body) == (await peer.reply()).body
    assert front.ledger.peak <= MIB


@FRAMES
@pytest.mark.parametrize("memory", [0, 32 * MIB], ids=["disk", "memory"])
@pytest.mark.parametrize("size", [1_000_001, 5_000_000])
async def test_overflow(open_front, frame, memory, size):
    """A body larger than may be collected becomes a stream of the same bytes."""
    front = await open_front(Limits(collect=1_000_000), memory=memory)
    front.line.answers = digesting
    peer = await front.connect()
    body = os.urandom(size)
    reply = await peer.ask(frame(body))

    assert proof(body) == reply.body
    (request,) = front.line.requests
    assert request.overflowed
    assert isinstance(request.body, Inflow)
    assert (size if frame is sized else None) == request.body.size
    assert proof(b"x") == (await peer.ask(frame(b"x"))).body
    assert not front.line.requests[-1].overflowed


@FRAMES
@pytest.mark.parametrize("size", [1000, 3 * MIB])
async def test_disk_trouble(open_front, frame, size, tmp_path):
    """Where the disk refuses, nothing is lost and nothing fails: the body streams on."""
    front = await open_front(memory=0, spool_dir=str(tmp_path / "missing"))
    front.line.answers = digesting
    peer = await front.connect()
    body = os.urandom(size)

    assert proof(body) == (await peer.ask(frame(body))).body
    assert front.line.requests[0].overflowed


async def test_disk_fills_up(open_front, monkeypatch):
    """The same when the disk is full in the middle of a body: what was written is read back first."""
    written = 0
    write = os.pwrite

    def full(descriptor, data, offset):
        nonlocal written
        written += len(data)
        if written > MIB:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:1000], offset)

    monkeypatch.setattr("os.pwrite", full)
    front = await open_front(memory=0)
    front.line.answers = digesting
    peer = await front.connect()
    body = os.urandom(5 * MIB)

    assert proof(body) == (await peer.ask(sized(body))).body
    assert front.line.requests[0].overflowed


def relay(request):
    """Answers with the body as it comes; a small one that came with its head is there at once."""

    async def run(exchange):
        if isinstance(request.body, bytes):
            exchange.begin(200, (), len(request.body))
            await exchange.write(request.body)
            exchange.end()
            return
        exchange.begin(200, (), request.body.size)
        async for chunk in request.body.chunks():
            await exchange.write(chunk)
        exchange.end()

    return Pending(run)


@FRAMES
async def test_streams_through(front, frame):
    """A body that is not collected passes through a relay as it comes."""
    front.line.admits = lambda _: STREAM
    front.line.answers = relay
    for size in (1, 70_000, 1_000_000):
        peer = await front.connect()
        body = os.urandom(size)

        assert body == (await peer.ask(frame(body))).body


async def test_answer_ahead_of_its_request(front):
    """An answer that begins before its request is whole says that the connection ends; a later one keeps it."""
    front.line.admits = lambda _: STREAM
    front.line.answers = relay
    peer = await front.connect()
    whole = await peer.ask(sized(b"x"))
    ahead = await peer.ask(sized(b"x" * 1_000_000))

    assert b"connection" not in whole.fields
    assert b"close" == ahead.fields[b"connection"]


async def test_very_large_stream(front):
    """600 MB in chunks pass without being held."""
    front.line.admits = lambda _: STREAM
    largest = 0

    def count(request):
        async def run(exchange):
            nonlocal largest
            size = 0
            async for chunk in request.body.chunks():
                size += len(chunk)
                largest = max(largest, request.body.buffered)
            exchange.respond(ok(b"%d" % size))

        return Pending(run)

    front.line.answers = count
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peer = await front.connect()
    peer.send(b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
    buffer = b"100000\r\n" + bytes(MIB) + b"\r\n"
    for _ in range(600):
        peer.send(buffer)
        await peer.writer.drain()
    peer.send(b"0\r\n\r\n")

    assert b"%d" % (600 * MIB) == (await peer.reply()).body
    assert largest <= MIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


@pytest.mark.parametrize("waiting", [True, False], ids=["nobody reads", "somebody reads"])
async def test_back_pressure(front, waiting):
    """A sender is paused while nobody asks for more."""
    release = asyncio.Event()

    def slow(request):
        async def run(exchange):
            if waiting:
                await release.wait()
            chunks = request.body.chunks()
            await anext(chunks)
            await release.wait()
            async for _ in chunks:
                pass
            exchange.respond(ok(b"read"))

        return Pending(run)

    front.line.admits = lambda _: STREAM
    front.line.answers = slow
    peer = await front.connect()
    peer.send(sized(bytes(30 * MIB)))
    await front.until(lambda: bool(front.line.requests))
    (connection,) = front.listener._open
    await front.until(lambda: not connection._flow.reading)

    assert front.line.requests[0].body.buffered <= MIB
    front.pass_time(1000)
    release.set()
    assert b"read" == (await peer.reply()).body


@pytest.mark.parametrize("read", [0, 1])
async def test_unread_body(front, read):
    """An answer that ends before its request's body was read closes the connection and never mistakes the rest."""

    def early(request):
        async def run(exchange):
            for _ in range(read):
                await anext(request.body.chunks())
            exchange.respond(ok(b"enough"))

        return Pending(run)

    front.line.admits = lambda _: STREAM
    front.line.answers = early
    peer = await front.connect()
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
    peer.send(sized(smuggled * 50_000) + smuggled)

    reply = await peer.reply()
    assert (b"enough", b"close") == (reply.body, reply.fields[b"connection"])
    assert b"" == await peer.ended()
    assert 1 == len(front.line.requests)


@pytest.mark.parametrize("begun", [False, True])
async def test_broken_in_the_middle(front, begun):
    """A stream that breaks the rules fails at its reader, and is refused where nothing was said yet."""
    errors = []

    def read(request):
        async def run(exchange):
            if begun:
                exchange.begin(200, (), None)
            try:
                async for _ in request.body.chunks():
                    pass
            except Refused as error:
                errors.append(error.status)
                raise

        return Pending(run)

    front.line.admits = lambda _: STREAM
    front.line.answers = read
    peer = await front.connect()
    peer.send(chunked(b"abc")[:-5])
    await front.until(lambda: bool(front.line.requests))
    peer.send(b"0x5\r\nabcde\r\n0\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n")
    if begun:
        got = await peer.ended()

        assert got.count(b"HTTP/1.1") <= 1
        assert not got.endswith(b"0\r\n\r\n")
    else:
        assert 400 == (await peer.reply()).status
        assert b"" == await peer.ended()
    assert [400] == errors
    assert 1 == len(front.line.requests)


async def test_stalled_stream(front):
    """A stream that stands still while it is waited for is given up; its client hears why."""
    errors = []

    def read(request):
        async def run(_):
            try:
                async for _ in request.body.chunks():
                    pass
            except ClientGone as error:
                errors.append(error)
                raise

        return Pending(run)

    front.line.admits = lambda _: STREAM
    front.line.answers = read
    peer = await front.connect()
    peer.send(sized(b"abc")[:-1])
    await front.until(lambda: bool(front.line.requests))
    await front.until(lambda: front.line.requests[0].body.starved and not front.line.requests[0].body.buffered)
    front.pass_time(29)
    assert [] == errors
    front.pass_time(2)

    assert 408 == (await peer.reply()).status
    assert 1 == len(errors)


async def test_expectation_of_a_stream(front):
    """``100 Continue`` waits until somebody reads."""
    release = asyncio.Event()

    def late(request):
        async def run(exchange):
            await release.wait()
            exchange.respond(ok(await digest_of(request.body)))

        return Pending(run)

    front.line.admits = lambda _: STREAM
    front.line.answers = late
    peer = await front.connect()
    peer.send(b"POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    await front.until(lambda: bool(front.line.requests))
    await asyncio.sleep(0.01)

    assert not peer.reader._buffer
    release.set()
    assert 100 == (await peer.reply()).status
    peer.send(b"abc")
    assert proof(b"abc") == (await peer.reply()).body


async def test_a_stream_is_read_once(front):
    """Asking a second time is a mistake that is told."""

    def twice(request):
        async def run(_):
            await digest_of(request.body)
            await digest_of(request.body)

        return Pending(run)

    front.line.admits = lambda _: STREAM
    front.line.answers = twice
    peer = await front.connect()

    assert 500 == (await peer.ask(sized(b"abc" * 100_000))).status
    assert [RuntimeError] == [type(error) for error in front.reported]


@FRAMES
@pytest.mark.parametrize("collect", [True, False])
@pytest.mark.parametrize("memory", [0, 32 * MIB], ids=["disk", "memory"])
@pytest.mark.parametrize("part", [0.01, 0.5, 0.999, 1.0])
async def test_leaving_at_any_point(open_front, frame, collect, memory, part):
    """Whenever a client leaves, nothing is held afterwards."""
    front = await open_front(Limits(collect=700_000), memory=memory)
    front.line.admits = lambda _: Admission(collect=collect, plan=None)
    front.line.answers = digesting
    for size in (2000, 600_000, 900_000):
        data = frame(os.urandom(size))
        peer = await front.connect()
        peer.send(data[: int(len(data) * part)])
        for _ in range(size % 7):
            await asyncio.sleep(0)
        await front.until(lambda: front.listener.connections > 0)
        peer.vanish()
        await front.until(lambda: front.listener.connections == 0 and not front.tasks)

        assert 0 == front.ledger.held
    assert [] == front.reported


@pytest.mark.parametrize("collect", [True, False])
async def test_cancelled_at_any_await(open_front, collect):
    """A task that is cancelled after any number of steps leaves nothing behind, and no half answer."""
    front = await open_front(Limits(collect=700_000), memory=100_000)
    front.line.admits = lambda _: Admission(collect=collect, plan=None)

    def echo(request):
        async def run(exchange):
            exchange.begin(200, (), None)
            body = request.body
            async for chunk in body.chunks():
                await exchange.write(chunk)
            exchange.end()

        return Pending(run)

    spawn, runs = front.listener._shared.spawn, []

    def spawn_and_cancel(coroutine, /, *, name):
        steps = len(runs)
        runs.append(spawn(coroutine, name=name))

        async def cancel(task):
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()

        spawn(cancel(runs[-1]), name="cancel")
        return runs[-1]

    front.listener._shared.spawn = spawn_and_cancel
    front.line.answers = echo
    request = chunked(os.urandom(600_000)).replace(b"Host: h", b"Host: h\r\nConnection: close", 1)
    for _ in range(16):
        peer = await front.connect()
        peer.send(request)
        got = await peer.ended()
        await front.until(lambda: front.listener.connections == 0)

        assert runs[-1].cancelled() != got.endswith(b"\r\n0\r\n\r\n")
        assert 0 == front.ledger.held
    assert runs[0].cancelled()


async def test_cancelled_before_it_ran(front):
    """A task that never ran gives back what its request held."""
    front.line.answers = digesting
    peer = await front.connect()
    spawn = front.listener._shared.spawn

    def spawn_dead(coroutine, /, *, name):
        task = spawn(coroutine, name=name)
        task.cancel()
        return task

    front.listener._shared.spawn = spawn_dead
    peer.send(sized(b"abc"))

    assert b"" == await peer.ended()
    await front.until(lambda: front.listener.connections == 0)
    assert 0 == front.ledger.held
