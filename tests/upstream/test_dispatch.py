"""The attempt loop: who is asked, who is asked after that, what it costs, and what comes of it in the end."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest

from sidecar.core.http.headers import fields_of
from sidecar.core.region.breaker import Sign, State
from sidecar.core.region.regions import Order, Place, Room
from sidecar.core.rules import BreakerRule
from sidecar.errors import Cause, ClientGone, Refused, UpstreamFailed
from sidecar.upstream.dispatch import MOST_ATTEMPTS
from tests.scripted import (
    CALLERS_KEY,
    CHAT,
    CONTENT,
    CUT,
    ERROR_EVENT,
    FIELDS,
    FILTERED,
    FULL,
    KEY,
    LOADED,
    NO_DEPLOYMENT,
    OTHERS,
    OWN_RETRY,
    QUOTA,
    REFUSED,
    RESET,
    SPENT,
    TIMEOUT,
    Body,
    Credentials,
    Fleet,
    Lab,
    cancelled,
    causes,
    fails,
    hangs,
    hedged,
    ok,
    region,
    spin,
    status,
    stream,
    until,
    warmed,
)

# Who is asked


@pytest.mark.parametrize(
    ("regions", "allow", "expected"),
    [
        pytest.param([region("a"), region("b")], (), "ab", id="priority"),
        pytest.param([region("b"), region("a")], (), "ab", id="priority, listed otherwise"),
        pytest.param([region("a", priority=2), region("b", priority=1)], (), "ba", id="priority, not name"),
        pytest.param([region("a", weight=1, priority=1), region("b", weight=9, priority=1)], (), "ba", id="weight"),
        pytest.param([region("a", weight=0, priority=1), region("b", priority=1)], (), "ba", id="weight 0 last"),
        pytest.param([region("a", residency="us"), region("b", residency="eu")], ("eu",), "b", id="residency"),
        pytest.param([region("a"), region("b", residency="eu")], ("eu", "us"), "b", id="none named is nowhere"),
        pytest.param([region("a"), region("b", credential_domain="two")], (), "a", id="another domain"),
        pytest.param(
            [region("a"), region("b", credential_domain="two", credential=KEY)], (), "ab", id="with its own credential"
        ),
    ],
)
async def test_order(regions, allow, expected):
    """Every region that may take a call is asked, in its order, while all of them fail."""
    lab = Lab(
        {one.name: [REFUSED] for one in regions}, *regions, allow=frozenset(allow), credentials=Credentials(FIELDS)
    )
    await lab.call(*OWN_RETRY)

    assert list(expected) == lab.asked
    assert lab.is_clean()


async def test_pinned():
    """What depends on one region's state keeps the listed order, whatever is drawn."""
    regions = region("a", weight=1, priority=1), region("b", weight=9, priority=1)
    lab = Lab({"a": [ok()], "b": [ok()]}, *regions)
    await lab.call(pinned=True)
    await lab.call()

    assert ["a", "b"] == lab.asked


async def test_latency():
    """Where a service balances by latency, the quicker of two goes first."""
    lab = Lab({"a": [ok()], "b": [ok()]}, region("a", priority=1), region("b", priority=1), balance="latency")
    lab.regions.latency.note(Place("ai", "", "a"), 2.0, lab.clock.now)
    lab.regions.latency.note(Place("ai", "", "b"), 1.0, lab.clock.now)
    await lab.call()

    assert ["b"] == lab.asked


@pytest.mark.parametrize(
    ("regions", "microsoft"),
    [
        pytest.param([region("a", residency="us")], False, id="elsewhere"),
        pytest.param(
            [region("a", residency="us"), region("b", residency="eu", credential_domain="two")], False, id="not his"
        ),
        pytest.param([region("a", residency="us"), region("b", residency="eu")], True, id="not for such tokens"),
    ],
)
async def test_no_region_allowed(regions, microsoft):
    """Where no region may take it, a call is refused; it goes nowhere else."""
    lab = Lab({"a": [ok()], "b": [ok()]}, *regions, allow=frozenset({"eu"}))
    with pytest.raises(Refused) as caught:
        await lab.send(microsoft=microsoft)

    assert (403, "no-region-allowed", []) == (caught.value.status, caught.value.code, lab.asked)


async def test_microsoft_tokens():
    """A token that Microsoft issued goes to no other vendor's host, whoever else fails."""
    regions = region("a", credential=KEY), region("b"), region("c", credential=OTHERS)
    lab = Lab({one.name: [REFUSED] for one in regions}, *regions, credentials=Credentials(FIELDS))
    await lab.call(microsoft=True)

    assert ["a", "c"] == lab.asked
    assert all(CALLERS_KEY not in dict(call["pairs"]).values() for call in lab.client.calls)


DEPLOYMENTS = {"gpt-4o": "gpt 4o/eu"}


@pytest.mark.parametrize("kind", ["path", "body"])
async def test_deployments(kind):
    """A region that calls the model otherwise is asked for that, and the others as the caller wrote it."""
    regions = region("a"), region("b", deployments=DEPLOYMENTS)
    lab = Lab({"a": [REFUSED], "b": [ok()]}, *regions, dialect="azure-openai")
    path = b"/openai/deployments/gpt-4o/chat/completions?a=b" if kind == "path" else b"/openai/v1/chat/completions"
    await lab.call(path=path)
    first, second = lab.client.calls

    assert (path, CHAT) == (first["target"], lab.client.bodies[0])

    if kind == "path":
        assert b"/openai/deployments/gpt%204o%2Feu/chat/completions?a=b" == second["target"]
        assert CHAT == lab.client.bodies[1]
    else:
        assert path == second["target"]
        assert {"model": "gpt 4o/eu", "messages": []} == json.loads(lab.client.bodies[1])


@pytest.mark.parametrize(
    "body", [b'{"model":"gpt-4o","model":"x"}', b"--x\r\n", Body(CHAT)], ids=["said twice", "no JSON", "stream"]
)
async def test_not_renamed(body):
    """A region whose name for the model cannot be put into the body is left out; where all are, that is said."""
    lab = Lab({"a": [ok()], "b": [ok()]}, region("a", deployments=DEPLOYMENTS), region("b"))
    await lab.call(body=body)

    assert ["b"] == lab.asked

    lab = Lab({"a": [ok()]}, region("a", deployments=DEPLOYMENTS))
    with pytest.raises(Refused) as caught:
        await lab.send(body=body)

    assert (400, "cannot-rename", []) == (caught.value.status, caught.value.code, lab.asked)


# Failover


@pytest.mark.parametrize(
    ("first", "expected", "cause"),
    [
        pytest.param(REFUSED, 200, "connect", id="connect"),
        pytest.param(fails(Cause.DNS, sent=False), 200, "dns", id="dns"),
        pytest.param(fails(Cause.TLS, sent=False), 200, "tls", id="tls"),
        pytest.param(RESET, 200, "disconnected", id="reset before the head"),
        pytest.param(fails(Cause.MALFORMED), 200, "malformed", id="no HTTP"),
        pytest.param(status(500), 200, "5xx", id="500"),
        pytest.param(status(503), 200, "5xx", id="503"),
        pytest.param(status(529), 200, "overloaded", id="529"),
        pytest.param(status(408), 200, "timeout-408", id="408"),
        pytest.param(QUOTA, 200, "quota", id="429, quota"),
        pytest.param(FULL, 200, "capacity", id="429, capacity"),
        pytest.param(SPENT, 200, "exhausted", id="429, no money"),
        pytest.param(status(402), 200, "exhausted", id="402"),
        pytest.param(NO_DEPLOYMENT, 200, "no-deployment", id="404, no deployment"),
        pytest.param(status(404), 404, None, id="404"),
        pytest.param(status(400), 400, None, id="400"),
        pytest.param(FILTERED, 400, None, id="400, content filter"),
        pytest.param(status(401), 401, None, id="401"),
        pytest.param(status(403), 403, None, id="403"),
        pytest.param(status(501), 501, None, id="501"),
        pytest.param(ok(b'{"a"', CUT), 200, "truncated", id="a whole answer broken"),
        pytest.param(stream(b": ping\n\n", CUT), 200, "truncated", id="a stream broken before its content"),
        pytest.param(stream(), 200, "truncated", id="an empty stream"),
        pytest.param(stream(b": ping\n\n"), 200, "truncated", id="a stream of nothing but comments"),
        pytest.param(stream(ERROR_EVENT), 200, "5xx", id="an error event"),
        pytest.param(stream(CONTENT, CUT), 200, None, id="a stream broken after its content"),
        pytest.param(TIMEOUT, "first-byte-timeout", None, id="timeout"),
        pytest.param(fails(Cause.FIRST_BYTE_TIMEOUT, sent=False), 200, "first-byte-timeout", id="timeout, not sent"),
        pytest.param(fails(Cause.CONNECT_TIMEOUT, sent=False), 200, "connect-timeout", id="connect timeout"),
        pytest.param(fails(Cause.DRAINING), "draining", None, id="our own end"),
    ],
)
async def test_failover(first, expected, cause):
    """Whether the next region is asked, and with which reason."""
    lab = Lab({"a": [first], "b": [ok(b'{"of":"b"}')]})
    outgoing = lab.outgoing()
    if isinstance(expected, str):
        with pytest.raises(UpstreamFailed) as caught:
            await lab.dispatch.send(outgoing)

        assert (expected, False) == (caught.value.cause, caught.value.final)
        assert lab.is_clean()
    else:
        sent = await lab.dispatch.send(outgoing)

        assert (expected, "a" if cause is None else "b") == (sent.answer.status, sent.region)
        assert b"x-should-retry" not in fields_of(sent.answer.pairs)
        assert lab.is_clean(sent)

    assert ([""] if cause is None else ["", cause]) == causes(outgoing)


@pytest.mark.parametrize(
    ("how", "route", "expected"),
    [
        pytest.param({}, {}, ["a"], id="a generating call"),
        pytest.param({}, {"retry": {"on_timeout": True}}, ["a", "b"], id="where the route says so"),
        pytest.param({"method": b"GET", "path": b"/v1/models", "body": b""}, {}, ["a", "b"], id="GET"),
        pytest.param({"path": b"/v1/embeddings"}, {}, ["a", "b"], id="what generates nothing"),
        pytest.param({"path": b"/v1/unknown"}, {}, ["a"], id="what we don't know"),
    ],
)
@pytest.mark.parametrize("cause", [Cause.FIRST_BYTE_TIMEOUT, Cause.IDLE_TIMEOUT])
async def test_timeouts(cause, how, route, expected):
    """A call that took too long is sent once more only where that costs nothing, or is wanted."""
    lab = Lab({"a": [fails(cause)], "b": [ok()]}, **route)
    await lab.call(**how)

    assert expected == lab.asked
    assert 1 == len(lab.breaker("a")._window)


async def test_broken_after_the_commit():
    """That is told of the region, and nobody else is asked."""
    lab = Lab({"a": [stream(CONTENT, CUT)], "b": [ok()]}, breaker=BreakerRule(minimum_calls=2))
    sent = await lab.send()

    assert CONTENT == await sent.answer.read()

    with pytest.raises(UpstreamFailed):
        await sent.answer.read()

    assert (["a"], State.OPEN) == (lab.asked, lab.breaker("a").state)
    assert [("a", "failure-rate")] == [(name, transition.cause) for name, transition in lab.told]
    assert lab.is_clean(sent)


async def test_error_event_everywhere():
    """A stream that reports an error before its content is handed on where nobody does better, as it came."""
    lab = Lab({"a": [stream(ERROR_EVENT)], "b": [stream(ERROR_EVENT)]})
    sent = await lab.send()

    assert (200, b"false") == (sent.answer.status, fields_of(sent.answer.pairs)[b"x-should-retry"])
    assert ERROR_EVENT == await sent.answer.read()
    assert lab.is_clean(sent)


async def test_no_more_than():
    """Of many regions that fail, three are asked."""
    lab = Lab({name: [REFUSED] for name in "abcde"})
    await lab.call()

    assert (MOST_ATTEMPTS, ["a", "b", "c"]) == (len(lab.asked), lab.asked)


# What is handed back


@pytest.mark.parametrize(
    ("script", "expected", "told"),
    [
        pytest.param([status(500), REFUSED], 500, b"false", id="an answer before none"),
        pytest.param([REFUSED, status(500)], 500, b"false", id="wherever it is"),
        pytest.param([QUOTA, status(500)], 429, None, id="quota before an error"),
        pytest.param([status(500), QUOTA], 429, None, id="quota after an error"),
        pytest.param([QUOTA, REFUSED], 429, None, id="quota before no answer"),
        pytest.param([QUOTA, NO_DEPLOYMENT], 429, None, id="quota before what one region lacks"),
        pytest.param([QUOTA, SPENT, REFUSED], 429, None, id="quota before no money"),
        pytest.param([QUOTA, FILTERED], 400, None, id="what holds everywhere"),
        pytest.param([status(500), status(503)], 503, b"false", id="of equals the later"),
        pytest.param([status(500), status(400)], 400, None, id="an answer to the call itself"),
        pytest.param([status(500)], 500, None, id="one attempt only"),
    ],
)
async def test_handed_back(script, expected, told):
    """The best of what there is, and whether the caller should try again: not after we did, unless it is to wait."""
    lab = Lab({name: [step] for name, step in zip("abc", script, strict=False)})
    sent = await lab.send(*OWN_RETRY)
    fields = fields_of(sent.answer.pairs)

    assert (expected, told) == (sent.answer.status, fields.get(b"x-should-retry"))

    if expected == 429:
        assert b"7" == fields[b"retry-after"]

    assert lab.is_clean(sent)


async def test_handed_back_with_its_wait():
    """An error's Retry-After stays, and a word of the service's own about retries gives way to ours."""
    said = ((b"retry-after", b"3"), (b"X-Should-Retry", b"true"))
    lab = Lab({"a": [REFUSED], "b": [status(503, b"{}", *said)]})
    sent = await lab.send()

    assert [(b"retry-after", b"3"), (b"x-should-retry", b"false")] == list(sent.answer.pairs[1:])
    assert lab.is_clean(sent)


@pytest.mark.parametrize(
    ("names", "expected"), [("a", (Cause.CONNECT, False)), ("ab", (Cause.NO_REGION, True))], ids=["one", "two"]
)
async def test_failure_is_final(names, expected):
    """What is raised after more than one attempt tells that the caller should make no more: no region answers."""
    lab = Lab({name: [REFUSED] for name in names})
    with pytest.raises(UpstreamFailed) as caught:
        await lab.send(*OWN_RETRY)

    assert expected == (caught.value.cause, caught.value.final)


async def test_no_region():
    """Where nobody takes it, a call ends at once, with the time after which it is worth another."""
    lab = Lab({"a": [ok()], "b": [ok()]})
    lab.open("a", Sign.UNANSWERED)
    lab.clock.now += 2.0
    lab.open("b", Sign.UNANSWERED)
    with pytest.raises(UpstreamFailed) as caught:
        await lab.send()

    assert (Cause.NO_REGION, False, False) == (caught.value.cause, caught.value.sent, caught.value.final)
    assert 3.0 == pytest.approx(caught.value.retry_after)
    assert [] == lab.asked


# What it costs


async def test_budget():
    """Extra attempts are a fifth of the calls and a hundred; then the first failure is the answer."""
    lab = Lab({"a": [status(500)], "b": [ok()]}, breaker=BreakerRule(0, 0, 0.0))
    found = [await lab.call() for _ in range(150)]

    assert {200: 130, 500: 20} == Counter(found)
    assert 280 == len(lab.asked)
    assert 0.0 == lab.regions.budget("ai").left(lab.clock.now)

    lab.clock.now += 11.0

    assert 200 == await lab.call()
    assert lab.is_clean()


async def test_budget_refuses_a_probe():
    """A probe that the budget does not pay for is the next call's, in the fleet as well."""
    fleet = Fleet()
    lab = Lab({"a": [status(500)], "b": [ok()]}, breaker=BreakerRule(shared=True), fleet=fleet)
    lab.open("b")
    lab.clock.now += 6.0
    budget = lab.regions.budget("ai")
    while budget.take(lab.clock.now):
        pass

    assert 500 == await lab.call()
    assert (["a"], ["b"]) == (lab.asked, fleet.released)
    assert lab.breaker("b").admit(lab.clock.now, 0.5).probe


@pytest.mark.parametrize(
    ("steps", "pairs", "asked", "slept"),
    [
        pytest.param([status(500), ok()], (), 2, [0.25], id="an error"),
        pytest.param([REFUSED, ok()], (), 2, [0.25], id="no connection"),
        pytest.param([status(503, b"{}", (b"retry-after", b"2")), ok()], (), 2, [2.0], id="with a wait"),
        pytest.param([status(503, b"{}", (b"retry-after", b"3")), ok()], (), 1, [], id="with a long wait"),
        pytest.param([status(503, b"{}", (b"x-should-retry", b"false")), ok()], (), 1, [], id="told not to"),
        pytest.param([status(500), status(500), ok()], (), 2, [0.25], id="once"),
        pytest.param([status(500), ok()], OWN_RETRY, 1, [], id="the caller does so itself"),
        pytest.param([QUOTA, ok()], (), 1, [], id="quota"),
        pytest.param([FULL, ok()], (), 1, [], id="capacity"),
        pytest.param([status(400), ok()], (), 1, [], id="the caller's own fault"),
        pytest.param([TIMEOUT, ok()], (), 1, [], id="a timeout"),
        pytest.param([stream(ERROR_EVENT), ok()], (), 2, [0.25], id="an error event"),
    ],
)
async def test_one_region(steps, pairs, asked, slept):
    """The only region is asked again, once and after a pause, unless the caller's SDK does that."""
    lab = Lab({"a": steps})
    await lab.call(*pairs)

    assert (asked, slept) == (len(lab.asked), lab.sleeps)
    assert lab.is_clean()


async def test_pause_is_drawn():
    """Full jitter: anything up to half a second."""
    lab = Lab({"a": [status(500)]}, breaker=BreakerRule(0, 0, 0.0))
    for lab.draw in (0.0, 0.5, 0.999):
        await lab.call()

    assert [0.0, 0.25, 0.4995] == lab.sleeps


@pytest.mark.parametrize(("patience", "expected"), [(0.2, 1), (0.3, 2)])
async def test_no_pause_beyond_the_deadline(patience, expected):
    """A caller that will be gone by then has the error at once."""
    lab = Lab({"a": [status(500), ok()]})
    await lab.call(deadline=lab.clock.now + patience)

    assert expected == len(lab.asked)


async def test_no_failover_beyond_the_deadline():
    """Nobody is asked for a caller that is gone."""
    lab = Lab({"a": [(3.0, status(500))], "b": [ok()]})

    assert 500 == await lab.call(deadline=lab.clock.now + 2.0)
    assert ["a"] == lab.asked


# The last candidate


async def test_windows_everywhere():
    """Quota spent in all regions: one attempt a call, where there is room soonest; an answer ends the window."""
    lab = Lab({"a": [QUOTA], "b": [status(429, b"{}", (b"retry-after", b"5")), ok()]})

    assert 429 == await lab.call()
    assert ["a", "b"] == lab.asked

    lab.client.script["https://b"].insert(0, status(429, b"{}", (b"retry-after", b"4")))

    assert [429, 200, 200] == [await lab.call() for _ in range(3)]
    assert ["a", "b", "b", "b", "b"] == lab.asked
    assert 0.0 == lab.regions.windows.until(Room(Place("ai", "", "b"), "gpt-4o", b"caller"), lab.clock.now)


async def test_windows_are_of_a_credential():
    """One caller's quota is not another's; what the region's own credential has spent is everybody's."""
    regions = region("a"), region("b", credential=KEY)
    lab = Lab({"a": [QUOTA, ok()], "b": [QUOTA, ok()]}, *regions, credentials=Credentials(FIELDS))
    await lab.call(credential=b"one")

    assert 200 == await lab.call(credential=b"two")
    assert ["a", "b", "a"] == lab.asked

    await lab.call(credential=b"one")

    assert "a" == lab.asked[-1]  # both are spent, and equally long

    lab.clock.now += 8.0

    assert 200 == await lab.call(credential=b"one")


async def test_last_with_errors():
    """Regions that answer with errors are still asked, one for each call, the soonest to recover first."""
    lab = Lab({"a": [status(500)], "b": [status(500)]})
    lab.open("b")
    lab.clock.now += 1.0
    lab.open("a")

    assert [500, 500] == [await lab.call(), await lab.call()]
    assert ["b", "b"] == lab.asked


async def test_last_answers():
    """A spare call that is answered closes the breaker."""
    lab = Lab({"a": [ok()]})
    lab.open("a")
    await lab.call()

    assert State.CLOSED is lab.breaker("a").state


async def test_one_in_ten():
    """Where a region does not answer at all, one call in ten finds out."""
    lab = Lab({"a": [REFUSED], "b": [ok()]})
    lab.regions.order("ai", "b", Order(State.OPEN, float("inf")), lab.clock.now)
    lab.open("a", Sign.UNANSWERED)
    for step in range(100):
        lab.draw = step / 100
        await lab.call(*OWN_RETRY)

    assert ["a"] * 10 == lab.asked


async def test_probe_while_the_other_stays_silent():
    """Who has probed in vain, and is refused elsewhere, hears the same as those who are refused everywhere."""
    lab = Lab({"a": [REFUSED], "b": [ok()]})
    lab.open("a", Sign.UNANSWERED)
    lab.clock.now += 3.0
    lab.open("b", Sign.UNANSWERED)
    lab.clock.now += 3.0
    with pytest.raises(UpstreamFailed) as caught:
        await lab.send()

    assert (Cause.NO_REGION, ["a"]) == (caught.value.cause, lab.asked)
    assert caught.value.retry_after >= 1.0


@pytest.mark.parametrize(
    ("closed", "seconds"),
    [pytest.param(False, 3.0, id="the other is tried sooner"), pytest.param(True, 1.0, id="the other is well")],
)
async def test_soonest(closed, seconds):
    """Who is told when to come again is told when the first of all regions may be asked, not the one that was."""
    lab = Lab({"a": [REFUSED], "b": [REFUSED]})
    if not closed:
        lab.open("b", Sign.UNANSWERED)
    lab.clock.now += 2.0
    lab.open("a", Sign.UNANSWERED)
    for _ in range(4):  # its wait has doubled
        lab.clock.now += lab.breaker("a").remaining(lab.clock.now)
        probe = lab.breaker("a").admit(lab.clock.now, 0.5)
        lab.breaker("a").settle(probe, Sign.UNANSWERED, 0.0, lab.clock.now, 0.5)
    if not closed:
        probe = lab.breaker("b").admit(lab.clock.now, 0.5)
        lab.breaker("b").settle(probe, Sign.UNANSWERED, 0.0, lab.clock.now, 0.5)
        lab.clock.now += lab.breaker("b").remaining(lab.clock.now) - 3.0
        lab.breaker("a")._next_probe = lab.clock.now
    with pytest.raises(UpstreamFailed) as caught:
        await lab.send()

    assert (Cause.NO_REGION, seconds) == (caught.value.cause, pytest.approx(caught.value.retry_after))


@pytest.mark.parametrize("order", ["ab", "ba"])
async def test_no_credential_beside_a_failure(order):
    """A region that could not even be asked hides nothing of what became of the one that was."""
    regions = [region("a"), region("b", credential=KEY)]
    if order == "ba":
        regions = [region("b", credential=KEY, priority=1), region("a", priority=2)]
    lab = Lab({"a": [RESET], "b": [ok()]}, *regions)
    with pytest.raises(UpstreamFailed) as caught:
        await lab.send()

    assert (Cause.NO_REGION, True) == (caught.value.cause, caught.value.final)
    assert ["a"] == lab.asked


async def test_budget_is_spent_without_an_answer():
    """Who may not be sent to another region is told when to come again, as where there is none."""
    lab = Lab({"a": [REFUSED], "b": [ok()]}, breaker=BreakerRule(consecutive_unanswered=0, failure_rate=0.0))
    budget = lab.regions.budget("ai")
    while budget.take(lab.clock.now):
        pass
    with pytest.raises(UpstreamFailed) as caught:
        await lab.send()

    assert (Cause.NO_REGION, ["a"]) == (caught.value.cause, lab.asked)
    assert caught.value.retry_after >= 1.0


@pytest.mark.parametrize("sdk", [True, False], ids=["sdk", "plain"])
async def test_only_region_does_not_answer(sdk):
    """The only region is asked until twenty calls in a row had no answer, and from then on by one call in ten."""
    lab = Lab({"a": [REFUSED]})
    lab.open("a", Sign.UNANSWERED)
    lab.draw = 0.5
    pairs = OWN_RETRY if sdk else ()
    ends = [await lab.call(*pairs) for _ in range(100)]

    assert ["connect"] * (16 if sdk else 8) + ["no-region"] * (84 if sdk else 92) == ends
    assert 17 == len(lab.asked)

    for step in range(100):
        lab.draw = step / 100
        await lab.call(*pairs)

    assert 17 + 10 <= len(lab.asked) <= 17 + 20


@pytest.mark.parametrize("sdk", [True, False], ids=["sdk", "plain"])
@pytest.mark.parametrize("step", [RESET, TIMEOUT])
async def test_only_region_fails(step, sdk):
    """What became of a call is its caller's to know, and whether there is any use in another one."""
    lab = Lab({"a": [step]}, retry={"on_timeout": True})
    with pytest.raises(UpstreamFailed) as caught:
        await lab.send(*(OWN_RETRY if sdk else ()))

    assert (step().cause, not sdk, 0.0) == (caught.value.cause, caught.value.final, caught.value.retry_after)


async def test_errors_before_silence():
    """Of two open regions the one that answers at all is asked."""
    lab = Lab({"a": [ok()], "b": [ok()]})
    lab.open("a", Sign.UNANSWERED)
    lab.clock.now += 1.0
    lab.open("b")
    await lab.call()

    assert ["b"] == lab.asked


async def test_order_of_an_operator():
    """A region that an operator has shut gets no call, not even the last."""
    lab = Lab({"a": [ok()]})
    lab.regions.order("ai", "a", Order(State.OPEN, float("inf")), lab.clock.now)
    lab.draw = 0.0

    assert "no-region" == await lab.call()
    assert [] == lab.asked


# Probes


async def test_cancelled_probe():
    """A probe whose caller leaves is the next call's; that it is half open is told once."""
    lab = Lab({"a": [hangs(), ok()], "b": [ok()]})
    lab.open("a")
    lab.clock.now += 6.0
    probe = asyncio.create_task(lab.send())
    await until(lambda: lab.client.running)
    await lab.call()

    assert ["a", "b"] == lab.asked

    await cancelled(probe)
    await lab.call()

    assert (["a", "b", "a"], State.CLOSED) == (lab.asked, lab.breaker("a").state)
    assert ["probe", "probe-good"] == [transition.cause for _, transition in lab.told]
    assert lab.is_clean()


async def test_claim_denied():
    """While another process probes, the next region is asked, and a second later this one again."""
    fleet = Fleet(mine=False)
    lab = Lab({"a": [ok()], "b": [ok()]}, breaker=BreakerRule(shared=True), fleet=fleet)
    lab.open("a")
    lab.clock.now += 6.0
    await lab.call()
    await lab.call()

    assert (["b", "b"], [("a", 30.0)], []) == (lab.asked, fleet.claims, fleet.released)

    lab.clock.now += 1.5
    fleet.mine = True
    await lab.call()

    assert (["b", "b", "a"], 2, []) == (lab.asked, len(fleet.claims), fleet.released)
    assert ["probe", "probe-good"] == [transition.cause for _, transition in lab.told]


async def test_claim_denied_to_the_last():
    """Where nobody else is left, a region that answers with errors is called all the same."""
    lab = Lab({"a": [ok()]}, breaker=BreakerRule(shared=True), fleet=Fleet(mine=False))
    lab.open("a")
    lab.clock.now += 6.0

    assert 200 == await lab.call()


async def test_claim_for_the_last():
    """A region without room that is due for a probe asks the fleet as any other, and tells of it."""
    fleet = Fleet()
    lab = Lab({"a": [QUOTA]}, breaker=BreakerRule(shared=True), fleet=fleet)
    await lab.call()
    lab.open("a")
    lab.clock.now += 6.0
    await lab.call()

    assert ([("a", 30.0)], ["probe"]) == (fleet.claims, [transition.cause for _, transition in lab.told])


async def test_claim_not_asked():
    """A service whose processes judge for themselves asks nobody."""
    fleet = Fleet(mine=False)
    lab = Lab({"a": [ok()], "b": [ok()]}, fleet=fleet)
    lab.open("a")
    lab.clock.now += 6.0
    await lab.call()

    assert (["a"], []) == (lab.asked, fleet.claims)


async def test_claim_cancelled():
    """Who leaves while the fleet is asked leaves nothing behind."""
    fleet = Fleet(wait=hangs())
    lab = Lab({"a": [ok()]}, breaker=BreakerRule(shared=True), fleet=fleet)
    lab.open("a")
    lab.clock.now += 6.0
    call = asyncio.create_task(lab.send())
    await until(lambda: fleet.claims)
    await cancelled(call)

    assert (["a"], []) == (fleet.released, lab.asked)
    assert lab.breaker("a").admit(lab.clock.now, 0.5).probe


@pytest.mark.parametrize(
    ("step", "released"),
    [
        pytest.param(ok(), [], id="good"),
        pytest.param(status(500), [], id="failed"),
        pytest.param(status(400), ["a"], id="neutral"),
        pytest.param(fails(Cause.DRAINING), ["a"], id="our own end"),
        pytest.param(hangs(), ["a"], id="cancelled"),
    ],
)
async def test_claim_is_over(step, released):
    """A probe that has learnt nothing is given back to the fleet; of what one learns the fleet is told otherwise."""
    fleet = Fleet()
    lab = Lab({"a": [step]}, breaker=BreakerRule(shared=True), fleet=fleet)
    lab.open("a")
    lab.clock.now += 6.0
    call = asyncio.create_task(lab.call(*OWN_RETRY))
    await until(lambda: lab.client.running)
    await spin(8)
    if call.done():
        await call
    else:
        await cancelled(call)

    assert released == fleet.released


# Bodies that arrive


async def test_stream_to_the_next():
    """What has passed of a body is sent to the next region as well, and is not held afterwards."""
    lab = Lab({"a": [RESET], "b": [ok()]})

    assert 200 == await lab.call(body=Body(b"one", b"two"), model="")
    assert [b"onetwo", b"onetwo"] == lab.client.bodies
    assert lab.is_clean()


async def test_stream_too_long_for_the_next():
    """A body that is not kept is sent once, and the first failure is the answer."""
    lab = Lab({"a": [status(500)], "b": [ok()]}, memory=5)

    assert 500 == await lab.call(body=Body(b"one", b"two"), model="")
    assert [b"onetwo"] == lab.client.bodies
    assert lab.is_clean()


async def test_early_answer():
    """An error that comes before the body has ended is the answer: its connection goes on taking the body's bytes."""
    lab = Lab({"a": [status(500)], "b": [ok()]})
    body = Body(b"one", b"two")
    asked = lab.client.send

    async def early(*, body, **call):
        chunks = body.chunks()
        await anext(chunks)
        await chunks.aclose()
        return await asked(body=b"", **call)

    lab.client.send = early

    assert 500 == await lab.call(body=body, model="")
    assert [b""] == lab.client.bodies


@pytest.mark.parametrize("error", [ClientGone(), Refused(413, "too-large", "x"), ValueError()], ids=repr)
async def test_what_a_body_raises(error):
    """That is nobody's fault but the caller's: it comes through, nobody else is asked, and nothing is counted."""
    lab = Lab({"a": [ok()], "b": [ok()]})
    with pytest.raises(type(error)):
        await lab.send(body=Body(b"body", error=error), model="")

    assert (["a"], 0) == (lab.asked, len(lab.breaker("a")._window))
    assert lab.is_clean()


async def test_body_that_fails_the_second_time():
    """An answer in hand is closed when the next attempt cannot be made."""
    lab = Lab({"a": [status(500)], "b": [(hangs(), ok())]})
    call = asyncio.create_task(lab.send())
    await until(lambda: len(lab.asked) == 2)
    await cancelled(call)

    assert lab.is_clean()


# Credentials


@pytest.mark.parametrize("hedge", [False, True], ids=["one by one", "hedged"])
async def test_callers_credential_stays_home(hedge):
    """In none of its ways does a caller's credential reach a region of another domain."""
    regions = (
        region("a", priority=1),
        region("b", credential_domain="two", credential=KEY),
        region("c", credential_domain="three"),
        region("d", credential_domain="one"),
    )
    sent = (b"Authorization", CALLERS_KEY), (b"x-api-key", CALLERS_KEY)
    path = b"/v1/chat/completions?api-key=" + CALLERS_KEY.replace(b" ", b"+") + b"&a=b"
    credentials = Credentials(FIELDS, {"key": (b"authorization", b"Bearer newer")})
    first = (hangs(), ok()) if hedge else REFUSED
    script = {"a": [first], "b": [status(401), REFUSED], "c": [ok()], "d": [status(500)]}
    lab = hedged(script, *regions, credentials=credentials) if hedge else Lab(script, *regions, credentials=credentials)
    if hedge:
        await warmed(lab)
    call = asyncio.create_task(lab.call(*sent, path=path))
    await spin()
    if not call.done():
        await cancelled(call)

    assert "b" in lab.asked
    assert "c" not in lab.asked

    for call in lab.client.calls:
        carried = CALLERS_KEY in [value for _, value in call["pairs"]] or b"of+the+caller" in call["target"]

        assert (call["base"] in {"https://a", "https://d"}) == carried


@pytest.mark.parametrize(
    ("newer", "steps", "expected", "reasons"),
    [
        pytest.param((b"authorization", b"Bearer newer"), [status(401), ok()], 200, ["", "unauthorized"], id="rotated"),
        pytest.param(None, [status(401), ok()], 401, [""], id="nothing newer"),
        pytest.param(
            (b"authorization", b"Bearer newer"), [status(401)], 401, ["", "unauthorized"], id="refused as well"
        ),
    ],
)
async def test_refresh(newer, steps, expected, reasons):
    """A region's credential that was rotated: one more attempt; else the refusal is the caller's to see."""
    credentials = Credentials(FIELDS, {"key": newer})
    lab = Lab({"a": steps, "b": [ok()]}, region("a", credential=KEY), region("b"), credentials=credentials)
    outgoing = lab.outgoing()
    sent = await lab.dispatch.send(outgoing)

    assert (expected, "a", False, reasons) == (sent.answer.status, sent.region, sent.own, causes(outgoing))
    assert [b"Bearer of the region"] == credentials.used
    assert lab.is_clean(sent)


async def test_no_credential():
    """A region whose credential cannot be had is left for the next; where there is none, that is said."""
    regions = region("a", credential=KEY), region("b", credential=OTHERS)
    lab = Lab({"a": [ok()], "b": [ok()]}, *regions, credentials=Credentials({"other": FIELDS["other"]}))
    outgoing = lab.outgoing()
    sent = await lab.dispatch.send(outgoing)

    assert (["b"], ["", "no-credential"]) == (lab.asked, causes(outgoing))

    lab = Lab({"a": [ok()]}, region("a", credential=KEY))
    with pytest.raises(Refused) as caught:
        await lab.send()

    assert (503, "no-credential", []) == (caught.value.status, caught.value.code, lab.asked)
    assert CALLERS_KEY not in dict(sent.answer.pairs).values()


# Limits of the route


async def test_throttled():
    """A call has its slot until its answer is closed, and gives the tokens back that it did not take."""
    lab = Lab({"a": [ok()]}, **LOADED)
    sent = await lab.send()

    assert ({"all": 1}, True) == (lab.throttle.inside(), sent.answer.counts)

    sent.answer.tokens = 5
    sent.answer.close()
    sent.answer.close()

    assert {"all": 0} == lab.throttle.inside()


@pytest.mark.parametrize("step", [REFUSED, status(500), status(429)], ids=["connect", "500", "429"])
async def test_throttled_failure(step):
    """So does one that fails."""
    lab = Lab({"a": [step]}, **LOADED)
    await lab.call(*OWN_RETRY)

    assert {"all": 0} == lab.throttle.inside()
