"""What a route may take: buckets that hold a minute, estimates that learn, a concurrency that follows, a line."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.limits.rates import (
    BRIMFUL,
    BURST_SECONDS,
    MODEST_OUTPUT,
    MOST_DEBT_SECONDS,
    NO_LIMITS,
    Account,
    Adaptive,
    Bucket,
    Calibration,
    Pair,
    Worth,
    estimate,
    limited,
    worth,
)
from sidecar.core.rules import Route, RouteLimits

PER_MINUTE = 200_000
TOKENS = RouteLimits(tokens_per_minute=PER_MINUTE)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (NO_LIMITS, False),
        (Route("chat").limits, False),
        (RouteLimits(), False),
        (RouteLimits(queue=3, replicas=4), False),
        (RouteLimits(concurrency=1), True),
        (RouteLimits(tokens_per_minute=1), True),
        (RouteLimits(requests_per_minute=1), True),
        (RouteLimits(adaptive=True), True),
    ],
)
def test_limited(limits, expected):
    """A queue alone limits nothing."""

    assert expected == limited(limits)


def test_no_limits_is_what_routes_have():
    """The fast look: a route that names no limits has this very object."""

    assert Route("chat").limits is NO_LIMITS


@pytest.mark.parametrize(
    ("size", "output", "expected"),
    [
        (4000, 100, 1100),
        (4000, None, 1000 + MODEST_OUTPUT),
        (0, 0, 1),
        (4000, -7, 1000),
    ],
    ids=["declared", "undeclared", "nothing", "nonsense"],
)
def test_estimate(size, output, expected):
    """Four bytes of JSON a token, and all of the output that the call allows."""

    assert expected == estimate(size, output)


def test_worth():
    """Seconds of the limit, of a whole one or a share; what has no limit is worth nothing."""

    assert Worth(0.0, 0.0003) == worth(TOKENS)
    assert Worth(1.0, 0.003) == worth(RouteLimits(requests_per_minute=600, tokens_per_minute=200_000), 10)


def test_bucket():
    """It is full at first, can be overdrawn, and fills with time up to what it holds."""
    bucket = Bucket()

    assert BURST_SECONDS == bucket.fill(100.0)

    bucket.take(100.0, 5.0)

    assert (-3.0, 4.0, 5.0) == (bucket.fill(100.0), bucket.wait(100.0, 1.0), bucket.wait(100.0, 60.0))
    assert (0.0, BURST_SECONDS) == (bucket.wait(105.0, 60.0), bucket.fill(1000.0))

    bucket.take(1000.0, -60.0)
    bucket.take(1000.0, 1.0)

    assert BURST_SECONDS - 1.0 == bucket.fill(1000.0)

    bucket.take(1000.0, 1e9)

    assert -MOST_DEBT_SECONDS == bucket.fill(1000.0)
    assert "<Bucket empty at 1600.000>" == repr(bucket)


def test_wait_behind_others():
    """Others that are before a call take theirs first."""
    account = Account()
    price = Worth(1.0, 0.001)

    assert Pair(0.0, 0.0) == account.wait(0.0, price, 1000, ahead=1, ahead_tokens=500)
    assert Pair(2.0, 4.0) == account.wait(0.0, price, 1000, ahead=3, ahead_tokens=5000)

    account.take(0.0, price, 1500)

    assert Pair(1.0, 0.5) == account.fill(0.0)

    account.take(0.0, price, -500, requests=-1)

    assert Pair(2.0, 1.0) == account.fill(0.0)

    account.set(0.0, Pair(-1.0, 0.0))

    assert Pair(2.0, 1.0) == account.wait(0.0, price, 1000)
    assert "<Account <Bucket empty at 1.000> <Bucket empty at 0.000>>" == repr(account)


@pytest.mark.parametrize("parts", [1, 4])
def test_no_limit_costs_nothing(parts):
    """What has no limit is never waited for, and never used up."""
    account = Account()
    price = worth(RouteLimits(requests_per_minute=60), parts)
    account.take(0.0, price, 10**12, requests=0)

    assert Pair(0.0, 0.0) == account.wait(0.0, price, 10**12)
    assert BRIMFUL == account.fill(0.0)


def saturate(draw, *, seconds, error, hold):
    """Calls one after the other, each as soon as there is room: when each began, and what it really used."""
    account, calibration, now = Account(), Calibration(), 0.0
    price, used, ends = worth(TOKENS), [], []
    while now < seconds:
        estimated = draw.randint(200, 2000)
        charge = calibration.charge(estimated)
        while True:
            at = now + max(account.wait(now, price, charge))
            if not ends or ends[0][0] > at:
                break
            now, ended, paid, real = ends.pop(0)
            calibration.learn(ended, real)
            account.take(now, price, real - paid, requests=0)
        now = at
        account.take(now, price, charge)
        real = max(1, round(estimated * error * draw.uniform(0.5, 1.5)))
        used.append((now, real))
        ends.append((now + hold, estimated, charge, real))
        ends.sort()
    return used


@pytest.mark.parametrize("hold", [0.2, 3.0], ids=["short", "long"])
@pytest.mark.parametrize("error", [0.1, 1.0, 3.0], ids=["far-too-much", "right", "too-little"])
def test_a_saturated_minute(error, hold):
    """Whatever estimates are worth: no minute from the second on is further than 5 % from its limit, by real usage."""
    used = saturate(random.Random(7), seconds=300, error=error, hold=hold)
    minutes = [sum(real for at, real in used if start <= at < start + 60) for start in range(60, 240, 7)]

    assert 0.95 * PER_MINUTE <= min(minutes)
    assert max(minutes) <= 1.05 * PER_MINUTE


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 6000)), max_size=200))
def test_any_minute(calls):
    """However calls come: a minute takes no more than its limit and a full bucket."""
    account, price, now, taken = Account(), worth(TOKENS), 0.0, []
    for pause, tokens in calls:
        now += pause
        if max(account.wait(now, price, tokens)) == 0.0:
            account.take(now, price, tokens)
            taken.append((now, tokens))
    for start, _ in taken:
        minute = sum(tokens for at, tokens in taken if start <= at <= start + 60)

        assert minute <= PER_MINUTE * (1 + BURST_SECONDS / 60) + 1


def test_larger_than_a_bucket():
    """Such a call goes when the bucket is full, and those after it pay."""
    account, price = Account(), worth(TOKENS)

    assert Pair(0.0, 0.0) == account.wait(0.0, price, 100_000)

    account.take(0.0, price, 100_000)

    assert pytest.approx(28.0 + 0.0003) == account.wait(0.0, price, 1).tokens


def test_calibration():
    """Charges come to be what calls use; what failed is no evidence, and the ratio has bounds."""
    calibration = Calibration()

    assert (1000, 1, 0) == (calibration.charge(1000), calibration.charge(1), calibration.charge(0))

    calibration.learn(1000, 0)

    assert 1000 == calibration.charge(1000)

    for _ in range(200):
        calibration.learn(1000, 250)

    assert (250, 1) == (calibration.charge(1000), calibration.charge(1))
    assert "<Calibration 0.25>" == repr(calibration)

    for _ in range(200):
        calibration.learn(1000, 1)

    assert Calibration.LEAST * 1000 == calibration.charge(1000)

    for _ in range(200):
        calibration.learn(1, 1000)

    assert Calibration.MOST * 1000 == calibration.charge(1000)


def settle(adaptive, now, *, began=None, inside=None, throttled=False, seconds=1.0):
    began = now - 1.0 if began is None else began
    inside = adaptive.limit if inside is None else inside
    adaptive.settle(now, began, inside, throttled=throttled, seconds=seconds)
    return adaptive.limit


def test_adaptive_grows_while_it_is_used():
    """It doubles in a round trip at first, up to the most; a service that is hardly used says nothing."""
    adaptive = Adaptive(100, 20)

    assert 20 == settle(adaptive, 1.0, inside=9)
    assert 21 == settle(adaptive, 1.0, inside=10)
    assert 40 == [settle(adaptive, 1.0) for _ in range(19)][-1]
    assert 100 == [settle(adaptive, 2.0) for _ in range(100)][-1]
    assert "<Adaptive 100.0 of 100>" == repr(adaptive)


def test_adaptive_falls_once_in_a_round_trip():
    """Ten calls that began together and are throttled together are one sign."""
    adaptive = Adaptive(100, 100)
    together = [settle(adaptive, 10.0 + number / 10, began=9.0, throttled=True) for number in range(10)]

    assert [90] * 10 == together
    assert 81 == settle(adaptive, 12.0, began=11.0, throttled=True)


def test_adaptive_creeps_up_after_a_fall():
    """One more for a whole round of good calls."""
    adaptive = Adaptive(100, 50)
    settle(adaptive, 1.0, throttled=True)
    after = [settle(adaptive, 2.0) for _ in range(46)]

    assert (45, 46) == (after[0], after[-1])


def test_adaptive_has_a_floor():
    """It never comes to none."""
    adaptive = Adaptive(100, 3)
    after = [settle(adaptive, float(now), throttled=True) for now in range(2, 100, 2)]

    assert 1 == after[-1] == min(after)


def test_adaptive_hears_of_slowness():
    """Calls that take thrice as long as in the long run are too many; a single one is a long answer."""
    adaptive = Adaptive(100, 100)
    for now in range(100):
        settle(adaptive, float(now), seconds=1.0)

    assert 100 == settle(adaptive, 100.0, seconds=3.0)

    for now in range(101, 121):
        settle(adaptive, float(now), seconds=3.0)

    assert adaptive.limit < 90


def test_adaptive_ignores_what_says_nothing():
    """A call whose caller left neither raises nor lowers it."""
    adaptive = Adaptive(100, 20)

    assert [20] * 50 == [settle(adaptive, float(now), seconds=None) for now in range(50)]


@given(st.integers(1, 50), st.lists(st.tuples(st.booleans(), st.none() | st.floats(0, 100), st.integers(0, 100))))
def test_adaptive_bounds(most, story):
    """Whatever happens, it stays between 1 and the most."""
    adaptive = Adaptive(most, 20)
    for now, (throttled, seconds, inside) in enumerate(story):
        settle(adaptive, float(now), inside=inside, throttled=throttled, seconds=seconds)

        assert 1 <= adaptive.limit <= most
