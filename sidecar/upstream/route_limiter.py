"""
Limits the calls of one route: their line, their slots and their rates.

The rule: all state changes in synchronous steps between awaits. A call that joins or leaves, a turn that comes and an
answer of the fleet each take one step. Each waiting call has its own future, so a cancelled call takes nothing along.

A call needs a slot (concurrency) and a turn (rates). Turns are reserved for the line, not for one call: from the fleet,
or from this process's share while the fleet cannot be asked. The call that is first when the turn comes takes it, and
the difference between reserved and used tokens is corrected.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final, Protocol

from sidecar.core.limits.rates import Adaptive, Calibration, Pair, Worth, worth
from sidecar.core.limits.turns import Line, Reservations, Taken
from sidecar.core.rules import Route, RouteLimits
from sidecar.errors import FleetAway, Refused
from sidecar.tasks import Spawn

PATIENCE_SECONDS: Final = 5.0
"""Seconds a call waits for room in a rate, at most: for longer waits its caller should retry later."""

LONGEST_RETRY: Final = 60.0
"""The longest wait that a caller is told, seconds: SDKs either ignore a longer one, or really wait for it."""

ALONE_SECONDS: Final = 0.5
"""Seconds after a failure in which the fleet is not asked: else each call would wait for a failure again."""

MOST_ASKED: Final = 32
"""Calls for which the fleet is asked in one request, at most."""

MOST_ASKING: Final = 1024
"""Calls that may be in line beyond the queue's limit while the fleet is being asked about them."""

MOST_ADAPTIVE: Final = 1000
FIRST_ADAPTIVE: Final = 20
"""The limit of an adaptive concurrency if none is configured: its maximum, and its start (as in ``AIMDLimit``)."""

UNLIMITED: Final = 1 << 62

CAUSES: Final = ("queue", "deadline", "rate")
"""Why a call is refused: too many wait, it would wait longer than it can, or no rate has room for it soon."""


class Timer(Protocol):
    """A function call that is scheduled."""

    def cancel(self) -> None:
        """Cancel the scheduled call."""


class Quota(Protocol):
    """The fleet's rates; see ``fleet/quota.Quota``."""

    @property
    def up(self) -> bool:
        """Whether the fleet can be asked."""

    async def take(
        self, route: str, limits: RouteLimits, charges: Sequence[int], *, patience: float, ceiling: Pair
    ) -> Taken:
        """Take room for calls. Raises ``FleetAway``."""

    def give(self, route: str, limits: RouteLimits, tokens: int, requests: int = 0) -> None:
        """Give some back."""


CallLater = Callable[[float, Callable[[], None]], Timer]


class Slot:
    """A call that may go to the service. Its owner calls ``leave`` in every case."""

    __slots__ = ("_began", "_charge", "_estimate", "_left", "_limiter")

    def __init__(self, limiter: RouteLimiter, estimate: int, charge: int, began: float) -> None:
        self._limiter = limiter
        self._estimate = estimate
        self._charge = charge
        self._began = began
        self._left = False

    def __repr__(self) -> str:
        return f"<Pass of {self._charge} tokens{', left' if self._left else ''}>"

    def leave(self, *, tokens: int | None, throttled: bool, seconds: float | None) -> None:
        """
        The call is over; a second call of this does nothing. *tokens*: tokens used, prompt and answer; None if unknown
        (the estimate stays), 0 if the call failed. *throttled*: the service had no room. *seconds*: time until the
        answer, None if it says nothing about the service, for example because the caller left.
        """
        if not self._left:
            self._left = True
            self._limiter.leave(self._estimate, self._charge, self._began, tokens, seconds, throttled=throttled)


class _Call:
    """A call in line. *until*: when waiting becomes useless; *by_own_deadline*: because of its own deadline."""

    __slots__ = ("batch", "by_own_deadline", "charge", "estimate", "future", "timer", "until")

    def __init__(self, estimate: int, charge: int, until: float, *, batch: bool, by_own_deadline: bool) -> None:
        self.estimate = estimate
        self.charge = charge
        self.until = until
        self.batch = batch
        self.by_own_deadline = by_own_deadline
        self.future: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self.timer: Timer | None = None


class RouteLimiter:
    """One route's line, slots and rates."""

    def __init__(
        self,
        route: Route,
        quota: Quota | None,
        pods: Callable[[], int | None],
        clock: Callable[[], float],
        spawn: Spawn,
        call_later: CallLater,
    ) -> None:
        self._name = route.name
        self._quota = quota
        self._pods = pods
        self._clock = clock
        self._spawn = spawn
        self._call_later = call_later
        self._line: Line[_Call] = Line()
        self._turns = Reservations()
        self._timer: Timer | None = None
        self._asking: asyncio.Task[None] | None = None
        self._alone_until = float("-inf")
        self._calibration = Calibration()
        self._hold = 0.0
        self._adaptive: Adaptive | None = None
        self.limits = RouteLimits()
        self.inside = 0
        self.shed: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Gate {self._name} {self.inside} inside, {self.waiting} waiting, {self.shed.total()} shed>"

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._line)

    @property
    def room(self) -> int:
        """How many calls may be under way."""
        if self._adaptive is not None:
            return self._adaptive.limit
        return self.limits.concurrency or UNLIMITED

    def tune(self, limits: RouteLimits) -> None:
        """Use *limits* from now on."""
        if limits == self.limits:
            return
        self._return_turns(self._clock())  # they were taken by the former rates; calls in line take others
        before, self.limits = self.limits, limits
        if not limits.adaptive:
            self._adaptive = None
        elif not before.adaptive or before.concurrency != limits.concurrency:
            self._adaptive = Adaptive(limits.concurrency or MOST_ADAPTIVE, limits.concurrency or FIRST_ADAPTIVE)

    async def enter(self, estimate: int, deadline: float | None, *, batch: bool) -> Slot:
        """See ``Throttle.enter``."""
        now = self._clock()
        slots = self.limits.concurrency or self.limits.adaptive
        longest = now + PATIENCE_SECONDS if self._rated and not slots else float("inf")
        until = longest if deadline is None else min(deadline, longest)
        call = _Call(estimate, self._calibration.charge(estimate), until, batch=batch, by_own_deadline=until < longest)
        self._join(call, now)
        if not call.future.done():
            self.step()
        if not call.future.done() and call.until != float("inf"):
            call.timer = self._call_later(call.until - now, lambda: self._late(call))
        try:
            return await call.future
        except asyncio.CancelledError:
            self._abandon(call)
            raise
        finally:
            if call.timer is not None:
                call.timer.cancel()

    def leave(
        self, estimate: int, charge: int, began: float, tokens: int | None, seconds: float | None, *, throttled: bool
    ) -> None:
        """See ``Slot.leave``; *charge* is what the call paid, and it *began* at that time."""
        now = self._clock()
        held = now - began
        self._hold += (held - self._hold) * (0.1 if self._hold else 1.0)
        if self._adaptive is not None:
            self._adaptive.settle(now, began, self.inside, throttled=throttled, seconds=seconds)
        if tokens is not None and self.limits.tokens_per_minute:
            self._calibration.learn(estimate, tokens)
            self._give(charge - tokens, 0, now)
        self.inside -= 1
        self.step()

    def step(self) -> None:
        """Start each call that may go now; if only time can start the next call, schedule another step."""
        now = self._clock()
        while self.inside < self.room and (call := self._line.first) is not None:
            if call.future.done():  # cancelled just now
                self._line.remove(call)
            elif self._rated and not self._pay(call, now):
                break
            elif not call.future.done():
                self._line.remove(call)
                self.inside += 1
                call.future.set_result(Slot(self, call.estimate, call.charge, now))
        if self._asking is None:
            self._trim(self.limits.queue, now)
            if not self.waiting:
                self._return_turns(now)

    @property
    def _rated(self) -> bool:
        return bool(self.limits.requests_per_minute or self.limits.tokens_per_minute)

    @property
    def _worth(self) -> Worth:
        return worth(self.limits, self._parts if self._by_itself else 1)

    @property
    def _parts(self) -> int:
        """How many processes share the limits."""
        return self._pods() or self.limits.replicas or 1

    @property
    def _by_itself(self) -> bool:
        return self._quota is None or self._turns.alone or not self._quota.up

    def _join(self, call: _Call, now: float) -> None:
        """Put the call in line; or refuse it, if it is clear that its turn cannot come in time."""
        for_rates = self._wait_for_rates(call, now)
        wait = max(for_rates, self._wait_for_slot(call))
        if call.until <= now or now + wait > call.until:
            self._refuse(call, "rate" if for_rates == wait > 0.0 else "deadline", wait)
        elif for_rates > PATIENCE_SECONDS:
            self._refuse(call, "rate", for_rates)
        else:
            self._line.join(call)
            self._trim(self.limits.queue + MOST_ASKING, now)

    def _trim(self, most: int, now: float) -> None:
        """Refuse calls that are too many: the last batch call first; if there is none, the last other call."""
        while self.waiting > most and (last := self._line.last) is not None:
            self._line.remove(last)
            self._refuse(last, "queue", max(self._wait_for_slot(last), self._wait_for_rates(last, now)))

    def _late(self, call: _Call) -> None:
        call.timer = None
        self.step()  # its turn may have come this very moment
        if self._line.remove(call):
            now = self._clock()
            for_rates = self._wait_for_rates(call, now)
            wait = max(for_rates, self._wait_for_slot(call))
            self._refuse(call, "rate" if self.inside < self.room else "deadline", wait)
            self.step()

    def _abandon(self, call: _Call) -> None:
        """The caller has left: give back all that its call has or waits for."""
        future = call.future
        if not future.cancelled() and future.done() and future.exception() is None:
            future.result().leave(tokens=0, throttled=False, seconds=None)
        elif self._line.remove(call):
            self.step()

    def _refuse(self, call: _Call, cause: str, wait: float) -> None:
        if call.future.done():
            return
        self.shed[cause] += 1
        seconds = min(LONGEST_RETRY, max(1.0, wait))
        why = {
            "queue": f"{self.limits.queue} calls wait already (limits.queue)",
            "deadline": "its turn would come after its deadline (limits.concurrency)",
            "rate": "its rate has no room soon enough (limits.requests_per_minute, limits.tokens_per_minute)",
        }[cause]
        message = f"Route {self._name} is at its limits, and {why}. Try again in {seconds:.0f} s."
        refused = Refused(429, "route-limit", message, retry_after=seconds)
        refused.by_own_deadline = call.by_own_deadline and (
            cause == "deadline" or (cause == "rate" and wait <= PATIENCE_SECONDS)
        )
        call.future.set_exception(refused)

    def _wait_for_slot(self, call: _Call) -> float:
        """Seconds until a call that joins now gets a slot, by the mean time that calls keep a slot."""
        ahead, _ = self._line.ahead(batch=call.batch)
        behind = ahead - (self.room - self.inside) + 1
        return max(0, behind) * self._hold / self.room

    def _wait_for_rates(self, call: _Call, now: float) -> float:
        """Seconds until there is room in the rates, as far as this process knows."""
        if not self._rated:
            return 0.0
        ahead, tokens = self._line.ahead(batch=call.batch)
        return self._turns.wait(now, self._worth, call.charge, ahead, tokens)

    def _pay(self, call: _Call, now: float) -> bool:
        """
        A turn for *call*, the first in line: True to go on with the line, for it has one, or has been sent away.

        False: there is none yet, and another step will be taken when there may be.
        """
        if self._turns.next is None:
            self._buy(call, now)
        if (turn := self._turns.next) is None:
            return self._asking is None
        if turn.at > now:
            self._step_at(turn.at, now)
            return False
        self._give(self._turns.use().charge - call.charge, 0, now)
        return True

    def _buy(self, call: _Call, now: float) -> None:
        """Ask the fleet for turns, or use this process's share; if the turn would come too late, refuse *call*."""
        if self._quota is not None and self._quota.up and now >= self._alone_until:
            if self._asking is None:
                self._asking = self._spawn(self._ask(self._quota), name="throttle")
            return
        self._turns.alone = self._quota is not None
        patience = self._patience(call, now)
        wait = self._turns.buy(now, self._worth, call.charge, patience)
        if wait > patience:
            self._line.remove(call)
            self._refuse(call, "rate", wait)

    async def _ask(self, quota: Quota) -> None:
        """Ask the fleet for turns for the first calls in line, as many as have a slot."""
        now = self._clock()
        calls = tuple(islice(self._line, max(0, min(MOST_ASKED, self.room - self.inside))))
        charges = [call.charge for call in calls]
        heard = not calls
        try:
            if calls:
                taken = await quota.take(
                    self._name,
                    self.limits,
                    charges,
                    patience=self._patience(calls[0], now),
                    ceiling=self._turns.ceiling(now, self._parts),
                )
                heard = True
                now = self._clock()
                self._turns.hear(now, taken, charges)
                if taken.admitted < len(charges) and not taken.reserved:
                    self._clear(max(taken.wait), now)
        except FleetAway:
            pass
        finally:
            self._asking = None
            if not heard:
                self._alone_until = self._clock() + ALONE_SECONDS
            self.step()

    def _patience(self, call: _Call, now: float) -> float:
        """How long *call* waits for a turn, at most."""
        return max(0.0, min(PATIENCE_SECONDS, call.until - now))

    def _clear(self, wait: float, now: float) -> None:
        """There is no turn for so long: refuse the calls that cannot wait for it."""
        for call in tuple(self._line):
            if wait > self._patience(call, now):
                self._line.remove(call)
                self._refuse(call, "rate", wait)

    def _give(self, tokens: int, requests: int, now: float) -> None:
        """Correct what a call paid: give back so much; if it is below 0, take more, which later calls pay."""
        if not tokens and not requests:
            return
        self._turns.give(now, self._worth, tokens, requests)
        if not self._by_itself and self._quota is not None:
            self._quota.give(self._name, self.limits, tokens, requests)

    def _return_turns(self, now: float) -> None:
        while self._turns.next is not None:
            self._give(self._turns.use().charge, 1, now)

    def _step_at(self, at: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._call_later(at - now, self._step_by_time)

    def _step_by_time(self) -> None:
        self._timer = None
        self.step()
