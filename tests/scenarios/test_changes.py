"""A call that changes something at a service takes what is kept of it: the caller reads what it wrote."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.rules import CacheMode, CacheRule, Match, Mode, Route, Share, StoredCredential
from tests.scenarios.conftest import CHAT
from tests.scenarios.redis_contents import written
from tests.scenarios.sources import ALWAYS, ITEM, STORED, get

HIT = "sidecar; hit"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "LOCK"])
@pytest.mark.parametrize("status", ["200 OK", "201 Created", "303 See Other"])
async def test_reads_what_it_wrote(status, method, build_api, source):
    """After a call that has succeeded, the next look asks the service, and what it says is kept anew."""
    lab = await build_api()
    before = [await get(lab) for _ in range(2)]
    source.status = status
    changed = await lab.ask(b"{}", path=ITEM, method=method, headers={"content-type": "text/plain"})
    source.status = "200 OK"
    after = [await get(lab) for _ in range(2)]

    assert ["answer 1", "answer 1"] == [text for text, _ in before]
    assert ["answer 3", "answer 3"] == [text for text, _ in after]
    assert [STORED, True] == [after[0][1], after[1][1].startswith(HIT)]
    assert "sidecar; fwd=bypass; detail=unknown-endpoint" == changed.cache


@pytest.mark.parametrize(
    ("method", "status"),
    [("PUT", "400 No"), ("PUT", "404 No"), ("PUT", "500 No"), ("OPTIONS", "200 OK"), ("PROPFIND", "207 OK")],
)
async def test_changed_nothing(method, status, build_api, source):
    """A call that failed, or that only reads, takes nothing."""
    lab = await build_api()
    await get(lab)
    source.status = status
    await lab.ask(b"", path=ITEM, method=method)

    assert (await get(lab))[1].startswith(HIT)
    await lab.settle()


@pytest.mark.parametrize(
    ("mode", "headers", "taken"),
    [
        (CacheMode.DETERMINISTIC, {}, True),
        (CacheMode.OBSERVE, {}, True),
        (CacheMode.OFF, {}, True),
        (CacheMode.ALWAYS, {"cache-control": "no-store"}, True),
        (CacheMode.ALWAYS, {}, False),
        (CacheMode.ALWAYS, {"cache-control": "no-cache"}, False),
    ],
)
async def test_a_post_that_is_not_looked_up(mode, headers, taken, build_api, source):
    """A POST may change something, unless its route says that it is a question."""
    posts = Route("posts", Match(header={"x-post": "*"}), CacheRule(mode=mode))
    lab = await build_api(ALWAYS, posts)
    await get(lab)
    await lab.ask(b"x", path=ITEM, headers={"x-post": "1", **headers})

    assert taken != (await get(lab))[1].startswith(HIT)


@pytest.mark.parametrize(
    ("path", "headers", "taken"),
    [
        (ITEM, {}, True),
        (ITEM + "?", {}, True),
        (ITEM + "?key=secret", {}, False),
        (ITEM + "?a=1", {}, False),
        ("/api/items/2", {}, False),
        (ITEM, {"authorization": "Bearer sk-other"}, False),
        (ITEM, {"accept": "text/csv", "accept-language": "de"}, True),
    ],
)
async def test_of_its_target_and_its_caller(path, headers, taken, build_api, source):
    """It takes all forms of its target, but no other target, and nothing of another caller."""
    lab = await build_api()
    await get(lab)
    await get(lab, accept="application/json")
    await lab.ask(b"{}", path=path, method="PUT", headers=headers)
    found = [await get(lab), await get(lab, accept="application/json")]

    assert [not taken] * 2 == [cache.startswith(HIT) for _, cache in found]


async def test_in_every_partition_of_its_caller(build_api, source, tmp_path):
    """By whatever route it may have read before, and however that shares."""
    key = tmp_path / "key"
    key.write_text("sk-region")
    rule = CacheRule(mode=CacheMode.ALWAYS, share=Share("service"))
    lab = await build_api(
        ALWAYS,
        Route("shared", Match(header={"x-shared": "*"}), rule),
        credential=StoredCredential("authorization", str(key), "Bearer "),
        environ={"SIDECAR_POD_NAMESPACE": "team", "SIDECAR_SERVICE_ACCOUNT": "app"},
    )
    ways = ({}, {"x_shared": "1"})
    before = [await get(lab, **way) for way in (*ways, *ways)]
    await lab.ask(b"{}", path=ITEM, method="PUT")
    after = [await get(lab, **way) for way in ways]

    assert [False, False, True, True] == [cache.startswith(HIT) for _, cache in before]
    assert [STORED, STORED] == [cache for _, cache in after]


@pytest.mark.parametrize("mode", [Mode.CACHE_OFF, Mode.PASSTHROUGH])
async def test_in_every_mode(mode, build_api, source):
    """Entries outlast a mode that looks nothing up, so what is changed meanwhile is taken meanwhile."""
    lab = await build_api()
    await get(lab)
    lab.sidecar.proxy.switch(mode)
    await lab.ask(b"{}", path=ITEM, method="PUT")
    lab.sidecar.proxy.switch(Mode.NORMAL)

    assert STORED == (await get(lab))[1]


async def test_what_is_under_way(build_api, source, dial):
    """A reading that began before the change is for who waits for it, and is neither joined any more nor kept."""
    lab = await build_api()
    source.go.clear()
    early = await dial(lab, b"question", path=ITEM)
    await lab.until(lambda: source.count == 1)
    await lab.ask(b"{}", path=ITEM, method="PUT")
    late = await dial(lab, b"question", path=ITEM)
    await lab.until(lambda: source.count == 3)
    source.go.set()
    replies = [await caller.reply() for caller in (early, late)]
    replies.append(await (await dial(lab, b"question", path=ITEM)).reply())

    assert [b"1", b"3", b"3"] == [reply.body[-3:-2] for reply in replies]
    assert ["superseded", "", ""] == [record.reason for record in lab.records if record.method == b"POST"]
    assert replies[2].cache.startswith(HIT)


async def test_other_apis_change_nothing(build_api, source):
    """Where a service's methods mean something else, no call takes anything."""
    lab = await build_api()
    await lab.ask(CHAT)
    await lab.ask(b"{}", path="/openai/v1/chat/completions", method="DELETE")

    assert (await lab.ask(CHAT)).cache.startswith(HIT)


async def test_the_fleet(build_pods, source, redis_server):
    """
    The pod that wrote reads anew, not from Redis either, where the old answer is deleted. Another one that has it in
    memory goes on with it until its time is over.
    """
    one, two = await build_pods()
    await get(one)
    await written(redis_server)
    await get(two)
    await one.ask(b"{}", path=ITEM, method="PUT")
    after = await get(one)

    assert ("answer 3", False) == (after[0], after[1].startswith(HIT))
    assert ("answer 1", "memory") == ((found := await get(two))[0], found[1].rpartition("=")[2])


async def test_deleted_for_the_fleet(build_pods, source, redis_server):
    """A pod that doesn't have the old answer in memory doesn't get it from Redis any more."""
    one, two = await build_pods()
    await get(one)
    await written(redis_server)
    await one.ask(b"{}", path=ITEM, method="PUT")
    async with asyncio.timeout(5):
        while [key for key in redis_server.call("KEYS", "*") if key.endswith(b":e")]:  # noqa: ASYNC110  a server that others write to
            await asyncio.sleep(0.005)

    assert "answer 3" == (await get(two))[0]


async def test_the_fleet_where_memory_forgot(build_pods, source, redis_server):
    """What this pod has let go of may still be in Redis: it is not served here after the change."""
    one, _ = await build_pods()
    await get(one)
    await written(redis_server)
    one.sidecar.memory.clear()
    await one.ask(b"{}", path=ITEM, method="PUT")
    after = await get(one)

    assert ("answer 3", False) == (after[0], after[1].startswith(HIT))
