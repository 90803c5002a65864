"""How old an entry is to a process whose wall clock is set, and whose writer's clock may have been another."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.cache.held import hold
from sidecar.core.cache.policy import ABSENT, Freshness, judge, judge_stale
from sidecar.core.http.directives import NOTHING_ASKED
from sidecar.core.model import Entry, Form

TTL, SPARE = 60.0, 600.0
FRESH = Freshness(TTL, if_error=SPARE)
EPSILON = 1e-3  # what a double loses beside the seconds since the epoch

STEPS = st.lists(st.tuples(st.floats(0.0, 50.0), st.floats(-1e5, 1e5)), min_size=1, max_size=30)


def entry(at: float) -> Entry:
    return Entry(200, (), b"", Form.WHOLE, "openai", "chat", "", at=at, ttl=TTL, stale_if_error=SPARE)


@given(STEPS, st.floats(-1e5, 1e5))
def test_never_longer_than_said(steps, ahead):
    """Whatever is done to the wall clock, an entry serves its ttl at most, by the clock that nobody sets."""
    now, clock = 1.8e9, 500.0
    held = hold(entry(now + ahead), now, clock)
    first = clock
    for later, jump in steps:
        clock += later
        now += later + jump
        time = held.time(now, clock)

        if clock - first >= TTL + EPSILON:
            assert judge(held.entry, NOTHING_ASKED, FRESH, time) is ABSENT
        if clock - first >= TTL + SPARE + EPSILON:
            assert judge_stale(held.entry, NOTHING_ASKED, FRESH, time) is None


@given(st.lists(st.floats(0.0, 50.0), min_size=1, max_size=30), st.floats(0.0, 30.0))
def test_as_the_wall_clock_says(steps, age):
    """While nobody sets it the wall clock is what counts: the entry is as old as it says, and no older."""
    now, clock = 1.8e9, 500.0
    held = hold(entry(now - age), now, clock)
    for later in steps:
        clock, now = clock + later, now + later

        assert abs(held.time(now, clock) - now) < EPSILON


@given(STEPS)
def test_no_younger_than_the_wall_clock_says(steps):
    """Where it has been set ahead, too: then the entry ends sooner, and is back when it is put right."""
    now, clock = 1.8e9, 500.0
    held = hold(entry(now), now, clock)
    for later, jump in steps:
        clock += later

        assert held.time(now + later + jump, clock) >= now + later + jump
        assert held.time(now - 1e6, clock) == held.entry.at + clock - held.born


def test_end():
    """It ends with its ttl and what comes after that, counted from when it was made as far as that was known."""
    assert 500.0 - 10.0 + TTL + SPARE == hold(entry(990.0), 1000.0, 500.0).end
    assert 500.0 + TTL + SPARE == hold(entry(5000.0), 1000.0, 500.0).end
