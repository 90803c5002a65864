"""
Whether a region is called: a circuit breaker that opens on failures and finds out by single probes when they are over.

The rule: what a permit brings counts only in the generation that gave it. Each transition and each probe begins another
one, so a verdict that comes late, of calls that were under way before, changes nothing.

It owns no clock and no randomness: *now* is monotonic seconds, *draw* a number in [0, 1).
"""

from __future__ import annotations

from enum import StrEnum
from math import inf
from typing import Literal

from msgspec import Struct

from sidecar.core.region.tally import Tally
from sidecar.core.rules import BreakerRule

LONGEST_WAIT = 60.0
"""Seconds beyond which failed probes no longer double the wait, before its jitter; a longer ``rule.open`` is kept."""

JITTER = 0.2
"""A wait is longer or shorter by up to this part of it, so that the fleet doesn't probe in step."""

PROBE_PATIENCE = 30.0
"""Seconds that a probe has for its verdict, or ``rule.open`` where that is more; then another one may go."""

RAMP = 30.0
FIRST_SHARE = 0.1
"""After closing, the part of the traffic let through grows linearly from this one to all of it, in ``RAMP`` seconds."""

RAMP_PAUSE = 1.0
"""Seconds after which a call that the ramp refused may ask again."""

STRAY = 0.1
"""The part of the calls without another candidate that is let through where the region doesn't answer at all."""

TransitionCause = Literal[
    "unanswered",
    "errors",
    "failure-rate",
    "slow-rate",
    "probe-failed",
    "probe",
    "probe-good",
    "operator",
    "fleet",
    "waited",
]
"""Why a breaker changed; ``probe`` and ``waited`` are for whoever tells of a probe's permit."""


class Sign(StrEnum):
    """
    What a call says of its region: ``GOOD``; ``ERROR``, it was answered but failed; ``UNANSWERED``, no answer came
    (connect, TLS, timeout, a connection that died before the commit point); ``NEUTRAL``, the answer says nothing of the
    region (a caller's own fault, a spent quota).
    """

    GOOD = "good"
    ERROR = "error"
    UNANSWERED = "unanswered"
    NEUTRAL = "neutral"


class State(StrEnum):
    """``CLOSED`` lets calls through, ``OPEN`` refuses them, ``HALF_OPEN`` waits for what a probe says."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Permit(Struct, frozen=True, gc=False):
    """
    Leave to call, to be settled at the commit point or released. *probe*: its verdict decides; *last_resort*: it goes
    through an open breaker because no other candidate was left.
    """

    generation: int
    probe: bool = False
    last_resort: bool = False


class Refusal(Struct, frozen=True, gc=False):
    """
    No call now. *seconds*: until it is worth asking again, above 0; *unanswered*: the region stands open by calls that
    it didn't answer; *forced*: an operator wants it so.
    """

    seconds: float
    unanswered: bool = False
    forced: bool = False


class Transition(Struct, frozen=True, gc=False):
    """
    A breaker's change. *seconds*: how long it stays open, 0 where it isn't or only another order ends that. *detail*:
    for people, what the last call met, ``""`` where nothing is known; a breaker leaves it to whoever has made the call.
    """

    before: State
    after: State
    cause: TransitionCause
    seconds: float = 0.0
    detail: str = ""


class Breaker:
    """
    One region's breaker.

    A permit of ``admit`` with *probe* tells that it is half open now: that is the one change that no ``Transition``
    reports. A 0 in the rule, where a count or a rate is meant, turns that judgement off.
    """

    __slots__ = (
        "_doublings",
        "_errors",
        "_forced",
        "_generation",
        "_minimum",
        "_next_probe",
        "_opened_unanswered",
        "_patience",
        "_probing",
        "_ramp_from",
        "_rule",
        "_state",
        "_unanswered",
        "_unanswered_run",
        "_window",
    )

    def __init__(self, rule: BreakerRule) -> None:
        self._rule = rule
        self._minimum = max(1, min(rule.minimum_calls, rule.window))
        self._patience = max(PROBE_PATIENCE, rule.open)
        self._window = Tally(rule.window)
        self._unanswered = 0  # in a row
        self._errors = 0  # in a row
        self._state = State.CLOSED
        self._forced: State | None = None
        self._generation = 0
        self._opened_unanswered = False  # opened by calls without an answer
        self._unanswered_run = 0  # verdicts without an answer in a row, of whatever generation
        self._doublings = 0  # of the wait
        self._next_probe = -inf  # where not closed: when a probe may go, or another one
        self._probing = False
        self._ramp_from = -inf

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

    @property
    def state(self) -> State:
        """What it is now. An open one whose time is over becomes half open with the call that asks next."""
        return self._state

    @property
    def forced(self) -> State | None:
        """The operator's order, ``OPEN`` or ``CLOSED``; None: it judges for itself."""
        return self._forced

    @property
    def gone(self) -> bool:
        """Whether a whole window of calls in a row had no answer: not even a call's only region is asked then."""
        return self._state is not State.CLOSED and self._opened_unanswered and self._unanswered_run >= self._rule.window

    def remaining(self, now: float) -> float:
        """Seconds until it is half open; 0 where it isn't open, or by an order."""
        if self._state is not State.OPEN or self._forced is not None:
            return 0.0
        return max(0.0, self._next_probe - now)

    def share(self, now: float) -> float:
        """The part of the traffic that is let through: 1.0 closed, less in the ramp, 0.0 otherwise."""
        if self._state is not State.CLOSED:
            return 0.0
        return min(1.0, FIRST_SHARE + (1.0 - FIRST_SHARE) * (now - self._ramp_from) / RAMP)

    def admit(self, now: float, draw: float, *, last: bool = False, only_region: bool = False) -> Permit | Refusal:
        """
        Leave for one call. *last*: no other candidate is left, so that it is refused only where hardly any call would
        be answered, or by an order. *only_region*: there never was another one. Three unanswered in a row are chance
        where half of the connections die, and the others' answers would be lost; a ``rule.window`` of them is none.
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
        if self._probing:  # its verdict comes well before its patience ends
            seconds = min(seconds, max(self._rule.open, RAMP_PAUSE))
        return Refusal(seconds, unanswered=self._opened_unanswered)

    def settle(self, permit: Permit, sign: Sign, seconds: float, now: float, draw: float) -> Transition | None:
        """
        The verdict on a call, once, at its commit point; *seconds* is what it took until then.

        A probe that is good but slow fails: closing on it would bring back what opened the breaker. A spare call that
        is good closes the breaker as a probe does; its failure says nothing new.
        """
        self._unanswered_run = self._unanswered_run + 1 if sign is Sign.UNANSWERED else 0
        if permit.generation != self._generation:
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
        """No verdict, the call was cancelled: a probe's slot is free for the next call."""
        if self._holds(permit):
            self._give_back(-inf)

    def postpone(self, permit: Permit, now: float, seconds: float) -> None:
        """
        Another process probes: the slot is given back, and nobody here probes for *seconds*, at most for as long as a
        probe of our own would have.
        """
        if self._holds(permit):
            self._give_back(now + min(seconds, self._patience))

    def broke(self, permit: Permit, now: float, draw: float) -> Transition | None:
        """
        An answer broke after its commit point: one more failed call in the rate. It was begun long ago perhaps, so it
        neither ends nor lengthens a row.
        """
        if permit.generation != self._generation or self._state is not State.CLOSED:
            return None
        self._window.add(now, failed=True, slow=False)
        return self._judge(now, draw)

    def force(self, state: State | None, now: float) -> Transition | None:
        """
        An operator's order: ``OPEN``, no calls, not even the last candidate's; ``CLOSED``, all calls, which are counted
        but not judged; None: its own judgement again, with a ramp where it was open. ``HALF_OPEN`` is a ValueError.
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

        An open one waits for the later of both ends. Nothing changes where an order holds, nor by an opening while a
        probe of our own is out: its verdict is newer.
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
        """Whether *permit* is the probe that is out."""
        return permit.probe and self._probing and permit.generation == self._generation

    def _ramping(self, now: float) -> bool:
        return now - self._ramp_from < RAMP

    def _count(self, sign: Sign, now: float, draw: float, *, slow: bool) -> Transition | None:
        """
        A call's verdict while closed. Any answer ends the row of unanswered calls; the row of errors only a good one
        does, since a call without an answer, or a neutral one, doesn't tell that the errors are over.
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
        return self._open(now, self._wait(draw), cause)

    def _found(self) -> TransitionCause | None:
        """Why it should open now."""
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

    def _wait(self, draw: float) -> float:
        first = self._rule.open
        return _jittered(min(first * 2.0 ** min(self._doublings, 64), max(first, LONGEST_WAIT)), draw)

    def _probe(self, now: float) -> Permit:
        self._state = State.HALF_OPEN
        if not self._probing:  # else the one before has only taken long: its verdict is as good as the next one's
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
        if sign is Sign.NEUTRAL:  # it answers, at least
            self._opened_unanswered = False
            self._give_back(-inf)
            return None
        if sign is Sign.GOOD and not slow:
            return self._close(now, "probe-good")
        self._opened_unanswered = sign is Sign.UNANSWERED
        self._doublings += 1
        return self._open(now, self._wait(draw), "probe-failed")

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
