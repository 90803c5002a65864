"""Calls that are made twice at a time, or cancelled anywhere, or sent to regions that do whatever they like."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.region.breaker import Permit, State
from sidecar.core.rules import BreakerRule
from sidecar.errors import Cause, Refused, UpstreamFailed
from sidecar.upstream.dispatch import MOST_ATTEMPTS
from tests.scripted import (
    CALLERS_KEY,
    CHAT,
    CONTENT,
    CUT,
    DONE,
    ERROR_EVENT,
    FIELDS,
    FILTERED,
    KEY,
    LOADED,
    NO_DEPLOYMENT,
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

# Hedging


async def test_hedge():
    """A call that takes longer than nearly all is made a second time; the first answer counts, the other is let go."""
    lab = await warmed(hedged({"a": [hangs()], "b": [ok()]}))
    outgoing = lab.outgoing()
    sent = await lab.dispatch.send(outgoing)

    assert (["a", "b"], "b", ["", "hedge"]) == (lab.asked, sent.region, causes(outgoing))
    assert 0 == lab.client.running
    assert lab.is_clean(sent)


@pytest.mark.parametrize(
    ("step", "waits"),
    [
        pytest.param(FILTERED, False, id="the caller's own fault"),
        pytest.param(QUOTA, True, id="quota"),
        pytest.param(NO_DEPLOYMENT, True, id="no deployment"),
        pytest.param(status(401), True, id="a credential"),
        pytest.param(status(500), True, id="an error"),
    ],
)
async def test_definite_answer_ends_the_race(step, waits):
    """An answer that no other region would better is not held back; any other one waits for the second attempt."""
    first, second = hangs(), hangs()
    lab = await warmed(hedged({"a": [(first, step)], "b": [(second, ok())]}))
    call = asyncio.create_task(lab.send())
    await until(lambda: len(lab.asked) == 2)
    first.set()
    await spin()

    assert waits is not call.done()

    second.set()
    sent = await call

    assert (200 if waits else 400) == sent.answer.status
    assert lab.is_clean(sent)


async def test_hedge_of_the_only_region():
    """Where there is one region, it has both."""
    lab = await warmed(hedged({"a": [hangs(), ok()]}))

    assert 200 == await lab.call()
    assert ["a", "a"] == lab.asked


async def test_hedge_loses():
    """The first answer is the first one's after all: the second is cancelled, and its answer closed."""
    limiter = hangs()
    lab = await warmed(hedged({"a": [(limiter, ok())], "b": [ok(hangs())]}))
    call = asyncio.create_task(lab.send())
    await until(lambda: len(lab.asked) == 2 and len(lab.client.answers) == 21)
    limiter.set()
    sent = await call

    assert "a" == sent.region
    assert lab.is_clean(sent)


async def test_hedge_both_answer():
    """Two answers at the same time: one counts, the other is closed."""
    limiter = hangs()
    lab = await warmed(hedged({"a": [(limiter, ok())], "b": [(limiter, ok())]}))
    call = asyncio.create_task(lab.send())
    await until(lambda: lab.client.running == 2)
    limiter.set()
    sent = await call

    assert lab.is_clean(sent)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        pytest.param(REFUSED, ok(), 200, id="only one"),
        pytest.param(status(500), REFUSED, 500, id="an answer before none"),
        pytest.param(QUOTA, status(500), 429, id="quota before an error"),
        pytest.param(status(500), QUOTA, 429, id="whichever is first"),
        pytest.param(REFUSED, RESET, "no-region", id="none"),
    ],
)
async def test_hedge_fails(first, second, expected):
    """A failure waits for the other one; of two failures the better is handed back."""
    limiter, late = hangs(), hangs()
    lab = await warmed(hedged({"a": [(limiter, first)], "b": [(late, second)]}))
    call = asyncio.create_task(lab.call(*OWN_RETRY))
    await until(lambda: lab.client.running == 2)
    limiter.set()
    await until(lambda: lab.client.running == 1)
    late.set()

    assert expected == await call
    assert lab.is_clean()


async def test_hedge_budget():
    """At most one call in twenty is made twice."""
    lab = await warmed(hedged({"a": [(hangs(), ok())], "b": [ok()]}))
    for _ in range(3):
        call = asyncio.create_task(lab.call())
        await spin(20)
        if not call.done():
            await cancelled(call)

    assert ["a", "b", "a", "a"] == lab.asked
    assert lab.is_clean()


async def test_no_hedge_where_there_is_trouble():
    """Nobody is asked a second time who is out of room or fails: somebody is at it already."""
    lab = await warmed(hedged({"a": [(hangs(), ok())], "b": [ok()]}))
    lab.open("b")
    call = asyncio.create_task(lab.call())
    await spin(20)
    await cancelled(call)

    assert ["a"] == lab.asked


@pytest.mark.parametrize("route", [{}, {"hedge": True}], ids=["not wanted", "too few calls"])
async def test_no_hedge(route):
    """Only where the route wants it, and its pace is known."""
    limiter = hangs()
    lab = Lab({"a": [(limiter, ok())], "b": [ok()]}, retry=route)
    call = asyncio.create_task(lab.call())
    await until(lambda: lab.client.running)
    await spin(20)
    limiter.set()
    await call

    assert ["a"] == lab.asked


async def test_hedge_cancelled():
    """A caller that leaves takes both along."""
    lab = await warmed(hedged({"a": [hangs()], "b": [hangs()]}))
    call = asyncio.create_task(lab.send())
    await until(lambda: lab.client.running == 2)
    await cancelled(call)

    assert lab.is_clean()


async def test_hedge_is_a_probe():
    """A second attempt that is a probe gives its slot back when it loses."""
    limiter = hangs()
    lab = await warmed(hedged({"a": [(limiter, ok())], "b": [hangs()]}))
    lab.open("b")
    lab.clock.now += 6.0
    call = asyncio.create_task(lab.call())
    await until(lambda: lab.client.running == 2)
    limiter.set()
    await call

    assert lab.breaker("b").admit(lab.clock.now, 0.5).probe
    assert lab.is_clean()


async def test_hedge_too_late():
    """An answer that comes while the fleet is asked for a probe: the probe isn't made, and is given back."""
    limiter, fleet = hangs(), Fleet(wait=hangs())
    lab = await warmed(hedged({"a": [(limiter, ok())], "b": [ok()]}, breaker=BreakerRule(shared=True), fleet=fleet))
    lab.open("b")
    lab.clock.now += 6.0
    call = asyncio.create_task(lab.call())
    await until(lambda: fleet.claims)
    limiter.set()
    await until(lambda: not lab.client.running)
    fleet.wait.set()

    assert 200 == await call
    assert (["a"], ["b"]) == (lab.asked, fleet.released)
    assert lab.breaker("b").admit(lab.clock.now, 0.5).probe


async def test_hedge_of_a_stream():
    """A body that is still arriving cannot be sent twice at a time."""
    limiter = hangs()
    lab = await warmed(hedged({"a": [(limiter, ok())], "b": [ok()]}))
    call = asyncio.create_task(lab.call(body=Body(CHAT), model=""))
    await spin(20)
    limiter.set()
    await call

    assert ["a"] == lab.asked


class Torn:
    """A collected body whose file cannot be read."""

    size = 4

    async def chunks(self):
        await asyncio.sleep(0)
        yield b"to"
        raise Refused(500, "torn", "x")

    def share(self):
        pass

    def close(self):
        pass


async def test_hedge_with_a_torn_body():
    """What a body raises comes through, in a race too."""
    lab = await warmed(hedged({"a": [ok()], "b": [ok()]}))
    with pytest.raises(Refused, match="x"):
        await lab.send(body=Torn(), model="")

    assert lab.is_clean()


# Cancellation


async def ended(lab, at, **members):
    """Whether a call has ended that is cancelled after so many steps of the loop; what it got is closed."""
    call = asyncio.create_task(lab.send(**members))
    await spin(at)
    call.cancel()
    try:
        sent = await call
    except asyncio.CancelledError:
        return False
    sent.answer.close()
    return True


def losing():
    """Everything on one way: a probe claimed, a 401 and its refresh, a broken whole answer, a failover, an answer."""
    credentials = Credentials(FIELDS, {"key": (b"authorization", b"Bearer newer")})
    lab = Lab(
        {"a": [status(401), ok(b'{"', hangs_once(), CUT)], "b": [status(500, b"{}")], "c": [ok(b"{", b"}")]},
        region("a", credential=KEY),
        region("b"),
        region("c"),
        breaker=BreakerRule(shared=True),
        fleet=Fleet(),
        credentials=credentials,
        **LOADED,
    )
    lab.open("a")
    lab.open("b")
    lab.clock.now += 6.0
    return lab


def hangs_once():
    event = hangs()
    event.set()
    return event


@pytest.mark.parametrize("way", ["losing", "hedged", "stream"])
async def test_cancelled_anywhere(way):
    """Wherever a call is cancelled: no probe is lost, no byte held, no answer open, no slot taken."""
    for at in range(100):
        members = {}
        if way == "losing":
            lab = losing()
        elif way == "hedged":
            lab = await warmed(hedged({"a": [(hangs(), ok())], "b": [ok(b"{", b"}")]}, **LOADED))
            lab.open("b")
            lab.clock.now += 6.0
        else:
            lab = Lab({"a": [RESET], "b": [ok()]}, **LOADED)
            members = {"body": Body(b"one", b"two", b"three"), "model": ""}
        done = await ended(lab, at, **members)
        await spin(5)

        assert lab.is_clean()
        assert {"all": 0} == (lab.throttle.inside() or {"all": 0})

        for name in lab.client.script:
            breaker = lab.breaker(name.removeprefix("https://"))
            if breaker.state is not State.CLOSED:
                lab.clock.now += breaker.remaining(lab.clock.now)

                assert isinstance(breaker.admit(lab.clock.now, 0.0), Permit)

        if done:
            break

    assert 3 < at < 99


# Everything at once

KINDS = {
    "ok": ok(),
    "stream": stream(CONTENT, DONE),
    "500": status(500),
    "quota": QUOTA,
    "spent": SPENT,
    "400": FILTERED,
    "401": status(401),
    "404": NO_DEPLOYMENT,
    "reset": RESET,
    "old": fails(Cause.DISCONNECTED, reused=True),
    "connect": REFUSED,
    "timeout": TIMEOUT,
    "cut": ok(b"{", CUT),
    "event": stream(ERROR_EVENT),
}
RANK = {"ok": 4, "stream": 4, "400": 3, "401": 3, "quota": 3, "404": 2, "spent": 2, "500": 1, "event": 1}


@given(
    scripts=st.lists(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=4), min_size=1, max_size=4),
    domains=st.lists(st.sampled_from(["one", "two"]), min_size=4, max_size=4),
    own=st.lists(st.booleans(), min_size=4, max_size=4),
    calls=st.integers(1, 12),
    pause=st.floats(0.0, 10.0),
    draws=st.lists(st.floats(0.0, 1.0, exclude_max=True), min_size=1, max_size=5),
)
async def test_whatever_regions_do(scripts, domains, own, calls, pause, draws):
    """Attempts are few and paid for, what isn't handed back is closed, no breaker sticks, and the best is returned."""
    given_, regions = {}, []
    for name, steps, domain, plain in zip("abcd", scripts, domains, own, strict=False):
        regions.append(region(name, credential_domain=domain, credential=None if plain else KEY))
        given_[name] = [KINDS[kind] for kind in steps]
    lab = Lab(given_, *regions, credentials=Credentials(FIELDS))
    kinds = {step: kind for kind, step in KINDS.items()}
    extras = 0
    for number in range(calls):
        lab.draw = draws[number % len(draws)]
        before = {base: list(steps) for base, steps in lab.client.script.items()}
        asked = len(lab.asked)
        outgoing = lab.outgoing()
        got = None
        with suppress(UpstreamFailed):
            sent = await lab.dispatch.send(outgoing)
            got = sent.answer.status
        names = lab.asked[asked:]
        seen = []
        for name in names:
            steps = before[f"https://{name}"]
            seen.append(kinds[steps.pop(0) if len(steps) > 1 else steps[0]])
        reconnects = causes(outgoing).count("reconnect")
        extras += sum(cause not in {"", "reconnect", "unauthorized"} for cause in causes(outgoing))

        assert len(names) == len(outgoing.attempt_logs)
        assert len(names) - reconnects - causes(outgoing).count("unauthorized") <= MOST_ATTEMPTS

        best = max((RANK.get(kind, 0) for kind in seen), default=0)
        if got is None:
            assert best == 0
            assert lab.is_clean()
        else:
            assert best in {RANK[k] for k in RANK if {"ok": 200, "stream": 200, "400": 400, "401": 401, "quota": 429,
                            "404": 404, "spent": 429, "500": 500, "event": 200}[k] == got}  # fmt: skip
            assert lab.is_clean(sent)

        for call in lab.client.calls[asked:]:
            if not next(one for one in regions if one.url == call["base"]).credential:
                continue

            assert CALLERS_KEY not in [value for _, value in call["pairs"]]

        lab.clock.now += pause

    assert extras <= 100 + 0.2 * calls
    assert extras == lab.regions.budget("ai").extras or pause > 0.0

    lab.clock.now += 120.0
    for one in regions:
        assert isinstance(lab.breaker(one.name).admit(lab.clock.now, 0.0), Permit)
