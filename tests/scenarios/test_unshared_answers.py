"""Who gets an answer that is not for everybody, and what the others then do."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.rules import CacheRule, Share
from tests.scenarios.conftest import CHAT, completion, whole

PLAIN = CHAT
STREAM = {**CHAT, "stream": True}
MIXTURE = (PLAIN, STREAM, {**STREAM, "stream_options": {"include_usage": True}})
TEXT = "It is a box."
MISS = "sidecar; fwd=miss; stored"
COLLAPSED = "sidecar; fwd=miss; collapsed"


@pytest.mark.parametrize("first", [PLAIN, STREAM], ids=["plain-leader", "streaming-leader"])
async def test_upstream_500_reaches_all_once(first, build_lab, script, dial):
    """An upstream's 500 is everybody's answer, is not kept, and the next call tries anew."""
    go = asyncio.Event()
    failing = True

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        error = b'{"error":{"message":"overloaded"}}'
        writer.write(
            whole(error, status="500 Oh", extra=b"X-Request-Id: r\r\n") if failing else whole(completion(TEXT))
        )

    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    callers = [await dial(lab, first)]
    await lab.until(lambda: upstream.calls == 1)
    callers += [await dial(lab, MIXTURE[n % len(MIXTURE)]) for n in range(12)]
    await lab.until(lambda: lab.waiting == 13)
    go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert 1 == upstream.calls
    assert {(500, b'{"error":{"message":"overloaded"}}')} == {(reply.status, reply.body) for reply in replies}
    assert ["sidecar; fwd=miss"] + [COLLAPSED] * 12 == [reply.cache for reply in replies]
    assert [reply.headers["x-request-id"] == "r" for reply in replies] == [True] + [False] * 12
    failing = False
    assert 200 == (await lab.ask(PLAIN)).status
    assert 2 == upstream.calls
    await lab.settle()


@pytest.mark.parametrize("status", [401, 402, 403, 429])
async def test_a_credentials_refusal_is_its_own(status, build_lab, script, dial):
    """What a service says of one credential reaches those who present it; the others make calls of their own."""
    go = asyncio.Event()

    async def handler(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if b"warm" in body:
            writer.write(whole(completion("warm")))
            return
        await go.wait()
        refused = b"sk-one" in head
        writer.write(whole(b"{}", status=f"{status} No") if refused else whole(completion(TEXT)))

    upstream = await script(handler)
    lab = await build_lab(upstream.url, cache=CacheRule(share=Share("service")))
    one, two = {"authorization": "Bearer sk-one"}, {"authorization": "Bearer sk-two"}
    warm = {**CHAT, "messages": [{"role": "user", "content": "warm"}]}
    for headers in (one, two):
        assert 200 == (await lab.ask(warm, headers=headers)).status
    leader = await dial(lab, PLAIN, headers=one)
    await lab.until(lambda: upstream.calls == 3)
    same = [await dial(lab, PLAIN, headers=one), await dial(lab, STREAM, headers=one)]
    others = [await dial(lab, PLAIN, headers=two), await dial(lab, PLAIN, headers=two)]
    await lab.until(lambda: lab.waiting == 5)

    assert 3 == upstream.calls
    go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in [leader, *same, *others]))
    assert [status] * 3 + [200] * 2 == [reply.status for reply in replies]
    assert 2 == sum(b"sk-two" in head and b"box" in body for head, body in upstream.seen)
    assert 1 == sum(b"sk-one" in head and b"box" in body for head, body in upstream.seen)
    assert ["sidecar; fwd=miss; stored"] * 2 == [reply.cache for reply in replies[3:]]
    await lab.settle()


@pytest.mark.parametrize("field", [b"Content-Encoding: gzip", b"Content-Type: text/html"], ids=["encoded", "html"])
async def test_unshareable_answers_release_the_waiters_together(field, build_lab, script, dial):
    """Such an answer is its own caller's; the waiters go at its head, all at once, and so do the next."""
    go, more = asyncio.Event(), asyncio.Event()

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\n%b\r\nContent-Length: 12\r\n\r\n" % field)
        await more.wait()
        writer.write(b"\x1f\x8bnot-really")

    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    callers = [await dial(lab) for _ in range(6)]
    await lab.until(lambda: lab.waiting == 6)

    assert 1 == upstream.calls
    go.set()
    await lab.until(lambda: upstream.calls == 6)  # the first answer has not ended yet
    late = [await dial(lab) for _ in range(3)]
    await lab.until(lambda: upstream.calls == 9)
    more.set()
    replies = await asyncio.gather(*(caller.reply() for caller in [*callers, *late]))
    name, _, value = field.decode().lower().partition(": ")
    assert {(200, b"\x1f\x8bnot-really", "sidecar; fwd=miss", value)} == {
        (reply.status, reply.body, reply.cache, reply.headers[name]) for reply in replies
    }
    assert all(b"identity" in head for head, _ in upstream.seen)
    await lab.settle()
    assert 0 == lab.sidecar.memory.entries


async def test_mark_ends_with_a_shareable_answer(build_lab, script, dial):
    """Once an answer could be shared again, equal calls wait for each other again."""
    encoded = True
    go = asyncio.Event()
    go.set()

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(whole(b"zz", extra=b"Content-Encoding: gzip\r\n") if encoded else whole(completion(TEXT)))

    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    await lab.ask()
    encoded = False
    stored = await lab.ask()
    go.clear()
    callers = [await dial(lab, headers={"cache-control": "no-cache"})]
    await lab.until(lambda: lab.waiting == 1)
    callers.append(await dial(lab, headers={"cache-control": "max-age=0"}))
    await lab.until(lambda: lab.waiting == 2)
    go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert MISS == stored.cache
    assert [MISS, COLLAPSED] == [reply.cache for reply in replies]
    assert 3 == upstream.calls


async def test_waiters_hear_when_to_try_again(build_lab, script, dial):
    """What an overloaded service says of trying again is for all who waited."""
    go = asyncio.Event()

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(whole(b"{}", status="503 Busy", extra=b"Retry-After: 7\r\nX-Should-Retry: true\r\n"))

    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    callers = [await dial(lab) for _ in range(3)]
    await lab.until(lambda: lab.waiting == 3)
    go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert [("7", "true")] * 3 == [
        (reply.headers.get("retry-after"), reply.headers.get("x-should-retry")) for reply in replies
    ]
