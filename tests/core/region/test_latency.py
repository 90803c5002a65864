"""How quick regions have been lately."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.region.latency import FEWEST, MEMORY_SECONDS, Latency, Paces, Quantile


def test_unknown():
    """Nobody knows how quick a place is that was never asked."""

    assert Latency().of("a", 0.0) is None


def test_mean_of_one_moment():
    """Calls of the same time weigh the same."""
    latency = Latency()
    for seconds in (1.0, 2.0, 6.0):
        latency.note("a", seconds, 5.0)

    assert 3.0 == pytest.approx(latency.of("a", 5.0))


def test_old_calls_weigh_less():
    """After the memory's time a call weighs 1/e of a new one."""
    latency = Latency()
    latency.note("a", 10.0, 0.0)
    latency.note("a", 1.0, MEMORY_SECONDS)

    assert (10 / math.e + 1) / (1 / math.e + 1) == pytest.approx(latency.of("a", MEMORY_SECONDS))


def test_a_place_that_was_slow_is_asked_again():
    """What nobody asks looks quicker as time passes; one answer tells how it is now."""
    latency = Latency()
    latency.note("slow", 20.0, 0.0)
    latency.note("quick", 1.0, 0.0)
    slow_again = []
    for now in range(1, 301):
        if latency.of("slow", now) < latency.of("quick", now):
            latency.note("slow", 20.0, now)
            slow_again.append(now)
        else:
            latency.note("quick", 1.0, now)

    assert [181] == slow_again


def test_a_clock_that_stands():
    """A time before the last one counts as the same."""
    latency = Latency()
    latency.note("a", 1.0, 10.0)
    latency.note("a", 3.0, 9.0)

    assert 2.0 == pytest.approx(latency.of("a", 0.0))


def test_bounded():
    """At most so many places, the one seen longest ago out first."""
    latency = Latency(limit=2)
    for place in ("a", "b", "a", "c"):
        latency.note(place, 1.0, 0.0)

    assert [1.0, None, 1.0] == [latency.of(place, 0.0) for place in "abc"]
    assert "<Latency of 2 places>" == repr(latency)


@given(st.lists(st.tuples(st.floats(0.001, 600), st.floats(0, 3600)), min_size=1, max_size=20))
def test_between_the_extremes(calls):
    """At the time of a call, the mean lies between the quickest and the slowest."""
    latency = Latency()
    now = 0.0
    for seconds, later in calls:
        now += later
        latency.note("a", seconds, now)

    assert min(s for s, _ in calls) * 0.999 <= latency.of("a", now) <= max(s for s, _ in calls) * 1.001


def test_quantile_needs_values():
    """There is none before the twentieth value."""
    quantile = Quantile()
    found = []
    for number in range(1, FEWEST + 2):
        quantile.add(number)
        found.append(quantile.value)

    assert [None] * (FEWEST - 1) + [19, 20] == found


@given(st.lists(st.floats(0, 600), min_size=FEWEST, max_size=300), st.sampled_from([0.0, 0.5, 0.95, 1.0]))
def test_quantile(values, share):
    """That share of the last 256 values is not above it, asked once or after each value."""
    once, always = Quantile(share), Quantile(share)
    for value in values:
        once.add(value)
        always.add(value)
        assert always.value is None or always.value in values
    last = values[-256:]

    assert once.value == always.value
    assert share * len(last) <= sum(value <= once.value for value in last)
    assert share * len(last) >= sum(value < once.value for value in last)


def test_quantile_forgets():
    """Only the last values count."""
    quantile = Quantile(limit=32)
    for value in [9.0] * 100 + [1.0] * 32:
        quantile.add(value)

    assert 1.0 == quantile.value
    assert "<Quantile 0.95 of 32 values>" == repr(quantile)


def test_paces():
    """What is usual for a route, whole answers and streams apart, is known from 20 good ones on."""
    paces = Paces(limit=2)
    for seconds in range(1, 20):
        paces.note("chat", float(seconds), streaming=False)

    assert None is paces.usual("chat", streaming=False)

    paces.note("chat", 20.0, streaming=False)

    assert 19.0 == paces.usual("chat", streaming=False)
    assert None is paces.usual("chat", streaming=True)
    assert None is paces.usual("other", streaming=False)

    for route in ("b", "c"):
        paces.note(route, 1.0, streaming=True)
    assert None is paces.usual("chat", streaming=False)
