"""Who may read whose answers: a key is its own proof, a token only names somebody until the service has accepted it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sidecar.core.rules import CacheRule, Share
from tests.scenarios.answers import completion, said, whole
from tests.scenarios.clocks import BothClocks
from tests.scenarios.conftest import CHAT, CHAT_PATH
from tests.scenarios.tokens import AZURE_PATH, FIRST, FORGED, ROTATED, SUBJECT, bearer, token

OTHER = {**CHAT, "messages": [{"role": "user", "content": "Something else."}]}

STORED = "sidecar; fwd=miss; stored"


class Doorkeeper:
    """
    A service that refuses what is forged or *banned*, and numbers its answers. While *go* is clear it holds back
    what it would say to a question.
    """

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.banned = b"-- nobody --"
        self.answers = 0

    async def __call__(self, head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        if FORGED.encode() in head or self.banned in head:
            writer.write(whole(b'{"error":{"code":"401"}}', status="401 Unauthorized"))
            return
        self.answers += 1
        number = self.answers
        await self.go.wait()
        writer.write(whole(completion(f"answer {number}")))


async def test_rotated_token(build_lab, script):
    """A new token of a known principal goes upstream once; after the service has taken it, it reads like the old."""
    upstream = await script(Doorkeeper())
    lab = await build_lab(upstream.url)

    async def ask(jwt: str, body: Any = CHAT) -> tuple[str, str]:
        reply = await lab.ask(body, path=AZURE_PATH, headers=bearer(jwt))
        return said(reply.body), reply.cache.partition("; ttl")[0]

    assert ("answer 1", STORED) == await ask(FIRST)
    assert ("answer 1", "sidecar; hit") == await ask(FIRST)
    assert ("answer 2", STORED) == await ask(ROTATED)
    assert ("answer 2", "sidecar; hit") == await ask(ROTATED)
    assert ("answer 2", "sidecar; hit") == await ask(FIRST)
    assert ("answer 3", STORED) == await ask(FIRST, OTHER)
    assert ("answer 3", "sidecar; hit") == await ask(ROTATED, OTHER)
    assert 3 == upstream.calls


@pytest.mark.parametrize("directive", [None, "max-age=60", "only-if-cached"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_forged_token_reads_nothing(directive, stream, build_lab, script):
    """Whoever only claims to be a principal gets what the service says to that, however often and in whatever way."""
    upstream = await script(Doorkeeper())
    lab = await build_lab(upstream.url)
    assert STORED == (await lab.ask(path=AZURE_PATH, headers=bearer(FIRST))).cache
    headers = bearer(FORGED) | ({} if directive is None else {"cache-control": directive})

    replies = [await lab.ask({**CHAT, "stream": stream}, path=AZURE_PATH, headers=headers) for _ in range(3)]

    sent = directive != "only-if-cached"
    assert [401 if sent else 504] * 3 == [reply.status for reply in replies]
    assert (4 if sent else 1) == upstream.calls
    assert not any(b"answer 1" in reply.body for reply in replies)
    hit = await lab.ask(path=AZURE_PATH, headers=bearer(FIRST))
    assert ("answer 1", True) == (said(hit.body), hit.cache.startswith("sidecar; hit"))


async def test_refused_later(build_lab, script):
    """A token that the service no longer takes reads no more, also what it has stored itself."""
    door = Doorkeeper()
    upstream = await script(door)
    lab = await build_lab(upstream.url)

    async def ask(body: Any) -> tuple[int, str]:
        reply = await lab.ask(body, path=AZURE_PATH, headers=bearer(FIRST))
        return reply.status, reply.cache.partition("; ttl")[0]

    assert (200, STORED) == await ask(CHAT)
    assert (200, "sidecar; hit") == await ask(CHAT)
    door.banned = FIRST.encode()
    assert (401, "sidecar; fwd=miss") == await ask(OTHER)
    assert (401, "sidecar; fwd=miss") == await ask(CHAT)
    assert 3 == upstream.calls


async def test_until_the_token_ends(build_lab, script):
    """An acceptance lasts as long as the token says it does."""
    upstream = await script(Doorkeeper())
    lab = await build_lab(upstream.url)
    clock = BothClocks(lab)
    jwt = bearer(token(**SUBJECT, exp=int(clock.now) + 2000))

    async def hits() -> bool:
        return (await lab.ask(path=AZURE_PATH, headers=jwt)).cache.startswith("sidecar; hit")

    assert not await hits()
    clock.now += 1999
    assert await hits()
    clock.now += 1
    assert not await hits()
    assert not await hits()


@pytest.mark.parametrize(
    ("share", "path", "first", "second", "forged"),
    [
        (Share(), AZURE_PATH, FIRST, ROTATED, FORGED),
        (Share("service"), CHAT_PATH, "sk-first", "sk-second", FORGED),
        (Share("header", "x-team"), CHAT_PATH, "sk-first", "sk-second", FORGED),
    ],
    ids=["token", "service", "header"],
)
async def test_the_unproven_join_nobody(share, path, first, second, forged, build_lab, script, dial):
    """While a proven caller's call is on its way, those not proven make calls of their own, each credential one."""
    door = Doorkeeper()
    upstream = await script(door)
    lab = await build_lab(upstream.url, cache=CacheRule(share=share))
    team = {"x-team": "docs"}
    await lab.ask(OTHER, path=path, headers=bearer(first) | team)
    door.go.clear()
    leader = await dial(lab, path=path, headers=bearer(first) | team)
    await lab.until(lambda: upstream.calls == 2)
    refused = await dial(lab, path=path, headers=bearer(forged) | team)
    await lab.until(lambda: upstream.calls == 3)
    assert 401 == (await refused.reply()).status
    unproven = [await dial(lab, path=path, headers=bearer(second) | team) for _ in range(2)]
    joined = await dial(lab, path=path, headers=bearer(first) | team)
    await lab.until(lambda: upstream.calls == 4 and lab.waiting == 4)
    door.go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in (leader, *unproven, joined)))

    assert {200} == {reply.status for reply in replies}
    assert ["answer 2", "answer 3", "answer 3", "answer 2"] == [said(reply.body) for reply in replies]
    assert 4 == upstream.calls
    await lab.settle()


@pytest.mark.parametrize(
    "share", [Share("service"), Share("header", "x-team")], ids=["service", "header"]
)  # fmt: skip
async def test_sharing_needs_proof(share, build_lab, script):
    """Of an entry that many share reads who was accepted by the service within the last 15 minutes."""
    door = Doorkeeper()
    upstream = await script(door)
    lab = await build_lab(upstream.url, cache=CacheRule(share=share, ttl=86_400.0))
    clock = BothClocks(lab)

    async def ask(key: str, body: Any = CHAT, team: str = "docs") -> tuple[int, str]:
        reply = await lab.ask(body, headers=bearer(key) | {"x-team": team})
        return reply.status, reply.cache.partition("; ttl")[0]

    hit, miss, refused = (200, "sidecar; hit"), (200, STORED), (401, "sidecar; fwd=miss")
    assert miss == await ask("sk-one")
    assert hit == await ask("sk-one")
    assert miss == await ask("sk-two")  # nobody has vouched for it yet
    assert hit == await ask("sk-two")
    assert miss == await ask("sk-one", OTHER)
    assert hit == await ask("sk-two", OTHER)
    door.banned = b"sk-thief"
    assert [refused] * 2 == [await ask("sk-thief"), await ask("sk-thief")]
    clock.now += 899
    assert hit == await ask("sk-two")
    clock.now += 1
    assert miss == await ask("sk-two")  # its 15 minutes are over, and the call renews them
    assert hit == await ask("sk-two")
    assert (hit if share.kind == "service" else miss) == await ask("sk-two", team="sales")
    door.banned = b"sk-one"
    clock.now += 900
    assert [refused] * 2 == [await ask("sk-one"), await ask("sk-one")]


async def test_sharing_without_the_header(build_lab, script):
    """A call that does not name its group is in none: its answers are its key's alone."""
    upstream = await script(Doorkeeper())
    lab = await build_lab(upstream.url, cache=CacheRule(share=Share("header", "x-team")))
    callers = [bearer("sk-one"), bearer("sk-two"), bearer("sk-one"), bearer("sk-one") | {"x-team": ""}]

    replies = [await lab.ask(headers=headers) for headers in callers]

    assert ["answer 1", "answer 2", "answer 1", "answer 3"] == [said(reply.body) for reply in replies]


async def test_refused_while_it_waits(build_fleet, script):
    """A token that the service refuses while its call waits for another sidecar's answer does not get that."""
    door = Doorkeeper()
    upstream = await script(door)
    one, two = await build_fleet(upstream.url)
    for lab, jwt in ((one, FIRST), (two, ROTATED)):
        await lab.ask(OTHER, path=AZURE_PATH, headers={**bearer(jwt), "cache-control": "no-cache"})
    door.go.clear()
    first = asyncio.ensure_future(one.ask(path=AZURE_PATH, headers=bearer(FIRST)))
    await one.until(lambda: door.answers == 3)
    waiting = asyncio.ensure_future(two.ask(path=AZURE_PATH, headers=bearer(ROTATED)))
    await two.until(lambda: two.sidecar.fleet.remote.waits == 1)
    door.banned = ROTATED.encode()
    refused = await two.ask({**OTHER, "temperature": 1}, path=AZURE_PATH, headers=bearer(ROTATED))
    door.go.set()

    assert [401, 200, 401] == [refused.status, (await first).status, (await waiting).status]
