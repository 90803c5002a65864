"""Input that is meant to hurt: each has its answer, nothing is left behind, and the process goes on."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import cast

import pytest
from xxhash import xxh3_128

from sidecar.core.rules import CacheRule, Limits
from tests.scenarios.answers import completion, said, whole
from tests.scenarios.caller import Caller
from tests.scenarios.conftest import CHAT, CHAT_PATH, KEY
from tests.scenarios.processes import resident

MIB = 1024 * 1024

SMALL = replace(Limits(), inflight_memory=MIB, drain_seconds=2.0)

HEAD = (
    f"POST {CHAT_PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {KEY}\r\nContent-Type: application/json\r\n"
).encode()


class Sink(asyncio.Protocol):
    """
    A connection of an upstream that takes bodies of any size: it keeps their size and digest only, in *bodies*, and
    answers each with a completion.
    """

    def __init__(self, bodies: list[tuple[int, str]]) -> None:
        self._bodies = bodies
        self._head = b""
        self._left = -1
        self._size = 0
        self._digest = xxh3_128()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._head += data
            if b"\r\n\r\n" not in self._head:
                return
            head, _, data = self._head.partition(b"\r\n\r\n")
            self._head = b""
            self._left = self._size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        self._digest.update(data)
        self._left -= len(data)
        if self._left == 0:
            self._bodies.append((self._size, self._digest.hexdigest()))
            self._left, self._digest = -1, xxh3_128()
            self._transport.write(whole(completion(f"answer {len(self._bodies)}")))


@pytest.fixture
async def sink() -> AsyncIterator[tuple[str, list[tuple[int, str]]]]:
    """An upstream of sinks: its URL, and the bodies it has taken."""
    bodies: list[tuple[int, str]] = []
    server = await asyncio.get_running_loop().create_server(lambda: Sink(bodies), "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", bodies
    server.close()


async def post(lab, first: bytes, last: bytes, mebibytes: int, watch: Callable[[], None] = lambda: None):
    """
    Send a body of *first*, so many MiB, each with its number in it, and *last*; the answer and the body's digest.
    *watch* is called now and then.
    """
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", lab.sidecar.port))
    digest = xxh3_128()
    buffer = bytearray(b"x" * MIB)
    await loop.sock_sendall(sock, HEAD + b"Content-Length: %d\r\n\r\n" % (len(first) + mebibytes * MIB + len(last)))
    await loop.sock_sendall(sock, first)
    digest.update(first)
    for number in range(mebibytes):
        buffer[:8] = b"%08d" % number
        digest.update(buffer)
        await loop.sock_sendall(sock, buffer)
        if not number % 8:
            watch()
    digest.update(last)
    await loop.sock_sendall(sock, last)
    reader, writer = await asyncio.open_connection(sock=sock)
    reply = await Caller(reader, writer).reply()
    writer.close()
    return reply, digest.hexdigest()


OPEN, CLOSE = b'{"model":"gpt-4o","temperature":0,"messages":[{"role":"user","content":"', b'"}]}'

PLAIN = OPEN + b"x" + CLOSE

UNSAFE = {
    "duplicate-key": [
        b'{"model":"gpt-4o","temperature":0,"temperature":1,"messages":[]}',
        b'{"model":"gpt-4o","temperature":0,"messages":[{"role":"user","role":"system","content":"x"}]}',
        b'{"model":"gpt-4o","temperature":0,"messages":[],"\\u006dodel":"gpt-4o-mini"}',
    ],
    "nesting": [
        b'{"model":"gpt-4o","temperature":0,"messages":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"model":"gpt-4o","temperature":0,"messages":[],"x":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}",
    ],
    "invalid-utf8": [OPEN + b"\xff" + CLOSE, OPEN + b"\xed\xa0\x80" + CLOSE, OPEN + b"\xc0\xaf" + CLOSE],
    "number-out-of-range": [
        PLAIN[:-1] + b',"x":NaN}', PLAIN[:-1] + b',"x":-Infinity}', PLAIN[:-1] + b',"x":1e400}',
        PLAIN.replace(b":0", b":-1e999"),
    ],
    "lone-surrogate": [OPEN + b"\\ud800" + CLOSE, OPEN + b"\\udc00\\ud800" + CLOSE],
    "invalid-json": [b"{", b"", PLAIN + b"x", b"\xef\xbb\xbf" + PLAIN, PLAIN.replace(b"0", b"00"), b"\0" * 1000],
    "not-an-object": [b"[]", b"null", b'"{}"'],
    "negative-zero": [PLAIN.replace(b":0", b":-0")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "bodies"), [pytest.param(reason, bodies, id=reason) for reason, bodies in UNSAFE.items()]
)
async def test_bodies_that_are_read_in_two_ways(reason, bodies, build_lab, script):
    """A body that cannot safely be a key is forwarded as it came, each time, and is never looked up."""

    async def answer(_head, _body, writer):
        writer.write(whole(completion("A box.")))

    upstream = await script(answer)
    lab = await build_lab(upstream.url, limits=SMALL)

    replies = [await lab.ask(body) for body in bodies for _ in range(2)]

    assert [f"sidecar; fwd=bypass; detail={reason}"] * len(replies) == [reply.cache for reply in replies]
    assert [body for body in bodies for _ in range(2)] == [body for _, body in upstream.seen]
    assert "sidecar; fwd=miss; stored" == (await lab.ask(CHAT)).cache
    await lab.settle()
    assert lab.sidecar.ledger.peak <= MIB


@pytest.mark.parametrize("memory", [32 * MIB, 256 * 1024], ids=["default-memory", "small-memory"])
async def test_large_body_is_cacheable(memory, sink, build_lab):
    """64 MiB of JSON lie in a file, not in memory; the second time they are answered from memory."""
    url, bodies = sink
    lab = await build_lab(url, limits=replace(Limits(), inflight_memory=memory, drain_seconds=2.0))

    (first, digest), (second, _), (other, other_digest) = [
        await post(lab, OPEN, last + CLOSE, 64) for last in (b"", b"", b"!")
    ]

    assert ["sidecar; fwd=miss; stored"] * 2 == [first.cache, other.cache]
    assert second.cache.startswith("sidecar; hit; ")
    assert first.body == second.body != other.body
    size = 64 * MIB + len(OPEN + CLOSE)
    assert [(size, digest), (size + 1, other_digest)] == bodies
    await lab.settle()
    assert lab.sidecar.ledger.peak <= memory


async def test_body_past_every_limit(sink, build_lab):
    """600 MiB, more than is ever collected, stream through byte for byte in a few MiB of memory."""
    url, bodies = sink
    lab = await build_lab(url)
    await post(lab, OPEN, CLOSE, 1)  # what the first call of a process costs anyhow
    before = highest = resident()

    def watch() -> None:
        nonlocal highest
        highest = max(highest, resident())

    reply, digest = await post(lab, OPEN, CLOSE, 600, watch)

    assert (200, "sidecar; fwd=bypass; detail=body-too-large") == (reply.status, reply.cache)
    assert (600 * MIB + len(OPEN + CLOSE), digest) == bodies[-1]
    assert highest - before < 64 * MIB
    await lab.settle()
    assert lab.sidecar.ledger.peak <= lab.sidecar.ledger.limit


async def test_chunked_body_that_turns_out_too_large(build_lab, script):
    """A body of unknown size is collected until it is too large, and goes on from there without a byte lost."""

    async def answer(_head, _body, writer):
        writer.write(whole(completion("A box.")))

    upstream = await script(answer)
    lab = await build_lab(upstream.url, limits=replace(SMALL, collect=4 * MIB))
    text = b"".join(b"%07d " % number for number in range(MIB))
    pieces = [OPEN, *(text[at : at + 70_001] for at in range(0, len(text), 70_001)), CLOSE]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.sidecar.port)
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    reply = await Caller(reader, writer).reply()
    writer.close()

    assert "sidecar; fwd=bypass; detail=body-too-large" == reply.cache
    assert b"".join(pieces) == upstream.seen[0][1]
    await lab.settle()
    assert lab.sidecar.ledger.peak <= MIB


REFUSED = {
    "fields": (b"GET /openai/v1/models HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 100_000 + b"\r\n", 431),
    "one field": (b"GET /openai/v1/models HTTP/1.1\r\nHost: h\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n", 431),
    "one name": (b"GET /openai/v1/models HTTP/1.1\r\nHost: h\r\n" + b"y" * 1_000_000 + b": x\r\n\r\n", 431),
    "target": (b"GET /openai/" + b"y" * 1_000_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414),
    "trailers": (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n" + b"X: y\r\n" * 100_000 + b"\r\n", 431,
    ),
    "extensions": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a=b;" * 100_000 + b"\r\n{\r\n0\r\n\r\n", 431),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "status"), REFUSED.values(), ids=REFUSED)
async def test_flood(raw, status, lab, provider):
    """A head, trailer or extension without end is refused, closes its own connection and concerns nobody else's."""
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.sidecar.port)
    writer.write(raw)
    caller = Caller(reader, writer)
    reply = await caller.reply()

    assert (status, "close") == (reply.status, reply.headers["connection"])
    assert b"" == await reader.read()
    writer.close()
    assert 0 == provider.calls
    assert 200 == (await lab.ask(CHAT)).status
    await lab.settle()
    assert lab.sidecar.ledger.peak <= lab.sidecar.ledger.limit


async def test_ten_thousand_pipelined(build_lab, script):
    """Ten thousand calls sent ahead on one connection get ten thousand answers, hits and misses, in their order."""

    async def echo(_head, body, writer):
        writer.write(whole(completion(json.loads(body)["messages"][0]["content"])))

    upstream = await script(echo)
    lab = await build_lab(upstream.url, limits=SMALL)
    order = [f"question {number % 100 if number % 3 else number % 7}" for number in range(10_000)]
    bodies = (
        json.dumps({**CHAT, "messages": [{"role": "user", "content": text}]}).encode() for text in order
    )  # fmt: skip
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.sidecar.port)
    writer.write(b"".join(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body) for body in bodies))

    got = [said((await Caller(reader, writer).reply()).body) for _ in order]

    assert order == got
    assert len(set(order)) == upstream.calls
    writer.close()
    await lab.settle()
    assert lab.sidecar.ledger.peak <= MIB
    await lab.until(lambda: len(lab.records) == 10_000)


@pytest.mark.parametrize(
    ("raw", "limits"),
    [
        (b"POST /openai/v1/chat/comp", {"head_seconds": 0.1}),
        (HEAD, {"head_seconds": 0.1}),
        (HEAD + b"Content-Length: 100\r\n\r\n{", {"body_seconds": 0.1}),
        (HEAD + b"Content-Length: 10000000\r\n\r\n{" + b" " * 2_000_000, {"body_seconds": 0.1}),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{", {"body_seconds": 0.1}),
    ],
    ids=["request-line", "fields", "body", "body-on-disk", "chunk"],
)
async def test_slow_loris(raw, limits, build_lab, provider):
    """Many that begin and never end are told so and let go; meanwhile everybody else is answered."""
    lab = await build_lab(f"http://127.0.0.1:{provider.port}", limits=replace(SMALL, **limits))
    peers = [await asyncio.open_connection("127.0.0.1", lab.sidecar.port) for _ in range(20)]
    for _, writer in peers:
        writer.write(raw)
    await lab.until(lambda: lab.sidecar.listener.connections == 20)

    assert 200 == (await lab.ask(CHAT)).status
    replies = [await Caller(*peer).reply() for peer in peers]
    assert {(408, "close")} == {(reply.status, reply.headers["connection"]) for reply in replies}
    assert {b""} == {await reader.read() for reader, _ in peers}
    for _, writer in peers:
        writer.close()
    assert 1 == provider.calls
    await lab.until(lambda: lab.sidecar.listener.connections == 1)
    await lab.settle()
    assert lab.sidecar.ledger.peak <= MIB


async def test_hostile_answers(build_lab, script):
    """What is in a question or an answer never becomes a header line of ours."""

    async def answer(_head, _body, writer):
        writer.write(whole(completion("A box.").replace(b'"gpt-4o"', b'"a\\r\\nSet-Cookie: x=y\\u00e9"')))

    upstream = await script(answer)
    lab = await build_lab(upstream.url, cache=CacheRule())
    call = {**CHAT, "model": "b\r\nset-cookie: x=y"}

    replies = [await lab.ask(call) for _ in range(2)]

    assert ["b??set-cookie:?x=y"] * 2 == [reply.headers["x-sidecar-model"] for reply in replies]
    assert not any("set-cookie" in reply.headers for reply in replies)
