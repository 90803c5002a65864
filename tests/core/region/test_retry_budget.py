"""The budget of extra attempts: a part of the latest calls, and a floor, in ten buckets of one second."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.region.retry_budget import SECONDS, Budget, HedgeBudget


def taken(budget, now, tries):
    """How many of so many tries were allowed."""
    return sum(budget.take(now) for _ in range(tries))


@pytest.mark.parametrize(
    ("share", "floor", "calls", "extras"),
    [
        pytest.param(0.0, 0.0, 100, 0, id="Finagle: min 0, percent 0 is the empty budget"),
        pytest.param(0.2, 0.0, 4, 0, id="not one yet"),
        pytest.param(0.2, 0.0, 5, 1, id="percent only"),
        pytest.param(0.2, 0.0, 1000, 200, id="percent only, many"),
        pytest.param(0.0, 100.0, 1000, 100, id="min only"),
        pytest.param(0.2, 100.0, 0, 100, id="the floor is there from the first second"),
        pytest.param(0.2, 100.0, 1000, 300, id="both"),
        pytest.param(1.0, 0.0, 7, 7, id="percent 100"),
        pytest.param(2.0, 0.0, 7, 14, id="percent above 100"),
    ],
)
def test_allowed(share, floor, calls, extras):
    """As many extra attempts as the part of the calls and the floor make together, and no more."""
    budget = Budget(share, floor)
    for _ in range(calls):
        budget.call(1000.5)

    assert extras == int(budget.left(1000.5))
    assert extras == taken(budget, 1000.5, extras + 10)
    assert 0 == int(budget.left(1000.5))


def test_ten_buckets():
    """A call earns, and an extra attempt costs, for ten buckets of one second."""
    budget = Budget(1.0, 0.0)
    for second in range(SECONDS):
        budget.call(100.0 + second)

    assert list(range(10, 0, -1)) == [budget.left(109.0 + second) for second in range(SECONDS)]
    assert 0.0 == budget.left(119.0)

    budget = Budget(0.0, 2.0)

    assert [True, True, False] == [budget.take(now) for now in (0.0, 4.5, 9.99)]
    assert [True, False, True] == [budget.take(now) for now in (10.0, 13.99, 14.0)]


def test_long_silence():
    """After any silence nothing is left of what was before."""
    budget = Budget()
    for _ in range(1000):
        budget.call(50.0)
    taken(budget, 50.0, 300)

    assert 100.0 == budget.left(1e6)
    assert "<Budget 0 extra to 0 calls>" == repr(budget)


def test_late_reading():
    """A time that was read before the latest one counts as that."""
    budget = Budget(1.0, 0.0)
    budget.call(10.1)
    budget.call(9.9)

    assert [2.0, 2.0] == [budget.left(9.9), budget.left(10.1)]


def test_outage():
    """Where every call fails and wants three more, there are at most 1.2 attempts a call and the floor."""
    budget, attempts = Budget(), 0
    for number in range(2000):
        now = number / 200
        budget.call(now)
        attempts += 1 + taken(budget, now, 3)

    assert 2000 * 1.2 + 100 == attempts


def test_one_hedge_from_the_start():
    """The very first slow call is hedged; then the calls must have earned it."""
    budget = HedgeBudget()

    assert [True, False] == [budget.take(0.0), budget.take(0.0)]

    for _ in range(20):
        budget.call(11.0)

    assert [True, False] == [budget.take(11.0), budget.take(11.0)]


def test_seldom_calls_are_hedged_seldom():
    """A call every two seconds earns a hedge every forty, though no ten seconds earn one."""
    budget, hedges = HedgeBudget(), []
    for now in range(0, 200, 2):
        budget.call(now)
        hedges += [now] if budget.take(now) else []

    assert [0, 38, 78, 118, 158, 198] == hedges


def test_saved_hedges_are_not_spent_at_once():
    """However many calls went without, a slow time gets what its own calls earn."""
    budget = HedgeBudget()
    for number in range(10_000):
        budget.call(number / 100)

    assert 50 == taken(budget, 99.99, 1000)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.01, 0.5, 1.0, 7.0, 25.0]), st.integers(0, 60), st.integers(0, 60))),
    st.sampled_from([0.0, 0.05, 0.2, 1.0]),
    st.sampled_from([0.0, 1.0, 10.0]),
)
def test_never_more(steps, share, floor):
    """Whatever comes, ten buckets never hold more extra attempts than they allow; hedges not ever more than theirs."""
    budget, hedges = Budget(share, floor), HedgeBudget(0.05)
    now, calls, extras, hedged = 0.0, [], [], 0
    for passed, called, wanted in steps:
        now += passed
        for _ in range(called):
            budget.call(now)
            hedges.call(now)
            calls.append(int(now))
        got = taken(budget, now, wanted)
        hedged += taken(hedges, now, wanted)
        since = int(now) - SECONDS + 1
        before = sum(at >= since for at in extras)
        earned = share * sum(at >= since for at in calls) + floor
        extras += [int(now)] * got

        assert before + got <= max(earned, before)
        assert got == wanted or before + got + 1 > earned
        assert hedged <= 1.0 + 0.05 * len(calls)


@pytest.mark.parametrize("kind", [Budget, HedgeBudget])
def test_give_back(kind):
    """An attempt that was not made after all leaves the budget as it was; and never more than that."""
    budget = kind()
    for _ in range(40):
        budget.call(0.0)
    before = budget.left(0.0)

    assert budget.take(0.0)
    budget.give_back()
    assert before == budget.left(0.0)
    budget.give_back()
    assert before == budget.left(0.0)
