"""Connections: order, keep-alive, slow and leaving clients, and the end."""

import asyncio
import errno
import socket

import pytest

from sidecar.core.rules import Limits
from sidecar.errors import ClientGone, Refused, SlowReader
from sidecar.net.base import Admission, Pending, Response

GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"


def ok(body: bytes, *, close: bool = False) -> Response:
    return Response(200, b"content-length: %d\r\n" % len(body), body, close=close)


async def test_keeps_alive(front):
    """One connection serves request after request; the answer has a date and says nothing of the connection."""
    peer = await front.connect()
    for _ in range(3):
        reply = await peer.ask(POST)

        assert (200, b"/p") == (reply.status, reply.body)
        assert {b"date": b"tue, 14 nov 2023 22:13:20 gmt", b"content-length": b"2"} == reply.fields
    assert 1 == front.listener.connections
    assert [b"abc"] * 3 == [request.body for request in front.line.requests]
    assert {front.port} == {request.head.port for request in front.line.requests}
    assert {"plan"} == {request.plan for request in front.line.requests}


@pytest.mark.parametrize(
    ("request_line", "fields", "connection", "kept"),
    [
        (b"GET /a HTTP/1.1", b"", None, True),
        (b"GET /a HTTP/1.1", b"Connection: close\r\n", b"close", False),
        (b"GET /a HTTP/1.1", b"Connection: x, CLOSE\r\n", b"close", False),
        (b"GET /a HTTP/1.0", b"", b"close", False),
        (b"GET /a HTTP/1.0", b"Connection: keep-alive\r\n", b"keep-alive", True),
    ],
)
async def test_says_whether_it_keeps(front, request_line, fields, connection, kept):
    """The connection field is said where the version needs it."""
    peer = await front.connect()
    request = request_line + b"\r\nHost: h\r\n" + fields + b"\r\n"

    assert connection == (await peer.ask(request)).fields.get(b"connection")
    if kept:
        assert 200 == (await peer.ask(request)).status
    else:
        assert b"" == await peer.ended()


async def test_no_delay(front):
    """Small answers don't wait for acknowledgements."""
    peer = await front.connect()
    await peer.ask(GET)
    (connection,) = front.listener._open

    assert 0 != connection._transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_taken_port_and_several(front):
    """A listener takes several ports and lets the error of a taken one through untouched."""
    second = await front.listener.start("127.0.0.1", 0)
    with pytest.raises(OSError) as raised:
        await front.listener.start("127.0.0.1", front.port)

    assert errno.EADDRINUSE == raised.value.errno
    assert front.port != second
    assert "on 2 addresses" in repr(front.listener)


async def test_pipelined_in_order(front):
    """Requests sent ahead are answered one after the other, in their order, whatever each of them takes."""

    async def slowly(exchange):
        await asyncio.sleep(0)
        exchange.respond(ok(b"slow"))

    front.line.answers = lambda request: Pending(slowly) if request.head.method == b"POST" else ok(request.head.target)
    peer = await front.connect()
    peer.send(POST + GET + POST + GET + GET)

    assert [b"slow", b"/a", b"slow", b"/a", b"/a"] == [(await peer.reply()).body for _ in range(5)]


async def test_ten_thousand_pipelined(front):
    """Ten thousand requests in few reads: answered in order, and never more than a few bytes of them held."""
    peer = await front.connect()
    total, longest = 10_000, 0
    data = b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % number for number in range(total))

    def answer(request):
        nonlocal longest
        (connection,) = front.listener._open
        longest = max(longest, connection._transport.get_write_buffer_size())
        return ok(request.head.target)

    front.line.answers = answer
    peer.send(data)
    got = [(await peer.reply()).body for _ in range(total)]

    assert [b"/%d" % number for number in range(total)] == got
    assert longest <= 128 * 1024


async def test_sent_ahead_of_a_slow_answer(front):
    """What is sent ahead while an answer is being made waits with the sender, not here."""
    release = asyncio.Event()

    async def wait(exchange):
        await release.wait()
        exchange.respond(ok(b"x"))

    front.line.answers = lambda _: Pending(wait)
    peer = await front.connect()
    for _ in range(400):
        peer.send(GET * 400)
    await front.until(lambda: len(front.line.requests) == 1)
    (connection,) = front.listener._open
    await front.until(lambda: not connection._flow.reading)

    assert 1 == len(front.line.requests)
    assert len(connection._rest) < 512 * 1024
    release.set()
    assert b"x" == (await peer.reply()).body


async def test_refusal_comes_after_earlier_answers(front):
    """A broken request is refused after what was asked before it."""

    async def slowly(exchange):
        await asyncio.sleep(0)
        exchange.respond(ok(b"slow"))

    front.line.answers = lambda _: Pending(slowly)
    peer = await front.connect()
    peer.send(GET + b"GET /b HTTP/1.1\r\n\r\n" + GET)

    assert b"slow" == (await peer.reply()).body
    assert 400 == (await peer.reply()).status
    assert b"" == await peer.ended()
    assert 1 == len(front.line.requests)


async def test_refusal_reaches_a_client_that_still_sends(front):
    """Who is refused in the middle of a large body can still read why."""

    def deny(_):
        raise Refused(403, "not-you", "No.", close=True)

    front.line.admits = deny
    peer = await front.connect()
    peer.send(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 8000000\r\n\r\n")
    for _ in range(4):
        peer.send(bytes(1_000_000))
        await peer.writer.drain()

    assert 403 == (await peer.reply()).status
    assert b"" == await peer.ended()


async def _send_endlessly(peer):
    for _ in range(1000):
        peer.send(bytes(1_000_000))
        await peer.writer.drain()


async def test_lingering_ends(open_front):
    """Who was refused and stays is let go in the end; who was refused and never stops sending, sooner."""
    front = await open_front()
    patient, endless = await front.connect(), await front.connect()
    for peer in (patient, endless):
        assert 400 == (await peer.ask(b"GET /a HTTP/1.1\r\n\r\n" + GET)).status
    patient.writer.transport.pause_reading()
    with pytest.raises(ConnectionError):
        await _send_endlessly(endless)
    await front.until(lambda: front.listener.connections <= 1)
    front.pass_time(3)
    await front.until(lambda: front.listener.connections == 0)

    assert 0 == front.listener.connections


@pytest.mark.parametrize("status", [200, 204, 304])
async def test_head_and_empty_statuses(front, status):
    """An answer to HEAD, and a status that has no body, has none on the wire."""

    async def run(exchange):
        exchange.begin(status, ((b"x", b"y"),), None if status == 200 else 0)
        await exchange.write(b"")
        exchange.end()

    front.line.answers = lambda _: Pending(run)
    peer = await front.connect()
    method = b"HEAD" if status == 200 else b"GET"
    peer.send(method + b" /a HTTP/1.1\r\nHost: h\r\n\r\n")

    assert status == (await peer.reply(empty=True)).status
    front.line.answers = lambda request: ok(request.head.target)
    peer.send(b"HEAD /abc HTTP/1.1\r\nHost: h\r\n\r\n")
    assert b"4" == (await peer.reply(empty=True)).fields[b"content-length"]
    assert b"/a" == (await peer.ask(GET)).body


@pytest.mark.parametrize(("version", "length"), [(b"1.1", None), (b"1.1", 10), (b"1.0", None), (b"1.0", 10)])
async def test_exchange_frames(front, version, length):
    """An answer written in parts has the framing that its version and length ask for."""

    async def run(exchange):
        exchange.begin(201, ((b"X-A", b"1"), (b"x-a", b"2")), length)
        for part in (b"0123", b"", b"456789"):
            await exchange.write(part)
        exchange.end()

    front.line.answers = lambda _: Pending(run)
    peer = await front.connect()
    reply = await peer.ask(b"GET /a HTTP/%b\r\nHost: h\r\nConnection: keep-alive\r\n\r\n" % version)

    assert (201, b"0123456789") == (reply.status, reply.body)
    assert [b"X-A: 1", b"x-a: 2"] == reply.lines[1:3]
    framing = {(b"1.1", None): b"transfer-encoding", (b"1.0", None): None}.get((version, length), b"content-length")
    assert framing is None or framing in reply.fields
    if framing is None:
        assert b"close" == reply.fields[b"connection"]
    else:
        assert 201 == (await peer.ask(GET)).status


async def _nothing(_):
    """Answers nothing."""


async def _half(exchange):
    exchange.begin(200, (), None)
    await exchange.write(b"half")


async def _half_and_fails(exchange):
    exchange.begin(200, (), 10)
    await exchange.write(b"half")
    raise RuntimeError("a bug")


async def _short(exchange):
    exchange.begin(200, (), 10)
    await exchange.write(b"half")
    exchange.end()


async def _long(exchange):
    exchange.begin(200, (), 2)
    await exchange.write(b"half")


async def _cuts(exchange):
    exchange.begin(200, (), None)
    exchange.abort()
    await asyncio.sleep(0)


async def _leaves(_):
    raise ClientGone("as it seems")


@pytest.mark.parametrize("run", [_nothing, _half, _half_and_fails, _short, _long, _cuts, _leaves])
async def test_never_half_an_answer(front, run):
    """An answer that is not whole breaks the connection, so that nobody can take it for whole."""
    front.line.answers = lambda _: Pending(run)
    peer = await front.connect()
    peer.send(GET + GET)

    got = await peer.ended()
    assert not got.endswith(b"0\r\n\r\n")
    assert got.count(b"HTTP/1.1") <= 1
    assert b"0123456789" not in got
    await front.until(lambda: front.listener.connections == 0)
    assert 1 == len(front.line.requests)


async def _fails(_):
    raise RuntimeError("a bug")


async def _breaks_out(exchange):
    exchange.begin(200, ((b"a", b"b\r\nc: d"),), 0)


async def _refuses(_):
    raise Refused(429, "later", "Later.")


@pytest.mark.parametrize(
    ("run", "status", "reports", "kept"),
    [(_fails, 500, 1, False), (_breaks_out, 500, 1, False), (_refuses, 429, 0, True)],
)
async def test_failing_before_the_answer(front, run, status, reports, kept):
    """What fails before anything was said is answered as an error; a bug is reported, a refusal keeps the line."""
    front.line.answers = lambda _: Pending(run)
    peer = await front.connect()

    reply = await peer.ask(GET)
    assert status == reply.status
    assert kept == (b"connection" not in reply.fields)
    assert reports == len(front.reported)
    if kept:
        assert status == (await peer.ask(POST)).status


@pytest.mark.parametrize("where", ["admits", "answers", "refuse"])
async def test_bug_in_the_line(front, where):
    """A bug in the line costs one answer, not the process and not the other connections."""

    def bug(*_):
        raise KeyError("a bug")

    setattr(front.line, where, bug)
    peer, other = await front.connect(), await front.connect()

    reply = await peer.ask(POST if where != "refuse" else b"GET /a HTTP/1.1\r\n\r\n")
    assert (400 if where == "refuse" else 500) == reply.status
    assert b"" == await peer.ended()
    assert [KeyError] == [type(error) for error in front.reported]
    if where == "refuse":
        assert 200 == (await other.ask(GET)).status


async def test_answer_may_refuse_or_close(front):
    """A refusal of a request that was read keeps the connection; an answer that asks for it closes."""

    def refuse(_):
        raise Refused(429, "later", "Later.")

    front.line.answers = refuse
    peer = await front.connect()

    assert 429 == (await peer.ask(POST)).status
    front.line.answers = lambda _: ok(b"bye", close=True)
    assert b"close" == (await peer.ask(POST)).fields[b"connection"]
    assert b"" == await peer.ended()


async def test_slow_head(front):
    """A head must be complete ten seconds after its first byte, however busily it drips."""
    peer = await front.connect()
    (connection,) = await _one(front)
    for byte in GET[:5]:
        peer.send(bytes([byte]))
        await front.until(lambda: connection._parser.fed > 0)
        front.pass_time(1.9)

    assert 200 == (await (await front.connect()).ask(GET)).status
    front.pass_time(1)
    assert 408 == (await peer.reply()).status
    assert b"" == await peer.ended()


async def _one(front):
    await front.until(lambda: len(front.listener._open) == 1)
    return tuple(front.listener._open)


async def test_stalled_body(front):
    """A body that stands still for thirty seconds is given up; one that goes on is not."""
    peer = await front.connect()
    peer.send(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n")
    (connection,) = await _one(front)
    for size in range(1, 4):
        peer.send(b"a")
        await front.until(
            lambda size=size: (
                connection._intake._collection is not None and connection._intake._collection.total == size
            )
        )
        front.pass_time(29)

    assert 100 == front.ledger.held
    front.pass_time(2)
    assert 408 == (await peer.reply()).status
    assert b"" == await peer.ended()
    assert 0 == front.ledger.held


async def test_idle(front):
    """Silent connections are closed after ten minutes, without a word."""
    fresh, used = await front.connect(), await front.connect()
    await used.ask(GET)
    await front.until(lambda: front.listener.connections == 2)
    front.pass_time(599)

    assert 2 == front.listener.connections
    front.pass_time(2)
    assert b"" == await fresh.ended()
    assert b"" == await used.ended()


async def test_waiting_has_no_deadline(front):
    """A caller may wait for its answer as long as it likes."""
    release = asyncio.Event()

    async def wait(exchange):
        await release.wait()
        exchange.respond(ok(b"at last"))

    front.line.answers = lambda _: Pending(wait)
    peer = await front.connect()
    peer.send(POST)
    await front.until(lambda: bool(front.line.requests))
    front.pass_time(10_000)
    release.set()

    assert b"at last" == (await peer.reply()).body


@pytest.mark.parametrize("pending", [False, True], ids=["whole", "in parts"])
async def test_slow_reader(front, pending):
    """A caller that does not read holds one buffer, and is given up after thirty seconds without progress."""
    chunk, errors = bytes(64 * 1024), []

    async def pour(exchange):
        exchange.begin(200, (), None)
        try:
            for _ in range(2000):
                await exchange.write(chunk)
        except SlowReader as error:
            errors.append(error)
            raise

    front.line.answers = lambda _: Pending(pour) if pending else ok(chunk)
    peer = await front.connect()
    peer.writer.transport.pause_reading()
    peer.send(GET * 2000)
    (connection,) = await _one(front)
    await front.until(lambda: connection._wire.paused)

    assert connection._transport.get_write_buffer_size() <= 4 * len(chunk)
    front.pass_time(29)
    assert 1 == front.listener.connections
    front.pass_time(2)
    await front.until(lambda: front.listener.connections == 0)
    assert (1 if pending else 0) == len(errors)


async def test_slow_reader_that_goes_on(front):
    """A caller that reads at last gets everything."""

    async def pour(exchange):
        exchange.begin(200, (), None)
        for _ in range(100):
            await exchange.write(bytes(64 * 1024))
        exchange.end()

    front.line.answers = lambda _: Pending(pour)
    peer = await front.connect()
    peer.writer.transport.pause_reading()
    peer.send(GET)
    (connection,) = await _one(front)
    await front.until(lambda: connection._wire.paused)
    front.pass_time(20)
    peer.writer.transport.resume_reading()

    assert 100 * 64 * 1024 == len((await peer.reply()).body)


@pytest.mark.parametrize("how", ["vanish", "close", "half-close"])
@pytest.mark.parametrize("stage", ["before", "begun", "writing"])
async def test_leaving_cancels(front, how, stage):
    """A caller that leaves cancels what runs for it."""
    reached, cancelled = asyncio.Event(), asyncio.Event()

    async def run(exchange):
        try:
            if stage != "before":
                exchange.begin(200, (), None)
            while stage == "writing":
                reached.set()
                await exchange.write(bytes(64 * 1024))
            reached.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    front.line.answers = lambda _: Pending(run)
    peer = await front.connect()
    peer.send(POST)
    await reached.wait()
    if how == "vanish":
        peer.vanish()
    elif how == "close":
        await peer.close()
    else:
        peer.writer.write_eof()
    await cancelled.wait()
    await front.until(lambda: front.listener.connections == 0)

    assert 0 == front.ledger.held
    assert [] == front.reported


async def test_leaving_after_the_answer_cancels_nothing(front):
    """Once the answer is whole, what its task still does is not disturbed by the caller."""
    finished = asyncio.Event()
    left = asyncio.Event()

    async def run(exchange):
        exchange.respond(ok(b"x"))
        await left.wait()
        finished.set()

    front.line.answers = lambda _: Pending(run)
    peer = await front.connect()
    await peer.ask(POST)
    (connection,) = front.listener._open
    peer.vanish()
    await front.until(lambda: connection._wire.lost)
    front.pass_time(10_000)
    left.set()
    async with asyncio.timeout(5):
        await finished.wait()

    assert finished.is_set()


async def test_requests_before_the_end_are_answered(front):
    """A client that sends many requests, ends its side and then reads gets all the answers."""
    peer = await front.connect()
    peer.send(GET * 1000)
    peer.writer.write_eof()

    assert 1000 == (await peer.ended()).count(b"HTTP/1.1 200 OK")


async def test_expectation(front):
    """``100 Continue`` is sent once the body is going to be read, and not when it has come already."""
    expecting = b"POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    peer = await front.connect()

    assert 100 == (await peer.ask(expecting)).status
    assert 200 == (await peer.ask(b"abc")).status
    assert 200 == (await peer.ask(expecting + b"abc")).status
    front.line.admits = lambda _: Admission(collect=False, plan=None)
    front.line.answers = lambda _: ok(b"no need")
    reply = await peer.ask(expecting)
    assert (200, b"close") == (reply.status, reply.fields[b"connection"])
    assert b"" == await peer.ended()


async def test_drain(front):
    """At the end idle connections close, running answers finish and say that they are the last."""
    release = asyncio.Event()

    async def wait(exchange):
        await release.wait()
        exchange.respond(ok(b"last"))

    front.line.answers = lambda request: Pending(wait) if request.head.method == b"POST" else ok(b"")
    idle, busy, late = [await front.connect() for _ in range(3)]
    await idle.ask(GET)
    busy.send(POST + GET)
    late.send(GET[:10])
    await front.until(lambda: front.listener.connections == 3 and len(front.line.requests) == 2)
    draining = asyncio.create_task(front.listener.drain(60))

    assert b"" == await idle.ended()
    release.set()
    reply = await busy.reply()
    assert (b"last", b"close") == (reply.body, reply.fields[b"connection"])
    assert b"" == await busy.ended()
    assert b"close" == (await late.ask(GET[10:])).fields[b"connection"]
    for peer in (busy, late):
        await peer.close()
    await draining
    assert 0 == front.listener.connections
    with pytest.raises(ConnectionError):
        await front.connect()


async def test_drain_cuts(front):
    """What is not done after the grace is cut."""
    cancelled = asyncio.Event()

    async def wait(_):
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    front.line.answers = lambda _: Pending(wait)
    peer = await front.connect()
    peer.send(POST)
    await front.until(lambda: bool(front.line.requests))
    await front.listener.drain(0)

    assert cancelled.is_set()
    assert 0 == front.listener.connections
    assert b"" == await peer.ended()


async def test_deadlines_by_themselves(open_front):
    """The listener sweeps by its own timer while there are connections."""
    front = await open_front(Limits(idle_seconds=5))
    peer = await front.connect()
    await front.until(lambda: front.listener.connections == 1)
    front.now += 6

    assert b"" == await peer.ended()
    await front.until(lambda: front.listener.connections == 0)
