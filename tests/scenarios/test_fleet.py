"""A call answered by one sidecar is known to all, and asked for once."""

from __future__ import annotations

import asyncio
import json

import pytest

from sidecar.core.model import Outcome
from sidecar.core.rules import MemoryRule
from tests.scenarios.answers import chat_events, chunks, completion, said, whole
from tests.scenarios.conftest import CHAT, LAST_CHUNK, STREAM_HEAD
from tests.scenarios.redis_contents import released, written

STREAM = {**CHAT, "stream": True}
EVENTS = chat_events("It", " is", " a box.")
TEXT = "It is a box."


class Box:
    """A provider that answers in the form asked for when it may *go*, and of a stream gives the beginning at once."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, _head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if json.loads(body).get("stream"):
            writer.write(STREAM_HEAD + chunks(EVENTS[:2]))
            await self.go.wait()
            writer.write(chunks(EVENTS[2:]) + LAST_CHUNK)
        else:
            await self.go.wait()
            writer.write(whole(completion(TEXT), extra=b"Set-Cookie: a=b\r\n"))


@pytest.fixture
async def box(script):
    """An upstream that answers at once."""
    handler = Box()
    handler.go.set()
    upstream = await script(handler)
    upstream.box = handler
    return upstream


def stray(server):
    """Keys without a time to live."""
    return [key for key in server.call("KEYS", "*") if int(server.call("PTTL", key)) < 0]


@pytest.mark.parametrize("second", [CHAT, STREAM], ids=["plain", "streamed"])
@pytest.mark.parametrize("first", [CHAT, STREAM], ids=["from plain", "from streamed"])
async def test_known_to_all(first, second, build_fleet, box, redis_server):
    """The second sidecar has the answer from Redis, in the form asked for, and the next time from its memory."""
    one, two = await build_fleet(box.url)
    await one.ask(first)
    await written(redis_server)
    found = await two.ask(second)
    again = await two.ask(second)

    assert 1 == box.calls
    assert [TEXT, TEXT] == [said(reply.body) for reply in (found, again)]
    assert [b"redis", b"memory"] == [
        reply.headers["cache-status"].encode().rpartition(b"=")[2] for reply in (found, again)
    ]
    assert found.body == again.body
    assert "age" in found.headers
    assert "set-cookie" not in found.headers
    assert [Outcome.HIT_REDIS, Outcome.HIT_MEMORY] == [record.outcome for record in two.records]
    assert [] == stray(redis_server)


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["plain", "streamed"])
async def test_asked_for_once(body, build_fleet, box, redis_server):
    """Eight sidecars with fifty callers each cost one upstream call, where the answer ends in time."""
    box.box.go.clear()
    labs = await build_fleet(box.url, 8, redis={"lease_wait": 30.0})
    asking = [asyncio.ensure_future(lab.ask(body)) for lab in labs for _ in range(50)]
    await labs[0].until(lambda: sum(lab.waiting for lab in labs) == 400)
    box.box.go.set()
    replies = await asyncio.gather(*asking)

    assert 1 == box.calls
    assert {(200, TEXT)} == {(reply.status, said(reply.body)) for reply in replies}
    await released(redis_server)
    assert [] == stray(redis_server)


async def test_streams_wait_a_little_only(build_fleet, box):
    """A stream that another sidecar fetches for longer than ``lease_wait`` is asked for anew, and not stored twice."""
    box.box.go.clear()
    labs = await build_fleet(box.url, 4, redis={"lease_wait": 0.05})
    asking = [asyncio.ensure_future(lab.ask(STREAM)) for lab in labs for _ in range(5)]
    await labs[0].until(lambda: box.calls == 4)
    box.box.go.set()
    replies = await asyncio.gather(*asking)

    assert 4 == box.calls
    assert {(200, TEXT)} == {(reply.status, said(reply.body)) for reply in replies}
    assert 1 <= sum(lab.sidecar.fleet.remote.seal.plain_bytes > 0 for lab in labs) <= 1


async def test_a_stream_does_not_wait_with_others(build_fleet, box):
    """A stream joins callers who wait for another sidecar only for as long as it would wait itself."""
    box.box.go.clear()
    one, two = await build_fleet(box.url, redis={"lease_wait": 0.05})
    asking = [asyncio.ensure_future(one.ask())]
    await one.until(lambda: box.calls == 1)
    asking.append(asyncio.ensure_future(two.ask()))
    await two.until(lambda: two.sidecar.fleet.remote.waits == 1)
    asking.append(asyncio.ensure_future(two.ask(STREAM)))
    await two.until(lambda: box.calls == 2)
    box.box.go.set()
    replies = await asyncio.gather(*asking)

    assert 2 == box.calls
    assert {(200, TEXT)} == {(reply.status, said(reply.body)) for reply in replies}
    assert [False, True] == [bool(json.loads(body).get("stream")) for _, body in box.seen]


async def test_streams_that_come_with_others(build_fleet, box):
    """Also those that come in the same moment as the call that they would wait with."""
    box.box.go.clear()
    one, two = await build_fleet(box.url, redis={"lease_wait": 0.05})
    asking = [asyncio.ensure_future(one.ask())]
    await one.until(lambda: box.calls == 1)
    asking += [asyncio.ensure_future(two.ask(body)) for body in (CHAT, STREAM, STREAM, STREAM)]
    await two.until(lambda: box.calls == 2)
    box.box.go.set()
    replies = await asyncio.gather(*asking)

    assert 2 == box.calls
    assert {(200, TEXT)} == {(reply.status, said(reply.body)) for reply in replies}


@pytest.mark.parametrize("kind", ["encoded", "too large"])
async def test_what_nobody_shares_is_waited_for_by_nobody(kind, build_fleet, script):
    """Others go upstream as soon as it is known that the answer will not be kept, and not at its end."""
    go, calls = asyncio.Event(), 0
    body = completion("x" * 200_000)
    extra = b"Content-Encoding: x-own\r\n" if kind == "encoded" else b""

    async def answer(_head, _body, writer):
        nonlocal calls
        calls += 1
        writer.write(whole(body, extra=extra)[: -10 if calls == 1 else None])
        if calls == 1:
            await go.wait()
            writer.write(body[-10:])

    upstream = await script(answer)
    one, two = await build_fleet(upstream.url, memory=MemoryRule(max_entry_bytes=100_000))
    first = asyncio.ensure_future(one.ask())
    await one.until(lambda: upstream.calls == 1)
    second = await two.ask()
    go.set()

    assert [200, 200] == [second.status, (await first).status]
    assert 2 == upstream.calls


async def test_a_stream_is_shared_at_its_last_event(build_fleet, script, redis_server):
    """Another sidecar need not wait until the service closes a stream that is complete."""
    go = asyncio.Event()

    async def answer(_head, _body, writer):
        writer.write(STREAM_HEAD + chunks(EVENTS))
        await go.wait()
        writer.write(LAST_CHUNK)

    upstream = await script(answer)
    one, two = await build_fleet(upstream.url)
    first = asyncio.ensure_future(one.ask(STREAM))
    await written(redis_server)
    second = await two.ask()
    go.set()
    await first

    assert TEXT == said(second.body)
    assert 1 == upstream.calls


async def test_who_leaves_hands_on(build_fleet, box):
    """Where the only caller of the sidecar that fetches leaves, another sidecar fetches, at once."""
    box.box.go.clear()
    one, two = await build_fleet(box.url)
    leaving = asyncio.ensure_future(one.ask())
    await one.until(lambda: box.calls == 1)
    asking = asyncio.ensure_future(two.ask())
    await two.until(lambda: two.sidecar.fleet.remote.waits == 1)
    leaving.cancel()
    await two.until(lambda: box.calls == 2)
    box.box.go.set()
    reply = await asking

    assert (200, TEXT) == (reply.status, said(reply.body))
    assert 1 == two.sidecar.fleet.remote.takeovers


async def test_an_error_is_nobody_elses(build_fleet, script):
    """A failed call releases those who wait in other sidecars; each asks for itself."""
    go = asyncio.Event()
    calls = 0

    async def fail(_head, _body, writer):
        nonlocal calls
        calls += 1
        first = calls == 1
        await go.wait()
        writer.write(whole(b'{"error": {"message": "no"}}', status="500 No") if first else whole(completion(TEXT)))

    upstream = await script(fail)
    labs = await build_fleet(upstream.url, 3)
    asking = [asyncio.ensure_future(labs[0].ask())]
    await labs[0].until(lambda: upstream.calls == 1)
    asking += [asyncio.ensure_future(lab.ask()) for lab in labs[1:]]
    await labs[0].until(lambda: all(lab.sidecar.fleet.remote.waits for lab in labs[1:]))
    go.set()
    replies = await asyncio.gather(*asking)

    assert [500, 200, 200] == [reply.status for reply in replies]
    assert 3 == upstream.calls


async def test_tenants_do_not_mix(build_fleet, box):
    """What one key asked, another does not find, in its own sidecar or in another."""
    one, two = await build_fleet(box.url)
    await one.ask()
    await two.ask(headers={"authorization": "Bearer another"})
    await one.ask(headers={"authorization": "Bearer a third"})

    assert 3 == box.calls


async def test_no_secret_file(build_fleet, box, redis_server, tmp_path):
    """A secret file that is not usable means memory only, and a line that says so; nothing is in Redis."""
    (tmp_path / "cache.key").write_text("nonsense\n")
    (lab,) = await build_fleet(box.url, 1)
    await lab.ask()
    again = await lab.ask()

    assert "memory" in again.headers["cache-status"]
    assert [] == redis_server.call("KEYS", "*")
    assert any(b'"memory-only"' in line for line in lab.logs)
