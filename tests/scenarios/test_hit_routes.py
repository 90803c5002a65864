"""A purge by a route takes the answers that have served its calls, also where another route stored them."""

from __future__ import annotations

import asyncio

from sidecar.admin.actions import PurgeRequest
from sidecar.core.cache.purges import mark_of
from sidecar.core.rules import CacheMode, CacheRule, Match, Route
from tests.scenarios.clocks import WallClock
from tests.scenarios.operating import purge
from tests.scenarios.oracle import REVALIDATE, refreshed
from tests.scenarios.redis_contents import all_keys, texts

TEAM = {"x-team": "a"}
RULE = CacheRule(mode=CacheMode.DETERMINISTIC)
ROUTES = (Route("team", Match(header={"x-team": "a"}), RULE), Route("others", cache=RULE))


def by_route(name: str, *, dry_run: bool = False) -> PurgeRequest:
    return PurgeRequest("route", name, b"", dry_run=dry_run, fleet=True)


async def test_route_of_a_hit(build_lab, oracle):
    """A dry run counts the answer, and a purge takes it; before the hit, and by a third route, neither does."""
    lab = await build_lab(oracle.url, routes=ROUTES)
    before = await texts(lab, {})
    await purge(lab, asked=by_route("team"))
    before += await texts(lab, {}, {"headers": TEAM})
    await purge(lab, asked=by_route("none"))
    before += await texts(lab, {"headers": TEAM}, {})
    counted = (await lab.sidecar.operations.purge(by_route("team", dry_run=True))).entries
    done = await purge(lab, asked=by_route("team"))

    assert (["answer 1"] * 5, 1, 1) == (before, counted, done.entries)
    assert ["answer 2"] * 2 == await texts(lab, {"headers": TEAM}, {})


async def test_own_route(build_lab, oracle):
    """Nothing is noted where the answer is the route's own."""
    lab = await build_lab(oracle.url, routes=ROUTES)
    await texts(lab, {}, {}, {})
    (key,) = all_keys(lab)

    assert () == lab.sidecar.memory.tags(key)


async def test_refreshed_by_its_own(build_lab, oracle):
    """The mark stays with the answer that takes its place, unless that is of this very route."""
    routes = (Route("team", Match(header={"x-team": "a"}), REVALIDATE), Route("others", cache=REVALIDATE))
    lab = await build_lab(oracle.url, routes=routes)
    clock = WallClock([lab])
    await texts(lab, {}, {"headers": TEAM})
    clock.later(70.0)
    await texts(lab, {})
    await refreshed(lab)
    (key,) = all_keys(lab)
    others = lab.sidecar.memory.tags(key)
    clock.later(70.0)
    await texts(lab, {"headers": TEAM})
    await refreshed(lab)
    own = lab.sidecar.memory.tags(key)
    await purge(lab, asked=by_route("team"))

    assert ((mark_of("team"),), ()) == (others, own)
    assert ["answer 4"] == await texts(lab, {})


async def test_purged_while_it_is_refreshed(build_lab, oracle):
    """A purge by such a route takes the newer answer, too, that was asked for before it."""
    routes = (Route("team", Match(header={"x-team": "a"}), REVALIDATE), Route("others", cache=REVALIDATE))
    lab = await build_lab(oracle.url, routes=routes)
    clock = WallClock([lab])
    await texts(lab, {}, {"headers": TEAM})
    clock.later(70.0)
    oracle.oracle.go.clear()
    stale = await texts(lab, {})
    await lab.until(lambda: oracle.calls == 2)
    await purge(lab, asked=by_route("team"))
    oracle.oracle.go.set()
    await refreshed(lab)

    assert ["answer 1"] == stale
    assert ["answer 3"] == await texts(lab, {})


async def test_each_its_own_call(build_lab, oracle):
    """Callers of two routes who wait at once are of two calls; whichever is kept, a purge of either route takes it."""
    lab = await build_lab(oracle.url, routes=ROUTES)
    oracle.oracle.go.clear()
    waiting = [asyncio.ensure_future(lab.ask(headers=headers)) for headers in (None, TEAM)]
    await lab.until(lambda: lab.waiting == 2)
    oracle.oracle.go.set()
    await asyncio.gather(*waiting)
    await texts(lab, {}, {"headers": TEAM})
    calls = oracle.calls
    await purge(lab, asked=by_route("team"))
    await texts(lab, {"headers": TEAM})

    assert calls + 1 == oracle.calls
