"""A call that takes longer than nearly all others is sent a second time, and the first answer counts."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.region.breaker import State
from sidecar.core.region.retry_budget import HedgeBudget
from sidecar.core.rules import RetryRule
from tests.scenarios.answers import said
from tests.scenarios.conftest import Lab
from tests.scenarios.lab import AT_REST
from tests.scenarios.paces import MARKED, know_the_pace
from tests.scenarios.regions import (
    Way,
    attempts_of,
    chat,
    mixed,
    order,
    route,
    seen_by,
    service,
    state_of,
)

HEDGED = RetryRule(hedge=True)

FORMS = pytest.mark.parametrize(
    ("stream", "bypassed"),
    [(False, False), (True, False), (False, True), (True, True)],
    ids=["whole", "streamed", "whole-bypassed", "streamed-bypassed"],
)


class Questioned(HedgeBudget):
    """The hedged calls that *lab* has left, which counts how often somebody wants one."""

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self.questions = 0
        lab.sidecar.regions._hedges["openai"] = self

    def take(self, now: float) -> bool:
        self.questions += 1
        return super().take(now)


@FORMS
async def test_slow_call_is_sent_twice(stream, bypassed, build_lab, pair):
    """The second region's answer counts; the first one's connection is closed, and nobody thinks badly of it."""
    a, b = pair
    a.hold = MARKED
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route(retry=HEDGED))
    know_the_pace(lab)
    quick = [await lab.ask(mixed(number)) for number in range(8)]
    slow = await lab.ask(chat(1000, stream=stream, bypassed=bypassed))
    await lab.until(lambda: a.deserted == 1)

    assert ["a"] * 8 == seen_by(quick)
    assert (200, False, "b says gpt-4o") == (slow.status, slow.broken, said(slow.body))
    assert "b" == slow.headers["x-sidecar-region"]
    assert (9, 1) == (a.calls, b.calls)
    assert 10 == attempts_of(lab)
    assert ("hedge",) == lab.records[-1].retry_causes
    assert State.CLOSED is state_of(lab, "a")
    await lab.settle()
    assert AT_REST == lab.tasks
    assert 0 == lab.held


async def test_first_answer_counts(build_lab, pair):
    """Where the second attempt is slower still, the first one's answer is taken, and the second connection closed."""
    a, b = pair
    a.hold = b.hold = MARKED
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route(retry=HEDGED))
    know_the_pace(lab)
    asking = asyncio.create_task(lab.ask(chat(1000)))
    await lab.until(lambda: b.calls == 1)
    a.go.set()
    reply = await asking
    await lab.until(lambda: b.deserted == 1)

    assert (200, "a says gpt-4o") == (reply.status, said(reply.body))
    assert (1, 1) == (a.calls, b.calls)
    again = await lab.ask(chat(1000))
    assert again.cache.startswith("sidecar; hit; ")


@pytest.mark.parametrize("way", [Way.DOWN, Way.KILLED, Way.BROKEN_BEFORE, Way.THROTTLED])
async def test_second_attempt_fails(way, build_lab, pair):
    """A second attempt that fails is no answer: the first one's is waited for."""
    a, b = pair
    a.hold = MARKED
    await b.become(way)
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route(retry=HEDGED))
    know_the_pace(lab)
    asking = asyncio.create_task(lab.ask(chat(1000)))
    await lab.until(lambda: b.attempts == 1)
    await lab.until(lambda: "attempt" in lab.tasks and lab.tasks.count("attempt") == 1)
    a.go.set()
    reply = await asking

    assert (200, "a says gpt-4o") == (reply.status, said(reply.body))
    assert (1, 1) == (a.attempts, b.attempts)


async def test_only_region_is_asked_twice(build_lab, pair):
    """With one region the second attempt goes there, too."""
    a, _ = pair
    ordinary = a.handler

    async def first_is_slow(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if a.calls == 1:
            await a.go.wait()
        await ordinary(head, body, writer)

    a.handler = first_is_slow
    lab = await build_lab("", services=service(a.rule()), routes=route(retry=HEDGED))
    know_the_pace(lab)
    reply = await lab.ask(chat(1000))
    await lab.until(lambda: a.deserted == 1)

    assert (200, "a says gpt-4o") == (reply.status, said(reply.body))
    assert 2 == a.calls == attempts_of(lab)


async def test_not_more_than_a_twentieth(build_lab, pair):
    """Where everything is slow, five calls in a hundred are sent twice."""
    a, b = pair
    a.hold = b"box"
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route(retry=HEDGED))
    know_the_pace(lab)
    lab.clocks.stand_still()  # so that no call is older than those that the twentieth is counted of
    budget = Questioned(lab)
    asking = [asyncio.create_task(lab.ask(mixed(number))) for number in range(100)]
    await lab.until(lambda: budget.questions == 100 and a.calls >= 94)  # of six the first attempt may not be there
    await lab.until(lambda: sum(call.done() for call in asking) == 5)
    a.go.set()
    replies = await asyncio.gather(*asking)

    assert [200] * 100 == [reply.status for reply in replies]
    assert 5 == b.calls
    assert a.calls <= 100
    assert b.calls == seen_by(replies).count("b")
    assert 100 + b.calls == attempts_of(lab)


@FORMS
async def test_caller_leaves_a_race(stream, bypassed, build_lab, pair, dial):
    """A caller that leaves while two attempts run takes both along."""
    a, b = pair
    a.hold = b.hold = MARKED
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route(retry=HEDGED))
    know_the_pace(lab)
    caller = await dial(lab, chat(1000, stream=stream, bypassed=bypassed))
    await lab.until(lambda: a.calls == 1 and b.calls == 1)
    caller.vanish()
    await lab.until(lambda: a.deserted == 1 and b.deserted == 1)
    await lab.until(lambda: AT_REST == lab.tasks)

    assert lab.settled()
    assert (1, 1) == (a.calls, b.calls)


async def test_not_without_the_rule(build_lab, pair):
    """A route that didn't ask for it sends each call once, however long it takes."""
    a, b = pair
    a.hold = MARKED
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route())
    know_the_pace(lab)
    asking = asyncio.create_task(lab.ask(chat(1000)))
    await lab.until(lambda: a.calls == 1)
    tasks = lab.tasks
    a.go.set()

    assert "attempt" not in tasks  # there is no race
    assert 200 == (await asking).status
    assert (1, 0) == (a.calls, b.calls)


async def test_not_where_the_other_is_in_trouble(build_lab, pair):
    """A region that is taken out gets no second attempts either."""
    a, b = pair
    a.hold = MARKED
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route(retry=HEDGED))
    know_the_pace(lab)
    assert 200 == await order(lab, "b", "stop")
    budget = Questioned(lab)
    asking = asyncio.create_task(lab.ask(chat(1000)))
    await lab.until(lambda: a.calls == 1 and budget.questions == 1)
    a.go.set()

    assert 200 == (await asking).status
    assert (1, 0) == (a.calls, b.calls)
