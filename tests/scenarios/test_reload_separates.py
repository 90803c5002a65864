"""
Rules by which callers and questions are told apart, changed under load: nobody reads what was stored for somebody else.

A header that only the new rules read must stop being noise at once: on warm connections, whose heads are known by
heart, and for calls that are under way.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.scenarios.conftest import Lab
from tests.scenarios.regions import Region, chat, running
from tests.scenarios.rules_on_disk import WarmCaller, reload, rules


@pytest.fixture
async def warm():
    """Opens connections that are kept."""
    callers: list[WarmCaller] = []

    def connect(lab: Lab) -> WarmCaller:
        callers.append(WarmCaller(lab))
        return callers[-1]

    yield connect
    for caller in callers:
        caller.close()


NOISE = "headers: {ignore: [x-team]}"
"""At a host that is not the vendor's own, every header counts unless it is known or said to be noise."""

OTHERWISE = {
    "a header that counts": {"service": "headers: {count: [x-team]}"},
    "a header that is not ignored": {},
    "a header that identifies": {"service": "credential_headers: [x-team]"},
    "a header that shares": {"service": NOISE, "route": "cache: {share: header:X-Team}"},
}


@pytest.mark.parametrize("more", OTHERWISE.values(), ids=OTHERWISE)
async def test_a_header_that_was_noise(build_lab, disk, upstream: Region, warm, more):
    """Before, all teams share the entry; from the reload on each asks for itself, and none sees the old entry."""
    disk.write(rules(upstream, service=NOISE))
    lab = await build_lab("", on_disk=disk.source())
    caller = warm(lab)

    assert ["miss", *["hit_memory"] * 4] == [await caller.ask(team) for team in ("a", "b", "a", "b", "a")]

    disk.write(rules(upstream, **more))
    await reload(lab)

    assert ["miss", "miss", "hit_memory", "hit_memory"] == [await caller.ask(team) for team in ("a", "b", "a", "b")]
    assert 3 == upstream.calls


@pytest.mark.parametrize("more", list(OTHERWISE.values())[:3], ids=list(OTHERWISE)[:3])
async def test_without_the_header(build_lab, disk, upstream: Region, warm, more):
    """Who sends no such header does not get what was stored for somebody who did, while it meant nothing."""
    disk.write(rules(upstream, service=NOISE))
    lab = await build_lab("", on_disk=disk.source())
    caller = warm(lab)

    assert ["miss", "hit_memory"] == [await caller.ask("a"), await caller.ask(None)]

    disk.write(rules(upstream, **more))
    await reload(lab)

    assert ["miss", "hit_memory"] == [await caller.ask(None), await caller.ask(None)]


async def test_a_header_that_chooses_the_route(build_lab, disk, upstream: Region, warm):
    """``match.header`` of a new route takes its calls at once, also on connections whose heads were noise to it."""
    disk.write(rules(upstream, service=NOISE))
    lab = await build_lab("", on_disk=disk.source())
    caller = warm(lab)
    for team in ("a", "a", "b"):
        await caller.ask(team)
    first = "{name: vip, match: {header: {x-team: a}}, cache: {mode: off}}, "
    disk.write(rules(upstream, service=NOISE).replace("routes: [", f"routes: [{first}"))
    await reload(lab)
    found = [(await caller.ask(team), lab.records[-1].route) for team in ("a", "b", "a")]

    assert [("bypass", "vip"), ("hit_memory", "team"), ("bypass", "vip")] == found


async def test_a_flight_under_way(build_lab, disk, upstream: Region):
    """Who comes under the new rules does not join a call that began under the old ones, nor gets its answer later."""
    upstream.hold = b"box"
    disk.write(rules(upstream, service=NOISE))
    lab = await build_lab("", on_disk=disk.source())
    one, same = (asyncio.create_task(lab.ask(headers={"x-team": "a"})) for _ in range(2))
    await lab.until(lambda: lab.waiting == 2)
    disk.write(rules(upstream, service="headers: {count: [x-team]}"))
    await reload(lab)
    other = asyncio.create_task(lab.ask(headers={"x-team": "b"}))
    await lab.until(lambda: upstream.calls == 2)
    upstream.go.set()

    assert [200] * 3 == [(await each).status for each in (one, same, other)]

    await lab.settle()
    await lab.ask(headers={"x-team": "a"})
    await lab.settle()

    assert ("miss", 3) == (lab.records[-1].outcome.value, upstream.calls)


async def test_a_head_that_is_judged_across_a_reload(build_lab, disk, upstream: Region, warm):
    """A call whose head came before the reload, and whose body after it, teaches nothing to those that follow."""
    disk.write(rules(upstream, service=NOISE))
    lab = await build_lab("", on_disk=disk.source())
    caller = warm(lab)
    await caller.ask("a")
    await caller.begin("c")
    await lab.until(lambda: lab.held > 0)
    disk.write(rules(upstream, service="headers: {count: [x-team]}"))
    await reload(lab)

    assert "hit_memory" == await caller.finish(), "it finishes by the rules with which it began"
    assert ["miss", "hit_memory", "miss", "hit_memory"] == [await caller.ask(team) for team in ("c", "c", "a", "a")]


async def test_what_one_upstream_accepted(build_lab, disk):
    """A credential that one upstream accepted proves nothing at another: it must be accepted there, too."""
    async with running("here", "there") as (here, there):
        shared = "cache: {share: service}"
        disk.write(rules(here.url, route=shared))
        lab = await build_lab("", on_disk=disk.source())
        for _ in range(2):
            await lab.ask(chat(1), headers={"authorization": "Bearer sk-a"})
            await lab.settle()

        assert "hit_memory" == lab.records[-1].outcome.value

        disk.write(rules(there.url, route=shared))
        await reload(lab)
        await lab.ask(chat(1), headers={"authorization": "Bearer sk-a"})
        await lab.settle()

        assert ("miss", 1) == (lab.records[-1].outcome.value, there.calls)


async def test_back_to_the_former_rules(build_lab, disk, upstream: Region):
    """What was stored under them serves again: a mistake in a rule costs no cache."""
    plain, counted = rules(upstream, service=NOISE), rules(upstream, service="headers: {count: [x-team]}")
    disk.write(plain)
    lab = await build_lab("", on_disk=disk.source())
    await lab.ask()
    for text in (counted, plain):
        disk.write(text)
        await reload(lab)
    await lab.ask()
    await lab.settle()

    assert ("hit_memory", 1) == (lab.records[-1].outcome.value, upstream.calls)
