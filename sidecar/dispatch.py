"""
The attempt loop: which region a call is sent to, and whether to another one after that.

The rule: whether to try again is decided here and nowhere else, and only before the commit point. Every attempt beyond
the first is paid from the service's budget and told with its reason; what is handed back after several attempts doesn't
invite the caller to begin again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from math import inf
from typing import Any, NamedTuple, Protocol

from msgspec import Struct

from sidecar.attempt import Attempts, Client, Credentials, End, Leg, Trip, Try, room_of
from sidecar.commit import COMMIT_BYTES, Committed
from sidecar.core.approach import may_have_tokens
from sidecar.core.breaker import PROBE_PATIENCE, Permit, Refusal, Sign, State, Transition
from sidecar.core.failover import Candidate, arrange, eligible
from sidecar.core.latency import Quantile
from sidecar.core.ledger import Ledger
from sidecar.core.limits import declared_output, estimate
from sidecar.core.memo import Memo
from sidecar.core.regions import Place, Regions
from sidecar.core.rules import Region
from sidecar.core.substitution import deployed, with_model
from sidecar.core.verdict import Verdict
from sidecar.errors import Cause, Refused, UpstreamFailed
from sidecar.net.base import Spool, Stream
from sidecar.rewindable import Rewindable
from sidecar.throttle import Throttle

MOST_ATTEMPTS = 3
"""Regions that one call is sent to, at most."""

PAUSE = 0.5
"""Seconds before the same region is tried again, at most: full jitter (AWS Builders' Library, "Timeouts, retries and
backoff with jitter")."""

LONGEST_PAUSE = 2.0
"""Seconds that a call waits here, at most, for a region that said when it may be asked again."""

PACES = 256
"""Routes whose pace is known for hedging."""

DENIED_PAUSE = 1.0
"""Seconds after which a region that another process probes is asked for again."""

_FULL = frozenset({429, 503, 529})
"""Statuses by which a service says that it has no room."""

_OWN_RETRIES = b"x-stainless-retry-count"  # by which the SDKs of OpenAI and Anthropic tell that they try again


class Sharing(Protocol):
    """What the fleet knows of regions: see ``fleet/regions``."""

    async def claim(self, place: Place, seconds: float) -> bool:
        """Whether this process may probe *place*; nobody else does for so many seconds."""

    def release(self, place: Place) -> None:
        """It has not come to it."""


class Sent(Struct, frozen=True):
    """A call that is being answered. *own*: the caller's own credential has earned the answer."""

    answer: Committed
    region: str
    own: bool = True


class _Pick(NamedTuple):
    """The region that is next. *last*: nobody else is left who would take the call."""

    leg: Leg
    permit: Permit
    last: bool = False


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
        self._sharing = sharing
        self._sleep = sleep
        self._paces: Memo[tuple[str, bool], Quantile] = Memo(PACES)

    def __repr__(self) -> str:
        return f"<Dispatch {self._regions!r}>"

    async def send(self, trip: Trip) -> Sent:
        """
        Send a call to the regions that may take it, one after another, until one answers it; what was tried is in
        ``trip.tries`` then, however it ends. An error that a service answers is an answer.

        Raises ``UpstreamFailed`` where none answered, ``Refused`` where none may be asked or the route's limits leave
        no room, or what a streaming body raises (``ClientGone``, ``Refused``).
        """
        if trip.cause or self._throttle.idle(trip.route):
            return await self._send(trip)
        limits, body = trip.route.limits, trip.body
        size = len(body) if isinstance(body, bytes) else body.size or 0
        tokens = estimate(size, declared_output(body)) if limits.tokens_per_minute else 0
        seat = await self._throttle.enter(trip.route, tokens, deadline=trip.deadline, batch=trip.batch)
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

    async def _send(self, trip: Trip) -> Sent:
        body = trip.body
        rewindable = None
        if not (isinstance(body, bytes) or isinstance(body, Spool)):  # noqa: SIM101  in this order: the second look is slow
            rewindable = Rewindable(body, self._ledger)
        left = self._legs(trip, rewindable or body)
        if not trip.cause:
            self._regions.budget(trip.site.service.name).call(self._clock())
        try:
            end = await self._try(trip, left, rewindable)
        finally:
            if rewindable is not None:
                rewindable.forget()
        if end.answer is None:
            assert end.failure is not None
            raise end.failure
        return Sent(end.answer, end.leg.region.name, end.leg.own)

    async def _try(self, trip: Trip, left: list[Leg], rewindable: Rewindable | None) -> End:
        """Try regions until one has answered, or none is left that would."""
        budget = self._regions.budget(trip.site.service.name)
        first = len(trip.tries)
        best: End | None = None
        wait = 1.0
        cause = trip.cause
        try:
            while True:
                pick = await self._pick(trip, left)
                if isinstance(pick, Refusal):
                    wait = pick.seconds
                    break
                if best is not None and not budget.take(self._clock()):
                    self._give_back(trip, pick)
                    break
                left.remove(pick.leg)
                if best is not None and rewindable is not None and not rewindable.ended:
                    best.close()  # it came early, and its connection would go on taking the body's bytes
                    best = None
                trip.tries.append(Try(pick.leg.region.name, cause))
                end = await self._attempt(trip, pick, left)
                best = _better(best, end)
                cause = end.verdict.cause
                spent = rewindable is not None and rewindable.spent
                if spent or not await self._goes_on(trip, pick, left, end.verdict, len(trip.tries) - first):
                    break
        except BaseException:
            if best is not None:
                best.close()
            raise
        if best is None:
            raise UpstreamFailed(Cause.NO_REGION, sent=False, retry_after=max(wait, 1.0))
        return _final(best, len(trip.tries) - first)

    async def _goes_on(self, trip: Trip, pick: _Pick, left: list[Leg], verdict: Verdict, tried: int) -> bool:
        """
        Whether there is another attempt, after a pause where that is at the same region. The only region is asked again
        once, unless the caller does so by itself.
        """
        if tried >= MOST_ATTEMPTS:
            return False
        if left:
            return verdict.elsewhere and not pick.last and self._is_in_time(trip, 0.0)
        if not verdict.again or tried > 1 or verdict.wait > LONGEST_PAUSE or _OWN_RETRIES in trip.head.fields:
            return False
        pause = max(verdict.wait, PAUSE * self._draw())
        if not self._is_in_time(trip, pause):
            return False
        await self._sleep(pause)
        left.append(pick.leg)
        return True

    def _is_in_time(self, trip: Trip, seconds: float) -> bool:
        """Whether the caller is still there in so many *seconds*."""
        return trip.deadline is None or self._clock() + seconds < trip.deadline

    # ---- who is asked ----

    def _legs(self, trip: Trip, body: bytes | Spool | Stream | Rewindable) -> list[Leg]:
        """The ways to the regions that may take the call, in order. Raises ``Refused`` where there is none."""
        site, allow = trip.site, trip.route.allow
        if len(site.regions) == 1 and not allow:
            region = site.regions[0]
            found: tuple[Candidate, ...] = (Candidate(region, region.credential is None),)
        else:
            found = eligible(site.regions, allow)
            if trip.microsoft and not site.service.dialect.name.startswith("azure-"):
                found = tuple(each for each in found if not each.own or may_have_tokens(each.region))
            if not found:
                raise Refused(
                    403,
                    "no-region-allowed",
                    f"The route {trip.route.name} allows {', '.join(sorted(allow))} only, and no region of "
                    f"{site.service.name} that this caller may use is there; see `allow` and `residency`.",
                )
            if not trip.pinned and len(found) > 1:
                found = arrange(
                    found,
                    balance=site.service.balance,
                    draws=[self._draw() for _ in found],
                    latency=lambda region: self._regions.latency.of(_place(trip, region), self._clock()),
                )
        legs = [leg for candidate in found if (leg := self._leg(trip, candidate, body)) is not None]
        if not legs:
            raise Refused(
                400,
                "cannot-rename",
                f"Every region of {site.service.name} calls this model by a name of its own (`deployments`), and that "
                "can be put only into a path, or into a JSON body that is held in memory and names its model once.",
            )
        return legs

    def _leg(self, trip: Trip, candidate: Candidate, body: bytes | Spool | Stream | Rewindable) -> Leg | None:
        """The way to a region; None where the model's name there cannot be put into the call."""
        region, site = candidate.region, trip.site
        target = site.target
        name = region.deployments.get(trip.model) if trip.model else None
        if name is not None and name != trip.model:
            assert site.endpoint is not None
            if site.endpoint.model:
                renamed = deployed(target, trip.model, name)
                if renamed is None:
                    return None
                target = renamed
            else:
                changed = with_model(body, name) if isinstance(body, bytes) else None
                if changed is None:
                    return None
                body = changed
        return Leg(region, candidate.own, _place(trip, region), target, body)

    async def _pick(self, trip: Trip, left: list[Leg]) -> _Pick | Refusal:
        """
        The first of *left* that takes the call. A region without room, or one that fails, still gets it where nobody
        else is left: it may answer after all, and nothing is lost by asking.
        """
        windows, now = self._regions.windows, self._clock()
        refused: list[tuple[bool, float, Leg]] = []
        for leg in left:
            until = windows.until(room_of(trip, leg), now)
            if until > now:
                refused.append((False, until - now, leg))
                continue
            permit = await self._admit(trip, leg, last=False)
            if not isinstance(permit, Refusal):
                return _Pick(leg, permit)
            refused.append((permit.unanswered, permit.seconds, leg))
        soonest = inf
        for _, seconds, leg in sorted(refused, key=lambda one: one[:2]):
            permit = await self._admit(trip, leg, last=True)
            if not isinstance(permit, Refusal):
                return _Pick(leg, permit, last=True)
            soonest = min(soonest, seconds, permit.seconds)
        return Refusal(soonest)

    async def _admit(self, trip: Trip, leg: Leg, *, last: bool) -> Permit | Refusal:
        """
        Leave of a region's breaker. Whether a probe is ours to send is asked of the fleet where it judges together:
        another process may be at it.
        """
        rule = trip.site.service.breaker
        breaker = self._regions.breaker(leg.place, rule, self._clock())
        before = breaker.state
        permit = breaker.admit(self._clock(), self._draw(), last=last)
        if isinstance(permit, Refusal) or not permit.probe:
            return permit
        if before is State.OPEN:
            self._regions.tell(leg.place, Transition(State.OPEN, State.HALF_OPEN, "probe"))
        if self._sharing is None or not rule.shared:
            return permit
        try:
            mine = await self._sharing.claim(leg.place, max(rule.open, PROBE_PATIENCE))
        except BaseException:
            self._give_back(trip, _Pick(leg, permit))
            raise
        if mine:
            return permit
        breaker.postpone(permit, self._clock(), DENIED_PAUSE)
        return Refusal(DENIED_PAUSE, unanswered=True)

    def _give_back(self, trip: Trip, pick: _Pick) -> None:
        """It has not come to it."""
        self._regions.breaker(pick.leg.place, trip.site.service.breaker, self._clock()).release(pick.permit)
        self._yield_probe(trip, pick)

    def _yield_probe(self, trip: Trip, pick: _Pick) -> None:
        """Let another process probe, where this one was to and has learnt nothing."""
        if pick.permit.probe and self._sharing is not None and trip.site.service.breaker.shared:
            self._sharing.release(pick.leg.place)

    # ---- one attempt, or two in a race ----

    async def _attempt(self, trip: Trip, pick: _Pick, left: list[Leg]) -> End:
        if not trip.route.retry.hedge or isinstance(pick.leg.body, Rewindable):
            return await self._make(trip, pick)
        pace = self._paces.get((trip.route.name, trip.streaming))
        if pace is None:
            pace = Quantile()
            self._paces.put((trip.route.name, trip.streaming), pace)
        self._regions.hedges(trip.site.service.name).call(self._clock())
        began = self._clock()
        after = pace.value
        end = await (self._make(trip, pick) if after is None else self._race(trip, pick, left, after))
        if end.verdict.sign is Sign.GOOD:
            pace.add(self._clock() - began)
        return end

    async def _make(self, trip: Trip, pick: _Pick) -> End:
        rule = trip.site.service.breaker
        breaker = self._regions.breaker(pick.leg.place, rule, self._clock())
        judged = False
        try:
            end = await self._attempts.make(trip, pick.leg, breaker, pick.permit)
            judged = end.verdict.sign is not Sign.NEUTRAL
        finally:
            if not judged:
                self._yield_probe(trip, pick)
        return end

    async def _race(self, trip: Trip, pick: _Pick, left: list[Leg], after: float) -> End:
        """
        An attempt that is made twice where it takes longer than *after* seconds; the first answer counts, and the
        other attempt is cancelled (Dean and Barroso, "The Tail at Scale", 2013).
        """
        race = _Race(self._spawn)
        best: End | None = None
        try:
            try:
                race.enter(self._make(trip, pick))
                best = await race.next(after)
                if best is None and self._regions.hedges(trip.site.service.name).take(self._clock()):
                    await self._hedge(trip, pick, left, race)
                while best is None or (best.verdict.sign is not Sign.GOOD and race.running):
                    end = await race.next(None)
                    assert end is not None
                    best = _better(best, end)
            finally:
                await race.over()
        except BaseException:
            if best is not None:
                best.close()
            raise
        return best

    async def _hedge(self, trip: Trip, pick: _Pick, left: list[Leg], race: _Race) -> None:
        """The second attempt, at another region where there is one; not where only one is left that has trouble."""
        second = await self._pick(trip, left or [pick.leg])
        if isinstance(second, Refusal):
            return
        if second.last or race.won:
            self._give_back(trip, second)
            return
        if second.leg in left:
            left.remove(second.leg)
        trip.tries.append(Try(second.leg.region.name, "hedge"))
        race.enter(self._make(trip, second))


class _Race:
    """Attempts at a time; each ends in one result, and what nobody takes is let go of."""

    def __init__(self, spawn: Callable[..., asyncio.Task[None]]) -> None:
        self._spawn = spawn
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: asyncio.Queue[End | BaseException] = asyncio.Queue()
        self._over = False
        self.running = 0

    @property
    def won(self) -> bool:
        """Whether there is a result that nobody has taken yet."""
        return not self._ends.empty()

    def enter(self, attempt: Coroutine[Any, Any, End]) -> None:
        """One more. Whoever enters it waits for a result next: a task that has not begun cannot clean up."""
        self.running += 1
        self._tasks.add(self._spawn(self._run(attempt), name="attempt"))

    async def next(self, seconds: float | None) -> End | None:
        """The next result; None where there was none for so many *seconds*."""
        try:
            async with asyncio.timeout(seconds):
                end = await self._ends.get()
        except TimeoutError:
            return None
        self.running -= 1
        if isinstance(end, BaseException):
            raise end
        return end

    async def over(self) -> None:
        """Cancel what still runs."""
        self._over = True
        while not self._ends.empty():
            end = self._ends.get_nowait()
            if isinstance(end, End):
                end.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, attempt: Coroutine[Any, Any, End]) -> None:
        try:
            end = await attempt
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  it is raised where the result is waited for
            self._ends.put_nowait(error)
        else:
            if self._over:
                end.close()
            else:
                self._ends.put_nowait(end)


def _place(trip: Trip, region: Region) -> Place:
    return Place(trip.site.service.name, trip.site.resource, region.name)


def _better(one: End | None, other: End) -> End:
    """
    Which of two ends the caller gets: an answer rather than none, one to wait for rather than an error, and either that
    or what holds everywhere rather than what only one region lacks. Of equals the later.
    """
    if one is None:
        return other
    if _rank(other) >= _rank(one):
        one.close()
        return other
    other.close()
    return one


def _rank(end: End) -> int:
    verdict = end.verdict
    if end.answer is None:
        return 0
    if verdict.sign is not Sign.NEUTRAL:
        return 4 if verdict.sign is Sign.GOOD else 1
    return 2 if verdict.elsewhere and not verdict.wait else 3


def _final(end: End, attempts: int) -> End:
    """What is handed back. After several attempts the caller's own would multiply ours, if it is not told."""
    if attempts > 1 and end.verdict.sign in {Sign.ERROR, Sign.UNANSWERED}:
        if end.answer is not None:
            end.answer.discourage()
        elif isinstance(end.failure, UpstreamFailed):
            end.failure.final = True
    return end
