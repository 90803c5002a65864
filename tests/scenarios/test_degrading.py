"""No region answers: each caller gets one prompt answer, the best that there is, and the rest is quiet."""

from __future__ import annotations

import asyncio
import json
from random import Random

import pytest

from sidecar.core.model import Outcome
from sidecar.core.region.breaker import State
from sidecar.core.rules import BreakerRule, CacheMode, CacheRule, FallbackRule, RetryRule, StoredCredential
from sidecar.core.rules import Region as Rule
from tests.scenarios.answers import (
    CLAUDE,
    CLAUDE_PATH,
    LAST_CHUNK,
    STREAM_HEAD,
    chat_events,
    chunks,
    completion,
    said,
    whole,
)  # fmt: skip
from tests.scenarios.clocks import RunningClock, WallClock
from tests.scenarios.conftest import CHAT_PATH
from tests.scenarios.lab import AT_REST
from tests.scenarios.regions import (
    HASTY,
    PATIENT,
    QUICK,
    Region,
    Way,
    attempts_of,
    chat,
    hangs,
    mixed,
    route,
    seen_by,
    service,
    state_of,
)

OTHER = FallbackRule("model", "gpt-4o-mini")
NONE = {"x-sidecar-fallback": "none"}
MISS = "sidecar; fwd=miss; stored"
INSTEAD = "sidecar; fwd=miss; detail=fallback"
BUSY = "We are busy; please come back."

AZURE_PATH = "/azure/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"

DIALECTS = {
    "openai": ("/openai", CHAT_PATH, {}, chat(1)),
    "azure-openai": ("/azure", AZURE_PATH, {"authorization": None, "api-key": "k"}, chat(1)),
    "anthropic": ("/anthropic", CLAUDE_PATH, {"authorization": None, "x-api-key": "k"}, CLAUDE),
}

FORMS = pytest.mark.parametrize(
    ("stream", "bypassed"),
    [(False, False), (True, False), (False, True), (True, True)],
    ids=["whole", "streamed", "whole-bypassed", "streamed-bypassed"],
)


async def down(way: Way, *regions: Region) -> None:
    for region in regions:
        await region.become(way)


def error_kind(name: str, error: dict) -> tuple[str, ...]:
    """The members by which the API's own SDK knows an error."""
    if name == "anthropic":
        return error["type"], error["error"]["type"]
    if name == "openai":
        return error["error"]["type"], error["error"]["code"]
    return (error["error"]["code"],)


@pytest.mark.parametrize("way", [Way.KILLED, Way.CLOSED, Way.BLACK_HOLED, Way.SLOW])
async def test_one_prompt_answer_each(way, build_lab, pair):
    """Soon nothing but one call in ten is tried, and each caller is told when to come again."""
    a, b = pair
    await down(way, a, b)
    regions = service(a.rule(), b.rule(priority=2), breaker=BreakerRule(open=60.0))
    timeouts = HASTY if hangs(way) else PATIENT
    lab = await build_lab("", services=regions, routes=route(retry=RetryRule(on_timeout=True), timeouts=timeouts))
    lab.clocks.draw = Random(1).random
    first = await asyncio.gather(*(lab.ask(mixed(number)) for number in range(10)))

    assert {503} == {reply.status for reply in first}
    assert attempts_of(lab) <= 2 * len(first)
    assert {State.OPEN} == {state_of(lab, "a"), state_of(lab, "b")}
    before = attempts_of(lab)
    replies = await asyncio.gather(*(lab.ask(mixed(100 + number)) for number in range(100)))
    refused = [record for record in lab.records[-100:] if not record.attempts]
    assert len(refused) >= 70
    assert {503} == {reply.status for reply in replies}
    assert all(0 < int(reply.headers["retry-after"]) <= 60 for reply in (*first, *replies))
    assert attempts_of(lab) - before == 100 - len(refused)
    assert 110 == len(lab.records)
    await lab.settle()


async def test_nothing_turns_while_nobody_calls(build_lab, pair):
    """With everything down and open, the loop rests."""
    a, b = pair
    await down(Way.KILLED, a, b)
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route())
    await asyncio.gather(*(lab.ask(mixed(number)) for number in range(20)))
    attempts, tasks = a.attempts + b.attempts, lab.tasks
    loop, turns = asyncio.get_running_loop(), 0
    turn = loop._run_once

    def counted() -> None:
        nonlocal turns
        turns += 1
        turn()

    loop._run_once = counted
    try:
        await asyncio.sleep(0.3)
    finally:
        loop._run_once = turn

    assert attempts == a.attempts + b.attempts
    assert AT_REST == tasks
    assert turns < 30


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_refusal_in_the_apis_own_form(stream, name, build_lab, pair):
    """The 503 is an error as the API has it, with a wait that SDKs obey."""
    a, b = pair
    path, target, headers, asked = DIALECTS[name]
    await down(Way.KILLED, a, b)
    lab = await build_lab(
        "", services=service(a.rule(), b.rule(priority=2, credential_domain=""), name=name, path=path), routes=route()
    )
    lab.clocks.draw = lambda: 0.5
    replies = [await lab.ask({**asked, "stream": stream}, path=target, headers=headers) for _ in range(8)]
    last = replies[-1]

    assert [503] * 8 == [reply.status for reply in replies]
    assert (3, 3) == (a.refused, b.refused)
    assert ["false"] * 3 == [reply.headers.get("x-should-retry") for reply in replies[:3]]
    assert all(0 < int(reply.headers["retry-after"]) <= 60 for reply in replies)
    assert "x-should-retry" not in last.headers
    assert "application/json" == last.headers["content-type"]
    expected = {
        "openai": ("server_error", "upstream-no-region"),
        "azure-openai": ("upstream-no-region",),
        "anthropic": ("error", "api_error"),
    }
    assert expected[name] == error_kind(name, last.json())


@pytest.mark.parametrize("way", [Way.KILLED, Way.BLACK_HOLED, Way.DOWN, Way.THROTTLED, Way.BROKEN_BEFORE])
async def test_warm_cache_answers_all(way, build_lab, pair):
    """With ``stale_if_error`` every repeated call is answered, long after its answer has become old."""
    a, b = pair
    rule = CacheRule(mode=CacheMode.DETERMINISTIC, ttl=60.0, stale_if_error=600.0)
    lab = await build_lab(
        "",
        services=service(a.rule(), b.rule(priority=2)),
        routes=route(cache=rule, timeouts=QUICK if hangs(way) else PATIENT),
    )
    calls = [chat(number, stream=number % 2 == 1) for number in range(20)]
    warm = [await lab.ask(asked) for asked in calls]
    await lab.settle()
    wall = WallClock([lab])
    wall.later(69.5)
    await down(way, a, b)
    before = attempts_of(lab)
    replies = [reply for _ in range(3) for reply in await asyncio.gather(*map(lab.ask, calls))]

    assert [200] * 60 == [reply.status for reply in replies]
    assert {"sidecar; hit; ttl=-10; detail=stale-if-error"} == {reply.cache for reply in replies}
    assert [said(reply.body) for reply in warm] * 3 == [said(reply.body) for reply in replies]
    assert attempts_of(lab) - before <= 2 * 60
    await down(Way.WELL, a, b)
    RunningClock(lab).later(600.0)
    assert MISS == (await lab.ask(calls[0])).cache


# ---- fallback: another model ----


def answers_other(a: Region, b: Region) -> None:
    """Both regions fail for every model but one."""
    for region in (a, b):
        region.way, region.takes = Way.DOWN, frozenset({OTHER.value})


@FORMS
async def test_other_model(stream, bypassed, build_lab, pair):
    """Another model's answer says so, and is never kept for the model that was asked."""
    a, b = pair
    answers_other(a, b)
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route(fallback=(OTHER,)))
    asked = chat(1, stream=stream, bypassed=bypassed)
    replies = [await lab.ask(asked) for _ in range(2)]
    await lab.settle()

    for reply in replies:
        assert (200, False, "gpt-4o-mini") == (reply.status, reply.broken, reply.headers["x-sidecar-model"])
        assert "a says gpt-4o-mini" == said(reply.body)
        assert "detail=fallback" in reply.cache
        assert "stored" not in reply.cache
    assert [Outcome.FALLBACK] * 2 == [record.outcome for record in lab.records]
    assert {("a", 200)} == {(record.region, record.upstream_status) for record in lab.records}
    assert 0 == lab.sidecar.memory.entries
    assert (4, 2) == (a.calls, b.calls)
    assert 6 == attempts_of(lab)
    await down(Way.WELL, a, b)
    healed = await lab.ask(asked)
    assert ("gpt-4o", "a says gpt-4o") == (healed.headers["x-sidecar-model"], said(healed.body))
    if not bypassed:
        assert MISS == healed.cache
        assert (await lab.ask(asked)).cache.startswith("sidecar; hit; ")


@FORMS
async def test_none_means_none(stream, bypassed, build_lab, pair):
    """Who wants no stand-in gets the service's error, and one attempt at the fallback less."""
    a, b = pair
    answers_other(a, b)
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route(fallback=(OTHER,)))
    reply = await lab.ask(chat(1, stream=stream, bypassed=bypassed), headers=NONE)

    assert 500 == reply.status
    assert "false" == reply.headers["x-should-retry"]
    assert "fallback" not in reply.cache
    assert (1, 1) == (a.calls, b.calls)
    assert not a.wrote(b"x-sidecar")


async def test_none_gets_the_refusal(build_lab, pair):
    """Where no region may be asked, it is a 503 with its wait."""
    a, b = pair
    await down(Way.KILLED, a, b)
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route(fallback=(OTHER,)))
    lab.clocks.draw = lambda: 0.5
    replies = [await lab.ask(mixed(number), headers=NONE) for number in range(6)]

    assert [503] * 6 == [reply.status for reply in replies]
    assert 0 < int(replies[-1].headers["retry-after"]) <= 60


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_joiner_without_stand_in(stream, build_lab, pair, dial):
    """Callers of one flight each get what they take: the one a stand-in, the other the service's own error."""
    a, b = pair
    answers_other(a, b)
    a.hold = b"box 1?"
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route(fallback=(OTHER,)))
    asked = chat(1, stream=stream)
    leader = await dial(lab, asked)
    await lab.until(lambda: a.calls == 1)
    joiners = [await dial(lab, asked, headers=headers) for headers in (NONE, {})]
    await lab.until(lambda: lab.waiting == 3)
    a.go.set()
    first, without, second = [await caller.reply() for caller in (leader, *joiners)]

    assert (200, INSTEAD) == (first.status, first.cache)
    assert "a says gpt-4o-mini" == said(first.body) == said(second.body)
    assert (500, False) == (without.status, without.broken)
    assert "It broke." == without.json()["error"]["message"]
    assert "detail=fallback" in second.cache
    await lab.settle()
    assert 0 == lab.sidecar.memory.entries


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_joiner_who_led_without_stand_in(stream, build_lab, pair, dial):
    """Who joins the call of one that wants no stand-in gets one all the same, where the service has none for both."""
    a, b = pair
    answers_other(a, b)
    a.hold = b"box 1?"
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route(fallback=(OTHER,)))
    asked = chat(1, stream=stream)
    leader = await dial(lab, asked, headers=NONE)
    await lab.until(lambda: a.calls == 1)
    joiner = await dial(lab, asked)
    await lab.until(lambda: lab.waiting == 2)
    a.go.set()
    without, taker = await leader.reply(), await joiner.reply()

    assert 500 == without.status
    assert (200, "a says gpt-4o-mini") == (taker.status, said(taker.body))


async def test_fallback_fails_as_well(build_lab, pair):
    """Where the other model fails too, the caller gets the error of the one it asked for."""
    a, b = pair
    await down(Way.DOWN, a, b)
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route(fallback=(OTHER,)))
    replies = [await lab.ask(mixed(number)) for number in range(4)]

    assert [500] * 4 == [reply.status for reply in replies]
    assert {"It broke."} == {reply.json()["error"]["message"] for reply in replies}
    assert a.calls + b.calls <= 4 * len(replies)
    assert not any("fallback" in reply.cache for reply in replies)


# ---- fallback: a file ----


@FORMS
async def test_answer_file(stream, bypassed, build_lab, pair, tmp_path):
    """A file written beforehand answers, in the form asked for, and is kept nowhere."""
    a, b = pair
    await down(Way.KILLED, a, b)
    busy = tmp_path / "busy.json"
    busy.write_bytes(completion(BUSY))
    fallback = (OTHER, FallbackRule("answer_file", str(busy)))
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route(fallback=fallback))
    asked = chat(1, stream=stream, bypassed=bypassed)
    replies = [await lab.ask(asked) for _ in range(6)]
    await lab.settle()

    assert [200] * 6 == [reply.status for reply in replies]
    assert {BUSY} == {said(reply.body) for reply in replies}
    kind = "text/event-stream" if stream else "application/json"
    assert {kind} == {reply.headers["content-type"].partition(";")[0] for reply in replies}
    assert all("detail=fallback" in reply.cache for reply in replies)
    assert {""} == set(seen_by(replies))
    assert [Outcome.FALLBACK] * 6 == [record.outcome for record in lab.records]
    assert 0 == lab.sidecar.memory.entries
    without = await lab.ask(asked, headers=NONE)
    assert without.status in {502, 503}


@FORMS
async def test_failure_behind_an_answer_file(stream, bypassed, build_lab, pair, tmp_path):
    """What the service said is not forgotten over a file that stands in, nor is the file a model's."""
    a, b = pair
    await down(Way.DOWN, a, b)
    busy = tmp_path / "busy.json"
    busy.write_bytes(completion(BUSY))
    fallback = (FallbackRule("answer_file", str(busy)),)
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route(fallback=fallback))
    reply = await lab.ask(chat(1, stream=stream, bypassed=bypassed))
    await lab.settle()
    [record] = lab.records

    assert BUSY == said(reply.body)
    assert "x-sidecar-model" not in reply.headers
    assert (Outcome.FALLBACK, "b", 500, 2) == (record.outcome, record.region, record.upstream_status, record.attempts)


@pytest.mark.parametrize("bypassed", [False, True], ids=["looked up", "bypassed"])
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
async def test_fallback_beside_a_missing_credential(first, bypassed, build_lab, pair, tmp_path):
    """A region that has no credential takes nobody's stand-in away."""
    a, b = pair
    a.takes = frozenset({OTHER.value})
    await down(Way.DROPPED, a)
    missing = StoredCredential("authorization", str(tmp_path / "missing"))
    regions = service(a.rule(), b.rule(priority=0 if first else 2, credential=missing))
    lab = await build_lab("", services=regions, routes=route(fallback=(OTHER,)))
    reply = await lab.ask(chat(1, bypassed=bypassed))

    assert (200, "a says gpt-4o-mini") == (reply.status, said(reply.body))
    assert 0 == b.attempts


@pytest.mark.parametrize("ending", ["clean", "within an event", "after the last event"])
async def test_stand_in_that_breaks(ending, build_lab, script):
    """A stand-in's stream is as whole as any: without its last event it is broken off, after it nothing matters."""

    async def answer(_head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if json.loads(body)["model"] == "gpt-4o":
            writer.write(whole(b'{"error": {"message": "It broke."}}', status="500 Broken"))
            return
        events = chat_events("in", " the", " box")
        match ending:
            case "clean":
                writer.write(STREAM_HEAD + chunks(events[:3]) + LAST_CHUNK)
            case "within an event":
                writer.write(STREAM_HEAD + chunks([*events[:2], events[2][:30]]))
                writer.close()
            case _:
                writer.write(STREAM_HEAD + chunks(events))
                writer.close()

    upstream = await script(answer)
    lab = await build_lab(upstream.url, routes=route(fallback=(OTHER,)))
    reply = await lab.ask(chat(1, stream=True))
    ordinary = await lab.ask(chat(2, stream=True, model="gpt-4o-mini"))

    assert (ordinary.broken, ordinary.body) == (reply.broken, reply.body)
    assert (ending != "after the last event") is reply.broken


async def test_streams_that_end_empty(build_lab, script):
    """A call that was sent twice, and came to nothing both times, doesn't invite its caller to begin again."""

    async def answer(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + LAST_CHUNK)

    first, second = await script(answer), await script(answer)
    regions = service(Rule("a", first.url), Rule("b", second.url, priority=2))
    lab = await build_lab("", services=regions, routes=route())
    for bypassed in (False, True):
        reply = await lab.ask(chat(1, stream=True, bypassed=bypassed))
        if not bypassed:
            assert (502, "false") == (reply.status, reply.headers["x-should-retry"])
    assert (2, 2) == (first.calls, second.calls)


async def test_stale_before_fallback(build_lab, pair):
    """An old answer of the model that was asked goes before another model's."""
    a, b = pair
    rule = CacheRule(mode=CacheMode.DETERMINISTIC, ttl=60.0, stale_if_error=600.0)
    lab = await build_lab(
        "", services=service(a.rule(), b.rule(priority=2)),
        routes=route(cache=rule, fallback=(FallbackRule("stale"), OTHER)),
    )  # fmt: skip
    await lab.ask(chat(1))
    await lab.settle()
    wall = WallClock([lab])
    wall.later(69.5)
    answers_other(a, b)
    old, other = await lab.ask(chat(1)), await lab.ask(chat(2))

    assert ("a says gpt-4o", "gpt-4o") == (said(old.body), old.headers["x-sidecar-model"])
    assert ("a says gpt-4o-mini", INSTEAD) == (said(other.body), other.cache)


async def test_stand_in_is_not_in_the_way_of_the_fleet(build_lab, pair):
    """Calls of the fallback's own model are looked up and kept as ever."""
    a, b = pair
    answers_other(a, b)
    lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route(fallback=(OTHER,)))
    await lab.ask(chat(1))
    direct = await lab.ask(chat(1, model=OTHER.value))
    again = await lab.ask(chat(1, model=OTHER.value))

    assert MISS == direct.cache
    assert again.cache.startswith("sidecar; hit; ")
    assert json.loads(again.body)["model"] == OTHER.value
