"""A purge by a tag takes the answers that served calls with it, whoever asked for them first, and without a tag."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from sidecar.admin.actions import PurgeRequest
from sidecar.core.cache.held import MOST_NOTED
from sidecar.core.model import MOST_TAGS, Outcome
from sidecar.core.rules import CacheMode, CacheRule, Match, Route
from sidecar.fleet import tagged
from tests.scenarios.answers import said
from tests.scenarios.clocks import WallClock
from tests.scenarios.operating import Gate, all_say, purge, valid
from tests.scenarios.oracle import REVALIDATE, refreshed
from tests.scenarios.redis_contents import all_keys, noted, texts, written

INVOICE = PurgeRequest("tag", "invoice", b"", dry_run=False, fleet=True)
TAGGED = {"x-sidecar-tags": "invoice"}


# ---- one process ----


async def test_tag_of_a_hit(build_lab, oracle):
    """A dry run counts the answer, a purge takes it, also from those who never said the tag; another tag's doesn't."""
    lab = await build_lab(oracle.url)
    before = await texts(lab, {}, {"headers": TAGGED}, {"headers": {"x-sidecar-tags": "round, red"}})
    counts = [
        (await lab.sidecar.operations.purge(replace(INVOICE, value=tag, dry_run=True))).entries
        for tag in ("invoice", "red", "blue")
    ]
    await purge(lab, asked=replace(INVOICE, value="blue"))
    kept = await texts(lab, {})
    done = await purge(lab, asked=INVOICE)
    after = await texts(lab, {}, {"headers": TAGGED})

    assert (["answer 1"] * 3, [1, 1, 0], ["answer 1"]) == (before, counts, kept)
    assert (1, ["answer 2"] * 2) == (done.entries, after)


async def test_tag_of_another_route(build_lab, oracle):
    """A route's own tags come with its calls, too, where the answer was fetched by another route."""
    routes = (
        Route("team", Match(header={"x-team": "a"}), CacheRule(mode=CacheMode.DETERMINISTIC, tags=("invoice",))),
        Route("others", cache=CacheRule(mode=CacheMode.DETERMINISTIC)),
    )
    lab = await build_lab(oracle.url, routes=routes)
    before = await texts(lab, {}, {"headers": {"x-team": "a"}})
    await purge(lab, asked=INVOICE)

    assert (["answer 1"] * 2, ["answer 2"]) == (before, await texts(lab, {}))


async def test_tag_of_one_who_joined(build_lab, oracle):
    """Who waits for another's call brings his tags: they stand in the answer itself."""
    lab = await build_lab(oracle.url)
    oracle.oracle.go.clear()
    waiting = [asyncio.ensure_future(lab.ask(headers={"x-sidecar-tags": tag})) for tag in ("own", "invoice", "third")]
    await lab.until(lambda: lab.waiting == 3 and oracle.calls == 1)
    oracle.oracle.go.set()
    await asyncio.gather(*waiting)
    ((_, held),) = [pair for page in lab.sidecar.memory.walk() for pair in page]
    await purge(lab, asked=INVOICE)

    assert ({"own", "invoice", "third"}, ()) == (set(held.entry.tags), held.noted)
    assert ["answer 2"] == await texts(lab, {})


async def test_purge_of_one_who_joined(build_lab, oracle):
    """A purge by such a tag while the call is under way: those who wait get the answer, and nobody else."""
    lab = await build_lab(oracle.url)
    oracle.oracle.go.clear()
    waiting = [asyncio.ensure_future(lab.ask(headers=headers)) for headers in (None, TAGGED)]
    await lab.until(lambda: lab.waiting == 2 and oracle.calls == 1)
    await purge(lab, asked=INVOICE)
    oracle.oracle.go.set()
    replies = await asyncio.gather(*waiting)

    assert ["answer 1"] * 2 == [said(reply.body) for reply in replies]
    assert ["answer 2"] == await texts(lab, {})


@pytest.mark.parametrize("who", ["nobody", "the one who refreshes"])
async def test_refreshed(who, build_lab, oracle):
    """The tags of an answer, noted or its own, stay with the one that takes its place."""
    lab = await build_lab(oracle.url, cache=REVALIDATE)
    clock = WallClock([lab])
    await lab.ask(headers={"x-sidecar-tags": "first"})
    await lab.ask(headers=TAGGED)
    clock.later(70.0)
    await lab.ask(headers={"x-sidecar-tags": "third"} if who != "nobody" else None)
    await refreshed(lab)
    kept = await texts(lab, {})
    (key,) = all_keys(lab)
    tags = lab.sidecar.memory.tags(key)
    await purge(lab, asked=INVOICE)

    assert ["answer 2"] == kept
    assert {"first", "invoice"} <= set(tags) <= {"first", "invoice", "third"}
    assert ["answer 3"] == await texts(lab, {})


async def test_purged_while_it_is_refreshed(build_lab, oracle):
    """A purge by a noted tag takes the newer answer, too, that was asked for before it."""
    lab = await build_lab(oracle.url, cache=REVALIDATE)
    clock = WallClock([lab])
    await lab.ask()
    clock.later(70.0)
    oracle.oracle.go.clear()
    await lab.ask(headers={"x-sidecar-tags": "other"})
    await lab.until(lambda: oracle.calls == 2)
    stale = await texts(lab, {"headers": TAGGED})
    await purge(lab, asked=INVOICE)
    oracle.oracle.go.set()
    await refreshed(lab)

    assert ["answer 1"] == stale
    assert ["answer 3"] == await texts(lab, {})


async def test_more_tags_than_there_is_room_for(build_lab, oracle):
    """Beyond so many tags the answer is forgotten: no purge by any of them misses it."""
    lab = await build_lab(oracle.url)
    await lab.ask()
    calls = [{"headers": {"x-sidecar-tags": f"tag-{number}"}} for number in range(MOST_NOTED + 1)]
    before = await texts(lab, *calls)

    assert ({"answer 1"}, 0) == (set(before), lab.sidecar.memory.entries)
    assert ["answer 2"] * 2 == await texts(lab, {}, *calls[:1])


async def test_many_tags(build_lab, oracle):
    """A call may have 32 tags, and each purges its answer; one with more is not served from here, nor kept."""
    lab = await build_lab(oracle.url)
    most = {"x-sidecar-tags": ",".join(f"tag-{number}" for number in range(MOST_TAGS))}
    before = await texts(lab, {"headers": most}, {"headers": most})
    more = {"x-sidecar-tags": most["x-sidecar-tags"] + ",invoice"}
    beside = await texts(lab, {"headers": more}, {"headers": more})
    record = lab.records[-1]
    await purge(lab, asked=replace(INVOICE, value=f"tag-{MOST_TAGS - 1}"))

    assert (["answer 1"] * 2, ["answer 2", "answer 3"]) == (before, beside)
    assert (Outcome.BYPASS, "no-store") == (record.outcome, record.reason)
    assert 0 == lab.sidecar.memory.entries


# ---- a fleet ----


async def test_noted_by_one_that_has_gone(build_fleet, oracle, redis_server):
    """Who noted it has been started again, and has forgotten: Redis has not."""
    one, two = await build_fleet(oracle.url)
    await one.ask()
    await written(redis_server)
    await two.ask()
    await one.ask(headers=TAGGED)
    await one.sidecar.stop()  # which tells what waits
    (new,) = await build_fleet(oracle.url, 1)
    await new.ask()
    await purge(new, (new, two), INVOICE)

    assert 1 == oracle.calls
    assert {"answer 2"} == await all_say((new, two), redis_server)


async def test_noted_after_the_purge(build_fleet, oracle, redis_server):
    """A hit came before the purge and its note after it: the answer goes all the same."""
    labs = await build_fleet(oracle.url, 3)
    for lab in labs:
        await lab.ask()
        await written(redis_server)
    log = labs[0].sidecar.fleet.log
    gate = log._tagged.write = Gate(log._tagged.write)
    await labs[0].ask(headers=TAGGED)
    log.nudge()
    await labs[0].until(lambda: gate.reached == 1)
    await purge(labs[1], labs[1:], INVOICE)
    before = await texts(labs[1], {})
    gate.open.set()
    await labs[2].until(lambda: not any(lab.sidecar.memory.entries for lab in labs))

    assert ["answer 1"] == before
    assert {"answer 2"} == await all_say(labs, redis_server)


async def test_noted_while_redis_is_away(build_fleet, oracle, redis_server):
    """It holds here at once; the others are told when Redis answers again."""
    labs = await build_fleet(oracle.url, 2)
    for lab in labs:
        await lab.ask()
        await written(redis_server)
    redis_server.pause()
    await labs[0].ask(headers=TAGGED)
    waiting = len(labs[0].sidecar.fleet.log._tagged)
    redis_server.resume()
    await noted(labs[0], redis_server)
    await purge(labs[1], labs, INVOICE)

    assert 1 == waiting
    assert {"answer 2"} == await all_say(labs, redis_server)


async def test_redis_has_forgotten(build_fleet, oracle, redis_server):
    """A note that was evicted, or lost with its server, is brought again."""
    labs = await build_fleet(oracle.url, 2)
    for lab in labs:
        await lab.ask()
        await written(redis_server)
    await labs[0].ask(headers=TAGGED)
    await noted(labs[0], redis_server)
    redis_server.call("DEL", *redis_server.call("KEYS", "*{log}:t:*"))
    labs[0].sidecar.fleet.log._noted_at -= tagged.AGAIN_SECONDS
    await noted(labs[0], redis_server)
    await purge(labs[1], labs, INVOICE)

    assert {"answer 2"} == await all_say(labs, redis_server)


@pytest.mark.parametrize("asked", [0, 1], ids=["from memory", "from redis"])
async def test_no_room_for_a_note(asked, build_fleet, oracle, redis_server, monkeypatch):
    """What cannot be noted does not serve the call: it is asked for anew, and the answer carries the tag itself."""
    monkeypatch.setattr(tagged, "MOST_WAITING", 0)
    labs = await build_fleet(oracle.url, 2)
    await labs[0].ask()
    await written(redis_server)
    found = await texts(labs[asked], {"headers": TAGGED}, {})
    await labs[0].until(lambda: ["answer 2"] == valid(labs[0], redis_server))
    await purge(labs[0], labs, INVOICE)

    assert ["answer 2"] * 2 == found
    assert [Outcome.MISS, Outcome.HIT_MEMORY] == [record.outcome for record in labs[asked].records][-2:]
    assert [] == valid(labs[0], redis_server)
    assert ["answer 3"] == await texts(labs[asked], {})
