"""A region that is well again takes its calls again, little by little; and an operator may say otherwise."""

from __future__ import annotations

import asyncio
import json
from random import Random

import pytest

from sidecar.core.region.breaker import PROBE_PATIENCE, RAMP, State
from sidecar.core.rules import BreakerRule, RetryRule
from tests.scenarios.caller import Caller
from tests.scenarios.clocks import RunningClock
from tests.scenarios.conftest import Lab, Reply
from tests.scenarios.regions import (
    Region,
    Way,
    attempts_of,
    breaker_of,
    chat,
    mixed,
    order,
    route,
    seen_by,
    service,
    state_of,
)

REPEATS = RetryRule(on_timeout=True)
LONG = {"x-stainless-read-timeout": "600"}


class Traffic:
    """Ten callers of *lab* who ask, each one thing after the other, until they are stopped; and what they were told."""

    def __init__(self, lab: Lab) -> None:
        self.replies: list[Reply] = []
        self._lab = lab
        self._numbers = iter(range(10_000))
        self._over = False
        self._callers = asyncio.gather(*(self._call() for _ in range(10)))

    async def _call(self) -> None:
        while not self._over:
            self.replies.append(await self._lab.ask(mixed(next(self._numbers))))

    async def stop(self) -> None:
        self._over = True
        await self._callers


async def opened(build_lab, a: Region, b: Region, **members: object) -> tuple[Lab, RunningClock]:
    """A lab whose first region has failed until its breaker opened, and is well again; nobody has noticed yet."""
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2), **members), routes=route())
    lab.clocks.draw = Random(1).random
    clock = RunningClock(lab)
    await a.become(Way.KILLED)
    for number in range(10):
        assert 200 == (await lab.ask(mixed(10_000 + number))).status
    assert State.OPEN is state_of(lab, "a")
    assert 3 == a.refused
    await a.become(Way.WELL)
    return lab, clock


async def shares(lab: Lab, first: int, count: int = 100) -> int:
    """How many of *count* calls, all answered, the first region answered."""
    replies = [await lab.ask(mixed(first + number)) for number in range(count)]

    assert [200] * count == [reply.status for reply in replies]
    return seen_by(replies).count("a")


async def test_traffic_returns_bit_by_bit(build_lab, pair):
    """After a good probe the region gets a tenth of its calls, then more and more, in the end all of them."""
    a, b = pair
    lab, clock = await opened(build_lab, a, b)

    assert 0 == await shares(lab, 0)
    clock.later(10)
    probe = await lab.ask(mixed(100))
    assert "a" == probe.headers["x-sidecar-region"]
    assert State.CLOSED is state_of(lab, "a")
    beginning = await shares(lab, 200)
    clock.later(RAMP / 2)
    middle = await shares(lab, 300)
    clock.later(RAMP)
    assert 0 < beginning < 30 < middle < 80
    assert 100 == await shares(lab, 400)
    assert 100 + beginning + middle + 1 == a.calls
    told = [json.loads(line) for line in lab.logs if b'"breaker"' in line]
    assert [("closed", "open"), ("open", "half-open"), ("half-open", "closed")] == [
        (one["before"], one["after"]) for one in told
    ]
    assert "connect" in told[0]["detail"]
    assert ["detail" in one for one in told] == [True, False, False]


async def test_heals_under_load(build_lab, pair):
    """A region that fails and heals in the middle of the traffic gets calls again, and nobody hears of either."""
    a, b = pair
    regions = service(a.rule(), b.rule(priority=2), breaker=BreakerRule(open=0.1))
    lab = await build_lab("", services=regions, routes=route(retry=REPEATS))
    traffic = Traffic(lab)
    replies = traffic.replies
    await lab.until(lambda: len(replies) >= 100)
    await a.become(Way.KILLED)
    await lab.until(lambda: state_of(lab, "a") is State.OPEN)
    await a.become(Way.WELL)
    before = a.calls
    await lab.until(lambda: a.calls >= before + 20)
    await traffic.stop()

    assert {200} == {reply.status for reply in replies}
    assert not any(reply.broken for reply in replies)
    assert seen_by(replies[-100:]).count("b") > 0
    assert attempts_of(lab) <= 1.2 * len(replies) + 10
    assert a.attempts + b.attempts <= 1.2 * len(replies) + 10


async def test_failed_probes_wait_longer(build_lab, pair):
    """A region that goes on failing costs one call at a time, and each later than the one before."""
    a, b = pair
    lab, clock = await opened(build_lab, a, b)
    await a.become(Way.KILLED)
    refused, waits = a.refused, []
    for number in range(4):
        waits.append(breaker_of(lab, "a").remaining(clock.now()))
        clock.later(waits[-1] + 0.01)
        replies = await asyncio.gather(*(lab.ask(mixed(10 * number + one)) for one in range(5)))

        assert ["b"] * 5 == seen_by(replies)
        assert refused + number + 1 == a.refused
    assert sorted(waits) == waits
    assert waits[3] > 4 * waits[0]


async def test_long_stream_as_probe(build_lab, pair):
    """A probe is judged at its first event, however long its stream goes on."""
    a, b = pair
    lab, clock = await opened(build_lab, a, b)
    a.hold_tail = b"box 1?"
    clock.later(10)
    long = asyncio.create_task(lab.ask(chat(1, stream=True)))
    await lab.until(lambda: a.calls == 1 and state_of(lab, "a") is State.CLOSED)
    clock.later(600)

    assert not long.done()
    assert 20 == await shares(lab, 100, 20)
    a.go.set()
    assert (200, False) == ((await long).status, long.result().broken)
    assert State.CLOSED is state_of(lab, "a")


async def test_silent_probe_does_not_block(build_lab, pair):
    """While a probe waits for its answer the others go elsewhere; after half a minute another one tries."""
    a, b = pair
    lab, clock = await opened(build_lab, a, b)
    a.hold = b"box 1?"
    clock.later(10)
    probing = asyncio.create_task(lab.ask(chat(1)))
    await lab.until(lambda: a.calls == 1)

    assert State.HALF_OPEN is state_of(lab, "a")
    assert 0 == await shares(lab, 100, 20)
    clock.later(PROBE_PATIENCE)
    assert 1 <= await shares(lab, 200, 1)
    assert State.CLOSED is state_of(lab, "a")
    a.go.set()
    await probing


@pytest.mark.parametrize("bypassed", [False, True], ids=["looked-up", "bypassed"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_cancelled_probe(stream, bypassed, build_lab, pair, dial):
    """A caller that leaves while its call is the probe leaves nothing stuck: the next call probes."""
    a, b = pair
    lab, clock = await opened(build_lab, a, b)
    a.hold = b"box 1?"
    clock.later(10)
    for _ in range(3):
        seen = a.calls
        caller: Caller = await dial(lab, chat(1, stream=stream, bypassed=bypassed))
        await lab.until(lambda seen=seen: a.calls > seen)
        assert State.HALF_OPEN is state_of(lab, "a")
        gone = a.deserted
        caller.vanish()
        await lab.until(lambda gone=gone: a.deserted > gone)
        await lab.settle()
    reply = await lab.ask(chat(2, stream=stream, bypassed=bypassed))

    assert (200, "a") == (reply.status, reply.headers["x-sidecar-region"])
    assert State.CLOSED is state_of(lab, "a")
    assert 10 + 4 == len(lab.records)


async def test_impatient_probe(build_lab, pair):
    """A probe whose caller has no patience says nothing of the region, and the next call probes."""
    a, b = pair
    lab, clock = await opened(build_lab, a, b)
    a.hold = b"box 1?"
    clock.later(10)
    impatient = await lab.ask(chat(1), headers={"x-stainless-read-timeout": "0.1"})
    reply = await lab.ask(chat(2), headers=LONG)

    assert 504 == impatient.status
    assert (200, "a") == (reply.status, reply.headers["x-sidecar-region"])


# ---- an operator's orders ----


async def test_operator_takes_a_region_out(build_lab, pair):
    """In the middle of the traffic a region is taken out and brought back, without a call that fails."""
    a, b = pair
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route())
    traffic = Traffic(lab)
    replies = traffic.replies
    await lab.until(lambda: len(replies) >= 50)
    assert 200 == await order(lab, "a", "stop")
    under_way = a.calls
    await lab.until(lambda: b.calls >= 50)
    taken_out = a.calls
    assert 200 == await order(lab, "a", "auto")
    await lab.until(lambda: a.calls >= taken_out + 10)
    await traffic.stop()

    assert {200} == {reply.status for reply in replies}
    assert not any(reply.broken for reply in replies)
    assert taken_out - under_way <= 10
    assert len(replies) == a.calls + b.calls == attempts_of(lab)


async def test_operator_closes_both(build_lab, pair):
    """Where every region is taken out, callers hear so at once and no byte leaves."""
    a, b = pair
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route())
    assert [200, 200] == [await order(lab, name, "stop") for name in ("a", "b")]
    replies = [await lab.ask(mixed(number)) for number in range(8)]

    assert [(503, "upstream-no-region")] * 8 == [(one.status, one.json()["error"]["code"]) for one in replies]
    assert all(0 < int(one.headers["retry-after"]) <= 60 for one in replies)
    assert (0, 0) == (a.attempts, b.attempts)
    assert 200 == await order(lab, "b", "auto")
    assert 200 == (await lab.ask(mixed(0))).status


async def test_operator_keeps_a_failing_region(build_lab, pair):
    """By order a failing region gets every call, and its callers are still answered by the other."""
    a, b = pair
    await a.become(Way.DOWN)
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route())
    assert 200 == await order(lab, "a", "force")
    replies = [await lab.ask(mixed(number)) for number in range(20)]

    assert ["b"] * 20 == seen_by(replies)
    assert (20, 20) == (a.calls, b.calls)
    assert State.CLOSED is state_of(lab, "a")
