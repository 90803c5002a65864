"""What one sidecar finds out about a region, or is told, holds for the others; without Redis each goes on alone."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from sidecar.core.rules import BreakerRule
from tests.redis_servers import RedisServer
from tests.scenarios.answers import said
from tests.scenarios.desks import AS_BROKEN, Desk, question, services, standings, transitions

TOKEN = "open-sesame-0123456789abcdef"


@pytest.fixture
async def pair(script):
    """Two regions, each a desk."""
    upstreams = []
    for name in ("first", "second"):
        desk = Desk(name)
        upstreams.append(await script(desk))
        upstreams[-1].desk = desk
    return upstreams


@pytest.fixture
def build(build_fleet, pair, tmp_path):
    """Builds a fleet before the pair, with a token for its control APIs."""
    (tmp_path / "admin").write_text(TOKEN)

    async def with_rule(count=2, *, redis=None, **members):
        rule = BreakerRule(**{"shared": True, "open": 0.4, **members})
        found = services(*(upstream.url for upstream in pair), breaker=rule)
        return await build_fleet("", count, redis=redis, services=found, admin_token_file=str(tmp_path / "admin"))

    return with_rule


class Asking:
    """Fresh questions, one after another."""

    def __init__(self):
        self.asked = 0

    async def __call__(self, lab, count=1):
        """Where *count* calls were answered."""
        found = []
        for _ in range(count):
            self.asked += 1
            reply = await lab.ask(question(self.asked))

            assert 200 == reply.status
            found.append(said(reply.body))
        return found


@pytest.fixture
def ask():
    return Asking()


async def order(lab, action, lasting=None, region="first", token=TOKEN):
    """An operator's order by a lab's control API: status, and what was said."""
    body = {"service": "openai", "region": region, "action": action} | ({"for": lasting} if lasting else {})
    url = f"http://127.0.0.1:{lab.sidecar.admin_port}/api/regions"
    headers = {"authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as answer:
        return answer.status, await answer.json()


def state(lab, region="first"):
    """The state of a region's breaker, and until when, in seconds."""
    return next((one.state, one.seconds) for one in lab.sidecar.operations.table() if one.region == region)


def causes(lab):
    """The changes of the first region's breaker."""
    return [(after, cause) for region, after, cause in transitions(lab) if region == "first"]


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "each for itself"])
async def test_an_opening_is_learnt(build, pair, ask, shared):
    """One sidecar has had five errors of a region: the other two don't try them out again, unless they are told to."""
    first, second = pair
    one, *others = await build(3, shared=shared, open=60.0)
    first.desk.says[b""] = AS_BROKEN
    await ask(one, 6)

    assert (5, [("open", "errors")]) == (first.calls, causes(one))
    if shared:
        await one.until(lambda: all(state(lab)[0] == "open" for lab in others))
    for lab in others:
        assert ["second"] * 8 == await ask(lab, 8)

    assert 5 + (0 if shared else 10) == first.calls
    assert 22 == second.calls
    expected = [("open", "fleet" if shared else "errors")]
    assert [expected, expected] == [causes(lab) for lab in others]


async def test_one_probe_for_the_fleet(build, pair, ask):
    """When the time is over, one call of one sidecar finds out for all; when it is good, all come back."""
    first, _ = pair
    labs = await build(3)
    first.desk.says[b""] = AS_BROKEN
    await ask(labs[0], 5)
    await labs[0].until(lambda: all(state(lab)[0] == "open" for lab in labs))
    first.desk.says.clear()
    first.desk.go.clear()
    await labs[0].until(lambda: all(state(lab)[1] == 0.0 for lab in labs))
    asking = [asyncio.ensure_future(ask(lab, 5)) for lab in labs for _ in range(4)]
    await labs[0].until(lambda: sum(one.done() for one in asking) == len(asking) - 1)

    assert 6 == first.calls
    first.desk.go.set()
    found = [name for names in await asyncio.gather(*asking) for name in names]
    await labs[0].until(lambda: all(state(lab)[0] == "closed" for lab in labs))

    assert found.count("first") <= 5
    assert ["probe-good", "fleet", "fleet"] == sorted((causes(lab)[-1][1] for lab in labs), reverse=True)
    assert 1 <= sum(lab.sidecar.fleet.regions.counts["denied"] for lab in labs)


async def test_a_failed_probe_is_the_fleets(build, pair, ask):
    """A probe that fails keeps the region shut for all, for longer; it cost one call, and nobody noticed."""
    first, _ = pair
    one, two = await build()
    first.desk.says[b""] = AS_BROKEN
    await ask(one, 5)
    await one.until(lambda: state(two)[0] == "open")
    await one.until(lambda: state(one)[1] == state(two)[1] == 0.0)

    assert ["second"] * 3 == await ask(one, 3)
    await one.until(lambda: state(two)[1] > 0.0)
    assert ["second"] * 3 == await ask(two, 3)
    assert 6 == first.calls
    assert [("open", "errors"), ("half-open", "probe"), ("open", "probe-failed")] == causes(one)
    assert [("open", "fleet")] == causes(two)


async def test_an_order_holds_in_the_fleet(build, pair, ask):
    """An operator shuts a region by one sidecar's control API, for a second: the other obeys, and both come back."""
    first, _ = pair
    one, two = await build()
    await ask(one), await ask(two)
    status, told = await order(one, "stop", "1s")

    assert (200, "done") == (status, told["fleet"])
    await one.until(lambda: state(two)[0] == "open")
    assert ["second"] * 10 == await ask(one, 5) + await ask(two, 5)
    assert 2 == first.calls
    standing = (await standings(two))["first"]
    assert ("open", "stop", 0.0) == (standing["state"], standing["order"], standing["share"])
    await one.until(lambda: state(one)[0] == state(two)[0] == "closed")
    for lab in (one, two):
        async with asyncio.timeout(10):
            while "first" not in await ask(lab):  # it comes back with a part of its calls
                pass

        assert [("open", "operator"), ("closed", "operator")] == causes(lab)
        assert "" == (await standings(lab))["first"]["order"]


async def test_an_order_is_taken_back(build):
    """``auto`` by another sidecar than the one that was ordered; a wrong token changes nothing."""
    one, two = await build()
    await order(one, "stop")
    await one.until(lambda: state(two)[0] == "open")

    assert 401 == (await order(two, "auto", token="wrong-token-0123456789"))[0]
    assert 200 == (await order(two, "auto"))[0]
    await one.until(lambda: state(one)[0] == "closed")
    assert "closed" == state(two)[0]


async def test_an_order_to_go_on(build, pair, ask):
    """``close``: calls go there whatever happens, by all sidecars, and are still answered."""
    first, second = pair
    one, two = await build()
    await order(two, "force")
    await one.until(lambda: {"force"} == {lab.sidecar.operations.table()[0].order for lab in (one, two)})
    first.desk.says[b""] = AS_BROKEN

    assert ["second"] * 20 == await ask(one, 10) + await ask(two, 10)
    assert (20, 20) == (first.calls, second.calls)


async def test_all_regions_shut_by_order(build, pair, ask):
    """An order goes before all: with both regions shut there is one prompt answer, and no call."""
    first, second = pair
    one, two = await build()
    for region in ("first", "second"):
        await order(one, "stop", region=region)
    await one.until(lambda: {"open"} == {each.state for each in two.sidecar.operations.table()})
    reply = await two.ask(question(0))

    assert (503, "upstream-no-region") == (reply.status, reply.json()["error"]["code"])
    assert 1 <= int(reply.headers["retry-after"]) <= 60
    assert (0, 0) == (first.calls, second.calls)


async def test_redis_is_killed(build, pair, ask):
    """Each goes on by itself: orders that are known hold, openings and probes are each one's own, and no call fails."""
    first, _ = pair
    with RedisServer() as server:
        one, two = labs = await build(redis={"url": server.url, "timeout": 0.1}, open=1.0)
        await order(one, "force", "30s", region="second")
        await one.until(lambda: two.sidecar.operations.table()[1].order == "force")
        server.kill()
        await one.until(lambda: not any(lab.sidecar.fleet.link.up for lab in labs))
        first.desk.says[b""] = AS_BROKEN

        assert ["second"] * 16 == await ask(one, 8) + await ask(two, 8)
        assert 10 == first.calls
        assert [[("open", "errors")]] * 2 == [causes(lab) for lab in labs]
        assert ["force", "force"] == [lab.sidecar.operations.table()[1].order for lab in labs]
        assert 503 == (await order(one, "stop"))[0]
        assert "" == one.sidecar.operations.table()[0].order
        first.desk.says.clear()
        for lab in labs:
            await lab.until(lambda lab=lab: state(lab)[1] == 0.0)

            assert ["first"] == await ask(lab)
        assert 12 == first.calls
        assert ["closed", "closed"] == [state(lab)[0] for lab in labs]


async def test_redis_dies_while_a_region_is_shut(build, pair, ask):
    """What was learnt from another sidecar holds until its time is over; then each finds out for itself."""
    first, _ = pair
    with RedisServer() as server:
        one, two = labs = await build(redis={"url": server.url, "timeout": 0.1}, open=2.0)
        first.desk.says[b""] = AS_BROKEN
        await ask(one, 5)
        await one.until(lambda: state(two)[0] == "open")
        server.kill()
        await one.until(lambda: not any(lab.sidecar.fleet.link.up for lab in labs))
        first.desk.says.clear()
        await one.until(lambda: state(one)[1] == state(two)[1] == 0.0)

        assert [["first"], ["first"]] == [await ask(lab) for lab in labs]
        assert 7 == first.calls
        assert ["closed", "closed"] == [state(lab)[0] for lab in labs]
