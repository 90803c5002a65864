"""Which calls go, wait or are sent away: order, deadlines, rates by the fleet and by a share, and no slot ever lost."""

from __future__ import annotations

import asyncio
import heapq
from contextlib import suppress
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.core.limits.rates import BRIMFUL, BURST_SECONDS, Account, Pair, worth
from sidecar.core.limits.turns import Taken
from sidecar.core.rules import Route, RouteLimits
from sidecar.errors import FleetAway, Refused
from sidecar.upstream.limiter import Throttle
from sidecar.upstream.route_limiter import ALONE_SECONDS, FIRST_ADAPTIVE, PATIENCE_SECONDS
from tests.store.remotes import Tasks


class Time:
    """A clock that the test moves, and what is due by it."""

    def __init__(self):
        self.now = 1000.0
        self._due = []
        self._numbers = count()

    def clock(self):
        return self.now

    def call_later(self, seconds, call):
        timer = Timer(call)
        heapq.heappush(self._due, (self.now + seconds, next(self._numbers), timer))
        return timer

    @property
    def timers(self):
        return sum(timer.call is not None for _, _, timer in self._due)

    async def advance(self, seconds):
        until = self.now + seconds
        await spin()
        while self._due and self._due[0][0] <= until:
            at, _, timer = heapq.heappop(self._due)
            self.now = max(self.now, at)
            call, timer.call = timer.call, None
            if call is not None:
                call()
                await spin()
        self.now = until


class Timer:
    def __init__(self, call):
        self.call = call

    def cancel(self):
        self.call = None


class Fleet:
    """The fleet's rates within this process: the arithmetic of the core, under one clock."""

    def __init__(self, time):
        self.time = time
        self.up = True
        self.sick = False
        self.asked = []
        self.given = []
        self.accounts = {}

    async def take(self, route, limits, charges, *, patience, ceiling):
        await asyncio.sleep(0)
        self.asked.append((tuple(charges), patience, ceiling))
        if self.sick:
            raise FleetAway("timeout")
        now, price, admitted, wait = self.time.now, worth(limits), 0, Pair(0.0, 0.0)
        account = self.accounts.setdefault(route, Account())
        account.set(now, Pair(*map(min, account.fill(now), ceiling)))
        reserved = False
        for charge in charges:
            wait = account.wait(now, price, charge)
            if max(wait) <= patience:
                account.take(now, price, charge)
            if max(wait) > 0:
                reserved = max(wait) <= patience
                break
            admitted += 1
        return Taken(admitted, wait, reserved, account.fill(now))

    def give(self, route, limits, tokens, requests=0):
        self.given.append((tokens, requests))
        self.accounts[route].take(self.time.now, worth(limits), -tokens, -requests)


async def spin():
    for _ in range(8):
        await asyncio.sleep(0)


class Lab:
    """One process with its calls by name, in the order in which they went in."""

    def __init__(self, time=None, *, fleet=None, pods=None):
        self.time = time or Time()
        self.tasks = Tasks()
        self.pods = pods
        self.throttle = Throttle(
            quota=fleet,
            pods=lambda: self.pods,
            clock=self.time.clock,
            spawn=self.tasks.spawn,
            call_later=self.time.call_later,
        )
        self.went = []
        self.passes = {}
        self.refused = {}
        self.calls = {}

    def call(self, route, name, tokens=1, *, within=None, batch=False):
        deadline = None if within is None else self.time.now + within
        self.calls[name] = asyncio.create_task(self._call(route, name, tokens, deadline, batch))

    async def calls_in(self, route, names, tokens=1, **more):
        for name in names:
            self.call(route, name, tokens, **more)
        await spin()

    async def _call(self, route, name, tokens, deadline, batch):
        try:
            self.passes[name] = await self.throttle.enter(route, tokens, deadline=deadline, batch=batch)
            self.went.append(name)
        except Refused as refused:
            self.refused[name] = refused

    async def leave(self, name, *, tokens=None, throttled=False, seconds=1.0):
        self.passes.pop(name).leave(tokens=tokens, throttled=throttled, seconds=seconds)
        await spin()

    async def cancel(self, name):
        self.calls[name].cancel()
        with suppress(asyncio.CancelledError):
            await self.calls[name]
        await spin()

    def state(self, route):
        return self.throttle.inside().get(route.name, 0), self.throttle.waiting().get(route.name, 0)


@pytest.fixture
async def lab():
    lab = Lab()
    yield lab
    await close(lab)


async def close(lab):
    for task in lab.calls.values():
        task.cancel()
    await asyncio.gather(*lab.calls.values(), return_exceptions=True)
    await lab.tasks.cancel()


def route(**limits):
    return Route("chat", limits=RouteLimits(**limits))


def shed(lab):
    return {cause: number for (_, cause), number in lab.throttle.shed().items() if number}


# Concurrency


async def test_first_come_first_served(lab):
    """As many as there are slots go, the others as slots come free, in their order; batches after all others."""
    two = route(concurrency=2)
    await lab.calls_in(two, "ab")
    await lab.calls_in(two, "XY", batch=True)
    await lab.calls_in(two, "cde")

    assert (["a", "b"], (2, 5)) == (lab.went, lab.state(two))

    for name in "abcdeXY":
        await lab.leave(name)

    assert (list("abcdeXY"), (0, 0), {}) == (lab.went, lab.state(two), lab.refused)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [({"concurrency": 1}, False), ({"adaptive": True}, False), ({"queue": 5}, True), ({}, True)],
    ids=str,
)
def test_idle(limits, expected):
    """Only a route that limits something is entered."""
    throttle = Throttle(quota=None, pods=lambda: None, clock=lambda: 0.0, spawn=lambda *_, **__: None)

    assert expected == throttle.idle(route(**limits))
    assert "<Throttle nothing limited yet>" == repr(throttle)


async def test_nothing_limited(lab):
    """Such a route may be entered all the same."""
    free = route(queue=0)
    await lab.calls_in(free, "abcdefgh")

    assert (8, 0) == lab.state(free)
    assert {} == lab.throttle.room()


async def test_full_queue(lab):
    """Too many are sent away at once, with a time to come again; of a full queue a batch call gives way."""
    one = route(concurrency=1, queue=2)
    await lab.calls_in(one, "a")
    lab.time.now += 40.0
    await lab.leave("a")
    await lab.calls_in(one, "b")
    await lab.calls_in(one, "XY", batch=True)
    await lab.calls_in(one, "Z", batch=True)

    assert ["Z"] == list(lab.refused)

    await lab.calls_in(one, "cd")

    assert ["Z", "Y", "X"] == list(lab.refused)

    await lab.calls_in(one, "e")
    refused = lab.refused["e"]

    assert ({"queue": 4}, (1, 2)) == (shed(lab), lab.state(one))
    assert (429, "route-limit", 60.0) == (refused.status, refused.code, refused.retry_after)
    assert "Route chat is at its limits, and 2 calls wait already (limits.queue). Try again in 60 s." == str(refused)


async def test_no_queue(lab):
    """With a queue of none a call goes or is sent away."""
    one = route(concurrency=1, queue=0)
    await lab.calls_in(one, "ab")

    assert (["a"], ["b"], 1.0) == (lab.went, list(lab.refused), lab.refused["b"].retry_after)


async def test_deadlines(lab):
    """Who can't have its turn in time, by the pace of calls so far, is sent away at once; who was let hope, then."""
    two = route(concurrency=2)
    await lab.calls_in(two, "ab")
    lab.time.now += 10.0
    await lab.leave("a")
    await lab.leave("b")
    await lab.calls_in(two, "cd")
    await lab.calls_in(two, "e", within=4.9)
    await lab.calls_in(two, "f", within=5.1)
    await lab.calls_in(two, "g", within=5.1)
    await lab.calls_in(two, "h", within=0.0)

    assert ["e", "g", "h"] == list(lab.refused)
    assert (5.0, 10.0) == (lab.refused["e"].retry_after, lab.refused["g"].retry_after)

    await lab.time.advance(5.2)

    assert (["e", "g", "h", "f"], (2, 0)) == (list(lab.refused), lab.state(two))
    assert {"deadline": 4} == shed(lab)


async def test_no_deadline(lab):
    """Who has none waits for a slot for as long as it takes, and leaves no timer."""
    one = route(concurrency=1)
    await lab.calls_in(one, "ab")
    await lab.time.advance(3600.0)

    assert ((1, 1), 0) == (lab.state(one), lab.time.timers)


async def test_leaving_twice(lab):
    """The second time says nothing."""
    one = route(concurrency=1)
    await lab.calls_in(one, "abc")
    pass_ = lab.passes["a"]
    await lab.leave("a")
    pass_.leave(tokens=None, throttled=False, seconds=1.0)
    await spin()

    assert (["a", "b"], (1, 1)) == (lab.went, lab.state(one))
    assert "<Pass of 1 tokens, left>" == repr(pass_)
    assert "<Throttle <Gate chat 1 inside, 1 waiting, 0 shed>>" == repr(lab.throttle)


@pytest.mark.parametrize("steps", range(5))
async def test_cancelled_anywhere(lab, steps):
    """A waiting call that is cancelled, or one that has a slot already and doesn't know, costs nobody anything."""
    one = route(concurrency=1)
    await lab.calls_in(one, "abc")
    lab.passes.pop("a").leave(tokens=None, throttled=False, seconds=1.0)
    for _ in range(steps):
        await asyncio.sleep(0)
    await lab.cancel("b")
    if "b" in lab.passes:
        await lab.leave("b")

    assert ("c", (1, 0)) == (lab.went[-1], lab.state(one))


async def test_limits_that_change(lab):
    """A route's new limits hold at once, also for calls that wait, and whatever a call from before says."""
    before, after = route(concurrency=1), route(concurrency=3)
    await lab.calls_in(before, "ab")

    assert ["a"] == lab.went

    lab.throttle.adopt([after])
    await lab.calls_in(before, "cd")

    assert (["a", "b", "c"], {"chat": 3}, 1) == (sorted(lab.went), lab.throttle.room(), lab.throttle.waiting()["chat"])


async def test_a_shorter_queue(lab):
    """Calls that are too many for it are refused, the last ones first; those before them go on waiting."""
    await lab.calls_in(route(concurrency=1, queue=10), "abcde")
    lab.throttle.adopt([route(concurrency=1, queue=2)])
    await lab.time.advance(0.0)

    assert (["a"], ["d", "e"], 2) == (lab.went, sorted(lab.refused), lab.throttle.waiting()["chat"])


@pytest.mark.parametrize("routes", [[route()], []], ids=["no limits", "no route"])
async def test_limits_that_go(lab, routes):
    """Whatever waits goes; the limiter goes with the last call that it let through."""
    await lab.calls_in(route(concurrency=1), "abc")
    lab.throttle.adopt(routes)
    await lab.time.advance(0.0)

    assert (["a", "b", "c"], {}) == (sorted(lab.went), lab.throttle.room())

    for name in "abc":
        await lab.leave(name)
    lab.throttle.adopt(routes)

    assert {} == lab.throttle.waiting()


async def test_a_rate_that_rises(lab):
    """A call that waits for its turn gets one at the new rate, not at the time that the old rate gave it."""
    await lab.calls_in(route(requests_per_minute=60), "abc")
    waiting = sorted({"a", "b", "c"} - set(lab.went))

    assert waiting

    lab.throttle.adopt([route(requests_per_minute=6000)])
    await lab.time.advance(0.05)

    assert ["a", "b", "c"] == sorted(lab.went)


async def test_adaptive(lab):
    """The concurrency falls when the service throttles, and what is too much drains away."""
    adaptive = route(concurrency=10, adaptive=True)
    await lab.calls_in(adaptive, "abcdefghijkl")

    assert ((10, 2), {"chat": 10}) == (lab.state(adaptive), lab.throttle.room())

    await lab.leave("a", throttled=True)

    assert ((9, 2), {"chat": 9}) == (lab.state(adaptive), lab.throttle.room())

    await lab.leave("b")

    assert ((9, 1), "k") == (lab.state(adaptive), lab.went[-1])


async def test_adaptive_without_a_limit(lab):
    """It begins low; told otherwise, it begins anew."""
    await lab.calls_in(route(adaptive=True), "a")

    assert {"chat": FIRST_ADAPTIVE} == lab.throttle.room()

    lab.throttle.adopt([route()])

    assert {} == lab.throttle.room()


# Rates by this process's share


async def test_requests_by_share(lab):
    """A bucket's worth at once, and then one after the other, at the share of the pods that were counted last."""
    lab.pods = 5
    per_second = route(requests_per_minute=300, replicas=2)
    await lab.calls_in(per_second, "abcdefgh")

    assert (["a", "b"], (2, 5), ["h"]) == (lab.went, lab.state(per_second), list(lab.refused))

    await lab.time.advance(1.0)

    assert ["a", "b", "c"] == lab.went

    await lab.time.advance(4.0)

    assert list("abcdefg") == lab.went


async def test_replicas(lab):
    """Where no pods were counted the configuration says how many there are."""
    await lab.calls_in(route(requests_per_minute=120, replicas=2), "abc")

    assert ["a", "b"] == lab.went


async def test_no_room_soon(lab):
    """Who would wait for too long is sent away at once, and told when there is room, but no more than a minute."""
    tokens = route(tokens_per_minute=6000)
    await lab.calls_in(tokens, "a", 1000)
    await lab.calls_in(tokens, "b", 100)

    assert (["a"], 9.0) == (lab.went, pytest.approx(lab.refused["b"].retry_after))
    assert {"rate": 1} == shed(lab)

    await lab.time.advance(8.5)
    await lab.calls_in(tokens, "c", 10_000)
    await lab.calls_in(tokens, "d", 100)

    assert ["a"] == lab.went
    assert ["b", "d"] == list(lab.refused)

    await lab.time.advance(1.5)

    assert ["a", "c"] == lab.went

    await lab.calls_in(tokens, "e", 100)

    assert 60.0 == lab.refused["e"].retry_after


async def test_deadline_before_the_turn(lab):
    """A rate's turn that comes after the deadline is none."""
    tokens = route(tokens_per_minute=6000)
    await lab.calls_in(tokens, "a", 400)
    await lab.calls_in(tokens, "b", 100, within=2.9)
    await lab.calls_in(tokens, "c", 100, within=3.1)

    assert ["b"] == list(lab.refused)

    await lab.time.advance(3.0)

    assert ["a", "c"] == lab.went


@pytest.mark.parametrize(("used", "expected"), [(0, 0.0), (100, 0.0), (None, 3.0), (400, 3.0), (600, 5.0)])
async def test_corrections(lab, used, expected):
    """What a call didn't use is there for the next at once, also for one that waits; what it used beyond is owed."""
    tokens = route(tokens_per_minute=6000)
    await lab.calls_in(tokens, "a", 400)
    await lab.leave("a", tokens=used)
    lab.throttle._limiters["chat"]._calibration = type(lab.throttle._limiters["chat"]._calibration)()
    await lab.calls_in(tokens, "b", 100)
    await lab.time.advance(expected)

    assert ["a", "b"] == lab.went

    await lab.leave("b")
    await lab.calls_in(tokens, "c", 400)

    assert ["a", "b"] == lab.went


async def test_a_refund_brings_turns_forward(lab):
    """A call that waits for its turn has it earlier when another turns out to have used less."""
    tokens = route(tokens_per_minute=6000)
    await lab.calls_in(tokens, "a", 400)
    await lab.calls_in(tokens, "b", 200)

    assert ["a"] == lab.went

    await lab.leave("a", tokens=200)
    await lab.time.advance(1.9)

    assert ["a"] == lab.went

    await lab.time.advance(0.2)

    assert ["a", "b"] == lab.went


async def test_a_turn_is_for_whoever_is_first(lab):
    """A batch call's turn goes to a call that came after it and isn't one; the difference is paid."""
    tokens = route(tokens_per_minute=6000)
    await lab.calls_in(tokens, "a", 200)
    await lab.calls_in(tokens, "X", 100, batch=True)
    await lab.calls_in(tokens, "b", 150)
    await lab.time.advance(1.0)

    assert ["a", "b"] == lab.went

    await lab.time.advance(1.4)

    assert ["a", "b"] == lab.went

    await lab.time.advance(0.2)

    assert ["a", "b", "X"] == lab.went


async def test_a_turn_that_nobody_wants(lab):
    """Is given back: the next call finds what it would have found."""
    both = route(tokens_per_minute=6000, requests_per_minute=60)
    await lab.calls_in(both, "a", 200)
    await lab.calls_in(both, "b", 100)
    await lab.time.advance(0.5)
    await lab.cancel("b")

    assert Pair(1.5, 0.5) == lab.throttle._limiters["chat"]._turns._account.fill(lab.time.now)
    assert (1, 0) == lab.state(both)


async def test_patience(lab):
    """Estimates of others may grow: who has waited for a rate for long enough is sent away."""
    tokens = route(tokens_per_minute=6000)
    await lab.calls_in(tokens, "a", 400)
    await lab.calls_in(tokens, "bc", 100)
    await lab.leave("a", tokens=1000)
    await lab.time.advance(PATIENCE_SECONDS)

    assert (["a", "b"], ["c"]) == (lab.went, list(lab.refused))
    assert {"rate": 1} == shed(lab)


@pytest.mark.parametrize(
    ("within", "taken", "expected"),
    [
        pytest.param(1.0, 400, (True, 3.0), id="its own deadline"),
        pytest.param(0.0, 400, (True, 3.0), id="its own deadline, over already"),
        pytest.param(None, 900, (False, 8.0), id="nobody waits for so long"),
        pytest.param(1.0, 900, (False, 8.0), id="nobody would, without a deadline either"),
        pytest.param(7.0, 900, (False, 8.0), id="the deadline is the later end"),
    ],
)
@pytest.mark.parametrize("limits", [{}, {"concurrency": 9}], ids=["rates", "rates and slots"])
async def test_whose_impatience(lab, limits, within, taken, expected):
    """Who would be let in without its deadline is sent away for that alone: it says nothing of others."""
    tokens = route(tokens_per_minute=6000, **limits)
    await lab.calls_in(tokens, "a", taken)
    await lab.calls_in(tokens, "b", 100, within=within)
    refused = lab.refused["b"]

    assert expected == (refused.by_own_deadline, pytest.approx(refused.retry_after))
    assert {"rate": 1} == shed(lab)


@pytest.mark.parametrize("within", [4.0, None], ids=["its own", "the route's"])
async def test_whose_impatience_at_the_end(lab, within):
    """So it is where it was let hope."""
    tokens = route(tokens_per_minute=6000)
    await lab.calls_in(tokens, "a", 400)
    await lab.calls_in(tokens, "b", 100)
    await lab.calls_in(tokens, "c", 100, within=within)
    await lab.leave("a", tokens=800)
    await lab.time.advance(PATIENCE_SECONDS)

    assert ["a"] == lab.went[:1]
    assert (within is not None) == lab.refused["c"].by_own_deadline


@pytest.mark.parametrize(
    ("within", "used", "expected"),
    [(3.0, 500, [True]), (None, 500, []), (3.0, 800, [False]), (None, 800, [False])],
    ids=["its own", "none", "nobody would", "nobody does"],
)
async def test_whose_impatience_after_a_slot(lab, within, used, expected):
    """And where its slot is free, but a rate turns out to be spent."""
    both = route(tokens_per_minute=6000, concurrency=1)
    await lab.calls_in(both, "a", 200)
    await lab.calls_in(both, "b", 100, within=within)
    await lab.leave("a", tokens=used)

    assert expected == [refused.by_own_deadline for refused in lab.refused.values()]


# Rates by the fleet


@pytest.fixture
async def pods():
    """Two processes of one fleet, under one clock."""
    time = Time()
    fleet = Fleet(time)
    labs = Lab(time, fleet=fleet, pods=2), Lab(time, fleet=fleet, pods=2)
    yield fleet, *labs
    for lab in labs:
        await close(lab)


async def test_together(pods):
    """Two processes have one limit between them, and take turns when both have calls that wait."""
    fleet, one, other = pods
    requests = route(requests_per_minute=60)
    await one.calls_in(requests, "abcd")
    await other.calls_in(requests, "efgh")

    assert (["a", "b"], []) == (one.went, other.went)

    await one.time.advance(4.0)

    assert (["a", "b", "c", "d"], ["e", "f"]) == (one.went, other.went)
    assert 4 == len(fleet.asked[0][0])


async def test_a_burst_is_asked_for_at_once(pods):
    """Calls that come together cost one question, and the queue counts only who has to wait after it."""
    fleet, one, _ = pods
    requests = route(requests_per_minute=480, queue=3)
    await one.calls_in(requests, range(21))

    assert list(range(16)) == one.went
    assert (1, 3) == (len(fleet.asked), one.throttle.waiting()["chat"])
    assert [19, 20] == sorted(one.refused)


async def test_fleet_corrections(pods):
    """What was not used, and turns that nobody wants, are the fleet's again."""
    fleet, one, other = pods
    tokens = route(tokens_per_minute=6000)
    await one.calls_in(tokens, "a", 200)
    await other.calls_in(tokens, "b", 100)
    await other.cancel("b")

    assert [(100, 1)] == fleet.given

    await one.leave("a", tokens=50)
    await other.calls_in(tokens, "c", 150)

    assert ([(100, 1), (150, 0)], ["c"]) == (fleet.given, other.went)


async def test_no_room_in_the_fleet(pods):
    """What another has taken is heard of; who can't wait for that is sent away, and the next needn't even ask."""
    fleet, one, other = pods
    tokens = route(tokens_per_minute=6000)
    await one.calls_in(tokens, "a", 1000)
    await other.calls_in(tokens, "b", 100)

    assert (1.0 + 8.0, ["b"]) == (pytest.approx(other.refused["b"].retry_after), list(other.refused))

    await other.calls_in(tokens, "c", 100)

    assert (["b", "c"], 2) == (list(other.refused), len(fleet.asked))


@pytest.mark.parametrize(
    ("within", "taken", "expected"),
    [(1.0, 400, True), (None, 900, False), (1.0, 900, False)],
    ids=["its own", "nobody waits", "nobody would"],
)
async def test_whose_impatience_in_the_fleet(pods, within, taken, expected):
    """Where only the fleet knows that there is no room, too."""
    _, one, other = pods
    tokens = route(tokens_per_minute=6000)
    await one.calls_in(tokens, "a", taken)
    await other.calls_in(tokens, "b", 100, within=within)

    assert expected == other.refused["b"].by_own_deadline


async def test_alone(pods):
    """Without the fleet each has its share, and begins with no more than the fleet had; it isn't asked each time."""
    fleet, one, _ = pods
    requests = route(requests_per_minute=120)
    await one.calls_in(requests, "abcd")
    fleet.sick = True
    await one.calls_in(requests, "ef")
    asked = len(fleet.asked)

    assert ["a", "b", "c", "d"] == one.went

    await one.time.advance(1.0)

    assert ["a", "b", "c", "d", "e"] == one.went

    await one.time.advance(1.0)

    assert ["a", "b", "c", "d", "e", "f"] == one.went
    assert len(fleet.asked) <= asked + 2 / ALONE_SECONDS


async def test_down(pods):
    """A fleet that is known to be away isn't asked at all."""
    fleet, one, _ = pods
    fleet.up = False
    await one.calls_in(route(requests_per_minute=60), "ab")

    assert (["a"], []) == (one.went, fleet.asked)


async def test_return(pods):
    """What was spent alone doesn't come on top of what the fleet has saved in the meantime."""
    fleet, one, _ = pods
    requests = route(requests_per_minute=120)
    fleet.sick = True
    await one.calls_in(requests, "ab")

    assert (["a", "b"], BRIMFUL) == (one.went, fleet.asked[0][2])

    fleet.sick = False
    await one.time.advance(ALONE_SECONDS)
    await one.calls_in(requests, "cdefgh")

    assert (["a", "b", "c"], Pair(ALONE_SECONDS, BURST_SECONDS)) == (one.went, fleet.asked[1][2])


async def test_return_with_debts(pods):
    """Of what it overdrew of its share, it owes the fleet as much."""
    fleet, one, _ = pods
    tokens = route(tokens_per_minute=6000)
    fleet.sick = True
    await one.calls_in(tokens, "a", 300)

    assert ["a"] == one.went

    fleet.sick = False
    await one.time.advance(2.0)
    await one.calls_in(tokens, "b", 100)

    assert Pair(BURST_SECONDS, -1.0) == fleet.asked[1][2]


async def test_a_bug_in_asking(pods):
    """Whatever goes wrong with the fleet, calls go on by this process's share."""
    fleet, one, _ = pods

    async def broken(*_, **__):
        raise ZeroDivisionError

    fleet.take = broken
    await one.calls_in(route(requests_per_minute=60), "a")

    assert (["a"], [ZeroDivisionError]) == (one.went, [type(error) for error in one.tasks.errors])


@pytest.mark.parametrize("steps", range(8))
async def test_cancelled_while_asking(pods, steps):
    """Wherever the call is cancelled, the fleet's buckets have what it took again, and nothing is left behind."""
    fleet, one, _ = pods
    both = route(requests_per_minute=60, tokens_per_minute=6000, concurrency=1)
    one.call(both, "a", 100)
    for _ in range(steps):
        await asyncio.sleep(0)
    await one.cancel("a")
    if "a" in one.passes:
        await one.leave("a", tokens=0)

    assert (0, 0) == one.state(both)
    assert BURST_SECONDS == (fleet.accounts["chat"].fill(fleet.time.now).tokens if fleet.accounts else BURST_SECONDS)
    assert [] == one.tasks.errors


@pytest.mark.parametrize("real", [100, 900, 2000], ids=["a-tenth", "about-right", "twice"])
async def test_three_minutes(pods, real):
    """Two processes under more load than 200 000 tokens a minute: each whole minute is within 5 % of that, really."""
    labs = pods[1:]
    time = labs[0].time
    busy, start, names = route(tokens_per_minute=200_000, queue=20), time.now, count()
    used, ends = [], []
    while time.now < start + 180.0:
        for lab in labs:
            await lab.calls_in(busy, [next(names) for _ in range(5)], 1000)
        await time.advance(0.25)
        for lab in labs:
            used += [real] * len(lab.went)
            ends += [(time.now + 1.5, lab, name) for name in lab.went]
            lab.went.clear()
            lab.calls.clear()
        over = [(lab, name) for at, lab, name in ends if at <= time.now]
        ends = [end for end in ends if end[0] > time.now]
        for lab, name in over:
            await lab.leave(name, tokens=real)
        if (time.now - start) % 60.0 == 0.0:
            assert 190_000 <= sum(used) <= 210_000
            used.clear()


class Story(RuleBasedStateMachine):
    """Any order of coming, leaving, giving up and waiting: slots, queue and rates hold, and nobody is forgotten."""

    SLOTS, QUEUE, REQUESTS = 3, 4, 120

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.route = route(concurrency=self.SLOTS, queue=self.QUEUE, requests_per_minute=self.REQUESTS)
        self.time = Time()
        self.fleet = Fleet(self.time)
        self.lab = Lab(self.time, fleet=self.fleet, pods=1)
        self.names = count()
        self.entered = []

    def run(self, work):
        before = len(self.lab.went)
        self.runner.run(work)
        self.entered += [self.time.now] * (len(self.lab.went) - before)

    async def turn(self, call, *args, **more):
        call(*args, **more)
        await spin()

    @rule(within=st.none() | st.floats(0, 20), batch=st.booleans(), tokens=st.integers(1, 50))
    def comes(self, within, batch, tokens):
        self.run(self.turn(self.lab.call, self.route, next(self.names), tokens, within=within, batch=batch))

    @precondition(lambda self: self.lab.passes)
    @rule(data=st.data(), throttled=st.booleans())
    def leaves(self, data, throttled):
        name = data.draw(st.sampled_from(sorted(self.lab.passes)))
        self.run(self.lab.leave(name, throttled=throttled))

    @precondition(lambda self: self.pending())
    @rule(data=st.data())
    def gives_up(self, data):
        self.run(self.lab.cancel(data.draw(st.sampled_from(self.pending()))))

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 7.0]))
    def time_passes(self, seconds):
        self.run(self.time.advance(seconds))

    @rule(sick=st.booleans(), up=st.booleans())
    def fleet_changes(self, sick, up):
        self.fleet.sick, self.fleet.up = sick, up

    def pending(self):
        return sorted(name for name, task in self.lab.calls.items() if not task.done())

    @invariant()
    def bounds(self):
        inside, waiting = self.lab.state(self.route)

        assert len(self.lab.passes) == inside <= self.SLOTS
        assert len(self.pending()) == waiting <= self.QUEUE

    @invariant()
    def rates(self):
        recent = [at for at in self.entered if at > self.time.now - 10.0]

        assert len(recent) <= (10.0 + 2 * BURST_SECONDS) * self.REQUESTS / 60 + 1

    def teardown(self):
        for _ in range(100):
            for name in sorted(self.lab.passes):
                self.run(self.lab.leave(name))
            self.run(self.time.advance(0.5))
        left = self.lab.state(self.route), self.pending()
        self.run(close(self.lab))
        self.runner.close()

        assert ((0, 0), []) == left


TestStory = Story.TestCase
TestStory.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
