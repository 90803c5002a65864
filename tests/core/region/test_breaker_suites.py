"""
What the suites of other breakers test, restated for ours: resilience4j, Polly, Hystrix, Finagle, linkerd2-proxy.

A test's id or docstring has the original's name. Where ours means another thing on purpose, its docstring says so.
"""

import pytest

from sidecar.core.region.breaker import Breaker, Permit, Refusal, Sign, State, Transition
from sidecar.core.rules import BreakerRule

GOOD, ERROR, UNANSWERED, NEUTRAL = Sign.GOOD, Sign.ERROR, Sign.UNANSWERED, Sign.NEUTRAL
CLOSED, OPEN, HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN
SIGNS = {"g": GOOD, "e": ERROR, "u": UNANSWERED, "n": NEUTRAL}

RATES_ONLY = {"consecutive_unanswered": 0, "consecutive_errors": 0}
"""For suites that know no rows."""


class Calls:
    """A breaker and the clock that its calls pass on."""

    def __init__(self, **rule):
        self.breaker = Breaker(BreakerRule(**rule))
        self.now = 1000.0

    def ask(self, draw=0.5, *, last=False):
        return self.breaker.admit(self.now, draw, last=last)

    def settle(self, permit, sign, seconds=0.0, draw=0.5):
        return self.breaker.settle(permit, sign, seconds, self.now, draw)

    def make(self, signs, seconds=0.0):
        """A call a letter, none of them refused; what the last one changed."""
        changed = None
        for sign in signs:
            permit = self.ask(last=self.breaker.state is CLOSED)
            assert isinstance(permit, Permit)
            changed = self.settle(permit, SIGNS[sign], seconds)
        return changed

    def wait(self):
        """Until the next probe may go."""
        self.now += self.breaker.remaining(self.now)

    def probe(self, sign, seconds=0.0):
        """Wait, send the probe, settle it; what that changed."""
        self.wait()
        permit = self.ask()
        assert isinstance(permit, Permit)
        assert permit.probe
        return self.settle(permit, sign, seconds)


# resilience4j: CircuitBreakerStateMachineTest, SlidingTimeWindowMetricsTest, CircuitBreakerConfigTest


@pytest.mark.parametrize(
    ("rule", "before", "call", "seconds", "cause"),
    [
        pytest.param({}, "eeeg", "g", 0.0, "failure-rate", id="shouldOpenAfterFailureRateThresholdExceeded"),
        pytest.param({}, "geee", "g", 0.0, "failure-rate", id="…whatever the order"),
        pytest.param(
            {"slow_call": 2.0}, "gggg", "g", 3.0, "slow-rate", id="shouldOpenAfterSlowCallRateThresholdExceeded"
        ),
    ],
)
def test_r4j_opens_on_the_fifth_call(rule, before, call, seconds, cause):
    """The rate is judged from the minimum on, with every call: also one that is good itself."""
    calls = Calls(**RATES_ONLY, window=5, minimum_calls=5, **rule)

    assert calls.make(before, seconds) is None

    transition = calls.make(call)

    assert Transition(CLOSED, OPEN, cause, 5.0) == transition


def test_r4j_slow_and_failed_calls_are_judged_apart():
    """shouldOpenAfterSlowCallRate…: two slow and two failed of five are not half of either; slow is above the limit."""
    calls = Calls(**RATES_ONLY, window=5, minimum_calls=5, slow_call=2.0)
    calls.make("gg", 2.01)
    calls.make("ee", 2.0)

    assert calls.make("g", 2.0) is None
    assert CLOSED is calls.breaker.state


def test_r4j_one_call_in_half_open():
    """shouldOnlyPermitFourCallsInHalfOpenState: here one, and the others learn when to come back."""
    calls = Calls(**RATES_ONLY, minimum_calls=1)
    calls.make("e")
    calls.wait()

    assert isinstance(calls.ask(), Permit)
    assert [Refusal(5.0)] * 3 == [calls.ask() for _ in range(3)]


@pytest.mark.parametrize(
    "give_back",
    [
        pytest.param(
            lambda calls, permit: calls.breaker.release(permit), id="shouldIncreaseCounterOnReleasePermission"
        ),
        pytest.param(
            lambda calls, permit: calls.settle(permit, NEUTRAL), id="shouldReleasePermissionWhenExceptionIgnored"
        ),
    ],
)
def test_r4j_released_permission(give_back):
    """What says nothing of the region gives the slot back, and the breaker waits for the next call's verdict."""
    calls = Calls(minimum_calls=1)
    calls.make("e")
    calls.wait()
    permit = calls.ask()
    give_back(calls, permit)

    assert HALF_OPEN is calls.breaker.state
    assert Transition(HALF_OPEN, CLOSED, "probe-good") == calls.probe(GOOD)


def test_r4j_half_open_after_wait_duration():
    """shouldTransitionToHalfOpenAfterWaitDuration: not a moment before, and only with a call that asks."""
    calls = Calls(minimum_calls=1)
    calls.make("e")
    calls.now += 4.75

    assert Refusal(0.25) == calls.ask()

    calls.now += 0.25

    assert OPEN is calls.breaker.state
    assert Permit(2, probe=True) == calls.ask()
    assert HALF_OPEN is calls.breaker.state


def test_r4j_half_open_after_passed_wait_until():
    """shouldTransitionToHalfOpenPassedWaitUntil: the fleet says how long; own waits are not the longer for it."""
    calls = Calls()

    assert Transition(CLOSED, OPEN, "fleet", 17.0) == calls.breaker.learn(17.0, calls.now)
    assert 17.0 == calls.breaker.remaining(calls.now)
    assert 10.0 == calls.probe(ERROR).seconds


@pytest.mark.parametrize(
    ("draw", "waits"), [(0.0, [4.0, 8.0, 16.0]), (0.5, [5.0, 10.0, 20.0]), (1.0, [6.0, 12.0, 24.0])]
)
def test_r4j_wait_interval(draw, waits):
    """shouldTransitionToHalfOpenAfterWaitInterval: here doubled, with a jitter of a fifth."""
    calls = Calls(minimum_calls=1)
    told = [calls.settle(calls.ask(), ERROR, draw=draw).seconds]
    for _ in range(2):
        calls.wait()
        told.append(calls.settle(calls.ask(), ERROR, draw=draw).seconds)

    assert waits == pytest.approx(told)


@pytest.mark.parametrize(
    ("sign", "seconds", "transition"),
    [
        pytest.param(
            ERROR, 0.0, Transition(HALF_OPEN, OPEN, "probe-failed", 10.0), id="shouldTransitionBackToOpenState"
        ),
        pytest.param(UNANSWERED, 0.0, Transition(HALF_OPEN, OPEN, "probe-failed", 10.0), id="…by no answer"),
        pytest.param(GOOD, 3.0, Transition(HALF_OPEN, OPEN, "probe-failed", 10.0), id="…SlowCallRate…"),
        pytest.param(GOOD, 2.0, Transition(HALF_OPEN, CLOSED, "probe-good"), id="shouldTransitionBackToClosedState"),
    ],
)
def test_r4j_back_from_half_open(sign, seconds, transition):
    """One call decides here, not the rate of four; the metrics are reset either way."""
    calls = Calls(slow_call=2.0)
    calls.make("eeeee")

    assert transition == calls.probe(sign, seconds)
    assert "0 of 0 failed" in repr(calls.breaker)


def test_r4j_force_open():
    """shouldForceOpenCircuitBreaker: it never half opens by time, nor closes by what comes late."""
    calls = Calls()
    before = calls.ask()

    assert Transition(CLOSED, OPEN, "operator") == calls.breaker.force(OPEN, calls.now)

    calls.now += 1e6

    assert calls.settle(before, GOOD) is None
    assert Refusal(60.0, forced=True) == calls.ask() == calls.ask(0.0, last=True)
    assert (OPEN, OPEN, 0.0) == (calls.breaker.state, calls.breaker.forced, calls.breaker.remaining(calls.now))


def test_r4j_closed_to_half_open():
    """shouldNotAllowTransitionFromClosedToHalfOpen: nobody may order it."""
    with pytest.raises(ValueError, match="half open"):
        Breaker(BreakerRule()).force(HALF_OPEN, 0.0)


def test_r4j_internal_transitions():
    """circuitBreakerDoesNotPublishStateTransitionEventsForInternalTransitions: what is so already is no news."""
    breaker = Breaker(BreakerRule())
    orders = [breaker.force(state, 0.0) for state in (CLOSED, CLOSED, None, None, OPEN, OPEN, None)]

    assert [None] * 4 + [Transition(CLOSED, OPEN, "operator"), None] == orders[:-1]
    assert Transition(OPEN, CLOSED, "operator") == orders[-1]
    assert breaker.learn(None, 0.0) is None
    assert breaker.learn(5.0, 0.0) is not None
    assert [None, None] == [breaker.learn(5.0, 0.0), breaker.force(OPEN, 0.0)]


@pytest.mark.parametrize(
    ("open_for", "patience"),
    [
        pytest.param(5.0, 30.0, id="circuitBreakerTransitionsToOpenAfterWaitDurationInHalfOpenState"),
        pytest.param(45.0, 45.0, id="circuitBreakerTransitionsToClosedAfterWaitDurationInHalfOpenState"),
    ],
)
def test_r4j_wait_duration_in_half_open(open_for, patience):
    """
    A probe without a verdict doesn't hold the breaker: here another one may go, rather than a change by the mere time;
    the first one's verdict is as good, if it comes sooner.
    """
    calls = Calls(open=open_for)
    calls.make("eeeee")
    calls.wait()
    first = calls.ask()
    calls.now += patience - 1.0

    assert Refusal(1.0) == calls.ask()

    calls.now += 1.0
    second = calls.ask()

    assert second.probe
    assert HALF_OPEN is calls.breaker.state
    assert Transition(HALF_OPEN, CLOSED, "probe-good") == calls.settle(first, GOOD)
    assert calls.settle(second, ERROR) is None
    assert CLOSED is calls.breaker.state


def test_slow_region():
    """A region whose answers take longer than a probe's patience closes with the first of them."""
    calls = Calls(open=5.0)
    calls.make("eeeee")
    calls.wait()
    probes, start = [], calls.now
    while calls.now < start + 200.0 and calls.breaker.state is not CLOSED:
        asked = calls.ask()
        if isinstance(asked, Permit):
            probes.append((calls.now, asked))
        calls.now += 1.0
        for began, permit in probes:
            if calls.now - began == 120.0:
                calls.settle(permit, GOOD)

    assert CLOSED is calls.breaker.state
    assert calls.now < start + 130.0


def test_r4j_sliding_time_window():
    """SlidingTimeWindowMetricsTest: calls older than five minutes don't count."""
    calls = Calls(**RATES_ONLY)
    calls.make("eeeee")
    calls.now += 300.0
    calls.make("gggg")

    assert "5 of 9 failed" in repr(calls.breaker)

    calls.now += 0.01

    assert calls.make("g") is None
    assert "0 of 5 failed" in repr(calls.breaker)


def test_r4j_sliding_count_window():
    """FixedSizeSlidingWindowMetricsTest: of more calls than the window holds the oldest don't count."""
    calls = Calls(**RATES_ONLY, window=4, minimum_calls=4, failure_rate=0.75)
    calls.make("eggege")

    assert "2 of 4 failed" in repr(calls.breaker)
    assert "failure-rate" == calls.make("e").cause


def test_r4j_minimum_above_window():
    """The original: shouldReduceMinimumNumberOfCallsToSlidingWindowSize."""
    calls = Calls(**RATES_ONLY, window=5, minimum_calls=6)

    assert calls.make("eeee") is None
    assert "failure-rate" == calls.make("e").cause


def test_r4j_zero_thresholds():
    """zeroFailureRateThresholdShouldFail: settings refuse it; here a 0 turns a judgement off, and doesn't open."""
    calls = Calls(**RATES_ONLY, failure_rate=0.0, slow_rate=0.0, slow_call=2.0)

    assert calls.make("g" * 20) is None
    assert calls.make("eu" * 20, 3.0) is None
    assert CLOSED is calls.breaker.state


# Polly v8: AdvancedCircuitBehaviorTests, RollingHealthMetricsTests, CircuitStateControllerTests


@pytest.mark.parametrize(
    ("failed", "calls", "minimum", "rate", "opens"),
    [
        pytest.param(0, 10, 10, 0.1, False, id="10,10,.0,.1"),
        pytest.param(1, 10, 10, 0.1, True, id="10,10,.1,.1"),
        pytest.param(2, 10, 10, 0.1, True, id="10,10,.2,.1"),
        pytest.param(1, 11, 10, 0.2, False, id="11,10,.09,.2"),
        pytest.param(1, 9, 10, 0.1, False, id="9,10,.1,.1"),
    ],
)
def test_polly_on_action_failure_by_rate(failed, calls, minimum, rate, opens):
    """AdvancedCircuitBehaviorTests.OnActionFailure_WithThresholds: at the rate it opens, under the minimum never."""
    made = Calls(**RATES_ONLY, minimum_calls=minimum, failure_rate=rate)
    made.make("e" * failed + "g" * (calls - failed))

    assert opens is (made.breaker.state is OPEN)


def test_polly_half_open_failures_stay_out():
    """OnActionFailure_HalfOpen: a probe's failure is not in the window that it closes with."""
    calls = Calls()
    calls.make("eeeee")
    calls.probe(ERROR)
    calls.probe(GOOD)

    assert calls.make("eeee") is None
    assert "4 of 4 failed" in repr(calls.breaker)


def reach(calls, state, *, forced=False):
    """A permit that counts in *state*, where it gives one."""
    if forced:
        calls.breaker.force(state, calls.now)
        return Permit(1)
    if state is not CLOSED:
        calls.make("eeeee")
    if state is HALF_OPEN:
        calls.wait()
    return calls.ask(last=True)


@pytest.mark.parametrize(
    ("state", "forced", "sign", "after"),
    [
        pytest.param(HALF_OPEN, False, ERROR, OPEN, id="HalfOpen→Open"),
        pytest.param(CLOSED, False, ERROR, CLOSED, id="Closed→Closed where the behaviour doesn't say so"),
        pytest.param(OPEN, False, ERROR, OPEN, id="Open→Open"),
        pytest.param(OPEN, True, ERROR, OPEN, id="Isolated→Isolated"),
        pytest.param(HALF_OPEN, False, GOOD, CLOSED, id="success: HalfOpen→Closed"),
        pytest.param(CLOSED, False, GOOD, CLOSED, id="success: Closed→Closed"),
        pytest.param(OPEN, True, GOOD, OPEN, id="OnActionSuccess_Isolated does not close"),
    ],
)
def test_polly_on_action(state, forced, sign, after):
    """CircuitStateController.OnActionFailure and OnActionSuccess."""
    calls = Calls()
    permit = reach(calls, state, forced=forced)

    assert (state is not after) is (calls.settle(permit, sign) is not None)
    assert after is calls.breaker.state


def test_polly_on_action_failure_opens():
    """OnActionFailure_Closed→Open where the behaviour says so."""
    calls = Calls()
    calls.make("eeee")

    assert Transition(CLOSED, OPEN, "errors", 5.0) == calls.make("e")


def test_polly_rolling_window():
    """RollingHealthMetrics, GetHealthInfo_EnsureWindowRespected: (8, 0.25, 2), (8, 0.125, 1), (6, 0, 0)."""
    calls, told = Calls(**RATES_ONLY), []
    for passed, signs in [(0, "e"), (100, "egg"), (100, "gggg"), (101, "g"), (100, "g")]:
        calls.now += passed
        calls.make(signs)
        told.append(repr(calls.breaker).split(", ")[1])

    assert ["2 of 8 failed", "1 of 8 failed", "0 of 6 failed"] == told[2:]


def test_polly_half_open_attempts():
    """BreakDurationGenerator_EnsureHalfOpenAttempts [0,1,2,3,4,0,1,2]; here a whole ramp must pass before the 0."""
    calls = Calls()
    waits = [calls.make("eeeee").seconds] + [calls.probe(ERROR).seconds for _ in range(4)]
    calls.probe(GOOD)
    calls.now += 30.0
    waits += [calls.make("eeeee").seconds] + [calls.probe(ERROR).seconds for _ in range(2)]

    assert [5.0, 10.0, 20.0, 40.0, 60.0, 5.0, 10.0, 20.0] == waits


@pytest.mark.parametrize(("open_for", "longest"), [(0.001, 60.0), (5.0, 60.0), (90.0, 90.0)])
def test_polly_break_duration_does_not_overflow(open_for, longest):
    """BreakDurationNotOverflow: after any number of failed probes the wait is the longest one."""
    calls = Calls(open=open_for)
    calls.make("eeeee")

    assert longest == [calls.probe(ERROR).seconds for _ in range(2000)][-1]


def test_polly_second_caller_in_half_open():
    """AddCircuitBreaker_HalfOpen_SecondCallRejected with RetryAfter: as long as it opens for, at most to its turn."""
    calls = Calls(open=7.0)
    calls.make("eeeee")
    calls.wait()
    calls.ask()

    assert Refusal(7.0) == calls.ask()

    calls.now += 28.0

    assert Refusal(2.0) == calls.ask()


# Hystrix: HystrixCircuitBreakerTest


def test_hystrix_low_volume():
    """The original: testLowVolumeDoesNotTripCircuit."""
    calls = Calls(**RATES_ONLY)

    assert calls.make("eeeeueeee") is None
    assert CLOSED is calls.breaker.state


def test_hystrix_single_test():
    """testSingleTestOnOpenCircuitAfterTimeWindow: one call goes, however many ask."""
    calls = Calls()
    calls.make("eeeee")

    assert isinstance(calls.ask(), Refusal)

    calls.wait()

    assert [True] + [False] * 9 == [isinstance(calls.ask(), Permit) for _ in range(10)]


def test_hystrix_unsubscription():
    """testUnsubscriptionDoesNotLeaveCircuitStuckHalfOpen: the probe's caller goes away, and the next call probes."""
    calls = Calls()
    calls.make("uuu")
    calls.wait()
    for _ in range(3):
        permit = calls.ask()

        assert permit.probe

        calls.breaker.release(permit)

    assert Transition(HALF_OPEN, CLOSED, "probe-good") == calls.probe(GOOD)


def test_hystrix_success_closes_when_busy():
    """testSuccessClosesCircuitWhenBusy: calls that were under way go on failing, and the probe's verdict holds."""
    calls = Calls()
    busy = [calls.ask() for _ in range(20)]
    calls.make("eeeee")
    calls.wait()
    probe = calls.ask()

    assert [None] * 20 == [calls.settle(permit, ERROR) for permit in busy]
    assert Transition(HALF_OPEN, CLOSED, "probe-good") == calls.settle(probe, GOOD)
    assert [None] * 20 == [calls.settle(permit, ERROR) for permit in busy]
    assert CLOSED is calls.breaker.state


# Finagle: FailureAccrualFactoryTest, FailureAccrualPolicyTest (RetryBudget: test_budget)


def test_finagle_ignorable_failures():
    """Ignorable failures count neither way and keep the probe open."""
    calls = Calls()

    assert calls.make("eeee" + "n" * 20) is None
    assert "4 of 4 failed" in repr(calls.breaker)
    assert "errors" == calls.make("e").cause
    assert [None, None] == [calls.probe(NEUTRAL), calls.probe(NEUTRAL)]
    assert HALF_OPEN is calls.breaker.state


def test_finagle_backoff_resets():
    """Backoff resets after success; here after a success that lasts a ramp."""
    calls = Calls()
    calls.make("eeeee")
    waits = [calls.probe(ERROR).seconds]
    calls.probe(GOOD)
    calls.now += 29.9
    waits.append(calls.make("eeeee").seconds)
    calls.probe(GOOD)
    calls.now += 30.0
    waits.append(calls.make("eeeee").seconds)

    assert [10.0, 20.0, 5.0] == waits


def test_finagle_backoff_runs_out():
    """The original: backoff should be 5 minutes when stream runs out. Here it stays at a minute."""
    calls = Calls()
    calls.make("eeeee")

    assert [60.0, 60.0, 60.0] == [calls.probe(ERROR).seconds for _ in range(6)][3:]


def test_finagle_fails_open():
    """With one endpoint left it still sends, and its success tells that the region is well."""
    calls = Calls()
    calls.make("eeeee")
    permit = calls.ask(last=True)

    assert permit.last_resort
    assert isinstance(calls.ask(), Refusal)
    assert Transition(OPEN, CLOSED, "probe-good") == calls.settle(permit, GOOD)


# linkerd2-proxy: breaker/unified.rs


@pytest.mark.parametrize(
    ("signs", "cause"),
    [
        pytest.param("eeeee", "errors", id="unified_trips_on_consecutive_failures"),
        pytest.param("uuu", "unanswered", id="unified_trips_on_consecutive_failures, no answer"),
        pytest.param("egegegegeg", "failure-rate", id="unified_trips_on_low_success_rate"),
    ],
)
def test_linkerd_trips(signs, cause):
    """Either rule opens, with the very call that completes it."""
    calls = Calls()

    assert calls.make(signs[:-1]) is None
    assert cause == calls.make(signs[-1]).cause


def test_linkerd_429s_only():
    """
    unified_trips_on_low_success_rate by 429s only: a quota's 429 is neutral here, and never opens, since it is about a
    credential and has its window; one for want of capacity is an error as any other.
    """
    calls = Calls()

    assert calls.make("n" * 100) is None
    assert CLOSED is calls.breaker.state


def test_linkerd_failed_probe_advances_backoff():
    """unified_failed_probe_advances_backoff."""
    calls = Calls()
    first = calls.make("eeeee").seconds

    assert 2.0 * first == calls.probe(ERROR).seconds
    assert 4.0 * first == calls.probe(UNANSWERED).seconds


@pytest.mark.parametrize(
    ("sign", "after"),
    [
        pytest.param(NEUTRAL, HALF_OPEN, id="consecutive_probe_is_lenient: a quota's 429"),
        pytest.param(ERROR, OPEN, id="unified_probe_is_strict: a 429 for want of capacity"),
    ],
)
def test_linkerd_probe(sign, after):
    """A probe that meets a spent quota neither passes nor fails here."""
    calls = Calls()
    calls.make("eeeee")
    calls.probe(sign)

    assert after is calls.breaker.state
