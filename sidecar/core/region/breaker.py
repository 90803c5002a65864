"""
Whether a region is called: a circuit breaker that opens on failures, and tests by single calls (probes) for their end.

The rule: the verdict on a permit counts only in the generation that gave the permit. Each transition and each probe
begins a new generation, so a late verdict on a call from before changes nothing.

It has no clock and no randomness: *now* is monotonic seconds, *draw* a number in [0, 1).
"""

from __future__ import annotations

from enum import StrEnum
from math import inf
from typing import Literal

from msgspec import Struct

from sidecar.core.region.tally import Tally
from sidecar.core.rules import BreakerRule

LONGEST_WAIT = 60.0
"""The longest wait that failed probes reach by doubling, seconds, before its jitter; a longer ``rule.open`` is kept."""

JITTER = 0.2
"""A wait is longer or shorter by up to this part of it, so that the pods of a fleet do not probe at the same time."""

PROBE_PATIENCE = 30.0
"""Seconds that a probe has for its verdict, or ``rule.open`` if that is more; then another probe may start."""

RAMP = 30.0
FIRST_SHARE = 0.1
"""After closing, the share of calls let through grows linearly from this value to all of them, in ``RAMP`` seconds."""

RAMP_PAUSE = 1.0
"""Seconds after which a call that the ramp refused may ask again."""

STRAY = 0.1
"""The share of calls without another candidate that is let through while the region does not answer at all."""

TransitionCause = Literal[
    "unanswered", "errors", "failure-rate", "slow-rate", "probe-failed", "probe",
    "probe-good", "operator", "fleet", "waited",
]  # fmt: skip
"""Why a breaker changed; ``probe`` and ``waited`` are for code that reports a probe's permit."""


class Sign(StrEnum):
    """
    What a call shows of its region: ``GOOD``; ``ERROR``, it was answered but failed; ``UNANSWERED``, no answer came
    (connect, TLS, timeout, a connection that died before the commit point); ``NEUTRAL``, the answer says nothing about
    the region (the caller's own mistake, a spent quota).
    """

    GOOD = "good"
    ERROR = "error"
    UNANSWERED = "unanswered"
    NEUTRAL = "neutral"


class State(StrEnum):
    """``CLOSED`` lets calls through, ``OPEN`` refuses them, ``HALF_OPEN`` waits for the verdict on a probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Permit(Struct, frozen=True, gc=False):
    """
    Permission for one call, to be settled at the commit point or released. *probe*: its verdict decides. *last_resort*:
    it passes an open breaker because no other candidate was left.
    """

    generation: int
    probe: bool = False
    last_resort: bool = False


class Refusal(Struct, frozen=True, gc=False):
    """
    No call now. *seconds*: until it makes sense to ask again, above 0; *unanswered*: the breaker opened because calls
    had no answer; *forced*: by an operator's order.
    """

    seconds: float
    unanswered: bool = False
    forced: bool = False


class Transition(Struct, frozen=True, gc=False):
    """
    A breaker's change. *seconds*: how long it stays open; 0 if it is not open, or if only another order ends that.
    *detail*: for people, what the last call met, ``""`` if unknown; the breaker leaves it to the code that made the
    call.
    """

    before: State
    after: State
    cause: TransitionCause
    seconds: float = 0.0
    detail: str = ""


class Breaker:
    """
    One region's breaker.

    A permit of ``admit`` with *probe* means that the breaker is half open now: this is the one change that no
    ``Transition`` reports. A 0 in the rule, where a count or a rate is meant, turns that judgement off.
    """

    __slots__ = (
        "_doublings", "_errors", "_forced", "_generation", "_minimum",
        "_next_probe", "_opened_unanswered", "_patience", "_probing", "_ramp_from",
        "_rule", "_state", "_unanswered", "_unanswered_run", "_window", "retired",
    )  # fmt: skip

    def __init__(self, rule: BreakerRule) -> None:
        self._window = Tally(rule.window)
        self._use(rule)
        self._unanswered = 0  # calls in a row
        self._errors = 0  # calls in a row
        self._state = State.CLOSED
        self._forced: State | None = None
        self._generation = 0
        self._opened_unanswered = False  # opened by calls without an answer
        self._unanswered_run = 0  # verdicts without an answer in a row, of any generation
        self._doublings = 0  # of the wait
        self._next_probe = -inf  # if not closed: when the next probe may start
        self._probing = False
        self._ramp_from = -inf
        self.retired = False

    def __repr__(self) -> str:
        words = self._state.value
        if self._forced is not None:
            words += " by order"
        elif self._state is State.OPEN:
            words += f" until {self._next_probe:.1f}"
        elif self._probing:
            words += ", probing"
        calls = f"{self._window.failed} of {len(self._window)} failed"
        return f"<Breaker {words}, {calls}, generation {self._generation}>"

    def tune(self, rule: BreakerRule, now: float) -> None:
        """
        Judge by *rule* from now on. The state stays, with the calls counted so far. A breaker that is open waits no
        longer than *rule* allows, jitter included; none opens before its next verdict.
        """
        self._use(rule)
        self._window.resize(rule.window)
        if self._state is State.OPEN:
            self._next_probe = min(self._next_probe, now + self._longest * (1.0 + JITTER))

    def retire(self) -> None:
        """Its region is gone, or has moved: what calls that are still under way there say changes nothing any more."""
        self.retired = True

    def _use(self, rule: BreakerRule) -> None:
        self._rule = rule
        self._minimum = max(1, min(rule.minimum_calls, rule.window))
        self._patience = max(PROBE_PATIENCE, rule.open)

    @property
    def state(self) -> State:
        """The state now. An open breaker whose time is over becomes half open with the next call that asks."""
        return self._state

    @property
    def forced(self) -> State | None:
        """The operator's order, ``OPEN`` or ``CLOSED``; None if the breaker decides itself."""
        return self._forced

    @property
    def gone(self) -> bool:
        """
        Whether a whole window of calls in a row had no answer: then the region is not asked even if it is a call's only
        one.
        """
        return self._state is not State.CLOSED and self._opened_unanswered and self._unanswered_run >= self._rule.window

    def remaining(self, now: float) -> float:
        """Seconds until it is half open; 0 if it is not open, or if it is open by an order."""
        if self._state is not State.OPEN or self._forced is not None:
            return 0.0
        return max(0.0, self._next_probe - now)

    def share(self, now: float) -> float:
        """The share of calls that is let through: 1.0 if closed, less in the ramp, otherwise 0.0."""
        if self._state is not State.CLOSED:
            return 0.0
        return min(1.0, FIRST_SHARE + (1.0 - FIRST_SHARE) * (now - self._ramp_from) / RAMP)

    def admit(self, now: float, draw: float, *, last: bool = False, only_region: bool = False) -> Permit | Refusal:
        """
        Permit or refuse one call. *last*: no other candidate is left, so the call is refused only if hardly any call
        would be answered, or by an order. *only_region*: there never was another candidate. If half of the connections
        die, three unanswered calls in a row are chance, and refusing would lose good answers; a ``rule.window`` of them
        is not chance.
        """
        if self._state is State.CLOSED:
            if last or draw < self.share(now):
                return Permit(self._generation)
            return Refusal(RAMP_PAUSE)
        if self._forced is not None:
            return Refusal(LONGEST_WAIT, forced=True)
        if now >= self._next_probe:
            return self._probe(now)
        if last and (not self._opened_unanswered or draw < STRAY or (only_region and not self.gone)):
            return Permit(self._generation, last_resort=True)
        seconds = self._next_probe - now
        if self._probing:  # its verdict comes well before its time ends
            seconds = min(seconds, max(self._rule.open, RAMP_PAUSE))
        return Refusal(seconds, unanswered=self._opened_unanswered)

    def settle(self, permit: Permit, sign: Sign, seconds: float, now: float, draw: float) -> Transition | None:
        """
        Record the verdict on a call, once, at its commit point; *seconds* is what it took until then.

        A probe that is good but slow fails: if it closed the breaker, what opened it would come back. A good spare call
        closes the breaker like a probe; a failed one tells nothing new.
        """
        self._unanswered_run = self._unanswered_run + 1 if sign is Sign.UNANSWERED else 0
        if permit.generation != self._generation or self.retired:
            return None
        slow = 0.0 < self._rule.slow_call < seconds
        if self._state is State.CLOSED:
            return self._count(sign, now, draw, slow=slow)
        if permit.probe:
            return self._settle_probe(sign, now, draw, slow=slow)
        if permit.last_resort and sign is Sign.GOOD and not slow and self._forced is None:
            return self._close(now, "probe-good")
        return None

    def release(self, permit: Permit) -> None:
        """The call was cancelled without a verdict: a probe's slot is free for the next call."""
        if self._holds(permit):
            self._give_back(-inf)

    def postpone(self, permit: Permit, now: float, seconds: float) -> None:
        """
        Another process probes: give the slot back, and start no probe here for *seconds*, at most for as long as a
        probe of our own would have taken.
        """
        if self._holds(permit):
            self._give_back(now + min(seconds, self._patience))

    def broke(self, permit: Permit, now: float, draw: float) -> Transition | None:
        """
        An answer broke after its commit point: one more failed call in the rate. The call may have begun long ago, so
        it neither ends nor lengthens a row.
        """
        if permit.generation != self._generation or self._state is not State.CLOSED or self.retired:
            return None
        self._window.add(now, failed=True, slow=False)
        return self._judge(now, draw)

    def force(self, state: State | None, now: float) -> Transition | None:
        """
        Apply an operator's order: ``OPEN``, no calls, not even the last candidate's; ``CLOSED``, all calls, which are
        counted but not judged; None: the breaker decides again, with a ramp if it was open. ``HALF_OPEN`` is a
        ValueError.
        """
        if state is State.HALF_OPEN:
            raise ValueError("a breaker is not forced half open")
        before, self._forced = self._forced, state
        match state:
            case State.OPEN:
                return None if self._state is State.OPEN else self._move(State.OPEN, "operator")
            case State.CLOSED:
                self._ramp_from = -inf
                return None if self._state is State.CLOSED else self._move(State.CLOSED, "operator")
            case None:
                return self._close(now, "operator") if before is State.OPEN else None

    def learn(self, open_for: float | None, now: float, draw: float = 0.5) -> Transition | None:
        """
        The fleet has opened it for *open_for* seconds, at most ``LONGEST_WAIT``, or closed it (None).

        An open breaker waits for the later of both ends. Nothing changes while an order holds. An opening changes
        nothing while a probe of our own runs, because its verdict is newer.
        """
        if self._forced is not None:
            return None
        if open_for is None:
            return None if self._state is State.CLOSED else self._close(now, "fleet")
        seconds = _jittered(min(open_for, LONGEST_WAIT), draw)
        match self._state:
            case State.OPEN:
                self._next_probe = max(self._next_probe, now + seconds)
                return None
            case State.HALF_OPEN:
                if self._probing and now < self._next_probe:
                    return None
            case State.CLOSED:
                self._opened_unanswered = False
                if not self._ramping(now):
                    self._doublings = 0
        return self._open(now, seconds, "fleet")

    def _holds(self, permit: Permit) -> bool:
        """Whether *permit* is that of the running probe."""
        return permit.probe and self._probing and permit.generation == self._generation

    def _ramping(self, now: float) -> bool:
        return now - self._ramp_from < RAMP

    def _count(self, sign: Sign, now: float, draw: float, *, slow: bool) -> Transition | None:
        """
        Count a verdict while closed. Any answer ends the row of unanswered calls. Only a good one ends the row of
        errors, because a call without an answer, or a neutral one, does not show that the errors are over.
        """
        match sign:
            case Sign.GOOD:
                self._unanswered = self._errors = 0
            case Sign.ERROR:
                self._unanswered = 0
                self._errors += 1
            case Sign.UNANSWERED:
                self._unanswered += 1
            case Sign.NEUTRAL:
                self._unanswered = 0
                return None
        self._window.add(now, failed=sign is not Sign.GOOD, slow=slow)
        return self._judge(now, draw)

    def _judge(self, now: float, draw: float) -> Transition | None:
        cause = self._found()
        if cause is None or self._forced is not None:
            return None
        self._opened_unanswered = cause == "unanswered"
        self._doublings = self._doublings + 1 if self._ramping(now) else 0
        return self._open(now, _jittered(self._longest, draw), cause)

    def _found(self) -> TransitionCause | None:
        """Why it should open now; None if it should not."""
        rule, window = self._rule, self._window
        if 0 < rule.consecutive_unanswered <= self._unanswered:
            return "unanswered"
        if 0 < rule.consecutive_errors <= self._errors:
            return "errors"
        if (calls := len(window)) < self._minimum:
            return None
        if 0.0 < rule.failure_rate <= window.failed / calls:
            return "failure-rate"
        if 0.0 < rule.slow_rate <= window.slow / calls:
            return "slow-rate"
        return None

    @property
    def _longest(self) -> float:
        """The wait that it has reached by doubling, seconds, before its jitter."""
        first = self._rule.open
        return min(first * 2.0 ** min(self._doublings, 64), max(first, LONGEST_WAIT))

    def _probe(self, now: float) -> Permit:
        self._state = State.HALF_OPEN
        if not self._probing:  # otherwise the earlier probe only took long: its verdict is as good as the next one's
            self._generation += 1
        self._probing = True
        self._next_probe = now + self._patience
        return Permit(self._generation, probe=True)

    def _give_back(self, next_probe: float) -> None:
        self._probing = False
        self._next_probe = next_probe

    def _settle_probe(self, sign: Sign, now: float, draw: float, *, slow: bool) -> Transition | None:
        if not self._probing:
            return None
        if sign is Sign.NEUTRAL:  # at least it answers
            self._opened_unanswered = False
            self._give_back(-inf)
            return None
        if sign is Sign.GOOD and not slow:
            return self._close(now, "probe-good")
        self._opened_unanswered = sign is Sign.UNANSWERED
        self._doublings += 1
        return self._open(now, _jittered(self._longest, draw), "probe-failed")

    def _open(self, now: float, seconds: float, cause: TransitionCause) -> Transition:
        self._next_probe = now + seconds
        return self._move(State.OPEN, cause, seconds)

    def _close(self, now: float, cause: TransitionCause) -> Transition:
        self._ramp_from = now
        return self._move(State.CLOSED, cause)

    def _move(self, state: State, cause: TransitionCause, seconds: float = 0.0) -> Transition:
        transition = Transition(self._state, state, cause, seconds)
        self._state = state
        self._generation += 1
        self._probing = False
        self._unanswered = self._errors = 0
        self._window.clear()
        return transition


def _jittered(seconds: float, draw: float) -> float:
    return seconds * (1.0 - JITTER + 2.0 * JITTER * draw)
