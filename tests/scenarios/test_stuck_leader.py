"""A call that hangs holds up nobody but itself: one of those who wait leads a second call, in the whole fleet."""

from __future__ import annotations

import asyncio
import json

import pytest

from sidecar.core.model import Outcome
from sidecar.core.rules import CacheMode, CacheRule, Match, Route, RouteLimits
from tests.scenarios.answers import LAST_CHUNK, STREAM_HEAD, chat_events, chunks, completion, said, whole
from tests.scenarios.conftest import CHAT, Lab
from tests.scenarios.desks import metric, question
from tests.scenarios.redis_contents import released

STREAM = {**CHAT, "stream": True}
EVENTS = chat_events("It is", " a box.")
TEXT = "It is a box."
QUICK, SLOW = 0.01, 60.0


class Box:
    """A provider whose first *hung* calls don't answer until *go*; the others answer at once, in the form asked for."""

    def __init__(self, hung: int = 1, other: bytes = b"") -> None:
        self.hung = hung
        self.go = asyncio.Event()
        self.calls = 0
        self.other = other

    async def __call__(self, _head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        self.calls += 1
        if self.calls <= self.hung:
            await self.go.wait()
        elif self.other:
            writer.write(self.other)
            return
        if json.loads(body).get("stream"):
            writer.write(STREAM_HEAD + chunks(EVENTS) + LAST_CHUNK)
        else:
            writer.write(whole(completion(TEXT)))


def know(lab: Lab, seconds: float, route: str = "cached") -> None:
    """Have *lab* know what is usual for a route."""
    for streaming in (False, True):
        for _ in range(20):
            lab.sidecar.dispatch.paces.note(route, seconds, streaming=streaming)


def pass_time(*labs: Lab, seconds: float = 100.0) -> None:
    """For the calls that are under way, nothing has been heard for so long."""
    for lab in labs:
        for flight in tuple(lab.sidecar.flights):
            pulse = flight._pulse
            if pulse is not None and pulse._timer is not None:
                pulse._timer.cancel()
                pulse._at -= seconds
                pulse._look()


def causes(*labs: Lab) -> list[str]:
    """Why calls were sent beyond the first."""
    return [cause for lab in labs for record in lab.records for cause in record.retry_causes]


async def replies_of(*callers):
    return await asyncio.gather(*(caller.reply() for caller in callers))


def right(replies) -> bool:
    return {(200, False, TEXT)} == {(reply.status, reply.broken, said(reply.body)) for reply in replies}


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["whole", "stream"])
async def test_five_hundred_wait_for_one_that_hangs(build_lab, script, dial, body):
    """One second call answers all of them, the hung one's own caller too; and the hung call is ended."""
    upstream = await script(Box())
    lab = await build_lab(upstream.url)
    know(lab, QUICK)
    leader = await dial(lab, body)
    await lab.until(lambda: upstream.calls == 1)
    others = [await dial(lab, body) for _ in range(499)]
    await lab.until(lambda: lab.waiting == 500)
    pass_time(lab)
    replies = await replies_of(leader, *others)
    await lab.settle()
    await lab.until(lambda: len(lab.records) == 500 and upstream.deserted == 1)

    assert right(replies)
    assert 2 == upstream.calls
    assert ["second-leader"] == causes(lab)
    outcomes = [record.outcome for record in lab.records]
    assert (1, 499) == (outcomes.count(Outcome.MISS), outcomes.count(Outcome.COLLAPSED))
    assert 2 == sum(record.attempts for record in lab.records)
    assert {'reason="second-leader",service="openai"': 1.0} == metric(lab, "failovers_total")
    assert (await lab.ask(body)).cache.startswith("sidecar; hit; ")


async def test_who_is_alone_waits(build_lab, script, dial):
    """Nobody waits for the hung call but its own caller: there is no second one, until somebody does."""
    box = Box()
    upstream = await script(box)
    lab = await build_lab(upstream.url)
    know(lab, QUICK)
    leader = await dial(lab)
    await lab.until(lambda: upstream.calls == 1)
    pass_time(lab)
    await asyncio.sleep(0)
    (flight,) = lab.sidecar.flights

    assert (True, None, 1) == (flight.stuck, flight.second, upstream.calls)

    assert right(await replies_of(leader, await dial(lab)))
    assert 2 == upstream.calls


async def test_the_first_answers_after_all(build_lab, script, dial):
    """With the second call hanging as well, whichever answers first serves all; there is no third."""
    box = Box(hung=2)
    upstream = await script(box)
    lab = await build_lab(upstream.url)
    know(lab, QUICK)
    callers = [await dial(lab) for _ in range(20)]
    await lab.until(lambda: upstream.calls == 1 and lab.waiting == 20)
    pass_time(lab)
    await lab.until(lambda: upstream.calls == 2 and lab.waiting == 40)
    box.go.set()

    assert right(await replies_of(*callers))
    await lab.settle()
    assert 2 == upstream.calls
    assert (await lab.ask()).cache.startswith("sidecar; hit; ")


async def test_a_second_call_that_fails(build_lab, script, dial):
    """An error of the second call is not what those get who wait for the first, which may yet answer."""
    box = Box(other=whole(b'{"error":{"message":"Broken."}}', status="500 Broken"))
    upstream = await script(box)
    lab = await build_lab(upstream.url)
    know(lab, QUICK)
    callers = [await dial(lab) for _ in range(20)]
    await lab.until(lambda: upstream.calls == 1 and lab.waiting == 20)
    pass_time(lab)
    await lab.until(lambda: upstream.calls == 2 and len(lab.sidecar.flights) == 1)
    box.go.set()

    assert right(await replies_of(*callers))
    assert 2 == upstream.calls


async def test_both_fail(build_lab, script, dial):
    """Where neither has an answer, the error of the first is everybody's."""
    broken = whole(b'{"error":{"message":"Broken."}}', status="500 Broken")
    box = Box(other=broken)

    async def handle(head, body, writer):
        if box.calls:
            writer.write(broken)
            return
        box.calls += 1
        await box.go.wait()
        writer.write(whole(b'{"error":{"message":"Busy."}}', status="503 Busy"))

    upstream = await script(handle)
    lab = await build_lab(upstream.url)
    know(lab, QUICK)
    callers = [await dial(lab) for _ in range(5)]
    await lab.until(lambda: upstream.calls == 1 and lab.waiting == 5)
    pass_time(lab)
    await lab.until(lambda: upstream.calls == 2 and len(lab.sidecar.flights) == 1)
    box.go.set()
    replies = await replies_of(*callers)

    assert {(503, b'{"error":{"message":"Busy."}}')} == {(reply.status, reply.body) for reply in replies}
    assert 2 == upstream.calls


async def test_a_route_that_takes_its_time(build_lab, script, dial):
    """What usually takes a minute, or of which nothing is known, is not stuck when what is quick has long been so."""

    async def answer(_head, body, writer):
        if b"box 0" not in body or sum(b"box 0" in seen for _, seen in upstream.seen) == 1:
            await go.wait()
        writer.write(whole(completion(TEXT)))

    go = asyncio.Event()
    upstream = await script(answer)
    cache = CacheRule(mode=CacheMode.ALWAYS)
    routes = tuple(Route(name, Match(model=name), cache) for name in ("slow", "cold", "quick"))
    lab = await build_lab(upstream.url, routes=routes)
    know(lab, SLOW, "slow")
    know(lab, QUICK, "quick")
    slow = [await dial(lab, question(1, model="slow")) for _ in range(9)]
    cold = [await dial(lab, question(2, model="cold")) for _ in range(9)]
    await lab.until(lambda: upstream.calls == 2 and lab.waiting == 18)
    quick = [await dial(lab, question(0, model="quick")) for _ in range(9)]
    await lab.until(lambda: upstream.calls == 3 and lab.waiting == 27)
    pass_time(lab)

    assert right(await replies_of(*quick))
    assert [2, 1, 1] == [sum(b"box %d" % number in body for _, body in upstream.seen) for number in range(3)]

    go.set()
    assert right(await replies_of(*slow, *cold))
    assert 4 == upstream.calls


async def test_no_extra_attempt_left(build_lab, script, dial):
    """The second call is paid from the service's extra attempts, and is not made without one; later it is."""
    upstream = await script(Box())
    lab = await build_lab(upstream.url)
    know(lab, QUICK)
    budget = lab.sidecar.regions.budget("openai")
    now = lab.clocks.running
    while budget.take(now()):
        pass
    callers = [await dial(lab) for _ in range(9)]
    await lab.until(lambda: upstream.calls == 1 and lab.waiting == 9)
    (flight,) = lab.sidecar.flights
    pass_time(lab)
    await lab.until(lambda: not flight.stuck and len(lab.sidecar.flights) == 1)

    assert 1 == upstream.calls

    budget.give_back()
    pass_time(lab)
    assert right(await replies_of(*callers))
    assert 2 == upstream.calls


async def test_a_call_that_waits_for_its_turn(build_lab, script, dial):
    """What the route's limits hold back has not been sent, and is not stuck: a second call would wait behind it."""
    box = Box(hung=1)
    upstream = await script(box)
    route = Route("cached", cache=CacheRule(mode=CacheMode.ALWAYS), limits=RouteLimits(concurrency=1, queue=9))
    lab = await build_lab(upstream.url, routes=(route,))
    know(lab, QUICK)
    ahead = await dial(lab, question(1))
    await lab.until(lambda: upstream.calls == 1)
    callers = [await dial(lab) for _ in range(9)]
    await lab.until(lambda: lab.waiting == 10)
    pass_time(lab)

    assert 2 == len(lab.sidecar.flights)

    box.go.set()
    assert right(await replies_of(ahead, *callers))
    assert 2 == upstream.calls


async def test_a_stream_that_has_opened(build_lab, script, dial):
    """Who has begun to hear an answer hears it to its end, however long it pauses."""
    go = asyncio.Event()

    async def pause(_head, _body, writer):
        writer.write(STREAM_HEAD + chunks(EVENTS[:2]))
        await go.wait()
        writer.write(chunks(EVENTS[2:]) + LAST_CHUNK)

    upstream = await script(pause)
    lab = await build_lab(upstream.url)
    know(lab, QUICK)
    callers = [await dial(lab, STREAM) for _ in range(5)]
    for caller in callers:
        await caller.until(b"It is")
    pass_time(lab)
    go.set()

    assert right(await replies_of(*callers))
    assert 1 == upstream.calls


async def test_the_whole_fleet(build_fleet, script, dial, redis_server):
    """Five hundred callers of two sidecars: two calls, and all are answered once the second is."""
    box = Box()
    upstream = await script(box)
    labs = await build_fleet(upstream.url)
    for lab in labs:
        know(lab, QUICK)
    leader = await dial(labs[0])
    await labs[0].until(lambda: upstream.calls == 1)
    callers = [leader, *[await dial(labs[number % 2]) for number in range(499)]]
    await labs[0].until(lambda: [251, 249] == [lab.waiting for lab in labs])
    await labs[1].until(lambda: labs[1].sidecar.fleet.remote.waits == 1)
    pass_time(*labs)

    assert right(await replies_of(*callers))
    for lab in labs:
        await lab.settle()
    await released(redis_server)
    assert 2 == upstream.calls
    assert ["second-leader"] == causes(*labs)


@pytest.mark.parametrize("first", [CHAT, STREAM], ids=["whole", "stream"])
async def test_a_leader_whose_own_region_hangs(build_fleet, script, dial, redis_server, first):
    """The second sidecar's region is well: its answer is everybody's, also of the one caller of the first sidecar."""
    hung, well = await script(Box(hung=9)), await script(Box(hung=0))
    (one,) = await build_fleet(hung.url, count=1)
    (other,) = await build_fleet(well.url, count=1)
    for lab in (one, other):
        know(lab, QUICK)
    leader = await dial(one, first)
    await one.until(lambda: hung.calls == 1)
    callers = [await dial(other) for _ in range(9)]
    await other.until(lambda: other.waiting == 9)
    pass_time(one)

    assert right(await replies_of(leader, *callers))
    assert (1, 1) == (hung.calls, well.calls)
    for lab in (one, other):
        await lab.settle()
    await released(redis_server)


async def test_a_fleet_without_an_extra_attempt(build_fleet, script, dial, redis_server):
    """A sidecar that may not make a second call waits for the first."""
    box = Box()
    upstream = await script(box)
    one, other = await build_fleet(upstream.url)
    for lab in (one, other):
        know(lab, QUICK)
    budget = other.sidecar.regions.budget("openai")
    while budget.take(other.clocks.running()):
        pass
    leader = await dial(one)
    await one.until(lambda: upstream.calls == 1)
    waiting = await dial(other)
    await other.until(lambda: other.waiting == 1)
    pass_time(one)
    await one.until(lambda: any(b"?" in redis_server.call("GET", key) for key in redis_server.call("KEYS", "*:l")))
    box.go.set()

    assert right(await replies_of(leader, waiting))
    assert 1 == upstream.calls
