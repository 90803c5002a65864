"""The client that calls AI services, against scripted upstreams on raw sockets."""

import asyncio
import gzip
import shutil
import socket
import ssl
import subprocess

import aiohttp
import pytest
from aiohttp import http_parser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.errors import Cause, ClientGone, ConfigError, Refused, SlowReader, UpstreamFailed
from tests.net.outbound.clients import NEVER, OK, Client, Script, client, everything, fault, read_request, serve, story

HEAD = b"HTTP/1.1 200 OK\r\n"
SOON = 0.05


class Chunks:
    """A request body that yields *items*; an exception among them is raised, an event waited for."""

    def __init__(self, *items, size=None):
        self.items = items
        self.size = size
        self.closed = False

    async def chunks(self):
        try:
            for item in self.items:
                if isinstance(item, asyncio.Event):
                    await item.wait()
                elif isinstance(item, Exception):
                    raise item
                else:
                    yield item
        finally:
            self.closed = True


class Slow(Chunks):
    """A body that is known to be at its end only some turns of the loop after its last chunk."""

    async def chunks(self):
        async for chunk in super().chunks():
            yield chunk
        for _ in range(10):
            await asyncio.sleep(0)


# --- what goes out --------------------------------------------------------------------------------------------------

TARGETS = [
    b"/", b"/a", b"/a?", b"/a??", b"/a?b?", b"/a?b=%2F", b"/a%2Fb", b"/a%2fb", b"/..", b"/a/../b", b"/./a", b"//a",
    b"//evil.example/a", b"/a//b", b"/a:b", b"/a;b=c", b"/a%zz", b"/a@b", b"/@evil.example", b"/a[b]?c[d]=e", b"/a#b",
    b"/a?b#c", b"/a?b=c&&d", b"/a?b=c+d", b"/a?b=%20", b"/a%20b", b"/a'b\"c", b"/a|b^c`d{e}", b"/a\\b", b"/%E4%B8%AD",
    b"/%7Euser/~user", b"/a,b!c$d*e(f)", b"/a=b", b"/%00", b"/%0d%0aX:%20y", b"/?", b"/;?", b"/a/", b"/a/?",
]  # fmt: skip


@pytest.mark.parametrize("path", ["", "/base/v2", "/b%2Fase"], ids=["no-base-path", "base-path", "encoded-base-path"])
@story
async def test_target_is_sent_byte_exact(path):
    """No target is normalised, quoted or cut on its way out."""
    script = Script(OK)
    async with serve(script) as base, client() as it:
        for target in TARGETS:
            await it.call(base + path, target, method=b"GET")

    assert [path.encode() + target for target in TARGETS] == [got.split(b" ")[1] for got in script.requests]


@given(target=st.binary(min_size=0, max_size=40).map(lambda tail: b"/" + bytes(33 + byte % 94 for byte in tail)))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_visible_target_is_sent_byte_exact(target):
    """Whatever visible characters a target has, they arrive."""

    async def story():
        script = Script(OK)
        async with serve(script) as base, client() as it:
            await it.call(base, target, method=b"GET")
        return script.requests[0].split(b" ")[1]

    assert target == asyncio.run(story())


@pytest.mark.parametrize(
    ("method", "pairs", "body", "expected"),
    [
        pytest.param(b"GET", (), b"", b"", id="get"),
        pytest.param(b"HEAD", (), b"", b"", id="head"),
        pytest.param(b"DELETE", (), b"", b"", id="delete"),
        pytest.param(b"DELETE", ((b"content-length", b"0"),), b"", b"Content-Length: 0\r\n", id="delete-measured"),
        pytest.param(b"POST", (), b"", b"Content-Length: 0\r\n", id="post-empty"),
        pytest.param(b"POST", (), b"hey", b"Content-Length: 3\r\n", id="post"),
        pytest.param(b"POST", ((b"CONTENT-length", b"9"),), b"hey", b"Content-Length: 3\r\n", id="wrong-length"),
        pytest.param(b"POST", ((b"Transfer-Encoding", b"x"),), b"hey", b"Content-Length: 3\r\n", id="foreign-coding"),
        pytest.param(b"POST", ((b"Host", b"evil"),), b"hey", b"Content-Length: 3\r\n", id="foreign-host"),
        pytest.param(b"POST", (), Chunks(b"he", b"", b"y", size=3), b"Content-Length: 3\r\n", id="sized"),
        pytest.param(
            b"POST",
            ((b"X-b", b"2"), (b"x-A", b""), (b"cookie", b"a=b; c=d"), (b"x-a", b"\xff"), (b"Accept", b"*/*")),
            b"hey",
            b"X-b: 2\r\nx-A: \r\ncookie: a=b; c=d\r\nx-a: \xff\r\nAccept: */*\r\nContent-Length: 3\r\n",
            id="order-and-spelling",
        ),
    ],
)
@story
async def test_request_on_the_wire(method, pairs, body, expected):
    """The request is exactly the fields given, Host and the framing of its body."""
    script = Script(b"HTTP/1.1 204 No Content\r\n\r\n")
    async with serve(script) as base, client() as it:
        await it.call(base, b"/p?q", method=method, pairs=pairs, body=body)
    host = base.removeprefix("http://").encode()
    content = b"" if body == b"" else b"hey"

    assert [b"%b /p?q HTTP/1.1\r\nHost: %b\r\n%b\r\n%b" % (method, host, expected, content)] == script.requests


@story
async def test_chunked_request():
    """A body of unknown size is chunked; empty chunks don't end it."""
    script = Script(OK)
    async with serve(script) as base, client() as it:
        await it.call(base, body=Chunks(b"hello", b"", b" world"))

    assert script.requests[0].endswith(b"\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")


@pytest.mark.parametrize("size", [64 * 1024, 64 * 1024 + 1, 3_000_000])
@story
async def test_large_bodies(size):
    """A body goes out whole, at once or piece by piece."""
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    script = Script(OK)
    async with serve(script) as base, client() as it:
        await it.call(base, body=body)
        await it.call(base, body=Chunks(body[:1000], body[1000:], size=size))

        assert (1, 1) == (script.connections, it.pooled)
    assert [body, body] == [got.partition(b"\r\n\r\n")[2] for got in script.requests]


@pytest.mark.parametrize(
    ("target", "pairs"),
    [
        (b"/ HTTP/1.1\r\nx: y", ()),
        (b"/a b", ()),
        (b"a", ()),
        (b"", ()),
        (b"http://evil.example/", ()),
        (b"@evil.example/", ()),
        (b"/", ((b"a", b"b\r\nc: d"),)),
        (b"/", ((b"a\n", b"b"),)),
        (b"/", ((b"a", b"b\rc"),)),
        (b"/", ((b"a", b"\0"),)),
    ],
)
@story
async def test_injection_is_refused(target, pairs):
    """A request that would be read as something else is not sent."""
    script = Script(OK)
    async with serve(script) as base, client() as it:
        with pytest.raises(UpstreamFailed) as raised:
            await it.send(base, target, pairs=pairs)

        assert (Cause.INTERNAL, False, False, False) == fault(raised)
    assert 0 == script.connections


# --- what comes back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "answer", "expected"),
    [
        pytest.param(b"GET", OK, (200, 2, b"ok", 1), id="sized"),
        pytest.param(b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", (200, 0, b"", 1), id="empty"),
        pytest.param(
            b"GET",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1;x=y\r\n!\r\n0\r\nt: u\r\n\r\n",
            (200, None, b"ok!", 1),
            id="chunked",
        ),
        pytest.param(b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", (200, 9, b"", 1), id="head"),
        pytest.param(b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", (204, None, b"", 1), id="204"),
        pytest.param(b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", (304, 9, b"", 1), id="304"),
        pytest.param(b"GET", b"HTTP/1.1 100 Continue\r\n\r\n" + OK, (200, 2, b"ok", 1), id="100"),
        pytest.param(b"GET", b"HTTP/1.1 103 Early Hints\r\na: b\r\n\r\n" * 9 + OK, (200, 2, b"ok", 1), id="103"),
        pytest.param(
            b"GET", b"HTTP/1.1 302 F\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n", (302, 0, b"", 1), id="302"
        ),
        pytest.param(
            b"GET",
            b"HTTP/1.1 401 U\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
            (401, 0, b"", 1),
            id="401",
        ),
        pytest.param(
            b"GET",
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            (200, 2, b"ok", 0),
            id="close",
        ),
        pytest.param(b"GET", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", (200, 2, b"ok", 0), id="http-1.0"),
        pytest.param(b"GET", OK + OK, (200, 2, b"ok", 0), id="surplus-answer"),
    ],
)
@story
async def test_answers(method, answer, expected):
    """Every way an answer is framed, and whether its connection is kept."""
    script = Script(answer)
    async with serve(script) as base, client() as it:
        got = await it.send(base, method=method)
        body = await everything(got)

        assert expected == (got.status, got.length, body, it.pooled)
        assert b"" == await got.read()
        got.close()
        assert (b"", expected[3]) == (await got.read(), it.pooled)
    assert 1 == len(script.requests)


@story
async def test_answer_ended_by_the_connection():
    """Without a length, the answer ends where the connection is closed."""
    script = Script(b"HTTP/1.1 200 OK\r\n\r\nall of it", None)

    async def closing(reader, writer):
        await read_request(reader)
        writer.write(script.answers[0])

    async with serve(closing) as base, client() as it:
        assert (200, (), b"all of it") == await it.call(base)
        assert 0 == it.pooled


@story
async def test_head_is_verbatim():
    """Fields come back in their order and spelling, hop-by-hop ones too, and bytes stay bytes."""
    head = (
        b"X-b: 2\r\nx-A: \xff\r\nSet-Cookie: a=b\r\nset-cookie: c=d\r\nKeep-Alive: timeout=5\r\nContent-Length: 0\r\n"
    )
    async with serve(Script(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")) as base, client() as it:
        _, pairs, _ = await it.call(base)

    assert head == b"".join(b"%b: %b\r\n" % pair for pair in pairs)


@story
async def test_compressed_body_is_untouched():
    """A gzip body comes back as it is, however much it would unpack to."""
    packed = gzip.compress(bytes(10_000_000))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    async with serve(Script(head + packed)) as base, client() as it:
        assert packed == (await it.call(base))[2]


@story
async def test_cookies_are_not_kept():
    """One caller's cookie never goes out with the next call."""
    script = Script(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 0\r\n\r\n")
    async with serve(script) as base, client() as it:
        await it.call(base)
        await it.call(base)

    assert [False, False] == [b"cookie" in got.lower() for got in script.requests]


@story
async def test_unread_answer_pauses_the_peer():
    """Nobody reads: the peer can send no more than the buffers hold."""
    sent = 0
    piece = bytes(64 * 1024)

    async def flooding(reader, writer):
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)

    async with serve(flooding) as base, client() as it:
        answer = await it.send(base)
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.05)
        held = answer._body.held
        got = len(await answer.read())
        answer.close()

    assert held <= 3 * 256 * 1024
    assert held == got


# --- connections ----------------------------------------------------------------------------------------------------


@story
async def test_connection_is_reused():
    """Calls one after another share a connection; calls at once don't."""
    script = Script(OK)
    async with serve(script) as base, client() as it:
        for _ in range(3):
            await it.call(base)
        assert 1 == script.connections

        await asyncio.gather(it.call(base), it.call(base))
        assert (2, 2) == (script.connections, it.pooled)
        assert {"first": 1, "busy": 1} == it.upstream.census.counts


CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
EARLY = HEAD + b"Content-Length: 9\r\n\r\nhalf"


async def give_up(it, base):
    (await it.send(base)).close()


async def break_off(it, base):
    with pytest.raises(UpstreamFailed):
        await it.call(base)


async def run_late(it, base):
    with pytest.raises(UpstreamFailed):
        await it.call(base, idle=SOON)


async def refuse_the_body(it, base):
    with pytest.raises(Refused):
        await it.send(base, body=Chunks(b"a", Refused(413, "too-large", "x")))


async def unused_for_long(it, base):
    await it.call(base)
    it.upstream._pool._keepalive_timeout = -1.0


async def unused_and_swept(it, base):
    await it.call(base)
    it.upstream._pool._keepalive_timeout = -1.0
    it.upstream._pool._cleanup()


async def leaving(reader, writer):
    """A service that answers each connection's first request, and closes it."""
    await read_request(reader)
    writer.write(OK)


async def left_by_the_service(it, base):
    await it.call(base)
    (((wire, _),),) = it.upstream._pool._conns.values()
    await wire.closed


@pytest.mark.parametrize(
    ("before", "answers", "expected"),
    [
        (Client.call, [CLOSING, OK], "closed"),
        (left_by_the_service, [], "closed"),
        (unused_for_long, [OK], "idle"),
        (unused_and_swept, [OK], "idle"),
        (break_off, [None, OK], "died"),
        (break_off, [b"HTTP/2 200 OK\r\n\r\n", OK], "died"),
        (break_off, [HEAD + b"Content-Length: x\r\n\r\n", OK], "died"),
        (run_late, [EARLY, OK], "died"),
        (give_up, [EARLY, OK], "dropped"),
        (refuse_the_body, [OK], "dropped"),
    ],
)
@story
async def test_why_a_connection_is_opened(before, answers, expected):
    """Another connection is counted under what became of the one before, and only that one."""

    async with serve(leaving if before is left_by_the_service else Script(*answers)) as base, client() as it:
        await before(it, base)
        await asyncio.gather(it.call(base), it.call(base))

        assert {"first": 1, expected: 1, "busy": 1} == it.upstream.census.counts


class Prompt(asyncio.Protocol):
    """
    A service that answers within the very turn of its loop in which a request's last byte comes. *ending* is how its
    requests end; *connections* how many there have been.
    """

    def __init__(self, ending):
        self.ending = ending
        self.connections = 0
        self.got = b""

    def connection_made(self, transport):
        self.connections += 1
        self.transport = transport

    def data_received(self, data):
        self.got += data
        if self.got.endswith(self.ending):
            self.got = b""
            self.transport.write(OK)


@pytest.mark.parametrize("size", [4, None], ids=["sized", "chunked"])
@story
async def test_answer_at_once(size):
    """An answer that comes as soon as the request's last byte was written is not early: its connection is kept."""
    prompt = Prompt(b"last" if size else b"\r\n0\r\n\r\n")
    server = await asyncio.get_running_loop().create_server(lambda: prompt, "127.0.0.1", 0)
    async with server, client() as it:
        for _ in range(10):
            await it.call(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", body=Slow(b"last", size=size))

        assert (1, 1) == (prompt.connections, it.pooled)
        assert {"first": 1} == it.upstream.census.counts
        prompt.transport.close()


@story
async def test_socket_options():
    """A connection answers at once and notices a vanished peer."""
    async with serve(Script(OK)) as base, client() as it:
        await it.call(base)
        (((wire, _),),) = it.upstream._pool._conns.values()
        sock = wire.transport.get_extra_info("socket")
        options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE), (socket.IPPROTO_TCP, socket.TCP_NODELAY)]

        assert [True, True] == [bool(sock.getsockopt(*option)) for option in options]
        assert 45 == sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)


@pytest.mark.parametrize("method", [b"GET", b"PUT", b"DELETE", b"POST"])
@story
async def test_dead_reused_connection(method):
    """A kept connection that dies under a call is a failure that says so; nothing is sent twice."""
    script = Script(OK, None)
    async with serve(script) as base, client() as it:
        await it.call(base)
        with pytest.raises(UpstreamFailed) as raised:
            await it.send(base, method=method)

        assert (Cause.DISCONNECTED, True, False, True) == fault(raised)
    assert (2, 1) == (len(script.requests), script.connections)


@story
async def test_connection_that_speaks_out_of_turn_is_dropped():
    """An answer nobody asked for is never taken for the next call's."""
    spoke = asyncio.Event()
    first = True

    async def poisoning(reader, writer):
        nonlocal first
        mine, first = first, False
        await read_request(reader)
        writer.write(OK)
        if mine:
            await spoke.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        await reader.read()

    async with serve(poisoning) as base, client() as it:
        await it.call(base)
        (((wire, _),),) = it.upstream._pool._conns.values()
        spoke.set()
        await wire.closed

        assert b"ok" == (await it.call(base))[2]


@story
async def test_closed_client_refuses():
    """After close there are no calls."""
    async with serve(Script(OK)) as base, client() as it:
        await it.upstream.close()
        with pytest.raises(UpstreamFailed) as raised:
            await it.send(base)
        await it.upstream.start()

        assert (Cause.DRAINING, False, False, False) == fault(raised)


# --- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(b"", (Cause.DISCONNECTED, True, False, False), id="nothing"),
        pytest.param(b"HT", (Cause.TRUNCATED, True, True, False), id="within-status-line"),
        pytest.param(HEAD, (Cause.TRUNCATED, True, True, False), id="within-head"),
        pytest.param(HEAD + b"Content-Le", (Cause.TRUNCATED, True, True, False), id="within-field"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", (Cause.TRUNCATED, True, True, False), id="after-interim"),
        pytest.param(HEAD + b"Content-Length: 5\r\n\r\n", (Cause.TRUNCATED, True, True, False), id="no-body"),
        pytest.param(HEAD + b"Content-Length: 5\r\n\r\nabcd", (Cause.TRUNCATED, True, True, False), id="short-body"),
        pytest.param(
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
            (Cause.TRUNCATED, True, True, False),
            id="no-last-chunk",
        ),
        pytest.param(
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nok", (Cause.TRUNCATED, True, True, False), id="within-chunk"
        ),
        pytest.param(
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n",
            (Cause.TRUNCATED, True, True, False),
            id="within-last-chunk",
        ),
        *(
            pytest.param(answer, (Cause.MALFORMED, True, True, False), id=name)
            for name, answer in {
                "garbage": b"\x16\x03\x01\x02\x00",
                "other-protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
                "http-2": b"HTTP/2 200 OK\r\n\r\n",
                "html": b"<html></html>\r\n\r\n",
                "status": b"HTTP/1.1 abc OK\r\n\r\n",
                "low-status": b"HTTP/1.1 099 OK\r\n\r\n",
                "upgrade": b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
                "both-framings": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                "both-framings-turned": HEAD
                + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                "two-lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
                "same-length-twice": HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
                "list-of-lengths": HEAD + b"Content-Length: 2, 2\r\n\r\nok",
                "signed-length": HEAD + b"Content-Length: +2\r\n\r\nok",
                "huge-length": HEAD + b"Content-Length: 99999999999999999999\r\n\r\nok",
                "foreign-coding": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
                "unknown-coding": HEAD + b"Transfer-Encoding: identity\r\n\r\nok",
                "coding-in-1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                "nul": HEAD + b"a: b\0c\r\nContent-Length: 0\r\n\r\n",
                "bare-cr": HEAD + b"a: b\rc\r\nContent-Length: 0\r\n\r\n",
                "blank-before-colon": HEAD + b"Content-Length : 2\r\n\r\nok",
                "no-colon": HEAD + b"nonsense\r\n\r\n",
                "long-field": HEAD + b"a: " + b"x" * 70_000 + b"\r\nContent-Length: 0\r\n\r\n",
                "long-reason": b"HTTP/1.1 200 " + b"x" * 70_000 + b"\r\nContent-Length: 0\r\n\r\n",
                "many-fields": HEAD + b"a: b\r\n" * 20_000 + b"Content-Length: 0\r\n\r\n",
                "many-interim": b"HTTP/1.1 103 Early\r\n\r\n" * 20_000,
                "chunk-size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
                "signed-chunk-size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n",
                "chunk-too-long": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok!\r\n0\r\n\r\n",
                "second-chunk-size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n",
            }.items()
        ),
    ],
)
@story
async def test_bad_answers(answer, expected):
    """An upstream that breaks off or breaks the rules: the right cause, and its connection is gone."""

    async def bad(reader, writer):
        await read_request(reader)
        writer.write(answer)
        await writer.drain()

    async with serve(bad) as base, client() as it:
        with pytest.raises(UpstreamFailed) as raised:
            await it.call(base)

        assert expected == fault(raised)
        assert (0, 0) == (it.acquired, it.pooled)
        assert raised.value.__cause__ is None


@story
async def test_endless_trailers():
    """Trailers without end are cut off, and kept nowhere."""

    async def endless(reader, writer):
        await read_request(reader)
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
        for _ in range(20_000):
            writer.write(b"a: " + b"x" * 5_000 + b"\r\n")
            await writer.drain()

    async with serve(endless) as base, client() as it:
        with pytest.raises(UpstreamFailed) as raised:
            await it.call(base)

        assert (Cause.MALFORMED, True, True, False) == fault(raised)


@story
async def test_reset_is_not_an_end():
    """An answer without a length whose connection is reset is not whole."""

    async def resetting(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await reader.read(1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    async with serve(resetting) as base, client() as it:
        answer = await it.send(base)
        first = await answer.read()
        answer._call._wire.transport.write(b"x")
        with pytest.raises(UpstreamFailed) as raised:
            await answer.read()

        assert b"half" == first
        assert (Cause.TRUNCATED, True, True, False) == fault(raised)


@story
async def test_bytes_before_the_break_are_delivered():
    """What came of an answer before it broke off is the caller's; only then the failure."""

    async def breaking(reader, writer):
        await read_request(reader)
        writer.write(HEAD + b"Content-Length: 9\r\n\r\nhalf")

    async with serve(breaking) as base, client() as it:
        answer = await it.send(base)
        await answer._call._wire.closed

        assert b"half" == await answer.read()
        for _ in range(2):
            with pytest.raises(UpstreamFailed, match="truncated"):
                await answer.read()


@story
async def test_end_that_nobody_reads():
    """An answer whose end came after its last read gives its connection back."""
    end = asyncio.Event()

    async def answering(reader, writer):
        await read_request(reader)
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        await end.wait()
        writer.write(b"0\r\n\r\n")
        await reader.read()

    async with serve(answering) as base, client() as it:
        answer = await it.send(base)
        assert b"ok" == await answer.read()
        end.set()
        async with asyncio.timeout(10):
            while not answer._body.ended:  # noqa: ASYNC110  nothing else tells when the bytes have come
                await asyncio.sleep(0.001)
        answer.close()

        assert (0, 1) == (it.acquired, it.pooled)


@pytest.mark.parametrize(
    ("script", "options", "expected"),
    [
        pytest.param([], {"first_byte": SOON}, (Cause.FIRST_BYTE_TIMEOUT, True, False, False), id="first-byte"),
        pytest.param(
            [],
            {"stream_first_byte": SOON, "streaming": True},
            (Cause.FIRST_BYTE_TIMEOUT, True, False, False),
            id="stream",
        ),
        pytest.param(
            [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 2"],
            {"first_byte": SOON},
            (Cause.FIRST_BYTE_TIMEOUT, True, True, False),
            id="half-a-head",
        ),
        pytest.param(
            [HEAD + b"Content-Length: 9\r\n\r\n"], {"idle": SOON}, (Cause.IDLE_TIMEOUT, True, True, False), id="idle"
        ),
        pytest.param(
            [HEAD + b"Content-Length: 9\r\n\r\nhalf"],
            {"idle": SOON, "first_byte": SOON},
            (Cause.IDLE_TIMEOUT, True, True, False),
            id="idle-half",
        ),
        pytest.param(
            [], {"idle": SOON, "body": bytes(30_000_000)}, (Cause.IDLE_TIMEOUT, True, False, False), id="takes-no-more"
        ),
    ],
)
@story
async def test_timeouts(script, options, expected):
    """Each wait has its end."""

    async def slow(reader, writer):
        if "body" not in options:
            await read_request(reader)
        else:
            writer.transport.pause_reading()
        for part in script:
            writer.write(part)
        await asyncio.Event().wait()

    async with serve(slow) as base, client() as it:
        with pytest.raises(UpstreamFailed) as raised:
            await it.call(base, **options)

        assert expected == fault(raised)
        assert (0, 0) == (it.acquired, it.pooled)


@story
async def test_slow_upload_does_not_count():
    """The time for the first byte starts when the request is sent."""
    rest = asyncio.Event()
    async with serve(Script(OK)) as base, client() as it:
        asyncio.get_running_loop().call_later(3 * SOON, rest.set)

        assert 200 == (await it.call(base, body=Chunks(b"a", rest, b"b", size=2), first_byte=2 * SOON))[0]


# --- request bodies that fail ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, None], ids=["sized", "chunked"])
@pytest.mark.parametrize("error", [ClientGone("x"), SlowReader("x"), Refused(413, "too-large", "x")], ids=repr)
@story
async def test_body_that_fails(error, size):
    """What the body raises comes out as it is, and what is half sent is never taken for a whole request."""
    script = Script(OK)
    body = Chunks(b"a", error, size=size)
    async with serve(script) as base, client() as it:
        with pytest.raises(type(error)) as raised:
            await it.send(base, body=body)

        assert error is raised.value
        assert (0, 0, True) == (it.acquired, it.pooled, body.closed)
    assert [] == script.requests


@pytest.mark.parametrize(
    "body",
    [Chunks(b"a", OSError("disk"), size=2), Chunks(b"a", size=2), Chunks(b"abc", size=2)],
    ids=["unreadable", "short", "long"],
)
@story
async def test_body_that_is_wrong(body):
    """A body that cannot be read, or is not as long as said, is our fault and says so."""
    script = Script(OK)
    async with serve(script) as base, client() as it:
        with pytest.raises(UpstreamFailed) as raised:
            await it.send(base, body=body)

        assert Cause.INTERNAL is raised.value.cause
        assert (0, 0, True) == (it.acquired, it.pooled, body.closed)
    assert [] == script.requests


@story
async def test_body_is_let_go_before_a_failure_is_told():
    """Whoever hears that a call failed may send its body again: nobody reads it any more."""
    body = Chunks(b"a", asyncio.Event(), size=2)

    async def hang_up(reader, _writer):
        await reader.readuntil(b"\r\n\r\na")

    async with serve(hang_up) as base, client() as it:
        with pytest.raises(UpstreamFailed) as raised:
            await it.send(base, body=body)

        assert True is body.closed
        assert (Cause.DISCONNECTED, True, False, False) == fault(raised)


@story
async def test_body_that_fails_under_an_answer():
    """The answer's reader hears of a body that fails while the answer is read."""
    broken = asyncio.Event()
    error = ClientGone()

    async def early(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"Content-Length: 9\r\n\r\n")
        await reader.read()

    async with serve(early) as base, client() as it:
        answer = await it.send(base, body=Chunks(b"a", broken, error))
        broken.set()
        with pytest.raises(ClientGone) as raised:
            await answer.read()

        assert error is raised.value


@pytest.mark.parametrize("close", [True, False], ids=["closes", "stays"])
@pytest.mark.parametrize("kind", ["bytes", "sized", "waiting"])
@story
async def test_early_answer(kind, close):
    """An answer that comes before the whole request is sent is the answer; the connection is not used again."""
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig"
    piece = bytes(100_000)
    body = {
        "bytes": piece * 100,
        "sized": Chunks(*[piece] * 100, size=10_000_000),
        "waiting": Chunks(b"a", asyncio.Event()),
    }[kind]

    async def early(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(refusal)
        await writer.drain()
        if not close:
            await asyncio.Event().wait()

    async with serve(early) as base, client() as it:
        status, _, content = await it.call(base, body=body)

        assert (413, b"big", 0) == (status, content, it.pooled)


@story
async def test_answer_while_sending():
    """Request and answer may overlap: an upstream that echoes gets the rest of the body."""
    last = asyncio.Event()

    async def echoing(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"Content-Length: 2\r\n\r\n")
        for _ in range(2):
            writer.write(await reader.readexactly(1))

    async with serve(echoing) as base, client() as it:
        answer = await it.send(base, body=Chunks(b"a", last, b"b", size=2), idle=NEVER)
        assert b"a" == await answer.read()
        last.set()

        assert b"b" == await answer.read()


# --- cancellation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["small", "large", "stream"])
@story
async def test_cancelled_at_every_step(kind):
    """Wherever a call is cancelled, nothing of it is left: no connection, no task, no open body."""
    cancelled = 0
    for steps in range(200):
        body = {"small": b"x", "large": bytes(500_000), "stream": Chunks(b"x", b"y", size=2)}[kind]
        async with serve(Script(OK)) as base, client() as it:
            task = asyncio.get_running_loop().create_task(it.call(base, body=body))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            done = await asyncio.gather(task, return_exceptions=True)
            await asyncio.gather(*it.tasks, return_exceptions=True)

            assert 0 == it.acquired
        if not isinstance(done[0], asyncio.CancelledError):
            break
        cancelled += 1

    assert cancelled > 2


@pytest.mark.parametrize("end", ["cancel", "close"])
@story
async def test_stuck_upload_leaves_no_connection(end):
    """A peer that takes nothing any more cannot hold a connection that is given up, nor our end."""

    async def stuck(_reader, writer):
        writer.transport.pause_reading()
        await asyncio.Event().wait()

    async with serve(stuck) as base, client() as it:
        task = asyncio.get_running_loop().create_task(it.send(base, body=bytes(30_000_000)))
        while not (wires := [wire for wire in [*it.upstream._pool._acquired] if wire.transport]):  # noqa: ASYNC110
            await asyncio.sleep(0)
        while not wires[0].writing_paused:  # noqa: ASYNC110
            await asyncio.sleep(0)
        closed = wires[0].closed
        if end == "cancel":
            task.cancel()
        else:
            await it.upstream.close()
            await it.upstream.start()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        await asyncio.wait_for(asyncio.wait([closed]), 5)

        assert {"cancel": asyncio.CancelledError, "close": UpstreamFailed}[end] is type(outcome)


@story
async def test_large_upload_lets_others_run():
    """The event loop turns between any two pieces of a body."""
    turns = 0
    running = True

    def turn():
        nonlocal turns
        turns += 1
        if running:
            asyncio.get_running_loop().call_soon(turn)

    async with serve(Script(OK)) as base, client() as it:
        await it.call(base)
        turn()
        await it.call(base, body=Chunks(*[b"x"] * 500, size=500))
        running = False

    assert turns > 500


@story
async def test_server_that_hangs_up_at_once():
    """A connection that is closed as soon as it is made."""

    async def hang_up(_reader, writer):
        writer.transport.abort()

    async with serve(hang_up) as base, client() as it:
        for body in (b"x", bytes(100_000)) * 10:
            with pytest.raises(UpstreamFailed) as raised:
                await it.send(base, body=body)

            assert raised.value.cause in {Cause.DISCONNECTED, Cause.CONNECT}
            assert not raised.value.answered


@story
async def test_closed_answer():
    """A closed answer drops its connection at once; the peer sees it."""
    left = asyncio.Event()

    async def streaming(reader, writer):
        await read_request(reader)
        writer.write(HEAD + b"Content-Length: 9\r\n\r\nhalf")
        await reader.read()
        left.set()

    async with serve(streaming) as base, client() as it:
        answer = await it.send(base)
        assert b"half" == await answer.read()
        answer.close()
        answer.close()

        assert (0, 0) == (it.acquired, it.pooled)
        async with asyncio.timeout(5):
            await left.wait()
        with pytest.raises(UpstreamFailed):
            await answer.read()


@story
async def test_forgotten_answer_warns():
    """An answer nobody reads or closes is a bug that is heard of, not a leak."""
    async with serve(Script(HEAD + b"Content-Length: 9\r\n\r\n")) as base, client() as it:
        answer = await it.send(base)
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        answers = [answer]
        del answer
        with pytest.warns(ResourceWarning, match="Unclosed connection"):
            answers.clear()


# --- getting there --------------------------------------------------------------------------------------------------


@story
async def test_refused_connection():
    """Nobody listens."""
    async with serve(Script(OK)) as base:
        pass
    async with client() as it:
        with pytest.raises(UpstreamFailed, match=r"127\.0\.0\.1:[0-9]+: ") as raised:
            await it.send(base, b"/secret?key=sk-canary")

        assert (Cause.CONNECT, False, False, False) == fault(raised)
        assert "canary" not in str(raised.value)


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("http://no-such-host.invalid", Cause.DNS),
        (f"http://{'a' * 64}.example", Cause.DNS),
        ("http://2130706433", Cause.CONNECT),
        ("ftp://a.example", Cause.CONNECT),
        ("http://", Cause.CONNECT),
        ("http://a:99999", Cause.CONNECT),
        ("nonsense", Cause.CONNECT),
    ],
)
@story
async def test_bad_base(base, expected):
    """A URL that leads nowhere."""
    async with client() as it:
        with pytest.raises(UpstreamFailed) as raised:
            await it.send(base)

        assert (expected, False, False, False) == fault(raised)


class Nowhere(aiohttp.abc.AbstractResolver):
    """A resolver that never answers."""

    async def resolve(self, host, port=0, family=0):
        del host, port, family
        await asyncio.Event().wait()

    async def close(self):
        pass


@pytest.mark.parametrize("stage", ["dns", "tcp", "tls", "proxy"])
@story
async def test_connect_timeout(stage):
    """One time limit holds for every stage of connecting."""

    async def silent(reader, _writer):
        await reader.read()

    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    with socket.socket() as first, socket.socket() as second, full:
        async with serve(silent) as base:
            environ = {"https_proxy": base} if stage == "proxy" else {}
            async with client(environ=environ) as it:
                if stage == "dns":
                    it.upstream._pool._resolver = Nowhere()
                for sock in (first, second):
                    sock.setblocking(False)
                    sock.connect_ex(full.getsockname())
                where = {
                    "dns": "http://a.example",
                    "tcp": f"http://127.0.0.1:{full.getsockname()[1]}",
                    "tls": base.replace("http", "https"),
                    "proxy": "https://a.example",
                }[stage]
                with pytest.raises(UpstreamFailed) as raised:
                    await it.send(where, connect=SOON)

                assert (Cause.CONNECT_TIMEOUT, False, False, False) == fault(raised)
                assert 0 == it.acquired


@pytest.mark.parametrize("knows", ["name", "address"])
@story
async def test_never_calls_itself(knows):
    """A call to one of our own listeners fails before anything is sent, also where a name hides the address."""
    script = Script(OK)
    async with serve(script) as base:
        port = int(base.rpartition(":")[2])
        host = {"name": "localhost", "address": "127.0.0.1"}[knows]
        async with client(own=lambda *address: (host, port) == address) as it:
            with pytest.raises(UpstreamFailed, match="is this sidecar itself") as raised:
                await it.send(f"http://localhost:{port}")

            assert (Cause.CONNECT, False, False, False) == fault(raised)
            assert (0, 0) == (it.acquired, it.pooled)
    assert [] == script.requests


@story
async def test_plain_proxy():
    """A plain call through a proxy has the whole URL in its request line, and the proxy's credentials."""
    script = Script(OK)
    async with serve(script) as base:
        proxy = base.replace("//", "//user:pass@")
        async with client(proxy=proxy) as it:
            for _ in range(2):
                await it.call("http://api.example:8080/base", b"/a?", method=b"GET")
    expected = (
        b"GET http://api.example:8080/base/a? HTTP/1.1\r\nHost: api.example:8080\r\n"
        b"Proxy-Authorization: Basic dXNlcjpwYXNz\r\n\r\n"
    )

    assert ([expected] * 2, 1) == (script.requests, script.connections)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for localhost: its file, its key's, and a server's TLS."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    names = "subjectAltName=DNS:localhost"
    command = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subject = ["-subj", "/CN=localhost", "-addext", names, "-out", cert, "-keyout", key]
    subprocess.run([openssl, *command, *subject], check=True, capture_output=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(cert, key)
    return str(cert), tls


@story
async def test_unknown_certificate_is_refused(certificate):
    """A certificate that nobody vouches for."""
    script = Script(OK)
    async with serve(script, tls=certificate[1]) as base, client() as it:
        with pytest.raises(UpstreamFailed, match=r"self.signed certificate") as raised:
            await it.send(base)

        assert (Cause.TLS, False, False, False) == fault(raised)
    assert [] == script.requests


@story
async def test_certificate_for_another_name_is_refused(certificate):
    """A trusted certificate, but not for the address called."""
    async with serve(Script(OK), tls=certificate[1]) as base, client(ca_file=certificate[0]) as it:
        with pytest.raises(UpstreamFailed, match="mismatch") as raised:
            await it.send(base)

        assert (Cause.TLS, False, False, False) == fault(raised)


@story
async def test_no_tls_there():
    """A plain server under an https URL."""

    async def plain(reader, writer):
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serve(plain) as base, client() as it:
        with pytest.raises(UpstreamFailed) as raised:
            await it.send(base.replace("http", "https"))

        assert (Cause.TLS, False, False, False) == fault(raised)


@story
async def test_extra_trust_anchor(certificate):
    """``ca_file`` is trusted besides the system's anchors; the connection is reused."""
    script = Script(OK)
    async with serve(script, tls=certificate[1]) as base, client(ca_file=certificate[0]) as it:
        for size in (3, 1_000_000):
            await it.call(base.replace("127.0.0.1", "localhost"), body=bytes(size))

        assert (1, 1) == (script.connections, it.pooled)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"HTTP/1.1 200 Connected\r\n\r\n", None),
        (b"HTTP/1.1 407 secret\r\nContent-Length: 0\r\n\r\n", "the proxy answered 407"),
        (b"HTTP/1.1 abc\r\n\r\n", "through the proxy"),
        (b"", "through the proxy"),
    ],
    ids=["connected", "refused", "garbage", "closed"],
)
@story
async def test_tunnel(certificate, reply, expected):
    """An https call goes through a proxy's tunnel, whose credentials the service never sees."""
    tunnelled = []
    script = Script(OK)

    async def proxying(reader, writer):
        tunnelled.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(reply)
        await writer.drain()
        if expected is None:
            await splice(reader, writer, tunnelled[0].split()[1].decode())

    async with serve(script, tls=certificate[1]) as base, serve(proxying) as proxy:
        target = base.replace("127.0.0.1", "localhost")
        async with client(proxy=proxy.replace("//", "//user:pass@"), ca_file=certificate[0]) as it:
            if expected is None:
                for _ in range(2):
                    assert 200 == (await it.call(target))[0]
            else:
                with pytest.raises(UpstreamFailed, match=expected) as raised:
                    await it.send(target)

                assert (Cause.CONNECT, False, False, False) == fault(raised)
                assert "secret" not in str(raised.value)
                assert 0 == it.acquired
    connected = expected is None

    assert 1 == len(tunnelled)
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNz\r\n" in tunnelled[0]
    assert [False, False] * connected == [b"Proxy-" in got for got in script.requests]


async def splice(reader, writer, address):
    """Copy between a connection and *address* until one side ends."""
    other_reader, other_writer = await asyncio.open_connection(*address.split(":"))

    async def copy(source, sink):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        sink.close()

    await asyncio.gather(copy(reader, other_writer), copy(other_reader, writer), return_exceptions=True)


# --- starting -------------------------------------------------------------------------------------------------------


@story
async def test_unusable_trust_anchors(tmp_path):
    """A ``ca_file`` that is missing, or holds no certificate."""
    (tmp_path / "empty.pem").write_text("hello")
    for name in ("missing.pem", "empty.pem"):
        with pytest.raises(ConfigError, match=r"upstream\.ca_file: "):
            await Client(ca_file=str(tmp_path / name)).upstream.start()


@pytest.mark.parametrize("version", ["3.14.2", "3.9.0", "2.99.99"])
@story
async def test_old_aiohttp_is_refused(monkeypatch, version):
    """An aiohttp with known flaws."""
    monkeypatch.setattr(aiohttp, "__version__", version)
    with pytest.raises(ConfigError, match=r"3\.14\.3 or later"):
        await Client().upstream.start()


@story
async def test_slow_parser_is_refused(monkeypatch):
    """An aiohttp without its parser in C."""
    monkeypatch.setattr(http_parser, "HttpResponseParser", http_parser.HttpResponseParserPy)
    with pytest.raises(ConfigError, match="C parser"):
        await Client().upstream.start()


@story
async def test_repr():
    """Each part tells its state."""
    async with serve(Script(OK)) as base, client() as it:
        answer = await it.send(base)
        peer = base.removeprefix("http://")

        assert (
            f"<UpstreamAnswer 200 <OutboundCall to {peer} on <UpstreamConnection answered, 0 calls served>>>"
            == repr(answer)
        )
        await everything(answer)
        assert (
            f"<UpstreamAnswer 200 <OutboundCall to {peer} on <UpstreamConnection resting, 1 calls served>, over>>"
            == repr(answer)
        )
        assert "<Upstream open, 1 origins>" == repr(it.upstream)
