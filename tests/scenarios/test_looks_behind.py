"""Looking behind memory: whatever happens meanwhile, all who wait are answered, and what nobody needs is given back."""

from __future__ import annotations

import asyncio
import json

import pytest

from sidecar.core.model import Outcome
from sidecar.core.rules import MemoryRule
from tests.scenarios.answers import LAST_CHUNK, STREAM_HEAD, chat_events, chunks, completion, said, whole
from tests.scenarios.caller import Caller
from tests.scenarios.clocks import WallClock
from tests.scenarios.conftest import CHAT, Lab
from tests.scenarios.operating import Gate, all_say, purge
from tests.scenarios.oracle import ERROR, IF_ERROR
from tests.scenarios.redis_contents import released, written

STREAM = {**CHAT, "stream": True}
REDIS, COLLAPSED = "detail=redis", "collapsed"


@pytest.fixture
async def pair(build_fleet, oracle, redis_server):
    """Two sidecars; the first has had an answer and stored it, the second knows nothing."""
    one, two = await build_fleet(oracle.url)
    await one.ask()
    await written(redis_server)
    await released(redis_server)
    return one, two


def holding(lab: Lab, *, after: bool = False) -> Gate:
    """Holds the looks of *lab* at an entry that was found, before it is opened or *after* that."""
    remote = lab.sidecar.fleet.remote
    remote.open = Gate(remote.open, after=after)
    return remote.open


def leases_of(lab: Lab) -> Gate:
    """Holds the looks of *lab* when Redis has executed them, lease taken and all."""
    link = lab.sidecar.fleet.link
    link.evaluate = Gate(link.evaluate, after=True, only=lambda script, *_: script.name == "look")
    return link.evaluate


def details(replies: list) -> list[str]:
    return [reply.cache.rpartition("; ")[2] for reply in replies]


def ends(lab: Lab) -> list[tuple[Outcome, int, str]]:
    """How the calls of *lab* ended, by outcome, status and cause."""
    return sorted((record.outcome, record.status, record.cause) for record in lab.records)


# ---- who leads, and who comes meanwhile ----


async def test_found(pair, oracle, dial):
    """Who looks alone has what is found, without a flight's task; it is told once, and nothing is left."""
    _, two = pair
    gate = holding(two)
    caller = await dial(two)
    await two.until(lambda: gate.reached == 1)
    tasks = two.tasks
    gate.open.set()
    reply = await caller.reply()
    await two.settle()

    assert (200, "answer 1", [REDIS]) == (reply.status, said(reply.body), details([reply]))
    assert "flight" not in tasks
    assert [(Outcome.HIT_REDIS, 200, "")] == ends(two)
    assert len(reply.body) == two.records[0].bytes_out
    assert 1 == oracle.calls


@pytest.mark.parametrize("late", [CHAT, STREAM], ids=["same", "streamed"])
async def test_joined_meanwhile(late, pair, oracle, dial):
    """Who comes while the first looks gets what is found, too, by the same look, and in its own form."""
    _, two = pair
    gate = holding(two)
    first = await dial(two)
    await two.until(lambda: gate.reached == 1)
    second = await dial(two, late)
    await two.until(lambda: two.waiting == 2)
    gate.open.set()
    replies = [await caller.reply() for caller in (first, second)]
    await two.settle()

    assert ["answer 1"] * 2 == [said(reply.body) for reply in replies]
    assert [REDIS] * 2 == details(replies)
    assert [(Outcome.HIT_REDIS, 200, "")] * 2 == ends(two)
    assert (1, 1) == (gate.reached, oracle.calls)


async def test_joined_before_nothing_is_found(build_fleet, oracle, dial, redis_server):
    """Where there is nothing, the first one's lease is the flight's, and one call serves both."""
    (lab,) = await build_fleet(oracle.url, 1)
    gate = leases_of(lab)
    first = await dial(lab)
    await lab.until(lambda: gate.reached == 1)
    second = await dial(lab)
    await lab.until(lambda: lab.waiting == 2)
    gate.open.set()
    replies = [await caller.reply() for caller in (first, second)]
    await written(redis_server)
    await released(redis_server)

    assert ["answer 1"] * 2 == [said(reply.body) for reply in replies]
    assert ["stored", COLLAPSED] == details(replies)
    assert (1, 1, 1) == (gate.reached, oracle.calls, lab.sidecar.fleet.remote.leases.granted)


# ---- who leads, and leaves ----


@pytest.mark.parametrize("leave", [Caller.vanish, Caller.close, Caller.half_close])
async def test_only_caller_leaves(leave, pair, oracle, dial):
    """The look is given up, and its flight with it; who comes later has an answer."""
    _, two = pair
    gate, tasks = holding(two), two.tasks
    leaving = await dial(two)
    await two.until(lambda: gate.reached == 1)
    leave(leaving)
    await two.until(lambda: two.settled() and two.tasks == tasks)
    gate.open.set()
    reply = await (await dial(two)).reply()

    assert (200, "answer 1", [REDIS]) == (reply.status, said(reply.body), details([reply]))
    assert [(Outcome.HIT_REDIS, 200, ""), (Outcome.MISS, 499, "client-gone")] == ends(two)
    assert 1 == oracle.calls


async def test_first_caller_leaves(pair, oracle, dial):
    """Who has joined gets what is there: it is looked for once more."""
    _, two = pair
    gate = holding(two)
    leaving = await dial(two)
    await two.until(lambda: gate.reached == 1)
    staying = await dial(two)
    await two.until(lambda: two.waiting == 2)
    leaving.vanish()
    await two.until(lambda: gate.reached == 2)
    third = await dial(two)
    await two.until(lambda: two.waiting == 2)
    gate.open.set()
    replies = [await caller.reply() for caller in (staying, third)]
    await two.settle()

    assert ["answer 1"] * 2 == [said(reply.body) for reply in replies]
    assert [REDIS] * 2 == details(replies)
    assert [(Outcome.HIT_REDIS, 200, "")] * 2 + [(Outcome.MISS, 499, "client-gone")] == ends(two)
    assert 1 == oracle.calls


@pytest.mark.parametrize("joined", [False, True], ids=["alone", "joined"])
async def test_lease_taken_for_who_leaves(joined, build_fleet, oracle, dial, redis_server):
    """A lease that Redis has given to a look that was given up is given back at once, and is to be had again."""
    (lab,) = await build_fleet(oracle.url, 1)
    gate, tasks = leases_of(lab), lab.tasks
    leaving = await dial(lab)
    await lab.until(lambda: gate.reached == 1)
    staying = await dial(lab) if joined else None
    await lab.until(lambda: lab.waiting == 1 + joined)
    leaving.vanish()
    if not joined:
        await lab.until(lambda: lab.settled() and lab.tasks == tasks)

        assert [] == redis_server.call("KEYS", "*:l")

    gate.open.set()
    reply = await (staying or await dial(lab)).reply()
    await written(redis_server)
    await released(redis_server)

    assert (200, "answer 1", [COLLAPSED if joined else "stored"]) == (reply.status, said(reply.body), details([reply]))
    assert (1, 1) == (oracle.calls, lab.sidecar.fleet.remote.leases.granted)


@pytest.mark.parametrize("found", [True, False], ids=["found", "not found"])
async def test_first_caller_vanishes_at_any_turn_of_the_loop(found, build_fleet, oracle, dial, redis_server):
    """However far its look is, the second caller has its answer, and no lease is left."""
    one, two = await build_fleet(oracle.url)
    tasks = two.tasks
    for turns in range(30):
        ask = {**CHAT, "messages": [{"role": "user", "content": f"Box {turns}?"}]}
        if found:
            await one.ask(ask)
            await written(redis_server, turns + 1)
        leaving, staying = await dial(two, ask), await dial(two, ask)
        await two.until(lambda: two.sidecar.listener.connections == 2)
        for _ in range(turns):
            await asyncio.sleep(0)
        leaving.vanish()
        reply = await staying.reply()
        staying.vanish()

        assert (200, False) == (reply.status, reply.broken)

        await two.until(lambda: two.settled() and two.sidecar.listener.connections == 0)
        await two.until(lambda: not {"lease", "flight", "request"} & set(two.tasks))

        assert [] == redis_server.call("KEYS", "*:l")

    assert tasks == [name for name in two.tasks if name != "leases"]
    assert oracle.calls == 30 if found else 30 <= oracle.calls <= 60


# ---- who waits for another process ----


async def test_who_waits_elsewhere_leaves(build_fleet, oracle, dial, redis_server):
    """Where the first leaves while it waits for another process, the others wait on."""
    oracle.oracle.go.clear()
    one, two = await build_fleet(oracle.url)
    asking = asyncio.ensure_future(one.ask())
    await one.until(lambda: oracle.calls == 1)
    leaving = await dial(two)
    await two.until(lambda: two.sidecar.fleet.remote.waits == 1)
    staying = await dial(two)
    await two.until(lambda: two.waiting == 2)
    leaving.vanish()
    await two.until(lambda: two.sidecar.fleet.remote.waits == 2)
    oracle.oracle.go.set()
    reply = await staying.reply()
    await asking
    await released(redis_server)

    assert (200, "answer 1", [REDIS]) == (reply.status, said(reply.body), details([reply]))
    assert 1 == oracle.calls


# ---- purges ----


@pytest.mark.parametrize("after", [False, True], ids=["before it is opened", "after that"])
@pytest.mark.parametrize("joined", [False, True], ids=["alone", "joined"])
async def test_purged_meanwhile(joined, after, pair, oracle, dial, redis_server):
    """What is purged while it is looked at serves nobody; who comes after a purge shares nothing from before it."""
    one, two = pair
    gate = holding(two, after=after)
    callers = [await dial(two)]
    await two.until(lambda: gate.reached == 1)
    if joined:
        callers.append(await dial(two))
        await two.until(lambda: two.waiting == 2)
    await purge(one, [one, two])
    callers.append(await dial(two))
    await two.until(lambda: two.waiting == len(callers))
    gate.open.set()
    replies = [await caller.reply() for caller in callers]
    await two.settle()

    assert "answer 1" not in {said(reply.body) for reply in replies}
    assert 1 == len(await all_say([one, two], redis_server))


async def test_purged_and_asked_anew(pair, oracle, dial, redis_server):
    """Who leads after a purge doesn't wait for who led before it, and neither takes the other's place."""
    one, two = pair
    gate = holding(two)
    before = await dial(two)
    await two.until(lambda: gate.reached == 1)
    await purge(one, [one, two])
    two.sidecar.fleet.remote.open = gate.work
    after = await (await dial(two)).reply()
    gate.open.set()
    told = await before.reply()

    assert "answer 2" == said(after.body)
    assert "answer 1" != said(told.body)
    assert "answer 1" not in await all_say([one, two], redis_server)


# ---- what can't be handed on as it stands ----


async def test_large(build_fleet, dial, redis_server, script):
    """A large answer is handed on as fast as its caller reads, and whole."""
    text = "x" * 3_000_000

    async def answer(_head, _body, writer):
        writer.write(whole(completion(text)))

    upstream = await script(answer)
    one, two = await build_fleet(upstream.url, memory=MemoryRule(max_entry_bytes=8 << 20))
    await one.ask()
    await written(redis_server)
    reply = await (await dial(two)).reply()
    await two.settle()

    assert (text, False, [REDIS]) == (said(reply.body), reply.broken, details([reply]))
    assert [(Outcome.HIT_REDIS, 200, "")] == ends(two)


class Speaker:
    """A provider whose plain answers are spoken, which has no streamed form; *failing*, it answers with that status."""

    def __init__(self) -> None:
        self.failing = ""

    async def __call__(self, _head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        spoken = json.loads(completion("spoken"))
        spoken["choices"][0]["message"]["audio"] = {"id": "a", "data": "AAAA", "transcript": "spoken", "expires_at": 1}
        if self.failing:
            writer.write(whole(ERROR, status=self.failing))
        elif json.loads(body).get("stream"):
            writer.write(STREAM_HEAD + chunks(chat_events("written")) + LAST_CHUNK)
        else:
            writer.write(whole(json.dumps(spoken).encode()))


@pytest.mark.parametrize("joined", [False, True], ids=["alone", "joined"])
@pytest.mark.parametrize("leads", [CHAT, STREAM], ids=["plain leads", "stream leads"])
async def test_no_form_for_one_of_them(leads, joined, build_fleet, script, dial, redis_server):
    """Who can't have what is there in its own form makes one call, past what is there; the other one has it."""
    upstream = await script(Speaker())
    one, two = await build_fleet(upstream.url)
    await one.ask()
    await written(redis_server)
    await released(redis_server)
    gate = holding(two)
    asks = [leads] + [CHAT if leads is STREAM else STREAM] * joined
    callers = []
    for ask in asks:
        callers.append(await dial(two, ask))
        await two.until(lambda: gate.reached == 1 and two.waiting == len(callers))
    gate.open.set()
    replies = [await caller.reply() for caller in callers]
    await two.settle()
    told = [(said(reply.body), detail) for reply, detail in zip(replies, details(replies), strict=True)]

    assert [("written", "stored") if ask is STREAM else ("spoken", REDIS) for ask in asks] == told
    assert 1 + (STREAM in asks) == upstream.calls


async def test_no_form_of_a_spare(build_fleet, script, dial):
    """Where the service fails, an old answer that has no form for this caller is none, and the failure is told."""
    speaker = Speaker()
    upstream = await script(speaker)
    one, two = await build_fleet(upstream.url, cache=IF_ERROR)
    clock = WallClock([one, two])
    await one.ask()
    clock.later(70.0)
    speaker.failing = "503 No"
    replies = [await (await dial(lab, STREAM)).reply() for lab in (one, two)]
    spare = await (await dial(one)).reply()

    assert [503, 503, 200] == [reply.status for reply in (*replies, spare)]
    assert "spoken" == said(spare.body)
