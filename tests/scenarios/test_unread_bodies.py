"""Calls that are looked up by nobody are still read where their model says to which region they may go."""

import json

import pytest

from sidecar.core.rules import (
    CacheMode,
    CacheRule,
    FallbackRule,
    Limits,
    Match,
    Mode,
    Region,
    Route,
    RouteLimits,
)
from tests.scenarios.conftest import OWN_RETRIES
from tests.scenarios.desks import Desk, question, services
from tests.scenarios.meters import Meter, limited

SECRET = Route("secret", Match(model="gpt-4o"), allow=frozenset({"eu"}))
REST = Route("rest")
BROKEN = b"HTTP/1.1 500 No\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
async def pair(script):
    """A desk in the US, which is asked first, and one in the EU."""
    return await script(Desk("us")), await script(Desk("eu"))


def places(us, eu):
    return services(Region("first", us.url, residency="us"), Region("second", eu.url, 2, residency="eu"))


@pytest.mark.parametrize("mode", Mode)
async def test_residency_in_every_mode(mode, build_lab, pair):
    """What a route allows by model holds while nothing is looked up, too."""
    us, eu = pair
    lab = await build_lab("", services=places(us, eu), routes=(SECRET, REST), mode=mode)
    await lab.ask(question(0))
    await lab.ask(question(0, model="gpt-4o-mini"))

    assert (1, 1) == (us.calls, eu.calls)
    assert b"gpt-4o-mini" in us.seen[0][1]


async def test_residency_of_routes_that_cache_nothing(build_lab, pair):
    """Nor does it matter whether any route caches."""
    us, eu = pair
    off = CacheRule(CacheMode.OFF)
    lab = await build_lab("", services=places(us, eu), routes=(Route("s", SECRET.match, off, allow=SECRET.allow),))
    await lab.ask(question(0))

    assert (0, 1) == (us.calls, eu.calls)


@pytest.mark.parametrize(
    "headers",
    [{"cache-control": "no-store"}, {"range": "bytes=0-1"}, {"if-none-match": "x"}, {"content-encoding": "identity"}],
    ids=lambda headers: next(iter(headers)),
)
async def test_residency_of_calls_ruled_out_by_their_head(headers, build_lab, pair):
    """Nor what the caller says in its head."""
    us, eu = pair
    lab = await build_lab("", services=places(us, eu), routes=(SECRET, REST))
    await lab.ask(question(0), headers=headers)

    assert (0, 1) == (us.calls, eu.calls)


async def test_a_model_that_nobody_can_tell(build_lab, pair):
    """A body too large to be read goes where all routes that it may be for allow it, or nowhere."""
    us, eu = pair
    other = Route("other", Match(model="gpt-4o-mini"), allow=frozenset({"us"}))
    small = Limits(collect=1024, drain_seconds=1.0)
    lab = await build_lab("", services=places(us, eu), routes=(SECRET, REST), limits=small)
    torn = await build_lab("", services=places(us, eu), routes=(SECRET, other, REST), limits=small)
    body = json.dumps({**question(0), "metadata": {"padding": "x" * 2048}}).encode()
    await lab.ask(body)
    reply = await torn.ask(body)

    assert (0, 1) == (us.calls, eu.calls)
    assert (403, "no-region-allowed") == (reply.status, reply.json()["error"]["code"])


@pytest.mark.parametrize("mode", [CacheMode.OFF, CacheMode.DETERMINISTIC])
async def test_deployments(mode, build_lab, script):
    """A model is called as its region calls it."""
    upstream = await script(Desk())
    region = Region("here", upstream.url, deployments={"gpt-4o": "gpt4o-here"})
    lab = await build_lab("", services=services(region), cache=CacheRule(mode))
    await lab.ask(question(0))

    assert "gpt4o-here" == json.loads(upstream.seen[0][1])["model"]


async def test_fallback(build_lab, script):
    """Another model stands in."""
    upstream = await script(Desk(says={b"": BROKEN}))
    route = Route("r", cache=CacheRule(CacheMode.OFF), fallback=(FallbackRule("model", "gpt-4o-mini"),))
    lab = await build_lab(upstream.url, routes=(route,))
    await lab.ask(question(0), headers=OWN_RETRIES)

    assert ["gpt-4o", "gpt-4o-mini"] == [json.loads(body)["model"] for _, body in upstream.seen]


async def test_tokens(build_lab, script):
    """What a call really used is what counts."""
    upstream = await script(Meter(5))
    lab = await build_lab(upstream.url, routes=limited(RouteLimits(tokens_per_minute=6000), CacheMode.OFF))
    statuses = []
    for number in range(3):
        statuses.append((await lab.ask(question(number, max_tokens=1000))).status)
        await lab.settle()

    assert [200] * 3 == statuses
