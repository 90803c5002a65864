"""
The attempt loop: which region a call is sent to, and whether to another one after that.

The rule: whether to try again is decided here and nowhere else, and only before the commit point. Every attempt beyond
the first is paid from the service's budget and told with its reason; what is handed back after several attempts doesn't
invite the caller to begin again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from msgspec import Struct, structs

from sidecar.attempt import TICK, Attempts, Client, Credentials, End, Leg, Trip, Try
from sidecar.candidates import Candidates, Nobody, Pick, Sharing
from sidecar.commit import COMMIT_BYTES, Committed
from sidecar.core.breaker import Sign
from sidecar.core.latency import Paces
from sidecar.core.ledger import Ledger
from sidecar.core.limits import declared_output, estimate
from sidecar.core.policy import FAILING
from sidecar.core.regions import Place, Regions
from sidecar.ends import better, down, final, is_definite
from sidecar.errors import Cause, UpstreamFailed
from sidecar.net.base import Spool
from sidecar.race import Race
from sidecar.rewindable import Rewindable
from sidecar.throttle import Throttle

MOST_ATTEMPTS = 3
"""Regions that one call is sent to, at most."""

PAUSE = 0.5
"""Seconds before the same region is tried again, at most: full jitter (AWS Builders' Library, "Timeouts, retries and
backoff with jitter")."""

LONGEST_PAUSE = 2.0
"""Seconds that a call waits here, at most, for a region that said when it may be asked again."""

FALLBACK = "fallback"
"""The cause of a stand-in's call: what it stands in for has been let in already, and may still be there."""

SECOND = "second-leader"
"""The cause of a call beside another for the same answer, which shows no sign of life."""

_FULL = frozenset({429, 503, 529})
"""Statuses by which a service says that it has no room."""

_PERSONAL = frozenset({"unauthorized", "quota", "exhausted"})
_SAME = frozenset({"reconnect", "unauthorized"})
"""Causes of tries that go on with an attempt."""

OWN_RETRIES = b"x-stainless-retry-count"
"""The field by which the SDKs of OpenAI and Anthropic tell that they try again by themselves."""


class Sent(Struct, frozen=True):
    """
    A call that is being answered. *own*: the caller's own credential has earned the answer. *good*: it is none that
    says no, by its status or in a stream's first event; *failing*: it says that no answer can be had now; *personal*:
    it says so of the credential, and nothing of what others may have. *final*: there was more than one attempt, so that
    the caller should make none if it comes to nothing.
    """

    answer: Committed
    region: str
    own: bool = True
    good: bool = True
    failing: bool = False
    personal: bool = False
    final: bool = False


class Dispatch:
    """
    Sends calls through *client*. *ledger* counts what is kept for a second try, *spawn* owns tasks; *now* is
    wall-clock seconds, *clock* monotonic seconds, *draw* uniform in [0, 1). *sharing* is None where there is no fleet.
    """

    def __init__(
        self,
        client: Client,
        credentials: Credentials,
        regions: Regions,
        ledger: Ledger,
        *,
        spawn: Callable[..., asyncio.Task[None]],
        now: Callable[[], float],
        clock: Callable[[], float],
        draw: Callable[[], float],
        throttle: Throttle,
        most: int = COMMIT_BYTES,
        sharing: Sharing | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._attempts = Attempts(client, credentials, regions, ledger, now=now, clock=clock, draw=draw, most=most)
        self._regions = regions
        self._ledger = ledger
        self._spawn = spawn
        self._clock = clock
        self._draw = draw
        self._throttle = throttle
        self._candidates = Candidates(regions, clock=clock, draw=draw, sharing=sharing)
        self._sleep = sleep
        self.paces = Paces()

    def __repr__(self) -> str:
        return f"<Dispatch {self._regions!r}>"

    async def send(self, trip: Trip) -> Sent:
        """
        Send a call to the regions that may take it, one after another, until one answers it; what was tried is in
        ``trip.tries`` then, however it ends. An error that a service answers is an answer.

        Raises ``UpstreamFailed`` where none answered, ``Refused`` where none may be asked or the route's limits leave
        no room, or what a streaming body raises (``ClientGone``, ``Refused``).
        """
        if trip.cause == FALLBACK or self._throttle.idle(trip.route):
            return await self._send(trip)
        limits, body = trip.route.limits, trip.body
        size = len(body) if isinstance(body, bytes) else body.size or 0
        tokens = estimate(size, declared_output(body)) if limits.tokens_per_minute else 0
        deadline = None if trip.deadline is None else trip.deadline - 2 * TICK  # so that this is what it is told
        seat = await self._throttle.enter(trip.route, tokens, deadline=deadline, batch=trip.batch)
        began = self._clock()
        try:
            sent = await self._send(trip)
        except BaseException as error:
            seconds = self._clock() - began if isinstance(error, UpstreamFailed) else None
            seat.leave(tokens=0, throttled=False, seconds=seconds)
            raise
        status, seconds = sent.answer.status, self._clock() - began
        sent.answer.counts = status < 400 and limits.tokens_per_minute > 0

        def leave(answer: Committed) -> None:
            seat.leave(tokens=answer.tokens if status < 400 else 0, throttled=status in _FULL, seconds=seconds)

        sent.answer.on_close = leave
        return sent

    def spares(self, service: str) -> bool:
        """Whether there is an extra attempt left for a call to *service*."""
        return self._regions.budget(service).left(self._clock()) >= 1.0

    def take(self, service: str) -> bool:
        """Take an extra attempt for a call to *service*. False: there is none, and it must not be made."""
        return self._regions.budget(service).take(self._clock())

    async def _send(self, trip: Trip) -> Sent:
        body = trip.body
        rewindable = None
        if not (isinstance(body, bytes) or isinstance(body, Spool)):  # noqa: SIM101  in this order: the second look is slow
            rewindable = Rewindable(body, self._ledger)
        left = self._candidates.legs(trip, rewindable or body)
        if not trip.cause:
            self._regions.budget(trip.site.service.name).call(self._clock())
        first = len(trip.tries)
        try:
            end = await self._try(trip, left, rewindable)
        finally:
            if rewindable is not None:
                rewindable.forget()
        if end.answer is None:
            assert end.failure is not None
            raise end.failure
        verdict, status = end.verdict, end.answer.status
        failing = status in FAILING or (status < 400 and (verdict.sign is Sign.ERROR or verdict.window > 0.0))
        personal = verdict.window > 0.0 or verdict.cause in _PERSONAL
        return Sent(
            end.answer,
            end.leg.region.name,
            end.leg.own,
            good=verdict.sign is Sign.GOOD,
            failing=failing,
            personal=personal,
            final=_attempts(trip, first) > 1,
        )

    async def _try(self, trip: Trip, left: list[Leg], rewindable: Rewindable | None) -> End:
        """Try regions until one has answered, or none is left that would."""
        budget = self._regions.budget(trip.site.service.name)
        first, sole = len(trip.tries), len(left) == 1
        best: End | None = None
        places = [leg.place for leg in left]
        nobody, over = None, False  # over: no other region takes it now
        cause = trip.cause
        try:
            while True:
                self._check_time(trip, best)
                pick = await self._candidates.pick(trip, left, sole=sole)
                if isinstance(pick, Nobody):
                    nobody, over = pick, True
                    break
                if best is not None and not budget.take(self._clock()):
                    self._candidates.give_back(trip, pick)
                    over = True
                    break
                left.remove(pick.leg)
                over = pick.last
                trip.tries.append(Try(pick.leg.region.name, cause))
                end = await self._attempt(trip, pick, left)
                best = better(best, end)
                cause = end.verdict.cause
                if _is_bound(rewindable, end) or not await self._goes_on(trip, pick, left, end, _attempts(trip, first)):
                    break
        except BaseException:
            if best is not None:
                best.close()
            raise
        if best is None:
            assert nobody is not None, "who is not refused has tried"
            raise UpstreamFailed(Cause.NO_REGION, nobody.why, sent=False, retry_after=max(nobody.seconds, 1.0))
        attempts = _attempts(trip, first)
        if sole and not self._regions.breaker(best.leg.place, trip.site.service.breaker, self._clock()).gone:
            return final(best, attempts)  # it has failed, not gone: there is no better time to come back
        if best.answer is None and best.verdict.sign is Sign.UNANSWERED and (attempts > 1 or over):
            soonest = self._soonest(trip, places, nobody)
            return structs.replace(best, failure=down(best, soonest, final=attempts > 1))
        return final(best, attempts)

    def _soonest(self, trip: Trip, places: list[Place], nobody: Nobody | None) -> float:
        """In how many seconds one of *places* may take a call again, as far as is known."""
        now, rule = self._clock(), trip.site.service.breaker
        waits = [self._regions.breaker(place, rule, now).remaining(now) for place in places]
        return min([*waits, *([] if nobody is None else [nobody.seconds])])

    async def _goes_on(self, trip: Trip, pick: Pick, left: list[Leg], end: End, tried: int) -> bool:
        """
        Whether there is another attempt, after a pause where that is at the same region. The only region is asked again
        once, unless the caller does so by itself.
        """
        verdict = end.verdict
        if tried >= MOST_ATTEMPTS:
            return False
        if left:
            return verdict.elsewhere and not pick.last and self._is_in_time(trip, 0.0)
        by_itself = OWN_RETRIES in trip.head.fields
        if tried > 1 or by_itself or not verdict.again or verdict.wait > LONGEST_PAUSE or not _is_harmless(trip, end):
            return False
        pause = max(verdict.wait, PAUSE * self._draw())
        if not self._is_in_time(trip, pause):
            return False
        await self._sleep(pause)
        left.append(pick.leg)
        return True

    def _check_time(self, trip: Trip, best: End | None) -> None:
        """Nothing is sent for a caller whose time is over; what there is already is handed back."""
        if best is None and not self._is_in_time(trip, 0.0):
            detail = "the caller's time was over before it was sent"
            failure = UpstreamFailed(Cause.FIRST_BYTE_TIMEOUT, detail, sent=False)
            failure.hasty = True
            raise failure

    def _is_in_time(self, trip: Trip, seconds: float) -> bool:
        """Whether the caller is still there in so many *seconds*."""
        return trip.limit is None or self._clock() + seconds < trip.limit

    # ---- one attempt, or two in a race ----

    async def _attempt(self, trip: Trip, pick: Pick, left: list[Leg]) -> End:
        trip.on_sign()
        if isinstance(pick.leg.body, Rewindable) or trip.creates:
            return await self._make(trip, pick)
        route, after = trip.route, None
        if route.retry.hedge:
            self._regions.hedges(trip.site.service.name).call(self._clock())
            after = self.paces.usual(route.name, streaming=trip.streaming)
        began = self._clock()
        end = await (self._make(trip, pick) if after is None else self._race(trip, pick, left, after))
        if end.verdict.sign is Sign.GOOD:
            self.paces.note(route.name, self._clock() - began, streaming=trip.streaming)
        return end

    async def _make(self, trip: Trip, pick: Pick) -> End:
        rule = trip.site.service.breaker
        breaker = self._regions.breaker(pick.leg.place, rule, self._clock())
        judged = False
        try:
            end = await self._attempts.make(trip, pick.leg, breaker, pick.permit)
            judged = end.verdict.sign is not Sign.NEUTRAL
        finally:
            if not judged:
                self._candidates.yield_probe(trip, pick)
        return end

    async def _race(self, trip: Trip, pick: Pick, left: list[Leg], after: float) -> End:
        """
        An attempt that is made twice where it takes longer than *after* seconds; the first answer counts, and the
        other attempt is cancelled (Dean and Barroso, "The Tail at Scale", 2013).
        """
        race = Race(self._spawn)
        hedge: _Hedge | None = None
        best: End | None = None
        try:
            try:
                race.enter(self._make(trip, pick))
                best = await race.next(after)
                if best is None and self._regions.hedges(trip.site.service.name).take(self._clock()):
                    hedge = _Hedge(trip)
                    await self._hedge(hedge, pick, left, race)
                while best is None or (not is_definite(best) and race.running):
                    end = await race.next(None)
                    assert end is not None
                    best = better(best, end)
            finally:
                await race.over()
                if hedge is not None and not hedge.sent:  # most calls that are late are so by a hair
                    self._regions.hedges(trip.site.service.name).give_back()
                    hedge.forget()
        except BaseException:
            if best is not None:
                best.close()
            raise
        return best

    async def _hedge(self, hedge: _Hedge, pick: Pick, left: list[Leg], race: Race) -> None:
        """The second attempt, at another region where there is one; not where only one is left that has trouble."""
        trip = hedge.trip
        second = await self._candidates.pick(trip, left or [pick.leg])
        if isinstance(second, Nobody):
            return
        if second.last or race.won:
            self._candidates.give_back(trip, second)
            return
        if second.leg in left:
            left.remove(second.leg)
        race.enter(self._make(hedge.begin(second.leg.region.name), second))


class _Hedge:
    """A second attempt of *trip*; it costs something from when it is *sent* on."""

    def __init__(self, trip: Trip) -> None:
        self.trip = trip
        self.sent = False
        self._try: Try | None = None

    def begin(self, region: str) -> Trip:
        """The trip of the attempt."""
        self._try = Try(region, "hedge")
        self.trip.tries.append(self._try)
        return structs.replace(self.trip, on_sent=self._mark)

    def forget(self) -> None:
        """It has not come to it."""
        if self._try is not None:
            self.trip.tries.remove(self._try)

    def _mark(self) -> None:
        self.sent = True
        self.trip.on_sent()


def _attempts(trip: Trip, first: int) -> int:
    """How many attempts there were since the *first*: one that a connection or a credential too old ended is none."""
    return len([one for one in trip.tries[first:] if one.cause not in _SAME])


def _is_bound(rewindable: Rewindable | None, end: End) -> bool:
    """Whether the body has gone to this region alone, or is still going: the connection of an early answer takes on."""
    return rewindable is not None and (rewindable.spent or (end.answer is not None and not rewindable.ended))


def _is_harmless(trip: Trip, end: End) -> bool:
    """Whether the same region may be sent a call once more: it may have done already what the call asks for."""
    if not trip.creates:
        return True
    if end.answer is not None:
        return end.answer.status in _FULL
    return isinstance(end.failure, UpstreamFailed) and not end.failure.sent
