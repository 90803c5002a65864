"""An old answer serves at once while a new one is fetched, and where a new one cannot be had."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest

from sidecar.core.model import Outcome
from sidecar.core.rules import CacheMode, CacheRule, Limits, Timeouts
from tests.scenarios.answers import completion, said, whole
from tests.scenarios.clocks import RunningClock, WallClock
from tests.scenarios.conftest import CHAT, Lab, Reply
from tests.scenarios.oracle import ERROR, IF_ERROR, REVALIDATE, refreshed
from tests.scenarios.redis_contents import released, written

STREAM = {**CHAT, "stream": True}
FORMS = pytest.mark.parametrize("body", [CHAT, STREAM], ids=["plain", "streamed"])
STALE = "sidecar; hit; ttl=-10; detail=stale"
SPARE = "sidecar; hit; ttl=-10; detail=stale-if-error"


def texts(replies: Sequence[Reply]) -> list[str]:
    return [said(reply.body) for reply in replies]


def outcomes(lab: Lab) -> list[Outcome]:
    return [record.outcome for record in lab.records]


# ---- stale while revalidate ----


@FORMS
async def test_stale_at_once(body, build_lab, oracle):
    """A stale answer is given while the new one has not even begun; after that the new one is."""
    lab = await build_lab(oracle.url, cache=REVALIDATE)
    clock = WallClock([lab])
    await lab.ask(body)
    clock.later(70.0)
    oracle.oracle.go.clear()
    stale = [await lab.ask(body) for _ in range(3)]
    await lab.until(lambda: oracle.calls == 2)
    oracle.oracle.go.set()
    await refreshed(lab)
    fresh = await lab.ask(body)

    assert [STALE] * 3 == [reply.cache for reply in stale]
    assert ["answer 1"] * 3 == texts(stale)
    assert {"70"} == {reply.headers["age"] for reply in stale}
    assert ("answer 2", "sidecar; hit; ttl=60; detail=memory") == (said(fresh.body), fresh.cache)
    assert 2 == oracle.calls
    assert [Outcome.MISS, *[Outcome.STALE] * 3, Outcome.REFRESH, Outcome.HIT_MEMORY] == outcomes(lab)


async def test_refresh_is_no_request(build_lab, oracle):
    """The metrics count it beside the requests; its record tells that it was stored and what it used."""
    lab = await build_lab(oracle.url, cache=REVALIDATE)
    clock = WallClock([lab])
    await lab.ask()
    clock.later(70.0)
    await lab.ask()
    await refreshed(lab)
    record = lab.records[-1]
    told = [line for line in lab.sidecar.metrics.exposition().splitlines() if line.startswith(b"sidecar_re")]

    assert (Outcome.REFRESH, True, 200, 1, "") == (
        record.outcome, record.stored, record.status, record.attempts, record.cause,
    )  # fmt: skip
    assert 5 == record.usage.total
    assert 2.0 == sum(float(line.split()[-1]) for line in told if line.startswith(b"sidecar_requests_total{"))
    assert [b'sidecar_refreshes_total{result="stored"} 1'] == [
        line.removesuffix(b".0") for line in told if line.startswith(b"sidecar_refreshes_total{")
    ]


async def test_one_refresh_in_the_fleet(build_fleet, oracle, redis_server):
    """Four sidecars that all have it stale refresh it once, and all have the new one then."""
    labs = await build_fleet(oracle.url, 4, cache=REVALIDATE)
    clock = WallClock(labs)
    await labs[0].ask()
    await written(redis_server)
    for lab in labs[1:]:
        await lab.ask()
    clock.later(70.0)
    oracle.oracle.go.clear()
    stale = await asyncio.gather(*[lab.ask() for lab in labs for _ in range(5)])
    await labs[0].until(lambda: oracle.calls > 1)
    await labs[0].until(lambda: sum(bool(lab.sidecar.proxy.refreshes) for lab in labs) == 1)
    stale += [await lab.ask() for lab in labs]
    await labs[0].until(lambda: sum(bool(lab.sidecar.proxy.refreshes) for lab in labs) == 1)
    oracle.oracle.go.set()
    for lab in labs:
        await refreshed(lab)
    await released(redis_server)
    for lab in labs:
        await lab.ask()
        await refreshed(lab)
    fresh = [await lab.ask() for lab in labs]

    assert {("answer 1", "detail=stale")} == {(said(reply.body), reply.cache.rpartition("; ")[2]) for reply in stale}
    assert ["answer 2"] * 4 == texts(fresh)
    assert {"detail=memory"} == {reply.cache.rpartition("; ")[2] for reply in fresh}
    assert 2 == oracle.calls
    assert 1 == [outcome for lab in labs for outcome in outcomes(lab)].count(Outcome.REFRESH)


@FORMS
async def test_stale_from_redis(body, build_fleet, oracle, redis_server):
    """A sidecar without it in memory serves the fleet's stale answer at once, too, and refreshes it."""
    one, two = await build_fleet(oracle.url, cache=REVALIDATE)
    clock = WallClock([one, two])
    await one.ask(CHAT)
    await written(redis_server)
    clock.later(70.0)
    oracle.oracle.go.clear()
    stale = await asyncio.gather(*[two.ask(body) for _ in range(5)])
    await two.until(lambda: oracle.calls == 2)
    oracle.oracle.go.set()
    await refreshed(two)
    await released(redis_server)
    fresh = await two.ask(body)

    assert ["answer 1"] * 5 == texts(stale)
    assert {"detail=stale"} == {reply.cache.rpartition("; ")[2] for reply in stale}
    assert "answer 2" == said(fresh.body)
    assert 2 == oracle.calls
    assert {Outcome.STALE, Outcome.REFRESH, Outcome.HIT_MEMORY} == set(outcomes(two))


@pytest.mark.parametrize(("draw", "calls"), [(1.0, 1), (1e-300, 2)], ids=["not drawn", "drawn"])
async def test_early(draw, calls, build_lab, oracle):
    """Shortly before its end a fresh answer is refreshed, if so drawn, and serves as the fresh one that it is."""
    lab = await build_lab(oracle.url, cache=REVALIDATE)
    clock = WallClock([lab])
    await lab.ask()
    clock.later(60.0 - 1e-3)
    lab.sidecar.proxy._draw = lambda: draw
    reply = await lab.ask()
    await refreshed(lab)

    assert ("answer 1", "sidecar; hit; ttl=0; detail=memory") == (said(reply.body), reply.cache)
    assert calls == oracle.calls
    assert [Outcome.MISS, Outcome.HIT_MEMORY, *[Outcome.REFRESH] * (calls - 1)] == outcomes(lab)


async def test_early_is_drawn_once(build_lab, oracle):
    """A request that is recalled draws no second time when it turns out that it is to refresh."""
    lab = await build_lab(oracle.url, cache=REVALIDATE)
    clock = WallClock([lab])
    await lab.ask()
    await lab.ask()
    clock.later(60.0 - 1e-3)
    draws = iter([1e-300])
    lab.sidecar.proxy._draw = lambda: next(draws, 1.0)
    await lab.ask()
    await refreshed(lab)

    assert 2 == oracle.calls


FAILURES = ["401", "429", "500", "broken", "silent", "unfinished"]


@pytest.mark.parametrize("way", FAILURES)
async def test_failed_refresh(way, build_fleet, oracle, redis_server):
    """It replaces nothing, here or in Redis, and its callers do not notice; a later one makes good."""
    impatient = Timeouts(first_byte=0.3)
    one, two = await build_fleet(oracle.url, cache=REVALIDATE, timeouts=impatient)
    clock, pauses = WallClock([one, two]), [RunningClock(lab) for lab in (one, two)]
    await one.ask()
    await written(redis_server)
    clock.later(70.0)
    oracle.oracle.way = way
    stale = [await one.ask()]
    await refreshed(one)
    await released(redis_server)
    for pause in pauses:
        pause.later(1.0)
    oracle.oracle.go.clear()
    stale += [await one.ask(), await two.ask()]
    oracle.oracle.way = ""
    oracle.oracle.go.set()
    await refreshed(one)
    await refreshed(two)
    await released(redis_server)
    for lab in (one, two):
        await lab.ask()
        await refreshed(lab)
    fresh = [await one.ask(), await two.ask()]
    failed = next(record for record in one.records if record.outcome is Outcome.REFRESH)

    assert [("answer 1", 200)] * 3 == [(said(reply.body), reply.status) for reply in stale]
    assert {"detail=stale"} == {reply.cache.rpartition("; ")[2] for reply in stale}
    assert not failed.stored
    assert "answer 1" not in texts(fresh)
    assert {"detail=memory"} == {reply.cache.rpartition("; ")[2] for reply in fresh}


async def test_failed_refresh_refused(build_lab, oracle):
    """Nor where nobody listens any more, however often it is tried."""
    lab = await build_lab(oracle.url, cache=REVALIDATE)
    clock = WallClock([lab])
    await lab.ask()
    clock.later(70.0)
    await fail(oracle, "refused")
    stale = []
    for _ in range(3):
        stale.append(await lab.ask())
        await refreshed(lab)

    assert [STALE] * 3 == [reply.cache for reply in stale]
    assert {False} == {record.stored for record in lab.records if record.outcome is Outcome.REFRESH}


@pytest.mark.parametrize(
    "headers",
    [{"cache-control": "no-cache"}, {"cache-control": "max-age=600"}, {"x-sidecar-ttl": "30m"}],
    ids=["no-cache", "max-age", "ttl"],
)
async def test_not_for_all(headers, build_fleet, oracle, redis_server):
    """Who wants a new answer, or says how old it may be, gets no stale one, from memory or from Redis."""
    labs = await build_fleet(oracle.url, cache=REVALIDATE)
    clock = WallClock(labs)
    await labs[0].ask()
    await written(redis_server)
    clock.later(70.0)
    for number, lab in enumerate(reversed(labs), 2):
        reply = await lab.ask(headers=headers)
        await lab.settle()
        await released(redis_server)
        clock.later(70.0)

        assert f"answer {number}" == said(reply.body)
        assert "fwd=miss" in reply.cache

    assert Outcome.STALE not in outcomes(labs[0]) + outcomes(labs[1])


async def test_refreshes_are_bounded(build_lab, oracle):
    """However many answers are stale at once, so many are refreshed at a time; the others serve as they are."""
    lab = await build_lab(oracle.url, cache=REVALIDATE)
    clock = WallClock([lab])
    bodies = [{**CHAT, "max_tokens": number} for number in range(1, 71)]
    for body in bodies:
        await lab.ask(body)
    clock.later(70.0)
    oracle.oracle.go.clear()
    stale = [await lab.ask(body) for body in bodies]
    await lab.until(lambda: oracle.calls == 70 + 64)
    refreshing = len(lab.sidecar.proxy.refreshes)
    oracle.oracle.go.set()
    await refreshed(lab)

    assert {STALE} == {reply.cache for reply in stale}
    assert (64, 70 + 64) == (refreshing, oracle.calls)


async def test_caller_left(build_lab, oracle, dial):
    """A refresh goes on whose caller is gone."""
    lab = await build_lab(oracle.url, cache=REVALIDATE)
    clock = WallClock([lab])
    await lab.ask()
    clock.later(70.0)
    oracle.oracle.go.clear()
    caller = await dial(lab)
    await lab.until(lambda: oracle.calls == 2)
    caller.vanish()
    oracle.oracle.go.set()
    await refreshed(lab)

    assert "answer 2" == said((await lab.ask()).body)
    assert 2 == oracle.calls
    assert 0 == oracle.deserted


async def test_spooled_body(build_lab, oracle):
    """A refresh sends the body anew also where it does not fit into memory, after its caller has been answered."""
    lab = await build_lab(oracle.url, cache=REVALIDATE, limits=Limits(inflight_memory=256 * 1024, drain_seconds=2.0))
    clock = WallClock([lab])
    body = json.dumps({**CHAT, "messages": [{"role": "user", "content": "x" * 1000 * 1000}]}).encode()
    await lab.ask(body)
    clock.later(70.0)
    oracle.oracle.go.clear()
    stale = await lab.ask(body)
    await lab.until(lambda: oracle.calls == 2)
    oracle.oracle.go.set()
    await refreshed(lab)
    fresh = await lab.ask(body)

    assert (STALE, "answer 2") == (stale.cache, said(fresh.body))
    assert [body, body] == [sent for _, sent in oracle.seen]


async def test_stopped_in_the_middle(build_fleet, oracle, redis_server):
    """A refresh ends with its process: no task is left, and no lease."""
    (lab,) = await build_fleet(oracle.url, 1, cache=REVALIDATE)
    clock = WallClock([lab])
    await lab.ask()
    await written(redis_server)
    await released(redis_server)
    clock.later(70.0)
    oracle.oracle.go.clear()
    await lab.ask()
    await lab.until(lambda: oracle.calls == 2)
    await lab.sidecar.stop()

    assert [] == lab.tasks
    assert [] == [key for key in redis_server.call("KEYS", "*") if key.endswith(b":l")]
    assert lab.settled()


# ---- stale if error ----

TROUBLES = ["refused", "429", "500", "502", "503", "504", "529", "silent", "broken"]


async def fail(upstream, way: str) -> None:
    """Have *upstream* fail from now on in this *way*; ``refused``: nobody listens any more, and nobody is connected."""
    upstream.oracle.way = way
    if way == "refused":
        await upstream.stop()


@FORMS
@pytest.mark.parametrize("way", TROUBLES)
async def test_spare(way, body, build_lab, oracle):
    """Where no new answer can be had the old one serves, for all who wait, and stays."""
    lab = await build_lab(oracle.url, cache=IF_ERROR, timeouts=Timeouts(first_byte=0.3, stream_first_byte=0.3))
    clock = WallClock([lab])
    await lab.ask(CHAT)
    clock.later(70.0)
    oracle.oracle.go.clear()
    await fail(oracle, way)
    asking = [asyncio.ensure_future(lab.ask(body)) for _ in range(5)]
    if way != "refused":
        await lab.until(lambda: lab.waiting == 5)
    oracle.oracle.go.set()
    replies = await asyncio.gather(*asking)
    await lab.settle()

    assert [(200, "answer 1", SPARE)] * 5 == [(reply.status, said(reply.body), reply.cache) for reply in replies]
    assert {"70"} == {reply.headers["age"] for reply in replies}
    assert [Outcome.MISS, *[Outcome.STALE_ERROR] * 5] == outcomes(lab)
    if way != "refused":
        assert 2 == oracle.calls
        oracle.oracle.way = ""
        assert ("answer 3", "sidecar; fwd=miss; stored") == (said((reply := await lab.ask()).body), reply.cache)


@pytest.mark.parametrize("way", ["refused", "500"])
async def test_spare_from_redis(way, build_fleet, oracle, redis_server):
    """Also one that another sidecar has stored."""
    one, two = await build_fleet(oracle.url, cache=IF_ERROR)
    clock = WallClock([one, two])
    await one.ask()
    await written(redis_server)
    clock.later(70.0)
    await fail(oracle, way)
    replies = await asyncio.gather(*[two.ask() for _ in range(3)])

    assert ["answer 1"] * 3 == texts(replies)
    assert {"detail=stale-if-error"} == {reply.cache.rpartition("; ")[2] for reply in replies}


@pytest.mark.parametrize("status", ["400", "401", "403", "404", "422"])
async def test_what_is_no_failure(status, build_lab, oracle):
    """An answer that says what is wrong with the call is the call's own."""
    lab = await build_lab(oracle.url, cache=IF_ERROR)
    clock = WallClock([lab])
    await lab.ask()
    clock.later(70.0)
    oracle.oracle.way = status
    reply = await lab.ask()

    assert (int(status), ERROR) == (reply.status, reply.body)


@pytest.mark.parametrize(
    "headers",
    [{"cache-control": "no-cache"}, {"cache-control": "max-age=600"}, {"x-sidecar-ttl": "30m"}],
    ids=["no-cache", "max-age", "ttl"],
)
async def test_spare_not_for_all(headers, build_lab, oracle):
    """Who asks for no stale answer gets the error, also where it waits along with one who takes the spare."""
    lab = await build_lab(oracle.url, cache=IF_ERROR)
    clock = WallClock([lab])
    await lab.ask()
    clock.later(70.0)
    oracle.oracle.way = "500"
    alone = await lab.ask(headers=headers)
    oracle.oracle.go.clear()
    leading = asyncio.ensure_future(lab.ask())
    await lab.until(lambda: lab.waiting == 1)
    joining = asyncio.ensure_future(lab.ask(headers=headers))
    await lab.until(lambda: lab.waiting == 2)
    oracle.oracle.go.set()

    assert (500, ERROR) == (alone.status, alone.body)
    assert SPARE == (await leading).cache
    assert 500 == (await joining).status


async def test_honest_break(build_lab, oracle):
    """Once an answer has begun, an old one does not take its place."""
    lab = await build_lab(oracle.url, cache=IF_ERROR)
    clock = WallClock([lab])
    await lab.ask(STREAM)
    clock.later(70.0)
    oracle.oracle.way = "cut"
    broken = await lab.ask(STREAM)
    oracle.oracle.way = "500"
    spare = await lab.ask(STREAM)

    assert (True, "answer 2") == (broken.broken, said(broken.body.partition(b"event:")[0].partition(b'{"error')[0]))
    assert ("answer 1", SPARE) == (said(spare.body), spare.cache)


async def test_past_the_window(build_lab, oracle):
    """An answer too old even for that is worth nothing, also where it became so while the call was on its way."""
    lab = await build_lab(oracle.url, cache=IF_ERROR)
    clock = WallClock([lab])
    await lab.ask()
    clock.later(659.0)
    oracle.oracle.way = "500"
    oracle.oracle.go.clear()
    asking = asyncio.ensure_future(lab.ask())
    await lab.until(lambda: oracle.calls == 2)
    clock.later(2.0)
    oracle.oracle.go.set()

    assert [500, 500] == [(await asking).status, (await lab.ask()).status]


async def test_unproven_gets_no_spare(build_lab, oracle):
    """A credential that only claims to be of the entry's partition gets nothing of it while the service is away."""
    from tests.scenarios.tokens import AZURE_PATH, FIRST, FORGED, bearer  # noqa: PLC0415 - of this story alone

    lab = await build_lab(oracle.url, cache=IF_ERROR)
    clock = WallClock([lab])
    await lab.ask(path=AZURE_PATH, headers=bearer(FIRST))
    clock.later(70.0)
    oracle.oracle.way = "500"
    forged = await lab.ask(path=AZURE_PATH, headers=bearer(FORGED))
    owner = await lab.ask(path=AZURE_PATH, headers=bearer(FIRST))

    assert (500, SPARE) == (forged.status, owner.cache)


async def test_both(build_lab, oracle):
    """First a stale answer is refreshed behind its caller's back; past that time it serves where there is no other."""
    rule = CacheRule(mode=CacheMode.DETERMINISTIC, ttl=60.0, stale_while_revalidate=60.0, stale_if_error=600.0)
    lab = await build_lab(oracle.url, cache=rule)
    clock = WallClock([lab])
    await lab.ask()
    oracle.oracle.way = "500"
    clock.later(70.0)
    first = await lab.ask()
    await refreshed(lab)
    clock.later(60.0)
    second = await lab.ask()

    assert [STALE, "sidecar; hit; ttl=-70; detail=stale-if-error"] == [first.cache, second.cache]
    assert [Outcome.MISS, Outcome.STALE, Outcome.REFRESH, Outcome.STALE_ERROR] == outcomes(lab)


async def test_failed_refreshes_pause(build_lab, script):
    """While the service fails, a stale entry is not asked for anew with each hit."""
    calls = 0

    async def answer(_head, _body, writer):
        nonlocal calls
        calls += 1
        writer.write(whole(completion("one")) if calls == 1 else whole(b"{}", status="500 No"))

    upstream = await script(answer)
    rule = CacheRule(mode=CacheMode.DETERMINISTIC, ttl=60.0, stale_while_revalidate=600.0)
    lab = await build_lab(upstream.url, cache=rule)
    clock = WallClock([lab])
    await lab.ask()
    clock.later(70.0)
    for _ in range(30):
        assert "detail=stale" in (await lab.ask()).headers["cache-status"]
        await lab.settle()

    assert 2 == upstream.calls
