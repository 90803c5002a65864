"""What a hit adds to an answer, a tag or a route, is noted for the fleet: a purge by it takes the answer anywhere."""

from __future__ import annotations

import pytest

from sidecar.admin.actions import PurgeRequest
from sidecar.core.rules import CacheMode, CacheRule, Match, Route
from tests.scenarios.answers import said
from tests.scenarios.clocks import WallClock
from tests.scenarios.conftest import CHAT
from tests.scenarios.operating import all_say, purge, valid
from tests.scenarios.redis_contents import noted, released, written

STREAM = {**CHAT, "stream": True}
RULE = CacheRule(mode=CacheMode.DETERMINISTIC)
SPARE = CacheRule(mode=CacheMode.DETERMINISTIC, ttl=60.0, stale_if_error=600.0)

ADDED = pytest.mark.parametrize(
    ("headers", "scope", "value"),
    [({"x-sidecar-tags": "invoice"}, "tag", "invoice"), ({"x-team": "a"}, "route", "team")],
    ids=["a tag", "a route"],
)


def routes(rule: CacheRule) -> tuple[Route, ...]:
    """A route of one team, and that of all others."""
    return Route("team", Match(header={"x-team": "a"}), rule), Route("others", cache=rule)


def by(scope: str, value: str) -> PurgeRequest:
    return PurgeRequest(scope, value, b"", dry_run=False, fleet=True)


@ADDED
@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["as it stands", "converted"])
@pytest.mark.parametrize("asked", [0, 1], ids=["from memory", "from redis"])
async def test_noted_by_another(asked, body, headers, scope, value, build_fleet, oracle, redis_server):
    """What one sidecar has noted a purge by way of another takes everywhere: in Redis, and in a third one's memory."""
    labs = await build_fleet(oracle.url, 3, routes=routes(RULE))
    await labs[0].ask()
    await written(redis_server)
    await labs[2].ask()
    await labs[asked].ask(body, headers=headers)
    await noted(labs[asked], redis_server)
    before = valid(labs[0], redis_server)
    await purge(labs[2], labs, by(scope, value))

    assert (["answer 1"], []) == (before, valid(labs[0], redis_server))
    assert {"answer 2"} == await all_say(labs, redis_server)
    assert [] == redis_server.call("KEYS", "*{log}:t:*")


@ADDED
async def test_spare(headers, scope, value, build_fleet, oracle, redis_server):
    """It is noted, too, where an old answer serves because no new one can be had."""
    labs = await build_fleet(oracle.url, 2, routes=routes(SPARE))
    clock = WallClock(labs)
    await labs[0].ask()
    await written(redis_server)
    await released(redis_server)
    clock.later(70.0)
    oracle.oracle.way = "500"
    spare = await labs[0].ask(headers=headers)
    await noted(labs[0], redis_server)
    await purge(labs[1], labs, by(scope, value))
    reply = await labs[0].ask()

    assert ("answer 1", 500) == (said(spare.body), reply.status)
