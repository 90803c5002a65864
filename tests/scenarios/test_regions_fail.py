"""One of two regions fails in the middle of the traffic, and no caller hears of it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from random import Random

import pytest

from sidecar.core.region.breaker import State
from sidecar.core.rules import RetryRule
from tests.scenarios.answers import LAST_CHUNK, STREAM_HEAD, chunks, said
from tests.scenarios.caller import Reply
from tests.scenarios.conftest import Lab
from tests.scenarios.lab import AT_REST
from tests.scenarios.regions import (
    BUSY,
    PATIENT,
    QUICK,
    Way,
    attempts_of,
    chat,
    direct,
    hangs,
    mixed,
    route,
    running,
    seen_by,
    service,
    state_of,
)

CALLS = 300
AT_ONCE = 20
REPEATS = RetryRule(on_timeout=True)
LARGE = "?" * 4000


@pytest.fixture
async def alone():
    """The only region."""
    async with running("a") as regions:
        yield regions[0]


async def load(lab: Lab, calls: int = CALLS, *, change: object = None, sdk: bool = True) -> list[Reply]:
    """*calls* of all forms, so many at once; *change* is awaited when a third of them has been answered."""
    replies: dict[int, Reply] = {}
    numbers = iter(range(calls))
    headers = {} if sdk else {"x-stainless-retry-count": None}
    third = asyncio.Event()

    async def caller() -> None:
        for number in numbers:
            replies[number] = await lab.ask(mixed(number), headers=headers)
            if len(replies) >= calls // 3:
                third.set()

    async def fail() -> None:
        await third.wait()
        if change is not None:
            await change

    await asyncio.gather(fail(), *(caller() for _ in range(AT_ONCE)))
    return [replies[number] for number in range(calls)]


def faults(replies: list[Reply]) -> list[tuple[int, int, bool, bytes]]:
    """Which of *replies* are no whole good answers."""
    return [
        (number, reply.status, reply.broken, reply.body[:300])
        for number, reply in enumerate(replies)
        if reply.status != 200 or reply.broken or not said(reply.body).endswith(" says gpt-4o")
    ]


@pytest.mark.parametrize("sdk", [True, False], ids=["sdk", "plain"])
@pytest.mark.parametrize("way", sorted(set(Way) - {Way.WELL, Way.BROKEN_AFTER}))
async def test_nobody_hears_of_it(way, sdk, build_lab, pair):
    """However the first region fails, each caller has an answer, and few calls are sent twice."""
    a, b = pair
    regions = service(a.rule(), b.rule(priority=2))
    timeouts = BUSY if hangs(way) else PATIENT
    lab = await build_lab("", services=regions, routes=route(retry=REPEATS, timeouts=timeouts))
    replies = await load(lab, change=a.become(way), sdk=sdk)

    assert [] == faults(replies)
    assert CALLS // 3 <= seen_by(replies).count("a") < CALLS
    assert seen_by(replies).count("b") >= CALLS // 3
    assert CALLS <= attempts_of(lab) <= 1.2 * CALLS + AT_ONCE
    assert a.attempts + b.attempts <= 1.2 * CALLS + AT_ONCE
    await lab.settle()


async def test_break_after_the_commit_point(build_lab, pair):
    """An answer that breaks after its beginning is broken for its caller; soon nobody gets one of those any more."""
    a, b = pair
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route(retry=REPEATS))
    replies = await load(lab, change=a.become(Way.BROKEN_AFTER))
    broken = [reply for reply in replies if reply.broken]

    assert {200} == {reply.status for reply in replies}
    assert {"a"} == set(seen_by(broken))
    assert [] == faults([reply for reply in replies if not reply.broken])
    assert 0 < len(broken) <= 2 * AT_ONCE
    assert not any(reply.body.endswith(b"[DONE]\n\n") for reply in broken)
    assert State.OPEN is state_of(lab, "a")
    assert CALLS == a.attempts + b.attempts
    assert CALLS == attempts_of(lab)
    await lab.settle()


async def test_standstill_after_the_commit_point(build_lab, pair):
    """A stream that stops in the middle is a break as well: its callers hear of it, those after them don't."""
    a, b = pair
    a.hold_tail = b"box"
    timeouts = replace(PATIENT, idle=0.2)
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route(timeouts=timeouts))
    calls = [chat(number, stream=True, bypassed=number % 2 == 1) for number in range(12)]
    broken = await asyncio.gather(*map(lab.ask, calls))
    later = [await lab.ask(chat(100 + number, stream=True)) for number in range(4)]

    assert {(200, True)} == {(reply.status, reply.broken) for reply in broken}
    assert State.OPEN is state_of(lab, "a")
    assert [] == faults(later)
    assert ["b"] * 4 == seen_by(later)
    assert (12, 4) == (a.calls, b.calls)


async def test_timeout_is_not_repeated_by_default(build_lab, pair):
    """A generating call that took too long may have been paid for: its caller hears of it, those after it don't."""
    a, b = pair
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route(timeouts=QUICK))
    await a.become(Way.SLOW)
    replies = [await lab.ask(mixed(number)) for number in range(12)]

    assert [504] * 3 + [200] * 9 == [reply.status for reply in replies]
    assert ["a"] * 3 + ["b"] * 9 == seen_by(replies)
    assert (3, 9) == (a.attempts, b.attempts)


@pytest.mark.parametrize("seconds", ["0.5", "0.1"], ids=["as-long-as-the-route", "hasty"])
async def test_callers_own_timeout(seconds, build_lab, pair):
    """
    A caller that waits about as long as the route does tells of the region as well, and the next go elsewhere; what a
    hasty one does not wait for says nothing.
    """
    a, b = pair
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route(timeouts=QUICK))
    await a.become(Way.SLOW)
    replies = [await lab.ask(mixed(number), headers={"x-stainless-read-timeout": seconds}) for number in range(8)]
    failed = 3 if seconds == "0.5" else 8

    assert [504] * failed + [200] * (8 - failed) == [reply.status for reply in replies]
    assert (failed, 8 - failed) == (a.attempts, b.attempts)


@pytest.mark.parametrize("way", [Way.KILLED, Way.DOWN, Way.BROKEN_BEFORE])
async def test_waiting_callers_get_the_other_regions_answer(way, build_lab, pair):
    """All who wait for one call are answered by the region that it went to in the end; it was sent there once."""
    a, b = pair
    a.hold = b"box 1?"
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route())
    asking = [asyncio.create_task(lab.ask(chat(1, stream=number % 2 == 1))) for number in range(20)]
    await lab.until(lambda: lab.waiting == 20 and a.calls == 1)
    await a.become(way)
    a.go.set()
    replies = await asyncio.gather(*asking)

    assert [] == faults(replies)
    assert ["b"] * 20 == seen_by(replies)
    assert (1, 1) == (a.calls, b.calls)
    assert 2 == attempts_of(lab)


@pytest.mark.parametrize("size", [1_000, 200_000, 1_000_000])
async def test_unknown_operation(size, build_lab, pair):
    """What we don't know is sent to another region as well, byte for byte, as long as its body is small."""
    a, b = pair
    a.way = Way.DOWN
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route())
    body = json.dumps({"model": "gpt-4o", "padding": "x" * size}).encode()
    replies = [await lab.ask(body, path="/openai/v1/unknown") for _ in range(2)]
    await a.become(Way.KILLED)
    replies.append(await lab.ask(body, path="/openai/v1/unknown"))

    expected = [200, 200, 200] if size < 256 * 1024 else [500, 500, 200]  # nothing of it has passed where none connects
    assert expected == [reply.status for reply in replies]
    assert expected.count(200) == b.calls
    assert {body} == {sent for _, sent in (*a.seen, *b.seen)}
    await lab.settle()


@pytest.mark.parametrize("bypassed", [False, True], ids=["looked-up", "bypassed"])
async def test_error_as_a_streams_first_event(bypassed, build_lab, pair):
    """A stream that begins with an error has not begun: another region answers; the only one's error is passed on."""
    a, b = pair

    async def overloaded(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(
            STREAM_HEAD + chunks([b": ping\n\n", b'data: {"error": {"message": "The server is overloaded"}}\n\n'])
        )
        writer.write(LAST_CHUNK)

    a.handler = overloaded
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route())
    replies = [await lab.ask(chat(number, stream=True, bypassed=bypassed)) for number in range(8)]
    only = await build_lab("", services=service(a.rule()), routes=route())
    reply = await only.ask(chat(1, stream=True, bypassed=bypassed))

    assert [] == faults(replies)
    assert ["b"] * 8 == seen_by(replies)
    assert 5 + 1 == a.calls
    assert State.OPEN is state_of(lab, "a")
    assert b"The server is overloaded" in reply.body
    assert 0 == only.sidecar.memory.entries


async def test_connections_are_given_back(build_lab, pair):
    """Many calls into a black hole at once leave neither sockets nor memory behind."""
    a, b = pair
    rule = route(retry=REPEATS, timeouts=BUSY)
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=rule)
    await lab.ask(chat(1000))
    await a.become(Way.BLACK_HOLED)
    replies = await asyncio.gather(*(lab.ask(mixed(number)) for number in range(100)))
    await lab.settle()

    assert [] == faults(replies)
    assert ["b"] * 100 == seen_by(replies)
    await lab.until(lambda: a.open == 0)
    assert AT_REST == lab.tasks
    assert 0 == lab.sidecar.ledger.held


async def test_throttled_region_is_left_alone(build_lab, pair):
    """One 429 tells all calls of this caller to go elsewhere; another caller's quota is another one."""
    a, b = pair
    a.way = Way.THROTTLED
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route())
    replies = [await lab.ask(mixed(number)) for number in range(20)]
    other = await lab.ask(mixed(1), headers={"authorization": "Bearer sk-other"})

    assert [200] * 20 == [reply.status for reply in replies]
    assert ["b"] * 20 == seen_by(replies)
    assert 200 == other.status
    assert (2, 21) == (a.calls, b.calls)
    assert State.CLOSED is state_of(lab, "a")


async def test_both_throttled(build_lab, pair):
    """Where nobody has room, the caller gets a service's own 429 and its wait, and isn't told to keep away."""
    a, b = pair
    a.way = b.way = Way.THROTTLED
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route())
    replies = [await lab.ask(mixed(number)) for number in range(10)]

    assert [429] * 10 == [reply.status for reply in replies]
    assert {"7"} == {reply.headers["retry-after"] for reply in replies}
    assert 2 + 9 == a.calls + b.calls


# ---- one region only ----


@pytest.mark.parametrize("way", [Way.HALF, Way.THROTTLED, Way.DOWN])
async def test_only_region_sdk_callers(way, build_lab, alone):
    """Callers that try again by themselves get, one upstream call each, exactly what they would have got directly."""
    alone.way = way
    calls = [chat(number, bypassed=number % 2 == 1) for number in range(40)]
    without = await direct(alone, calls)
    alone.seen.clear()
    lab = await build_lab("", services=service(alone.rule()), routes=route())
    replies = [await lab.ask(asked) for asked in calls]

    assert without == [reply.status for reply in replies]
    assert len(calls) == alone.calls
    assert len(calls) == attempts_of(lab)


async def test_only_region_half_failing(build_lab, alone):
    """A caller that doesn't try again fares better than without us, at not more than one call more."""
    alone.way = Way.HALF
    calls = [chat(number, bypassed=number % 2 == 1) for number in range(60)]
    without = await direct(alone, calls)
    alone.seen.clear()
    lab = await build_lab("", services=service(alone.rule()), routes=route())
    lab.clocks.draw = Random(1).random
    paused = lab.clocks.without_pauses()
    replies = [await lab.ask(asked, headers={"x-stainless-retry-count": None}) for asked in calls]

    assert 30 == without.count(200)
    assert 60 == [reply.status for reply in replies].count(200)
    assert 120 == alone.calls
    assert 60 == len(paused)


async def test_who_tries_again_joins_its_like(build_lab, alone, dial):
    """A caller that doesn't try again by itself is not given the failure of one that does."""
    alone.hold = b"box 1?"
    ordinary = alone.handler

    async def fail_twice(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        alone.way = Way.DOWN if alone.calls <= 2 else Way.WELL
        await ordinary(head, body, writer)

    alone.handler = fail_twice
    lab = await build_lab("", services=service(alone.rule()), routes=route())
    lab.clocks.without_pauses()
    sdk = await dial(lab, chat(1))
    await lab.until(lambda: alone.calls == 1)
    plain = asyncio.ensure_future(lab.ask(chat(1), headers={"x-stainless-retry-count": None}))
    await lab.until(lambda: alone.calls == 2)
    alone.go.set()
    replies = [await sdk.reply(), await plain]

    assert [500, 200] == [reply.status for reply in replies]
    assert 3 == alone.calls


async def test_only_region_breaking_half(build_lab, alone):
    """Connections that die half the time are no reason to refuse calls to the only region."""
    await alone.become(Way.BROKEN_BEFORE)
    ordinary = alone.handler

    async def every_other(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        alone.way = Way.BROKEN_BEFORE if alone.calls % 2 else Way.WELL
        await ordinary(head, body, writer)

    alone.handler = every_other
    calls = [chat(number) for number in range(40)]
    without = await direct(alone, calls)
    alone.seen.clear()
    lab = await build_lab("", services=service(alone.rule()), routes=route())
    replies = [await lab.ask(asked) for asked in calls]

    assert without.count(200) == [reply.status for reply in replies].count(200) == 20
    assert len(calls) == alone.calls


@pytest.mark.parametrize("sdk", [True, False], ids=["sdk", "plain"])
@pytest.mark.parametrize("way", [Way.BROKEN_BEFORE, Way.DROPPED])
@pytest.mark.parametrize("seed", [1, 2])
async def test_only_region_breaking_at_random(seed, way, sdk, build_lab, alone):
    """Neither are those that die at random, three in a row among them: the same answers arrive, or more."""
    ordinary = alone.handler
    fate = Random(seed)

    async def by_chance(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        alone.way = fate.choice([way, Way.WELL])
        await ordinary(head, body, writer)

    alone.handler = by_chance
    calls = [chat(number, bypassed=number % 2 == 1) for number in range(100)]
    without = await direct(alone, calls)
    alone.seen.clear()
    fate.seed(seed)
    lab = await build_lab("", services=service(alone.rule()), routes=route())
    lab.clocks.without_pauses()
    replies = [await lab.ask(asked, headers={} if sdk else {"x-stainless-retry-count": None}) for asked in calls]

    assert without.count(200) <= [reply.status for reply in replies].count(200)
    assert {200, 502, 503} >= {reply.status for reply in replies}
    assert alone.calls <= 2 * len(calls)


@pytest.mark.parametrize("sdk", [True, False], ids=["sdk", "plain"])
@pytest.mark.parametrize("seconds", ["1", "30"])
async def test_only_region_throttles_large_calls(seconds, sdk, build_lab, alone):
    """A region that has no room for large calls goes on getting the small ones."""
    alone.retry_after = seconds
    ordinary = alone.handler

    async def refuse_large(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        alone.way = Way.THROTTLED if LARGE.encode() in body else Way.WELL
        await ordinary(head, body, writer)

    alone.handler = refuse_large
    calls = [chat(number, **({"user": LARGE} if number % 3 == 0 else {})) for number in range(30)]
    without = await direct(alone, calls)
    alone.seen.clear()
    lab = await build_lab("", services=service(alone.rule()), routes=route())
    lab.clocks.without_pauses()
    headers = {} if sdk else {"x-stainless-retry-count": None}
    replies = [await lab.ask(asked, headers=headers) for asked in calls]

    assert without == [reply.status for reply in replies]
    assert {seconds} == {reply.headers["retry-after"] for reply in replies if reply.status == 429}
    assert alone.calls <= (len(calls) if sdk else len(calls) + 10)
    assert State.CLOSED is state_of(lab, "a")


async def test_client_error_is_repeated_nowhere(build_lab, pair):
    """What is the caller's own fault would be one elsewhere, too."""
    a, b = pair

    async def refuse(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        error = json.dumps({"error": {"message": "no", "type": "invalid_request_error", "code": "content_filter"}})
        writer.write(
            b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(error)
            + error.encode()
        )

    a.handler = refuse
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route())
    replies = [await lab.ask(mixed(number), headers={"x-stainless-retry-count": None}) for number in range(20)]

    assert [400] * 20 == [reply.status for reply in replies]
    assert (20, 0) == (a.calls, b.calls)
    assert State.CLOSED is state_of(lab, "a")
