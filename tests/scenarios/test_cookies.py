"""What an answer says to its own caller never reaches another: no cookie, no request id, no rate limit."""

from __future__ import annotations

import asyncio
import re

import pytest

from sidecar.core.rules import CacheMode, CacheRule, Share
from tests.scenarios.answers import LAST_CHUNK, chat_events, chunks, completion, whole
from tests.scenarios.conftest import CHAT

SHARED = CacheRule(share=Share("service"))

WARM = {**CHAT, "messages": [{"role": "user", "content": "warm"}]}

PER_CALL = (
    "set-cookie", "x-request-id", "request-id", "apim-request-id", "x-ratelimit-remaining-requests",
    "x-ratelimit-limit-tokens", "openai-organization", "openai-processing-ms", "cf-ray",
    "x-unheard-of", "server", "via", "etag", "cache-control", "last-modified",
)  # fmt: skip

NEVER = ("date", "alt-svc", "strict-transport-security")

ANCIENT = "Thu, 01 Jan 1970 00:00:00 GMT"

_KEY = re.compile(rb"(?i)\r\nauthorization: Bearer (\S+)")


class Marking:
    """A service that marks all it says with the key of the caller, in every field there is; held back until *go*."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        found = _KEY.search(head)
        assert found is not None
        await self.go.wait()
        fields = b"".join(b"%b: mark-%b\r\n" % (name.encode(), found[1]) for name in PER_CALL)
        fields += b"".join(b"%b: %b\r\n" % (name.encode(), ANCIENT.encode()) for name in NEVER)
        if b'"stream": true' in body:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n%b\r\n"
            writer.write(head % fields + chunks(chat_events("A box.")) + LAST_CHUNK)
        elif b"fail" in body:
            writer.write(whole(b"{}", status="500 Oh", extra=fields))
        else:
            writer.write(whole(completion("A box."), extra=fields))


def key(name: str) -> dict[str, str]:
    """The header of a caller with this key."""
    return {"authorization": f"Bearer {name}"}


def marks(reply) -> set[str]:
    """Whose marks an answer carries, anywhere in its head."""
    return set(re.findall(r"mark-(\w+)", repr(reply.headers)))


def cookies_seen(upstream) -> list[bytes]:
    """The cookies in the requests that reached *upstream*, with the key that each came with."""
    return [
        cookie + b" of " + _KEY.search(head)[1]
        for head, _ in upstream.seen
        for cookie in re.findall(rb"(?i)\r\ncookie: ([^\r]*)", head)
    ]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_one_after_the_other(stream, build_lab, script, dial):
    """Who reads what another caller's call has stored sees none of what was said to that one alone."""
    upstream = await script(Marking())
    lab = await build_lab(upstream.url, cache=SHARED)
    call = {**CHAT, "stream": stream}
    for name in ("one", "two"):  # known to the service
        await lab.ask(WARM, headers=key(name))

    first = await (await dial(lab, call, headers=key("one"))).reply()
    others = [await (await dial(lab, asked, headers=key("two"))).reply() for asked in (call, CHAT)]
    again = await (await dial(lab, call, headers=key("one"))).reply()

    assert {"one"} == marks(first)
    assert set(PER_CALL) <= first.headers.keys()
    for reply in (*others, again):
        assert "sidecar; hit" == reply.cache.partition("; ttl")[0]
        assert set() == marks(reply)
        said = reply.headers.keys() & {*PER_CALL, "alt-svc", "strict-transport-security"}
        assert {"x-request-id"} == said  # ours stands there
        assert reply.headers["x-request-id"] == reply.headers["x-sidecar-request-id"]
    assert not any(ANCIENT in repr(reply.headers) for reply in (first, *others, again))
    assert all("date" in reply.headers for reply in (first, *others, again))
    assert 3 == upstream.calls


@pytest.mark.parametrize(
    "change", [{}, {"stream": True}, {"fail": True}], ids=["plain", "stream", "failing"]
)  # fmt: skip
async def test_at_the_same_time(change, build_lab, script, dial):
    """Of callers that share one call only its own sees what was said to it, also where the answer is an error."""
    marking = Marking()
    upstream = await script(marking)
    lab = await build_lab(upstream.url, cache=SHARED)
    for name in ("one", "two", "three"):
        await lab.ask(WARM, headers=key(name))
    marking.go.clear()
    callers = [await dial(lab, {**CHAT, **change}, headers=key("one"))]
    await lab.until(lambda: upstream.calls == 4)
    callers += [await dial(lab, {**CHAT, **change}, headers=key(name)) for name in ("two", "three", "one")]
    await lab.until(lambda: lab.waiting == 4)
    marking.go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert [{"one"}, set(), set(), set()] == [marks(reply) for reply in replies]
    assert ["sidecar; fwd=miss; collapsed"] * 3 == [reply.cache for reply in replies[1:]]
    assert not any(ANCIENT in repr(reply.headers) for reply in replies)
    assert 4 == upstream.calls


@pytest.mark.parametrize("mode", list(CacheMode))
async def test_no_cookie_is_kept(mode, build_lab, script, dial):
    """What one answer sets is sent along with nobody's next call: a caller's cookies are those it sends itself."""
    upstream = await script(Marking())
    lab = await build_lab(upstream.url, cache=CacheRule(mode=mode, share=Share("service")))
    calls = [{**CHAT, "seed": number, "fail": number == 3} for number in range(6)]

    for number, call in enumerate(calls):
        reply = await (await dial(lab, call, headers=key(f"key{number}"))).reply()
        assert {f"key{number}"} == marks(reply)
    assert [] == cookies_seen(upstream)
    await (await dial(lab, {**CHAT, "seed": 7}, headers=key("own") | {"cookie": "a=b"})).reply()
    await (await dial(lab, {**CHAT, "seed": 8}, headers=key("key1"))).reply()
    assert [b"a=b of own"] == cookies_seen(upstream)
    assert 8 == upstream.calls
