"""What an answer says about caching: what is kept of it, for how long, and who else gets it."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.rules import CacheMode, CacheRule, Region, Route, Service, Share
from sidecar.dialects import DIALECTS
from tests.scenarios.clocks import WallClock
from tests.scenarios.conftest import CHAT, said
from tests.scenarios.oracle import refreshed
from tests.scenarios.redis_contents import released, written
from tests.scenarios.sources import ALWAYS, ITEM, STORED, TONELESS, get

MISS = "sidecar; fwd=miss"
COLLAPSED = "sidecar; fwd=miss; collapsed"
ONE, TWO = {"authorization": "Bearer sk-one"}, {"authorization": "Bearer sk-two"}
WARM = {**CHAT, "messages": [{"role": "user", "content": "warm"}]}


# ---- what is kept ----


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("extra", "kept"),
    [
        (b"", True),
        (b"Cache-Control: public, max-age=60\r\n", True),
        (b"Cache-Control: private\r\n", True),
        (b'Cache-Control: no-cache="set-cookie"\r\n', True),
        (b"Cache-Control: no-store\r\n", False),
        (b"Cache-Control: No-Store, max-age=60\r\n", False),
        (b"Cache-Control: max-age=60\r\nCache-Control: no-store\r\n", False),
        (b"Cache-Control: must-understand, no-store\r\n", False),
        (b"Cache-Control: no-cache\r\n", False),
        (b"Cache-Control: max-age=0\r\n", False),
        (b"Cache-Control: max-age=-5\r\n", False),
        (b"Cache-Control: max-age=60\r\nAge: 60\r\n", False),
        (b"Age: 9999999\r\n", False),
        (b"Expires: 0\r\n", False),
        (b"Expires: Thu, 18 Aug 2050 02:01:18 GMT\r\n", True),
        (b"Expires: Thu, 18 Aug 2050 02:01:18 GMT\r\nDate: Thu, 18 Aug 2050 02:01:18 GMT\r\n", False),
        (b"Vary: *\r\n", False),
        (b"Vary: Origin\r\nVary: *\r\n", False),
        (b"Vary: Origin, Accept-Encoding\r\n", True),
    ],
)
async def test_kept_as_it_says(extra, kept, method, build_api, source):
    """A service that means its directives is obeyed, and ``stored`` is said only of what is stored."""
    source.extra = extra
    lab = await build_api()
    replies = [await lab.ask(b"x" if method == "POST" else b"", path=ITEM, method=method) for _ in range(2)]

    assert (STORED if kept else MISS) == replies[0].cache
    assert kept == replies[1].cache.startswith("sidecar; hit")
    assert (1 if kept else 2, int(kept)) == (source.count, lab.sidecar.memory.entries)
    assert [kept, False] == [record.stored for record in lab.records]
    await lab.settle()


@pytest.mark.parametrize(
    ("extra", "ttl", "age"),
    [
        (b"", 500, 0),
        (b"Cache-Control: max-age=60\r\n", 60, 0),
        (b"Cache-Control: max-age=9000\r\n", 500, 0),
        (b"Cache-Control: max-age=60\r\nAge: 15\r\n", 45, 15),
        (b"Cache-Control: max-age=60\r\nAge: -15\r\n", 60, 0),
        (b"Cache-Control: max-age=60, s-maxage=20\r\n", 20, 0),
        (b"Age: 15\r\n", 485, 15),
    ],
)
async def test_for_how_long(extra, ttl, age, build_api, source):
    """Its time is the route's, or its own where that is less; its age is the service's word and ours together."""
    source.extra = extra
    lab = await build_api(CacheRule(mode=CacheMode.ALWAYS, ttl=500.0))
    clock = WallClock([lab])
    await get(lab)
    clock.later(10.0)
    reply = await lab.ask(b"", path=ITEM, method="GET")
    clock.later(ttl - 10.0)
    late = await get(lab)

    assert f"sidecar; hit; ttl={ttl - 10}; detail=memory" == reply.cache
    assert str(age + 10) == reply.headers["age"]
    assert ("answer 2", STORED) == late


@pytest.mark.parametrize(
    "extra", [b"Cache-Control: must-revalidate\r\n", b"Cache-Control: proxy-revalidate, max-age=900\r\n"]
)
async def test_never_stale(extra, build_api, source):
    """A-8: what has to be validated serves neither while it is refreshed nor where the service fails."""
    source.extra = extra
    lab = await build_api(
        CacheRule(mode=CacheMode.ALWAYS, ttl=60.0, stale_while_revalidate=600.0, stale_if_error=600.0)
    )
    clock = WallClock([lab])
    await get(lab)
    clock.later(61.0)

    assert ("answer 2", STORED) == await get(lab)
    clock.later(61.0)
    source.status = "500 No"
    reply = await lab.ask(b"", path=ITEM, method="GET")
    assert (500, MISS) == (reply.status, reply.cache)
    await lab.settle()


# ---- by dialect and by route ----


@pytest.mark.parametrize(
    ("directives", "path", "kept"),
    [
        (None, ITEM, False),
        (False, ITEM, True),
        (True, ITEM, False),
        (None, "/openai/v1/chat/completions", True),
        (False, "/openai/v1/chat/completions", True),
        (True, "/openai/v1/chat/completions", False),
    ],
)
@pytest.mark.parametrize("control", [b"no-store", b"must-revalidate, no-cache", b"private, max-age=0"])
async def test_who_decides(control, directives, path, kept, build_api, source):
    """The service, where it is one of whom nothing else is known; else the route, which may say otherwise for both."""
    source.extra = b"Cache-Control: %b\r\n" % control
    lab = await build_api(CacheRule(mode=CacheMode.ALWAYS, directives=directives))
    replies = [await lab.ask(CHAT, path=path) for _ in range(2)]

    assert kept == (STORED == replies[0].cache) == replies[1].cache.startswith("sidecar; hit")


@pytest.mark.parametrize("share", [Share("service"), Share("header", "x-team")], ids=["service", "header"])
@pytest.mark.parametrize("directives", [None, False])
@pytest.mark.parametrize("control", [b"no-store", b"private", b'private="x"', b"public", b"no-cache"])
async def test_not_shared_with_other_principals(control, directives, share, build_api, source):
    """Where a route shares, what an AI API calls no-store or private is not for others; nor is it kept for them."""
    lab = await build_api(CacheRule(mode=CacheMode.ALWAYS, share=share, directives=directives))
    one, two = ({**credential, "x-team": "docs"} for credential in (ONE, TWO))
    for headers in (one, two):
        await lab.ask(WARM, headers=headers)
    source.extra = b"Cache-Control: %b\r\n" % control
    own = directives is None and control not in {b"public", b"no-cache"}
    replies = [await lab.ask(headers=headers) for headers in (one, two)]

    assert (MISS if own else STORED) == replies[0].cache
    assert own == (MISS == replies[1].cache)
    assert own == (said(replies[0].body) != said(replies[1].body))


# ---- those who wait ----


@pytest.mark.parametrize("control", [b"no-store", b"no-cache", b"max-age=0", b"private, no-store"])
async def test_waiters_are_released_at_the_head(control, build_lab, script, dial):
    """A-3: they make calls of their own as soon as the head is known, all at once, and so do those after them."""
    go, more = asyncio.Event(), asyncio.Event()

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nCache-Control: %b\r\nContent-Length: 4\r\n\r\n" % control)
        await more.wait()
        writer.write(b"item")

    upstream = await script(handler)
    services = (Service("api", DIALECTS["generic"], (Region("here", upstream.url),), path="/api", headers=TONELESS),)
    lab = await build_lab(upstream.url, services=services, routes=(Route("all", cache=ALWAYS),))
    callers = [await dial(lab, b"x", path=ITEM) for _ in range(4)]
    await lab.until(lambda: lab.waiting == 4)
    assert 1 == upstream.calls

    go.set()
    await lab.until(lambda: upstream.calls == 4)  # the first answer has not ended yet
    callers += [await dial(lab, b"x", path=ITEM) for _ in range(2)]
    await lab.until(lambda: upstream.calls == 6)
    more.set()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert {(200, b"item", MISS)} == {(reply.status, reply.body, reply.cache) for reply in replies}
    assert 0 == lab.sidecar.memory.entries
    await lab.settle()


@pytest.mark.parametrize("control", [b"no-store", b"private"])
async def test_waiters_with_the_same_credential(control, build_api, source, dial):
    """What is its caller's own reaches those who wait with the very same credential, and nobody else."""
    lab = await build_api(CacheRule(mode=CacheMode.ALWAYS, share=Share("service")))
    for headers in (ONE, TWO):
        await lab.ask(WARM, headers=headers)
    source.go.clear()
    source.extra = b"Cache-Control: %b\r\n" % control
    leader = await dial(lab, headers=ONE)
    await lab.until(lambda: source.count == 3)
    same, other = await dial(lab, headers=ONE), await dial(lab, headers=TWO)
    await lab.until(lambda: lab.waiting == 3)
    source.go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in (leader, same, other)))

    assert ["answer 3", "answer 3", "answer 4"] == [said(reply.body) for reply in replies]
    assert [MISS, COLLAPSED, MISS] == [reply.cache for reply in replies]
    assert 1 == lab.sidecar.memory.entries  # the warm one
    await lab.settle()


async def test_waiters_of_one_principal_share_it(build_api, source, dial):
    """Where the route doesn't share, an AI API's no-store changes nothing: one call for all, and it is kept."""
    lab = await build_api()
    source.go.clear()
    source.extra = b"Cache-Control: no-store\r\n"
    callers = [await dial(lab) for _ in range(3)]
    await lab.until(lambda: lab.waiting == 3)
    source.go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert [STORED, COLLAPSED, COLLAPSED] == [reply.cache for reply in replies]
    assert 1 == source.count


# ---- Vary ----


async def test_vary(build_api, source):
    """An answer is for requests like its own in what it names; a new one takes its place."""
    source.extra = b"Vary: X-Tone, Accept-Encoding\r\n"
    lab = await build_api()
    asked = ["", "", "dry", "dry", "", "dry"]
    found = [await get(lab, **({"x_tone": tone} if tone else {})) for tone in asked]

    assert [1, 1, 2, 2, 3, 4] == [int(text.split()[-1]) for text, _ in found]
    assert [False, True, False, True, False, False] == ["hit" in cache for _, cache in found]
    assert 1 == lab.sidecar.memory.entries


async def test_vary_on_what_all_lack(build_api, source):
    """What browsers alone send is absent in every call of an application, and absent is like absent."""
    source.extra = b"Vary: Origin, X-Origin, Referer\r\nAccess-Control-Allow-Origin: *\r\n"
    lab = await build_api()

    assert [False, True, True] == ["hit" in (await get(lab))[1] for _ in range(3)]


async def test_no_value_is_kept_in_clear(build_api, source):
    """What a request had in a varied field stands in no entry."""
    source.extra = b"Vary: Authorization, X-Tone\r\n"
    lab = await build_api()
    await get(lab, x_tone="very-secret", authorization="Bearer sk-very-secret")
    (((_, held),),) = lab.sidecar.memory.walk()

    assert [b"authorization", b"x-tone"] == [name for name, _ in held.entry.vary]
    assert b"secret" not in repr(held).encode()


async def test_vary_for_heads_that_are_familiar(build_api, source):
    """A head that is like earlier ones in all that decisions read may yet differ in what an answer varies by."""
    source.extra = b"Vary: X-Tone\r\n"
    lab = await build_api()
    tones = ["dry"] * 4 + ["warm"] * 4
    replies = [await lab.ask(headers={"x-tone": tone}) for tone in tones]

    assert ["answer 1"] * 4 + ["answer 2"] * 4 == [said(reply.body) for reply in replies]
    assert 2 == source.count


async def test_waiters_differ(build_api, source, dial):
    """Of those who wait, only requests like the leader's get its answer, also of those who come after its head."""
    source.go.clear()
    source.extra = b"Vary: X-Tone\r\n"
    lab = await build_api()
    leader = await dial(lab, headers={"x-tone": "dry"})
    await lab.until(lambda: source.count == 1)
    same, other, none = [await dial(lab, headers=tone) for tone in ({"x-tone": "dry"}, {"x-tone": "warm"}, {})]
    await lab.until(lambda: lab.waiting == 4)
    source.go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in (leader, same, other, none)))

    assert ["answer 1", "answer 1"] == [said(reply.body) for reply in replies[:2]]
    assert {"answer 2", "answer 3"} == {said(reply.body) for reply in replies[2:]}
    assert [STORED, COLLAPSED, STORED, STORED] == [reply.cache for reply in replies]
    await lab.settle()


async def test_who_joins_late_differs(build_lab, script, dial):
    """Once the head is known, only requests like the leader's join its answer."""
    more = asyncio.Event()

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nVary: X-Tone\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nitem\r\n")
        await more.wait()
        writer.write(b"0\r\n\r\n")

    upstream = await script(handler)
    services = (Service("api", DIALECTS["generic"], (Region("here", upstream.url),), path="/api", headers=TONELESS),)
    lab = await build_lab(upstream.url, services=services, routes=(Route("all", cache=ALWAYS),))
    leader = await dial(lab, b"x", path=ITEM, headers={"x-tone": "dry"})
    await lab.until(lambda: lab.held == len(b"x") + 4)
    same = await dial(lab, b"x", path=ITEM, headers={"x-tone": "dry"})
    other = await dial(lab, b"x", path=ITEM, headers={"x-tone": "warm"})
    await lab.until(lambda: lab.waiting == 3 and upstream.calls == 2)
    more.set()
    replies = await asyncio.gather(*(caller.reply() for caller in (leader, same, other)))

    assert [STORED, COLLAPSED, STORED] == [reply.cache for reply in replies]
    await lab.settle()


async def test_a_spare_one_varies_too(build_api, source):
    """Where the service fails, an old answer serves requests like its own only."""
    source.extra = b"Vary: X-Tone\r\n"
    lab = await build_api(CacheRule(mode=CacheMode.ALWAYS, ttl=60.0, stale_if_error=600.0))
    clock = WallClock([lab])
    await lab.ask(headers={"x-tone": "dry"})
    clock.later(70.0)
    source.status = "500 No"
    replies = [await lab.ask(headers={"x-tone": tone}) for tone in ("dry", "warm")]

    assert [200, 500] == [reply.status for reply in replies]


async def test_a_spare_one_is_not_for_all_who_wait(build_api, source, dial):
    """Where an old answer stands in for one that several wait for, those go on whose requests differ from its own."""
    source.extra = b"Vary: X-Tone\r\n"
    lab = await build_api(CacheRule(mode=CacheMode.ALWAYS, ttl=60.0, stale_if_error=600.0))
    clock = WallClock([lab])
    await (await dial(lab, headers={"x-tone": "dry"})).reply()
    clock.later(70.0)
    source.go.clear()
    source.status, source.extra = "500 No", b""
    callers = [await dial(lab, headers={"x-tone": "dry"})]
    await lab.until(lambda: source.count == 2)
    callers += [await dial(lab, headers={"x-tone": tone}) for tone in ("dry", "warm")]
    await lab.until(lambda: lab.waiting == 3)
    source.go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert [200, 200, 500] == [reply.status for reply in replies]
    assert 3 == source.count


async def test_a_refresh_varies_too(build_api, source):
    """An answer that varies is refreshed like any other: nobody waits for it who could differ."""
    source.extra = b"Vary: X-Tone\r\n"
    lab = await build_api(CacheRule(mode=CacheMode.ALWAYS, ttl=60.0, stale_while_revalidate=600.0))
    clock = WallClock([lab])
    await get(lab, x_tone="dry")
    clock.later(70.0)
    stale = await get(lab, x_tone="dry")
    await refreshed(lab)

    assert "answer 1" == stale[0]
    assert ("answer 2", "sidecar; hit; ttl=60; detail=memory") == await get(lab, x_tone="dry")
    assert 2 == source.count


# ---- the fleet ----


async def test_what_it_said_holds_in_every_pod(build_pods, source, redis_server):
    """Another pod serves it as long and no longer, with the age that the service said, and for the same requests."""
    source.extra = b"Cache-Control: max-age=600, must-revalidate\r\nAge: 100\r\nVary: X-Tone\r\n"
    one, two = await build_pods()
    await get(one, x_tone="dry")
    await written(redis_server)
    reply = await two.ask(b"", path=ITEM, method="GET", headers={"x-tone": "dry"})
    other = await get(two, x_tone="warm")

    assert reply.cache in {"sidecar; hit; ttl=500; detail=redis", "sidecar; hit; ttl=499; detail=redis"}
    assert int(reply.headers["age"]) in {100, 101}
    assert "answer 2" == other[0]
    assert not other[1].startswith("sidecar; hit")
    (((_, held),),) = two.sidecar.memory.walk()
    assert held.entry.strict
    assert 1 == two.sidecar.fleet.remote.leases.granted  # what doesn't fit does not suffice


@pytest.mark.parametrize("control", [b"no-store", b"no-cache"])
async def test_not_kept_for_the_fleet(control, build_pods, source, redis_server):
    """What isn't kept goes to no other pod, and the lease is given back."""
    source.extra = b"Cache-Control: %b\r\n" % control
    one, two = await build_pods()
    found = [await get(lab) for lab in (one, two, one)]
    await released(redis_server)

    assert ["answer 1", "answer 2", "answer 3"] == [text for text, _ in found]
    assert [] == [key for key in redis_server.call("KEYS", "*") if key.endswith(b":e")]


# ---- observing ----


@pytest.mark.parametrize(("extra", "seen"), [(b"", ["first", "different"]), (b"Cache-Control: no-store\r\n", ["", ""])])
async def test_observed(extra, seen, build_api, source):
    """A route that observes counts no hit that there would not have been."""
    source.extra = extra
    lab = await build_api(CacheRule(mode=CacheMode.OBSERVE))
    replies = [await lab.ask(b"", path=ITEM, method="GET") for _ in range(2)]

    assert ["sidecar; fwd=bypass; detail=observe"] * 2 == [reply.cache for reply in replies]
    assert seen == [record.observed for record in lab.records]
