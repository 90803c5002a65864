"""Answers that two readers could understand differently are none; a whole one is whole whatever follows it."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.rules import CacheMode, CacheRule, Region, Route, Service
from tests.scenarios.answers import chunk, completion, whole
from tests.scenarios.conftest import LAST_CHUNK, VENDORS

ANSWER = completion("It is a box.")
OK = b"HTTP/1.1 200 OK\r\n"
FIELDS = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(ANSWER)
CHUNKED = OK + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"

BROKEN = {
    "lf only": (OK + b"X-Echo: a\r\n" + FIELDS + b"\r\n").replace(b"\r\n", b"\n") + ANSWER,
    "lf in a field": OK + b"X-Echo: a\nSet-Cookie: b=c\r\n" + FIELDS + b"\r\n" + ANSWER,
    "a fold": OK + b"X-Echo: a\r\n Set-Cookie: b=c\r\n" + FIELDS + b"\r\n" + ANSWER,
    "rtsp": OK.replace(b"HTTP", b"RTSP") + FIELDS + b"\r\n" + ANSWER,
    "version 0.9": OK.replace(b"1.1", b"0.9") + FIELDS + b"\r\n" + ANSWER,
    "a blank behind a chunk's size": CHUNKED + b"%x \r\n%b\r\n" % (len(ANSWER), ANSWER) + LAST_CHUNK,
    "lf behind a chunk": CHUNKED + b"%x\r\n%b\n" % (len(ANSWER), ANSWER) + LAST_CHUNK,
}


def answering(raw: bytes):
    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)

    return handler


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN)
async def test_the_only_region(raw, build_lab, script, dial):
    """The caller gets a 502 at once, and nothing is kept."""
    upstream = await script(answering(raw))
    lab = await build_lab(upstream.url)
    reply = await (await dial(lab)).reply()

    assert (502, "upstream-malformed") == (reply.status, reply.json()["error"]["code"])
    assert "set-cookie" not in reply.headers
    await lab.settle()
    assert 0 == lab.sidecar.memory.entries
    await (await dial(lab)).reply()
    assert 0 == lab.sidecar.memory.entries


@pytest.mark.parametrize("mode", [CacheMode.DETERMINISTIC, CacheMode.OFF])
@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN)
async def test_another_region(raw, mode, build_lab, script, dial):
    """Another region answers."""
    broken, well = await script(answering(raw)), await script(answering(whole(ANSWER)))
    regions = (
        Region("a", broken.url, priority=1, credential_domain="one"),
        Region("b", well.url, priority=2, credential_domain="one"),
    )
    lab = await build_lab(
        "",
        services=(Service("openai", VENDORS["openai"], regions, path="/openai"),),
        routes=(Route("all", cache=CacheRule(mode=mode)),),
    )
    reply = await (await dial(lab)).reply()

    assert (200, ANSWER, "b") == (reply.status, reply.body, reply.headers["x-sidecar-region"])
    assert (1, 1) == (broken.calls, well.calls)


@pytest.mark.parametrize("stray", [b"\r\n", b"stray", OK + FIELDS + b"\r\n" + ANSWER, b"HTTP/1.1 2"])
@pytest.mark.parametrize(
    "raw", [OK + FIELDS + b"\r\n" + ANSWER, CHUNKED + chunk(ANSWER) + LAST_CHUNK], ids=["length", "chunks"]
)
async def test_bytes_behind_an_answer(raw, stray, build_lab, script, dial):
    """An answer that is whole is handed on and kept, and costs one call; the next goes by another connection."""
    upstream = await script(answering(raw + stray))
    lab = await build_lab(upstream.url)
    replies = [await (await dial(lab)).reply() for _ in range(2)]

    assert [(200, ANSWER, False)] * 2 == [(reply.status, reply.body, reply.broken) for reply in replies]
    assert ["sidecar; fwd=miss; stored", "hit"] == [replies[0].cache, replies[1].cache.split("; ")[1]]
    assert (1, 1) == (upstream.calls, lab.records[0].attempts)
    for wish in ("no-cache", "no-cache"):
        reply = await (await dial(lab, headers={"cache-control": wish})).reply()
        assert (200, ANSWER) == (reply.status, reply.body)
    assert 3 == upstream.calls
    await lab.until(lambda: not upstream.open)


async def test_names_that_only_look_like_framing(lab, dial):
    """A request with one is refused, also where memory has its answer and its other lines are familiar."""
    for _ in range(3):
        assert 200 == (await (await dial(lab)).reply()).status
    for name in ("Transfer_Encoding", "CONTENT_LENGTH", "content.length"):
        reply = await (await dial(lab, headers={name: "chunked"})).reply()

        assert (400, "framing-lookalike") == (reply.status, reply.json()["error"]["code"])
