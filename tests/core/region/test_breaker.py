"""A region's breaker: what opens it, who probes, who gets through all the same, and that it never gets stuck."""

from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.core.region.breaker import LONGEST_WAIT, PROBE_PATIENCE, Breaker, Permit, Refusal, Sign, State, Transition
from sidecar.core.rules import BreakerRule

GOOD, ERROR, UNANSWERED, NEUTRAL = Sign.GOOD, Sign.ERROR, Sign.UNANSWERED, Sign.NEUTRAL
CLOSED, OPEN, HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN
SIGNS = {"g": GOOD, "e": ERROR, "u": UNANSWERED, "n": NEUTRAL}

MIDDLE = 0.5
"""The draw that leaves a wait as it is."""


def make(breaker, signs, now=0.0):
    """A call a letter, ``r`` one that is released and ``b`` one that breaks later; what the last one changed."""
    changed = None
    for sign in signs:
        permit = breaker.admit(now, MIDDLE, last=True)
        match sign:
            case "r":
                breaker.release(permit)
            case "b":
                changed = breaker.settle(permit, GOOD, 0.0, now, MIDDLE) or breaker.broke(permit, now, MIDDLE)
            case _:
                changed = breaker.settle(permit, SIGNS[sign], 0.0, now, MIDDLE)
    return changed


def opened(signs="eeeee", **rule):
    """A breaker that those calls have opened at 0.0, for 5 s."""
    breaker = Breaker(BreakerRule(**rule))
    assert make(breaker, signs) is not None
    return breaker


def probing(breaker, now=5.0):
    """The permit of the probe."""
    permit = breaker.admit(now, MIDDLE)
    assert isinstance(permit, Permit)
    assert permit.probe
    return permit


def closed_again(at=5.0):
    """A breaker whose ramp begins at that time."""
    breaker = opened()
    breaker.settle(probing(breaker, at), GOOD, 0.0, at, MIDDLE)
    return breaker


@pytest.mark.parametrize(
    ("signs", "cause"),
    [
        pytest.param("uuu", "unanswered", id="three unanswered"),
        pytest.param("uuguu", None, id="a good call ends the unanswered"),
        pytest.param("uueuu", None, id="an error is an answer"),
        pytest.param("uunuu", None, id="a neutral one is an answer"),
        pytest.param("uuru", "unanswered", id="a cancelled one says nothing"),
        pytest.param("eeeee", "errors", id="five errors"),
        pytest.param("eeeegeeee", None, id="a good call ends the errors"),
        pytest.param("eeueee", "errors", id="an unanswered one doesn't end the errors"),
        pytest.param("eeeeuu", None, id="nor is it one of them"),
        pytest.param("eeeene", "errors", id="nor does a neutral one"),
        pytest.param("eeeere", "errors", id="nor a cancelled one"),
        pytest.param("ggegegegee", "failure-rate", id="half of ten, errors"),
        pytest.param("uuguuguggg", "failure-rate", id="half of ten, unanswered"),
        pytest.param("ggegegegeg", None, id="fewer than half"),
        pytest.param("gegegegee", None, id="fewer than ten"),
        pytest.param("gegegegee" + "n" * 10, None, id="neutral ones are no calls"),
        pytest.param("gggggggggggggggg" + "eeegeeegeeeg", None, id="of twenty"),
        pytest.param("bbbbb", "failure-rate", id="broken after the commit point: one good, one failed"),
        pytest.param("gggggbbbb", None, id="few of them broken"),
        pytest.param("eeeebe", None, id="its good head ends the errors"),
    ],
)
def test_opens(signs, cause):
    """The two rows and the rate, with the default rule; only the last call opens it."""
    breaker = Breaker(BreakerRule())

    assert make(breaker, signs[:-1]) is None

    last = make(breaker, signs[-1])

    assert cause == (last.cause if last else None)
    assert (OPEN if cause else CLOSED) is breaker.state


def test_window_of_twenty():
    """At least half of the last twenty calls: ten failed ones open, and the twenty-first call back doesn't count."""
    breaker = Breaker(BreakerRule(consecutive_errors=0))

    assert make(breaker, "e" + "g" * 11 + "e" * 9) is None
    assert Transition(CLOSED, OPEN, "failure-rate", 5.0) == make(breaker, "e")


def test_a_break_says_nothing_of_the_rows():
    """A break is of a call begun long ago: it neither ends nor lengthens a row."""
    breaker = Breaker(BreakerRule())
    permit = breaker.admit(0.0, MIDDLE)
    make(breaker, "uu")

    assert breaker.broke(permit, 0.0, MIDDLE) is None
    assert "unanswered" == make(breaker, "u").cause

    breaker = Breaker(BreakerRule())
    permit = breaker.admit(0.0, MIDDLE)
    make(breaker, "eeee")

    assert breaker.broke(permit, 0.0, MIDDLE) is None
    assert "5 of 5 failed" in repr(breaker)


@pytest.mark.parametrize("sign", list(Sign))
def test_late_verdicts_change_nothing(sign):
    """A verdict of an older generation, a break likewise, counts neither open, half open, nor closed again."""
    breaker = Breaker(BreakerRule())
    late = breaker.admit(0.0, MIDDLE)
    make(breaker, "eeeee")

    assert [None, None] == [breaker.settle(late, sign, 0.0, 1.0, MIDDLE), breaker.broke(late, 1.0, MIDDLE)]
    assert 4.0 == breaker.remaining(1.0)

    probe = probing(breaker)

    assert [None, None] == [breaker.settle(late, sign, 0.0, 5.0, MIDDLE), breaker.broke(late, 5.0, MIDDLE)]

    breaker.release(late)

    assert isinstance(breaker.admit(5.0, MIDDLE), Refusal)

    breaker.settle(probe, GOOD, 0.0, 5.0, MIDDLE)
    for permit in (late, probe):
        assert [None, None] == [breaker.settle(permit, sign, 0.0, 5.0, MIDDLE), breaker.broke(permit, 5.0, MIDDLE)]

    assert "<Breaker closed, 0 of 0 failed, generation 3>" == repr(breaker)


def test_long_stream_as_probe():
    """A stream of ten minutes is settled at its commit point: recovery doesn't wait for its end, nor does that hurt."""
    breaker = opened()
    probe = probing(breaker)

    assert Transition(HALF_OPEN, CLOSED, "probe-good") == breaker.settle(probe, GOOD, 1.5, 6.5, MIDDLE)
    assert 1.0 == breaker.share(36.5)

    breaker.release(probe)

    assert breaker.broke(probe, 606.5, MIDDLE) is None
    assert CLOSED is breaker.state


def test_slow_to_commit_as_probe():
    """A probe that takes ten minutes to its commit point holds the others for half a minute only."""
    breaker = opened()
    slow = probing(breaker, 5.0)

    assert isinstance(breaker.admit(5.0 + PROBE_PATIENCE - 0.1, MIDDLE), Refusal)

    second = probing(breaker, 5.0 + PROBE_PATIENCE)
    breaker.settle(second, GOOD, 0.1, 36.0, MIDDLE)

    assert breaker.settle(slow, UNANSWERED, 600.0, 605.0, MIDDLE) is None
    assert CLOSED is breaker.state


def test_late_probe_without_another():
    """Where no other call came meanwhile, the verdict of a slow probe counts."""
    breaker = opened()
    probe = probing(breaker)

    assert Transition(HALF_OPEN, CLOSED, "probe-good") == breaker.settle(probe, GOOD, 100.0, 105.0, MIDDLE)


def test_probe_is_settled_once():
    """A probe that gave its slot back has no say any more, and cannot give back another's."""
    breaker = opened()
    first = probing(breaker)
    breaker.release(first)

    assert breaker.settle(first, GOOD, 0.0, 5.0, MIDDLE) is None

    probing(breaker)
    breaker.release(first)

    assert Refusal(5.0) == breaker.admit(5.0, MIDDLE)


def test_probe_that_is_cancelled_after_its_patience():
    """Also a probe that has lost its turn may be released, as may any permit: the next call probes."""
    breaker = opened()
    probe = probing(breaker)
    breaker.release(probe)
    breaker.release(Permit(0))

    assert probing(breaker, 5.0).generation > probe.generation


@pytest.mark.parametrize(
    ("elapsed", "share"),
    [(0.0, 0.1), (10.0, 0.4), (15.0, 0.55), (20.0, 0.7), (30.0, 1.0), (3600.0, 1.0)],
)
def test_ramp(elapsed, share):
    """From a tenth of the traffic to all of it in half a minute; the last candidate doesn't feel it."""
    breaker = closed_again(5.0)
    now = 5.0 + elapsed

    assert share == pytest.approx(breaker.share(now))
    assert isinstance(breaker.admit(now, share - 0.01), Permit)
    assert isinstance(breaker.admit(now, 0.999, last=True), Permit)
    assert share == 1.0 or breaker.admit(now, breaker.share(now)) == Refusal(1.0)
    assert (Refusal(1.0) if share < 1.0 else Permit(3)) == breaker.admit(now, min(share + 0.01, 0.999))


@pytest.mark.parametrize(("elapsed", "wait"), [(29.9, 10.0), (30.0, 5.0)])
def test_opening_in_the_ramp(elapsed, wait):
    """It is a failed probe: the wait goes on doubling. After the ramp it begins anew."""
    breaker = closed_again(5.0)

    assert wait == make(breaker, "uuu", 5.0 + elapsed).seconds


LAST = [
    pytest.param("eeeee", "", True, id="errors"),
    pytest.param("uuguuguugu", "", True, id="failure rate"),
    pytest.param("uuu", "", False, id="unanswered"),
    pytest.param("uuu", "u", False, id="unanswered, and the probe"),
    pytest.param("eeeee", "u", False, id="errors, then the probe unanswered"),
    pytest.param("uuu", "e", True, id="unanswered, then the probe an error"),
]


@pytest.mark.parametrize(("signs", "probe", "last_resort"), LAST)
def test_last_candidate(signs, probe, last_resort):
    """It is refused only where the region doesn't answer, and one in ten goes then; the others wait."""
    breaker, now = opened(signs), 0.0
    for sign in probe:
        now += breaker.remaining(now)
        breaker.settle(probing(breaker, now), SIGNS[sign], 0.0, now, MIDDLE)
    for half_open in (False, True):  # while a probe is out it is as before
        if half_open:
            now += breaker.remaining(now)
            probing(breaker, now)
        through = Permit(breaker.admit(now, 0.09, last=True).generation, last_resort=True)

        assert through == breaker.admit(now, 0.0, last=True)
        assert last_resort is (breaker.admit(now, 0.1, last=True) == through)
        assert last_resort is not breaker.admit(now, 0.0).unanswered


SOLE = [
    pytest.param("uuu", "", True, id="opened"),
    pytest.param("uuu", "u" * 16, True, id="nineteen in a row"),
    pytest.param("uuu", "u" * 17, False, id="twenty in a row"),
    pytest.param("uuu", "u" * 16 + "nu", True, id="a neutral answer ends the row"),
    pytest.param("uuu", "u" * 16 + "eu", True, id="an error ends the row"),
    pytest.param("eeeee", "u" * 30, True, id="opened by errors"),
]


@pytest.mark.parametrize(("signs", "spares", "through"), SOLE)
def test_sole_candidate(signs, spares, through):
    """Where there never was another one, a whole window of unanswered calls is what takes it out, not three."""
    breaker = opened(signs)
    for sign in spares:
        permit = breaker.admit(1.0, 0.0, last=True, only_region=True)
        breaker.settle(permit, SIGNS[sign], 0.0, 1.0, MIDDLE)

    assert through is not breaker.gone
    assert through is isinstance(breaker.admit(1.0, 0.1, last=True, only_region=True), Permit)
    assert isinstance(breaker.admit(1.0, 0.09, last=True, only_region=True), Permit)
    assert isinstance(breaker.admit(1.0, 0.0, only_region=True), Refusal)

    breaker.force(OPEN, 1.0)

    assert isinstance(breaker.admit(1.0, 0.0, last=True, only_region=True), Refusal)


def test_sole_candidate_of_many_at_once():
    """Calls that were under way when it opened count in the row: nobody waits for what they have waited for."""
    breaker = Breaker(BreakerRule())
    permits = [breaker.admit(0.0, MIDDLE, last=True, only_region=True) for _ in range(20)]
    changes = [breaker.settle(permit, UNANSWERED, 0.0, 0.5, MIDDLE) for permit in permits]

    assert [Transition(CLOSED, OPEN, "unanswered", 5.0)] == [change for change in changes if change]
    assert Refusal(4.0, unanswered=True) == breaker.admit(1.5, 0.1, last=True, only_region=True)


@pytest.mark.parametrize("half_open", [False, True])
def test_spare_calls(half_open):
    """A failure of a spare call changes nothing; a success closes, with the ramp."""
    breaker = opened("uuu")
    if half_open:
        probing(breaker)
    before = repr(breaker)
    permits = [breaker.admit(4.0, 0.0, last=True) for _ in range(4)]
    changes = [
        breaker.settle(permit, sign, 0.0, 4.0, MIDDLE)
        for permit, sign in zip(permits, [UNANSWERED, ERROR, NEUTRAL], strict=False)
    ]
    breaker.broke(permits[3], 4.0, MIDDLE)
    breaker.release(permits[3])

    assert [None] * 3 == changes
    assert before == repr(breaker)

    transition = breaker.settle(permits[3], GOOD, 0.0, 4.0, MIDDLE)

    assert Transition(HALF_OPEN if half_open else OPEN, CLOSED, "probe-good") == transition
    assert 0.1 == breaker.share(4.0)


def test_slow_spare_call():
    """One that is good but slow doesn't close what slow calls may have opened."""
    breaker = opened(slow_call=2.0)
    permit = breaker.admit(1.0, MIDDLE, last=True)

    assert breaker.settle(permit, GOOD, 2.1, 1.0, MIDDLE) is None


def test_neutral_probe_answers():
    """A probe that meets a spent quota was answered: the last candidate is let through from then on."""
    breaker = opened("uuu")
    breaker.settle(probing(breaker), NEUTRAL, 0.0, 5.0, MIDDLE)
    probing(breaker)

    assert breaker.admit(5.0, 0.9, last=True).last_resort


def test_forced_closed():
    """It never opens, and counts all the while: its own judgement has something to go by when it is asked again."""
    breaker = opened()

    assert Transition(OPEN, CLOSED, "operator") == breaker.force(CLOSED, 1.0)
    assert (1.0, CLOSED) == (breaker.share(1.0), breaker.forced)
    assert make(breaker, "eeeeeeeuuuuuuu", 1.0) is None
    assert breaker.learn(10.0, 1.0) is None
    assert breaker.force(None, 2.0) is None
    assert CLOSED is breaker.state
    assert Transition(CLOSED, OPEN, "unanswered", 5.0) == make(breaker, "u", 2.0)


def test_forced_closed_in_the_ramp():
    """All calls means all."""
    breaker = closed_again(5.0)

    assert breaker.force(CLOSED, 6.0) is None
    assert 1.0 == breaker.share(6.0)
    assert isinstance(breaker.admit(6.0, 0.99), Permit)


@pytest.mark.parametrize("before", ["closed", "open", "half-open"])
def test_forced_open(before):
    """Neither time, nor a success, nor the fleet closes it; after the order it is closed, with a ramp."""
    breaker = Breaker(BreakerRule()) if before == "closed" else opened()
    permit = probing(breaker) if before == "half-open" else breaker.admit(1.0, MIDDLE, last=True)
    transition = breaker.force(OPEN, 6.0)

    assert (None if before == "open" else Transition(State(before), OPEN, "operator")) == transition
    assert breaker.settle(permit, GOOD, 0.0, 6.0, MIDDLE) is None
    assert [None, None] == [breaker.learn(None, 6.0), breaker.learn(5.0, 6.0)]
    assert Refusal(LONGEST_WAIT, forced=True) == breaker.admit(1e6, 0.0, last=True)
    assert (0.0, 0.0, OPEN) == (breaker.remaining(6.0), breaker.share(6.0), breaker.state)
    assert Transition(OPEN, CLOSED, "operator") == breaker.force(None, 1e6)
    assert 0.1 == breaker.share(1e6)
    assert breaker.forced is None


def test_order_to_order():
    """One order after the other, each a change."""
    breaker = Breaker(BreakerRule())

    assert Transition(CLOSED, OPEN, "operator") == breaker.force(OPEN, 0.0)
    assert Transition(OPEN, CLOSED, "operator") == breaker.force(CLOSED, 0.0)
    assert breaker.force(None, 0.0) is None
    assert 1.0 == breaker.share(0.0)


def test_learned_opening():
    """The fleet's opening is as one's own, but for what follows from it: the wait, and who is let through."""
    breaker = Breaker(BreakerRule())

    assert Transition(CLOSED, OPEN, "fleet", 8.0) == breaker.learn(8.0, 0.0)
    assert breaker.admit(1.0, 0.9, last=True).last_resort
    assert Refusal(7.0) == breaker.admit(1.0, 0.0)
    assert Transition(HALF_OPEN, OPEN, "probe-failed", 10.0) == breaker.settle(
        probing(breaker, 8.0), ERROR, 0.0, 8.0, MIDDLE
    )


def test_learned_opening_after_own():
    """Of own openings that are over nothing stays: neither the doubled wait, nor that the region didn't answer."""
    breaker = opened("uuu")
    breaker.settle(probing(breaker, 5.0), UNANSWERED, 0.0, 5.0, MIDDLE)
    breaker.settle(probing(breaker, 15.0), GOOD, 0.0, 15.0, MIDDLE)
    breaker.learn(5.0, 45.0)

    assert breaker.admit(46.0, 0.9, last=True).last_resort
    assert 10.0 == breaker.settle(probing(breaker, 50.0), ERROR, 0.0, 50.0, MIDDLE).seconds


@pytest.mark.parametrize(
    ("open_for", "draw", "seconds"),
    [
        pytest.param(10.0, 0.0, 8.0, id="sooner"),
        pytest.param(10.0, 1.0, 12.0, id="later"),
        pytest.param(1e9, 0.5, LONGEST_WAIT, id="no longer than own waits"),
        pytest.param(inf, 0.5, LONGEST_WAIT, id="not for ever"),
    ],
)
def test_learned_seconds(open_for, draw, seconds):
    """The fleet's seconds have a jitter, and a bound: a wrong fleet closes no region for long."""
    breaker = Breaker(BreakerRule())
    breaker.learn(open_for, 0.0, draw)

    assert seconds == pytest.approx(breaker.remaining(0.0))


def test_learned_while_open():
    """It is no change; the later of both ends holds."""
    breaker = opened("uuu")

    assert [None, None] == [breaker.learn(2.0, 1.0), breaker.learn(3.0, 1.0)]
    assert 4.0 == breaker.remaining(1.0)
    assert breaker.learn(30.0, 1.0) is None
    assert 30.0 == breaker.remaining(1.0)
    assert breaker.admit(1.0, 0.0).unanswered


def test_learned_while_probing():
    """An opening is older news than our own probe will be; after a probe that gave its slot back it counts."""
    breaker = opened()
    probe = probing(breaker)

    assert breaker.learn(10.0, 6.0) is None
    assert HALF_OPEN is breaker.state

    breaker.postpone(probe, 6.0, 3.0)

    assert Transition(HALF_OPEN, OPEN, "fleet", 10.0) == breaker.learn(10.0, 7.0)

    probe = probing(breaker, 17.0)

    assert Transition(HALF_OPEN, OPEN, "fleet", 10.0) == breaker.learn(10.0, 17.0 + PROBE_PATIENCE)
    assert breaker.settle(probe, GOOD, 0.0, 48.0, MIDDLE) is None


@pytest.mark.parametrize("half_open", [False, True])
def test_learned_closing(half_open):
    """Another's probe was good: closed, with a ramp, and our own probe has no say any more."""
    breaker = opened()
    permit = probing(breaker) if half_open else breaker.admit(4.0, MIDDLE, last=True)

    assert Transition(HALF_OPEN if half_open else OPEN, CLOSED, "fleet") == breaker.learn(None, 6.0)
    assert breaker.settle(permit, UNANSWERED, 0.0, 6.0, MIDDLE) is None
    assert 0.1 == breaker.share(6.0)
    assert breaker.learn(None, 6.0) is None


def test_opening_learned_in_the_ramp():
    """It neither adds to the own wait nor begins it anew."""
    breaker = closed_again(5.0)
    breaker.settle(breaker.admit(5.0, 0.0), GOOD, 0.0, 5.0, MIDDLE)
    make(breaker, "uuu", 6.0)  # 10 s, the first doubling
    breaker.learn(None, 7.0)
    breaker.learn(5.0, 8.0)

    assert 20.0 == breaker.settle(probing(breaker, 13.0), ERROR, 0.0, 13.0, MIDDLE).seconds


def test_postponed():
    """Another process probes: nobody here does for so long; the last candidate goes on as while open."""
    breaker = opened()
    probe = probing(breaker, 5.0)
    breaker.postpone(probe, 5.0, 2.0)
    breaker.release(probe)

    assert Refusal(1.5) == breaker.admit(5.5, 0.0)
    assert breaker.admit(5.5, 0.0, last=True).last_resort
    assert breaker.settle(probe, ERROR, 0.0, 5.5, MIDDLE) is None
    assert probing(breaker, 7.0).generation > probe.generation


@pytest.mark.parametrize("seconds", [1e9, inf])
def test_postponed_for_too_long(seconds):
    """No longer than a probe of our own may take: what the other process found, or whether it died, is known then."""
    breaker = opened()
    breaker.postpone(probing(breaker), 5.0, seconds)

    assert Refusal(PROBE_PATIENCE) == breaker.admit(5.0, 0.0)
    assert probing(breaker, 5.0 + PROBE_PATIENCE)


def test_postponed_late():
    """Only the probe that is out can be postponed."""
    breaker = opened()
    spare = breaker.admit(1.0, MIDDLE, last=True)
    breaker.postpone(spare, 1.0, 20.0)

    assert 4.0 == breaker.remaining(1.0)


def test_repr():
    """It tells the state."""
    breaker = Breaker(BreakerRule())
    told = [repr(breaker)]
    make(breaker, "geeeee")
    told.append(repr(breaker))
    probing(breaker)
    told.append(repr(breaker))
    breaker.force(OPEN, 0.0)
    told.append(repr(breaker))

    assert [
        "<Breaker closed, 0 of 0 failed, generation 0>",
        "<Breaker open until 5.0, 0 of 0 failed, generation 1>",
        "<Breaker half-open, probing, 0 of 0 failed, generation 2>",
        "<Breaker open by order, 0 of 0 failed, generation 3>",
    ] == told


class Region(RuleBasedStateMachine):
    """Any sequence of calls, verdicts, orders and news: what always holds of a breaker."""

    draws = st.floats(0.0, 1.0, exclude_max=True)

    def __init__(self):
        super().__init__()
        self.breaker = Breaker(BreakerRule(slow_call=2.0, minimum_calls=4, window=6))
        self.now = 0.0
        self.out = []
        self.probes = []  # (permit, when its patience ends): those without a verdict
        self.generation = 0
        self.unheard = 0

    def told(self):
        """The generation, as ``repr`` tells it."""
        return int(repr(self.breaker).removesuffix(">").rpartition(" ")[2])

    def changed(self, transition, before):
        """What a transition says is what happened."""
        after = self.breaker.state
        if transition is None:
            assert before is after
            return
        assert (before, after) == (transition.before, transition.after)
        assert before is not after
        assert (transition.seconds > 0.0) is (after is OPEN and transition.cause != "operator")
        assert transition.seconds <= LONGEST_WAIT * 1.2

    def forget(self, permit):
        self.probes = [probe for probe in self.probes if probe[0] != permit]

    @rule(seconds=st.sampled_from([0.01, 1.0, 4.0, 6.0, 31.0, 80.0, 301.0]))
    def wait(self, seconds):
        self.now += seconds

    @rule(draw=draws, last=st.booleans(), only_region=st.booleans(), times=st.integers(1, 4))
    def ask(self, draw, last, only_region, times):
        for _ in range(times):
            generation = self.told()
            before, remaining = self.breaker.state, self.breaker.remaining(self.now)
            answer = self.breaker.admit(self.now, draw, last=last, only_region=only_region)
            if isinstance(answer, Refusal):
                assert not (last and only_region) or answer.forced or self.unheard >= 6
                assert answer.seconds > 0.0
                assert answer.forced is (self.breaker.forced is OPEN)
                assert not last or answer.forced or (answer.unanswered and draw >= 0.1)
                assert before is self.breaker.state
                continue
            assert self.breaker.forced is not OPEN
            self.out.append(answer)
            if answer.probe:
                assert 0.0 == remaining
                assert HALF_OPEN is self.breaker.state
                current = [probe for probe in self.probes if probe[0].generation == generation]
                assert all(ends <= self.now for _, ends in current)
                assert answer.generation == generation + (not current)  # one that follows a slow one is its equal
                self.probes.append((answer, self.now + PROBE_PATIENCE))
            else:
                assert before is self.breaker.state
                assert generation == answer.generation
                assert answer.last_resort is (before is not CLOSED)
                assert not answer.last_resort or last

    @precondition(lambda self: self.out)
    @rule(data=st.data(), sign=st.sampled_from(Sign), seconds=st.sampled_from([0.1, 5.0]), draw=draws)
    def settle(self, data, sign, seconds, draw):
        permit = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        before, current = self.breaker.state, permit.generation == self.generation
        transition = self.breaker.settle(permit, sign, seconds, self.now, draw)
        self.unheard = self.unheard + 1 if sign is UNANSWERED else 0
        self.changed(transition, before)
        self.forget(permit)

        assert transition is None or (current and self.breaker.forced is None)

        if transition is None and data.draw(st.booleans()):
            before = self.breaker.state
            self.changed(self.breaker.broke(permit, self.now, draw), before)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def release(self, data):
        permit = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        before = self.breaker.state
        self.breaker.release(permit)
        self.forget(permit)

        assert before is self.breaker.state

    @precondition(lambda self: any(permit.probe for permit in self.out))
    @rule(seconds=st.sampled_from([0.5, 10.0, 1e6]))
    def postpone(self, seconds):
        permit = next(permit for permit in self.out if permit.probe)
        self.out.remove(permit)
        self.breaker.postpone(permit, self.now, seconds)
        self.forget(permit)

    @rule(state=st.sampled_from([OPEN, CLOSED, None, None, None]))
    def force(self, state):
        before = self.breaker.state
        self.changed(self.breaker.force(state, self.now), before)

        assert state is self.breaker.forced
        assert state is None or state is self.breaker.state

    @rule(open_for=st.sampled_from([None, 0.5, 20.0, inf]), draw=draws)
    def learn(self, open_for, draw):
        before = self.breaker.state
        self.changed(self.breaker.learn(open_for, self.now, draw), before)

    @invariant()
    def generation_only_grows(self):
        told = self.told()

        assert told >= self.generation

        self.generation = told

    @invariant()
    def never_stuck(self):
        """Whatever the state, a call is let through once the longest wait is over, unless an operator forbids it."""
        share = self.breaker.share(self.now)

        assert (0.1 <= share <= 1.0) if self.breaker.state is CLOSED else share == 0.0
        assert 0.0 <= self.breaker.remaining(self.now) <= LONGEST_WAIT * 1.2

        if self.breaker.forced is not OPEN and self.breaker.state is not HALF_OPEN:
            assert share > 0.0 or self.breaker._next_probe <= self.now + LONGEST_WAIT * 1.2
        elif self.breaker.state is HALF_OPEN:
            assert self.breaker._next_probe <= self.now + PROBE_PATIENCE

    def teardown(self):
        """It is let through indeed."""
        if self.breaker.forced is not OPEN:
            assert isinstance(self.breaker.admit(self.now + LONGEST_WAIT * 1.2, 0.999), Permit)


Region.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestRegion = Region.TestCase
