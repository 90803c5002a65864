"""A route's limits of our own: who goes, who waits, who is sent away, and that a fleet holds a rate together."""

from __future__ import annotations

import asyncio
import json

import anthropic
import openai
import pytest

from sidecar.core.rules import CacheMode, RouteLimits
from sidecar.upstream import dispatch
from tests.redis_servers import RedisServer
from tests.scenarios.answers import CLAUDE, CLAUDE_PATH, completion, whole
from tests.scenarios.desks import Desk, counted, metric, question
from tests.scenarios.meters import Meter, limited
from tests.scenarios.sdk import Voice

BATCH = {"x-sidecar-priority": "batch"}

ONE_AT_A_TIME = RouteLimits(concurrency=1)

COUNTED = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture
async def desk(script):
    """An upstream that answers while its desk may *go*."""
    desk = Desk()
    upstream = await script(desk)
    upstream.desk = desk
    return upstream


def numbers(upstream):
    """The questions that an upstream was asked, in their order."""
    contents = [json.loads(body)["messages"][0]["content"] for _, body in upstream.seen]
    return [int(content.removeprefix("What is in box ").rstrip("?")) for content in contents]


def waiting(lab):
    """How many wait, as the metric has it."""
    return metric(lab, "calls_waiting").get('route="limited"', 0.0)


@pytest.fixture
def queue_up(dial):
    """Has callers ask, each when the one before is in line or on its way."""

    async def ask(lab, upstream, *asked):
        callers = []
        for number, headers in asked:
            before = waiting(lab) + upstream.calls
            callers.append(await dial(lab, question(number), headers=headers))
            await lab.until(lambda before=before: waiting(lab) + upstream.calls == before + 1)
        return callers

    return ask


async def test_real_time_goes_before_batch(build_lab, desk, queue_up):
    """Among those who wait the order is that of their coming, batch calls after all others; and none is lost."""
    lab = await build_lab(desk.url, routes=limited(ONE_AT_A_TIME))
    desk.desk.go.clear()
    asked = [(0, {}), (1, BATCH), (2, {}), (3, BATCH), (4, {})]
    callers = await queue_up(lab, desk, *asked)

    assert 4 == waiting(lab)
    desk.desk.go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert {200} == {reply.status for reply in replies}
    assert [0, 2, 4, 1, 3] == numbers(desk)
    assert 0 == counted(desk, "x-sidecar-priority")
    assert 0 == waiting(lab)
    await lab.settle()


@pytest.mark.parametrize("mode", [CacheMode.DETERMINISTIC, CacheMode.OFF], ids=["looked up", "bypassed"])
async def test_never_more_than_allowed(build_lab, script, mode):
    """Of forty calls at once no more than three are with the service at a time, and all are answered."""
    now = most = 0

    async def answer(_head, _body, writer):
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.005)
        now -= 1
        writer.write(whole(completion("It is a box.")))

    upstream = await script(answer)
    lab = await build_lab(upstream.url, routes=limited(RouteLimits(concurrency=3), mode))
    replies = await asyncio.gather(*(lab.ask(question(number)) for number in range(40)))

    assert {200} == {reply.status for reply in replies}
    assert (3, 40) == (most, upstream.calls)


async def test_a_full_queue(build_lab, desk, queue_up):
    """Who finds the queue full is sent away at once, told when to come again; the service hears nothing of it."""
    lab = await build_lab(desk.url, routes=limited(RouteLimits(concurrency=1, queue=2)))
    desk.desk.go.clear()
    callers = await queue_up(lab, desk, *((number, {}) for number in range(3)))
    refused = await lab.ask(question(3))
    other = await lab.ask({**CLAUDE}, path=CLAUDE_PATH)
    desk.desk.go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert {200} == {reply.status for reply in replies}
    assert [0, 1, 2] == numbers(desk)
    for reply in (refused, other):
        assert 429 == reply.status
        assert 1 <= int(reply.headers["retry-after"]) <= 60
        assert "x-should-retry" not in reply.headers
    error = refused.json()["error"]
    assert {"message", "type", "param", "code"} == set(error)
    assert "route-limit" == error["code"]
    assert "limits.queue" in error["message"]
    assert ("error", "rate_limit_error") == (other.json()["type"], other.json()["error"]["type"])
    assert {'by="limit"': 2.0} == metric(lab, "throttled_total")
    assert ["route-limit"] * 2 == [record.cause for record in lab.records if record.status == 429]


async def test_batch_gives_way_in_a_full_queue(build_lab, desk, queue_up, dial):
    """A call of real time takes the place of the last batch call, which is sent away; of equals the last one goes."""
    lab = await build_lab(desk.url, routes=limited(RouteLimits(concurrency=1, queue=2)))
    desk.desk.go.clear()
    inside, *batch = await queue_up(lab, desk, (0, {}), (1, BATCH), (2, BATCH))
    urgent = [await dial(lab, question(3))]
    displaced = [await batch[1].reply()]
    urgent += [await dial(lab, question(4))]
    displaced += [await batch[0].reply()]
    late = await lab.ask(question(5), headers=BATCH)
    desk.desk.go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in (inside, *urgent)))

    assert [429] * 3 == [reply.status for reply in (*displaced, late)]
    assert [200] * 3 == [reply.status for reply in replies]
    assert [0, 3, 4] == numbers(desk)


async def test_a_callers_deadline(build_lab, desk, queue_up, monkeypatch):
    """Who can't wait for its turn is told so before it gives up, and takes nobody's place."""
    monkeypatch.setattr(dispatch, "TICK", 0.95)  # so that a busy machine, too, tells it in time
    lab = await build_lab(desk.url, routes=limited(ONE_AT_A_TIME))
    desk.desk.go.clear()
    callers = await queue_up(lab, desk, (0, {}), (1, {}))
    reply = await lab.ask(question(2), headers={"x-stainless-read-timeout": "2"})

    assert 429 == reply.status
    assert "its turn would come after its deadline" in reply.json()["error"]["message"]
    assert 1 == waiting(lab)
    desk.desk.go.set()
    await asyncio.gather(*(caller.reply() for caller in callers))

    assert [0, 1] == numbers(desk)


async def test_who_leaves_the_line(build_lab, desk, queue_up):
    """A caller that hangs up while it waits is out of the line, and the service never hears of its call."""
    lab = await build_lab(desk.url, routes=limited(ONE_AT_A_TIME))
    desk.desk.go.clear()
    first, gone, last = await queue_up(lab, desk, (0, {}), (1, {}), (2, {}))
    gone.vanish()
    await lab.until(lambda: waiting(lab) == 1)
    desk.desk.go.set()

    assert [200, 200] == [(await caller.reply()).status for caller in (first, last)]
    assert [0, 2] == numbers(desk)
    await lab.settle()


async def test_who_leaves_while_it_is_answered(build_lab, desk, queue_up):
    """A caller that hangs up while the service works for it frees its place for the next."""
    lab = await build_lab(desk.url, routes=limited(ONE_AT_A_TIME))
    desk.desk.go.clear()
    gone, first, second = await queue_up(lab, desk, (0, {}), (1, {}), (2, {}))
    gone.vanish()
    await lab.until(lambda: desk.calls == 2 and waiting(lab) == 1)
    desk.desk.go.set()

    assert [200, 200] == [(await caller.reply()).status for caller in (first, second)]
    assert {"limited": 0} == lab.sidecar.throttle.inside()
    await lab.settle()


@pytest.mark.parametrize(
    "answer",
    [
        whole(b"{}", status="500 Broken"),
        whole(b"{}", status="401 No"),
        whole(b"{}", status="429 No"),
        b"nonsense\r\n\r\n",
    ],
    ids=["500", "401", "429", "malformed"],
)
async def test_what_fails_frees_its_place(build_lab, desk, answer):
    """However a call ends, its place is free after it."""
    lab = await build_lab(desk.url, routes=limited(ONE_AT_A_TIME))
    desk.desk.says[b""] = answer
    for number in range(2):
        await lab.ask(question(number))
    desk.desk.says.clear()

    assert 200 == (await lab.ask(question(2))).status
    assert {"limited": 0} == lab.sidecar.throttle.inside()


async def test_hits_never_wait(build_lab, desk, queue_up):
    """What is known is answered at once, however long the line; and equal calls take one place together."""
    lab = await build_lab(desk.url, routes=limited(RouteLimits(concurrency=1, queue=1)))
    await lab.ask(question(9))
    desk.desk.go.clear()
    callers = await queue_up(lab, desk, (0, {}), (1, {}))
    hits = [await lab.ask(question(9)) for _ in range(5)]
    joining = [asyncio.ensure_future(lab.ask(question(number))) for number in (0, 1) for _ in range(5)]
    await lab.until(lambda: lab.waiting == 12)
    desk.desk.go.set()
    replies = await asyncio.gather(*joining, *(caller.reply() for caller in callers))

    assert {True} == {reply.cache.startswith("sidecar; hit") for reply in hits}
    assert {200} == {reply.status for reply in replies}
    assert [9, 0, 1] == numbers(desk)


async def test_who_joined_an_impatient_caller(build_lab, desk, queue_up, dial, monkeypatch):
    """Two ask the same, and only the first is in a hurry: what it is told of its deadline is not told to the other."""
    monkeypatch.setattr(dispatch, "TICK", 0.4)  # on a busy machine the two timers of its deadline are 10 ms too close
    lab = await build_lab(desk.url, routes=limited(ONE_AT_A_TIME))
    desk.desk.go.clear()
    (inside,) = await queue_up(lab, desk, (0, {}))
    by_own_deadline = await dial(lab, question(1), headers={"x-stainless-read-timeout": "2"})
    await lab.until(lambda: waiting(lab) == 1)
    patient = [await dial(lab, question(1)) for _ in range(2)]
    await lab.until(lambda: lab.waiting == 4)

    assert 429 == (await by_own_deadline.reply()).status
    desk.desk.go.set()
    assert {200} == {(await caller.reply()).status for caller in (inside, *patient)}
    assert [0, 1] == numbers(desk)


async def test_who_joined_a_batch_call(build_lab, desk, queue_up, dial):
    """A batch call gives way, also to one of real time that asks the same: that takes a place of its own in line."""
    lab = await build_lab(desk.url, routes=limited(RouteLimits(concurrency=1, queue=2)))
    desk.desk.go.clear()
    inside, *batch = await queue_up(lab, desk, (0, {}), (1, BATCH), (2, BATCH))
    statuses, urgent = [], []
    for number, caller in ((2, batch[1]), (3, batch[0])):
        urgent.append(await dial(lab, question(number)))
        statuses.append((await caller.reply()).status)

    assert [429, 429] == statuses
    desk.desk.go.set()
    assert [200] * 3 == [(await caller.reply()).status for caller in (inside, *urgent)]
    assert [0, 2, 3] == numbers(desk)


async def test_requests_per_minute(build_lab, desk):
    """Six a minute: of ten calls at once the first is answered, and the others are told to come in ten seconds."""
    lab = await build_lab(desk.url, routes=limited(RouteLimits(requests_per_minute=6)))
    replies = await asyncio.gather(*(lab.ask(question(number)) for number in range(10)))
    hit = await lab.ask(question(numbers(desk)[0]))

    assert [200] + [429] * 9 == sorted(reply.status for reply in replies)
    assert 1 == desk.calls
    assert {"9", "10"} >= {reply.headers["retry-after"] for reply in replies if reply.status == 429}
    assert {'by="limit"': 9.0} == metric(lab, "throttled_total")
    assert hit.cache.startswith("sidecar; hit")


async def test_a_rate_that_comes_soon(build_lab, desk):
    """Ten a second: what the bucket holds goes at once, and the rest waits for its turn rather than being sent away."""
    lab = await build_lab(desk.url, routes=limited(RouteLimits(requests_per_minute=600)))
    replies = await asyncio.gather(*(lab.ask(question(number)) for number in range(26)))

    assert {200} == {reply.status for reply in replies}
    assert 26 == desk.calls
    assert {} == metric(lab, "throttled_total")


FORMS = {
    "kept": question(0, max_tokens=1000),
    "stream": question(0, max_tokens=1000, stream=True),
    "bypassed": question(0, max_tokens=1000, temperature=1),
    "bypassed stream": question(0, max_tokens=1000, temperature=1, **COUNTED),
}


@pytest.mark.parametrize("body", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("used", [5, None, 6000], ids=["little used", "not said", "more used"])
async def test_tokens_per_minute(build_lab, script, body, used):
    """A call is let in by an estimate; what it really took decides when the next one goes."""
    upstream = await script(Meter(used))
    lab = await build_lab(upstream.url, routes=limited(RouteLimits(tokens_per_minute=6000)))
    first = await lab.ask(body)
    await lab.settle()
    second = await lab.ask({**body, "seed": 2})

    assert 200 == first.status
    assert (200 if used == 5 else 429) == second.status
    assert (2 if used == 5 else 1) == upstream.calls
    if used is None:
        assert 5 < int(second.headers["retry-after"]) <= 12
    if used == 6000:
        assert 50 < int(second.headers["retry-after"]) <= 60


@pytest.mark.parametrize("status", ["500 Broken", "400 Bad Request", "429 Too Many"])
async def test_a_failed_call_costs_no_tokens(build_lab, desk, status):
    """What a call was expected to take is given back where it failed."""
    lab = await build_lab(desk.url, routes=limited(RouteLimits(tokens_per_minute=6000)))
    desk.desk.says[b""] = whole(b"{}", status=status)
    for number in range(4):
        await lab.ask(question(number, max_tokens=100_000))
    desk.desk.says.clear()

    assert 200 == (await lab.ask(question(4, max_tokens=100_000))).status
    assert 5 == desk.calls


async def test_sdk(build_lab, desk):
    """To an SDK it is a rate limit like the service's own, which it waits for."""
    lab = await build_lab(desk.url, routes=limited(RouteLimits(requests_per_minute=6)))
    await lab.ask(question(0))
    url = lab.url
    async with Voice(openai.AsyncOpenAI(base_url=f"{url}/openai/v1", api_key="sk-story", max_retries=0)) as voice:
        with pytest.raises(openai.RateLimitError) as caught:
            await voice.ask("chat.completions.create", **question(1))
    async with Voice(anthropic.AsyncAnthropic(base_url=f"{url}/anthropic", api_key="k", max_retries=0)) as voice:
        with pytest.raises(anthropic.RateLimitError) as also:
            await voice.ask("messages.create", model="claude-sonnet-4", max_tokens=5, messages=CLAUDE["messages"])

    assert "route-limit" == caught.value.code
    assert "limits.requests_per_minute" in str(also.value)
    assert 1 == desk.calls


# ---- a fleet ----


async def test_a_fleet_holds_one_rate(build_fleet, desk):
    """Six a minute for all: whichever sidecar is asked, one of ten calls is answered."""
    labs = await build_fleet(desk.url, routes=limited(RouteLimits(requests_per_minute=6)))
    replies = await asyncio.gather(*(labs[number % 2].ask(question(number)) for number in range(10)))

    assert [200] + [429] * 9 == sorted(reply.status for reply in replies)
    assert 1 == desk.calls
    assert all(lab.sidecar.fleet.quota.asked for lab in labs)


async def test_a_fleet_holds_its_tokens_together(build_fleet, script):
    """What a call took more than expected is paid for by the other sidecar's calls, too."""
    upstream = await script(Meter(6000))
    one, two = await build_fleet(upstream.url, routes=limited(RouteLimits(tokens_per_minute=6000)))
    first = await one.ask(question(0, max_tokens=10))
    asked = one.sidecar.fleet.quota.asked
    await one.until(lambda: one.sidecar.fleet.quota.asked > asked)
    second = await two.ask(question(1, max_tokens=10))

    assert [200, 429] == [first.status, second.status]
    assert 50 < int(second.headers["retry-after"]) <= 60
    assert 1 == upstream.calls


@pytest.mark.parametrize("known", [False, True], ids=["by replicas", "by the pods counted last"])
async def test_with_redis_away(build_fleet, desk, known):
    """Each sidecar takes its share: of thirty a minute for five the second call would come in ten seconds."""
    limits = RouteLimits(requests_per_minute=12 if known else 30, replicas=1 if known else 5)
    with RedisServer() as server:
        if not known:
            server.kill()
        labs = await build_fleet(desk.url, routes=limited(limits), redis={"url": server.url, "timeout": 0.1})
        if known:
            for lab in labs:
                await lab.sidecar.fleet.presence.beat()
            server.kill()
        await labs[0].until(lambda: not any(lab.sidecar.fleet.link.up for lab in labs))
        for lab in labs:
            replies = [await lab.ask(question(number)) for number in range(3)]

            assert [200, 429, 429] == [reply.status for reply in replies]
            assert "10" == replies[1].headers["retry-after"]
    assert 2 == desk.calls
