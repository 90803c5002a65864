"""Bounds that change while calls come: each holds from the reload on, for what begins then."""

from __future__ import annotations

import asyncio

from tests.name_server import name_server
from tests.scenarios.answers import completion, whole
from tests.scenarios.lab import Lab
from tests.scenarios.regions import Region, chat, running
from tests.scenarios.rules_on_disk import RulesOnDisk, WarmCaller, reload, rules

KIB = 1024
MIB = 1024 * KIB


async def change(lab: Lab, disk: RulesOnDisk, text: str) -> None:
    """The configuration becomes *text*, and is read again."""
    disk.write(text)
    await reload(lab)


async def ask(lab: Lab, number: int) -> str:
    """Ask question *number*; how it was answered."""
    reply = await lab.ask(chat(number))
    assert 200 == reply.status
    await lab.settle()
    return lab.records[-1].outcome.value


async def test_the_largest_entry(build_lab, script, disk):
    """What was too large is kept once there is room for it, and no longer when there is not."""

    async def answer(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(completion("x" * 100 * KIB)))

    upstream = await script(answer)

    def by(size: str) -> str:
        return rules(upstream.url, more=f"cache: {{memory: {{max_entry_bytes: {size}}}}}")

    disk.write(by("16Ki"))
    lab = await build_lab("", on_disk=disk.source())

    assert ["miss", "miss"] == [await ask(lab, 1), await ask(lab, 1)]

    await change(lab, disk, by("1Mi"))

    assert ["miss", "hit_memory"] == [await ask(lab, 1), await ask(lab, 1)]

    await change(lab, disk, by("16Ki"))

    assert ["miss", "miss"] == [await ask(lab, 2), await ask(lab, 2)]


async def test_how_much_is_read_before_it_is_passed_on(build_lab, script, disk):
    """An answer that breaks off after more than an entry may have goes on to the caller; after less, another is had."""

    async def break_off(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(completion("x" * 200 * KIB))[: 100 * KIB])
        await writer.drain()
        writer.close()

    broken = await script(break_off)
    async with running("west") as (west,):

        def by(size: str) -> str:
            text = rules(broken.url, west, more=f"cache: {{memory: {{max_entry_bytes: {size}}}}}")
            return text.replace("name: west,", "name: west, priority: 2,")

        disk.write(by("16Ki"))
        lab = await build_lab("", on_disk=disk.source())
        found = []
        for number, size in enumerate(("16Ki", "1Mi", "16Ki")):
            await change(lab, disk, by(size))
            reply = await lab.ask(chat(number))
            found.append((reply.broken, west.calls))

    assert [(True, 0), (False, 1), (True, 1)] == found


async def test_memory_in_flight(build_lab, disk, upstream: Region):
    """A body lies in memory where the bound of the time has room for it, else in a file; it is cached either way."""
    room, tight = (rules(upstream, more=f"limits: {{inflight_memory: {size}}}") for size in ("64Mi", "1Mi"))
    disk.write(tight)
    lab = await build_lab("", on_disk=disk.source())
    caller, ledger, peaks = WarmCaller(lab), lab.sidecar.ledger, []
    for number, text in enumerate((tight, room, tight)):
        await change(lab, disk, text)
        ledger.peak = 0
        large = chat(number)
        large["messages"][0]["content"] += "x" * 3 * MIB

        assert ["miss", "hit_memory"] == [await caller.ask("a", large), await caller.ask("a", large)]

        peaks.append(ledger.peak)
    caller.close()

    assert [False, True, False] == [peak > MIB for peak in peaks]


async def test_a_queue_that_is_shortened(build_lab, disk, upstream: Region):
    """Of the calls that wait, those that came last are refused; the others go when it is their turn."""
    upstream.hold = b"box"
    disk.write(rules(upstream, route="limits: {concurrency: 1}"))
    lab = await build_lab("", on_disk=disk.source())
    calls = []
    for number in range(6):
        calls.append(asyncio.create_task(lab.ask(chat(number))))
        await lab.until(lambda: upstream.calls + sum(lab.sidecar.throttle.waiting().values()) == len(calls))
    await change(lab, disk, rules(upstream, route="limits: {concurrency: 1, queue: 2}"))
    await lab.until(lambda: {"team": 2} == lab.sidecar.throttle.waiting())
    upstream.go.set()

    assert [200, 200, 200, 429, 429, 429] == [(await call).status for call in calls]


async def test_another_weight(build_lab, disk):
    """A region that stays gets the share of calls that its new weight says."""
    async with running("east", "west") as (east, west):
        even = rules(east, west)
        disk.write(even)
        lab = await build_lab("", on_disk=disk.source())
        lab.clocks.draw = lambda: 0.1
        await ask(lab, 1)
        first = (east.calls, west.calls)
        await change(lab, disk, even.replace("name: west,", "name: west, weight: 100,"))
        await ask(lab, 2)
        second = (east.calls - first[0], west.calls - first[1])
        await change(lab, disk, even.replace("name: east,", "name: east, weight: 100,"))
        await ask(lab, 3)
        third = (east.calls - first[0] - second[0], west.calls - first[1] - second[1])

    assert [(0, 1), (1, 0)] == [second, third]


async def test_the_head_of_a_request(build_lab, disk, upstream: Region):
    """A connection that is open keeps its bounds; one that is opened now has the new ones."""
    disk.write(rules(upstream))
    lab = await build_lab("", on_disk=disk.source())
    early, team = WarmCaller(lab), "a" * 4 * KIB
    await early.ask(team)
    await change(lab, disk, rules(upstream, more="limits: {headers: 2Ki}"))

    assert "hit_memory" == await early.ask(team)
    assert 431 == (await lab.ask(headers={"x-team": team})).status

    early.close()


async def test_other_name_servers(build_lab, disk, upstream: Region):
    """They are asked from then on, and what the former ones said counts no more."""
    port = upstream.url.rpartition(":")[2]
    async with name_server() as one, name_server() as two:
        one.zone["ai.example"] = two.zone["ai.example"] = ["127.0.0.1"]

        def by(at: str) -> str:
            return rules(f"http://ai.example:{port}", more=f"upstream: {{proxy: none, nameservers: ['{at}']}}")

        disk.write(by(one.at))
        lab = await build_lab("", on_disk=disk.source())
        await ask(lab, 1)

        assert (True, []) == (bool(one.asked), two.asked)

        asked = len(one.asked)
        await change(lab, disk, by(two.at))
        await ask(lab, 2)

        assert (asked, True) == (len(one.asked), bool(two.asked))
