"""What has been purged is gone everywhere, whatever was on its way when that happened."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from sidecar.core.rules import CacheMode, CacheRule, Match, Region, Route, Service
from sidecar.dialects import DIALECTS
from tests.redis_servers import RedisServer
from tests.scenarios.answers import said
from tests.scenarios.clocks import WallClock
from tests.scenarios.conftest import CHAT, TOKEN, Lab
from tests.scenarios.operating import RAW, Gate, act, all_say, purge, valid
from tests.scenarios.redis_contents import released, written

RULE = CacheRule(mode=CacheMode.DETERMINISTIC)
OTHER_PATH = "/other/v1/chat/completions"
TAGGED = {"x-sidecar-tags": "red, round"}
OTHERS = {"authorization": "Bearer of another", "x-sidecar-tags": "blue"}


async def marked(lab: Lab, server: RedisServer, count: int) -> list[bytes]:
    """Wait until *count* failed fetches have left their marks, and have these stay: who asks now has no lease."""
    await lab.until(lambda: [b"-"] * count == [server.call("GET", name) for name in server.call("KEYS", "*:l")])
    names: list[bytes] = server.call("KEYS", "*:l")
    for name in names:
        server.call("PEXPIRE", name, 50_000)
    return names


# ---- what a purge takes ----


@pytest.mark.parametrize("scope", ["all", "service", "route", "tag", "key", "partition", "request", "request-id"])
async def test_scopes(scope, build_fleet, oracle, token_file, redis_server):
    """Each takes what it names in all sidecars, and nothing else; a dry run before it counts that and no more."""
    region = (Region("here", oracle.url),)
    services = (
        Service("openai", DIALECTS["openai"], region, path="/openai"),
        Service("other", DIALECTS["openai"], region, path="/other"),
    )
    routes = (Route("first", Match(service="openai"), RULE), Route("second", Match(service="other"), RULE))
    labs = await build_fleet(oracle.url, 3, services=services, routes=routes, admin_token_file=token_file)
    for lab in labs:
        reply = await lab.ask(headers=TAGGED)
        other = await lab.ask(path=OTHER_PATH, headers=OTHERS)
        await released(redis_server)
    ((key, entry),) = [
        (key, held.entry)
        for page in labs[-1].sidecar.memory.walk()
        for key, held in page
        if held.entry.service == "openai"
    ]
    value = {
        "all": "", "service": "openai", "route": "first", "tag": "round", "key": key.address.hex(),
        "partition": entry.partition.hex(), "request": base64.b64encode(RAW).decode(),
        "request-id": reply.headers["x-sidecar-request-id"],
    }[scope]  # fmt: skip
    calls = oracle.calls
    dry = await act(labs[-1], "purge", {"scope": scope, "value": value, "dry_run": True})
    untouched = [await lab.ask(headers=TAGGED) for lab in labs]
    done = await act(labs[-1], "purge", {"scope": scope, "value": value})
    for lab in labs:
        await lab.until(lambda lab=lab: lab.sidecar.operations.purged == 1)
    new = []
    for lab in labs:
        new += [await lab.ask(headers=TAGGED), await lab.ask(path=OTHER_PATH, headers=OTHERS)]
        await released(redis_server)
    count = 2 if scope == "all" else 1

    assert 2 == calls
    assert (200, {"entries": count, "position": "", "fleet": "local"}) == dry
    assert {"answer 1"} == {said(reply.body) for reply in untouched}
    assert (200, count, "done") == (done[0], done[1]["entries"], done[1]["fleet"])
    assert done[1]["position"].endswith(":1")
    assert {"answer 3"} == {said(reply.body) for reply in new[::2]}
    assert {"answer 4" if scope == "all" else said(other.body)} == {said(reply.body) for reply in new[1::2]}
    assert 2 + count == oracle.calls
    lines = [json.loads(line) for line in labs[-1].logs if b'"admin-purge"' in line]
    assert [(True, "done"), (False, "done")] == [(line["dry_run"], line["result"]) for line in lines]
    assert all(TOKEN.encode() not in line for line in labs[-1].logs)


async def test_flushed(build_fleet, oracle, redis_server):
    """Who empties Redis empties every memory, too."""
    labs = await build_fleet(oracle.url, 3)
    for lab in labs:
        await lab.ask()
        await released(redis_server)
    redis_server.call("FLUSHALL")
    for lab in labs:
        await lab.until(lambda lab=lab: not lab.sidecar.memory.entries)

    assert {"answer 2"} == await all_say(labs, redis_server)
    assert [["answer 2"]] * 3 == [valid(lab, redis_server) for lab in labs]
    assert 2 == oracle.calls


async def test_a_new_redis(build_fleet, oracle):
    """An empty server in the place of another takes nothing from memory, and is used from then on."""
    with RedisServer() as server:
        labs = await build_fleet(oracle.url, 2, redis={"url": server.url})
        for lab in labs:
            await lab.ask()
            await released(server)
        server.restart()
        for lab in labs:
            await lab.until(lambda lab=lab: any(b'"purge-log-lost"' in line for line in lab.logs))
        replies = [await lab.ask() for lab in labs]
        await labs[0].ask({**CHAT, "seed": 1})
        await written(server)
        other = await labs[1].ask({**CHAT, "seed": 1})

    assert ["detail=memory"] * 2 == [reply.cache.rpartition("; ")[2] for reply in replies]
    assert "detail=redis" == other.cache.rpartition("; ")[2]


async def test_redis_away(build_fleet, oracle, redis_server):
    """While Redis is away a purge holds here; when it is back, everywhere."""
    one, two = await build_fleet(oracle.url, redis={"timeout": 0.05})
    for lab in (one, two):
        await lab.ask()
        await released(redis_server)
    redis_server.pause()
    done = await purge(one)
    here, there = await one.ask(), await two.ask()
    redis_server.resume()
    await two.until(lambda: two.sidecar.operations.purged > 0)
    after = [await lab.ask() for lab in (one, two)]

    assert ("pending", 1) == (done.fleet, done.entries)
    assert ("answer 2", "answer 1") == (said(here.body), said(there.body))
    assert "answer 1" not in {said(reply.body) for reply in after}
    await one.until(lambda: one.sidecar.fleet.link.up and two.sidecar.fleet.link.up)
    assert "answer 1" not in await all_say((one, two), redis_server)


async def test_stopped_before_redis_returns(build_fleet, oracle, redis_server):
    """A purge that waits for Redis is written by a process that ends, if Redis is back by then."""
    one, two = await build_fleet(oracle.url, redis={"timeout": 0.05})
    await one.ask()
    await released(redis_server)
    await two.ask()
    redis_server.pause()
    assert "pending" == (await purge(one)).fleet
    redis_server.resume()
    await one.sidecar.stop()
    await two.until(lambda: two.sidecar.operations.purged > 0)

    assert "answer 2" == said((await two.ask()).body)


# ---- what a purge meets on its way ----


async def test_while_memory_is_read(build_fleet, oracle, redis_server):
    """Under load nobody who asks after the purge gets what was there before it."""
    labs = await build_fleet(oracle.url)
    for lab in labs:
        await lab.ask()
        await released(redis_server)
    purged = asyncio.Event()
    late: list[str] = []

    async def go_on(lab: Lab) -> None:
        for _ in range(30):
            settled = purged.is_set()
            text = said((await lab.ask()).body)
            if settled:
                late.append(text)

    asking = [asyncio.ensure_future(go_on(lab)) for lab in labs for _ in range(4)]
    await labs[0].until(lambda: len(labs[1].records) > 10)
    await purge(labs[0], labs)
    purged.set()
    await asyncio.gather(*asking)
    late += [said((await lab.ask()).body) for lab in labs]

    assert late
    assert "answer 1" not in late
    assert "answer 1" not in await all_say(labs, redis_server)


async def test_while_redis_is_read(build_fleet, oracle, redis_server):
    """An entry that has been read, but is not in memory yet, does not get there."""
    one, two = await build_fleet(oracle.url)
    await one.ask()
    await written(redis_server)
    await released(redis_server)
    remote = two.sidecar.fleet.remote
    gate = remote.open = Gate(remote.open, after=True)
    asking = asyncio.ensure_future(two.ask())
    await two.until(lambda: gate.reached == 1)
    await purge(one, (one, two))
    gate.open.set()
    reply = await asking

    assert "answer 2" == said(reply.body)
    assert "answer 1" not in await all_say((one, two), redis_server)


async def test_while_a_refresh_flies(build_fleet, oracle, redis_server):
    """Neither what it would renew nor what it would bring is kept, and it is given up."""
    rule = CacheRule(mode=CacheMode.DETERMINISTIC, ttl=60.0, stale_while_revalidate=600.0)
    labs = await build_fleet(oracle.url, cache=rule)
    clock = WallClock(labs)
    for lab in labs:
        await lab.ask()
        await released(redis_server)
    clock.later(70.0)
    oracle.oracle.go.clear()
    stale = await labs[0].ask()
    await labs[0].until(lambda: oracle.calls == 2)
    await purge(labs[1], labs)
    await labs[0].until(lambda: oracle.deserted == 1)
    oracle.oracle.go.set()

    assert "answer 1" == said(stale.body)
    assert {"answer 3"} == await all_say(labs, redis_server)
    assert 3 == oracle.calls


@pytest.mark.parametrize("by", [0, 1], ids=["by the writer", "by another"])
async def test_while_a_lease_is_handed_in(by, build_fleet, oracle, redis_server):
    """The holder's write comes after the purge: it may still stand in Redis, but nobody takes it."""
    labs = await build_fleet(oracle.url)
    leases = labs[0].sidecar.fleet.remote.leases
    gate = leases.keep = Gate(leases.keep)
    first = await labs[0].ask()
    await labs[0].until(lambda: gate.reached == 1)
    await purge(labs[by], labs)
    gate.open.set()
    await released(redis_server)

    assert "answer 1" == said(first.body)
    assert (1, []) == (len(redis_server.call("KEYS", "*:e")), valid(labs[1], redis_server))
    assert {"answer 2"} == await all_say(labs, redis_server)


@pytest.mark.parametrize("by", [0, 1], ids=["by the writer", "by another"])
async def test_while_a_write_waits(by, build_fleet, oracle, redis_server):
    """So does a write behind that has begun; one that still waits for its turn is let go at once."""
    labs = await build_fleet(oracle.url)
    oracle.oracle.way = "500"
    bodies = [CHAT, {**CHAT, "seed": 7}]
    for body in bodies:
        await labs[0].ask(body)
    marks = await marked(labs[0], redis_server, 2)
    oracle.oracle.way = ""
    remote = labs[0].sidecar.fleet.remote
    link = labs[0].sidecar.fleet.link
    gate = link.run = Gate(link.run, only=lambda *_, op="", **__: op == "set")
    replies = [await labs[0].ask(body) for body in bodies]
    await labs[0].until(lambda: gate.reached == 1)
    await purge(labs[by], labs)
    await labs[0].until(lambda: not remote.behind.depth)
    gate.open.set()
    await labs[0].until(remote.behind._draining.done)
    written, found = remote.behind.written, [valid(lab, redis_server) for lab in labs]
    redis_server.call("DEL", *marks)
    texts = await all_say(labs, redis_server)

    assert (1, [[], []]) == (written, found)
    assert not texts & {said(reply.body) for reply in replies}


async def test_while_a_flight_has_readers(build_lab, oracle):
    """Those who wait get the answer; it is kept nowhere, and who comes later does not join, but asks anew at once."""
    lab = await build_lab(oracle.url)
    oracle.oracle.go.clear()
    waiting = [asyncio.ensure_future(lab.ask()) for _ in range(3)]
    await lab.until(lambda: lab.waiting == 3 and oracle.calls == 1)
    await purge(lab)
    later = asyncio.ensure_future(lab.ask())
    await lab.until(lambda: oracle.calls == 2)
    oracle.oracle.go.set()
    replies = await asyncio.gather(*waiting)

    assert ["answer 1"] * 3 == [said(reply.body) for reply in replies]
    assert ["answer 2"] * 2 == [said((await later).body), said((await lab.ask()).body)]
    assert [("collapsed", False)] * 2 + [("hit_memory", False), ("miss", False), ("miss", True)] == sorted(
        (record.outcome, record.stored) for record in lab.records
    )


@pytest.mark.parametrize("by", [0, 1], ids=["here", "by another"])
async def test_while_a_flight_holds_the_lease(by, build_fleet, oracle, redis_server):
    """In a fleet as well, also for those who wait in other sidecars."""
    labs = await build_fleet(oracle.url, 3)
    oracle.oracle.go.clear()
    waiting = [asyncio.ensure_future(labs[0].ask()) for _ in range(3)]
    await labs[0].until(lambda: labs[0].waiting == 3 and oracle.calls == 1)
    elsewhere = [asyncio.ensure_future(lab.ask()) for lab in labs[1:]]
    await labs[0].until(lambda: all(lab.sidecar.fleet.remote.waits for lab in labs[1:]))
    await purge(labs[by], labs)
    later = asyncio.ensure_future(labs[0].ask())
    await labs[0].until(lambda: oracle.calls >= 2)  # nobody waits for the lease of the old call
    oracle.oracle.go.set()
    replies = await asyncio.gather(*waiting)
    others = await asyncio.gather(*elsewhere, later)

    assert ["answer 1"] * 3 == [said(reply.body) for reply in replies]
    assert "answer 1" not in {said(reply.body) for reply in others}
    assert "answer 1" not in await all_say(labs, redis_server)


@pytest.mark.parametrize("asked", [0, 1], ids=["from memory", "from redis"])
async def test_while_a_spare_is_needed(asked, build_fleet, oracle, redis_server):
    """An old answer that was purged while a call failed does not take the place of the error."""
    labs = await build_fleet(oracle.url, cache=CacheRule(mode=CacheMode.DETERMINISTIC, ttl=60.0, stale_if_error=600.0))
    clock = WallClock(labs)
    await labs[0].ask()
    await written(redis_server)
    await released(redis_server)
    clock.later(70.0)
    oracle.oracle.way = "500"
    oracle.oracle.go.clear()
    asking = asyncio.ensure_future(labs[asked].ask())
    await labs[0].until(lambda: oracle.calls == 2)
    await purge(labs[0], labs)
    oracle.oracle.go.set()
    replies = [await asking, *[await lab.ask() for lab in labs]]

    assert [500] * 3 == [reply.status for reply in replies]
    assert [] == valid(labs[0], redis_server)
