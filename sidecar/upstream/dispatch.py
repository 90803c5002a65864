"""
The attempt loop: to which region a call is sent, and whether another region is tried after that.

The rule: only this module decides whether to try again, and only before the commit point. Each attempt after the first
costs one unit of the service's budget, and its reason is recorded. After several attempts the result tells the caller
not to try again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

from msgspec import Struct, structs

from sidecar.core.cache.policy import FAILING
from sidecar.core.limits.rates import declared_output, estimate
from sidecar.core.memory_budget import Ledger
from sidecar.core.region.breaker import Sign
from sidecar.core.region.latency import Paces
from sidecar.core.region.regions import Regions
from sidecar.core.region.retry_budget import Budget
from sidecar.errors import Cause, UpstreamFailed
from sidecar.net.base import Stream, is_spool
from sidecar.upstream.attempt import TICK, Attempts, Client, RegionCredentials
from sidecar.upstream.call import AttemptLog, AttemptResult, Hop, UpstreamCall
from sidecar.upstream.candidates import Candidates, Nobody, Pick, Sharing
from sidecar.upstream.commit import COMMIT_BYTES, CommittedResponse
from sidecar.upstream.hedge import Race
from sidecar.upstream.limiter import Throttle
from sidecar.upstream.replay import Rewindable
from sidecar.upstream.results import FULL, better, down, final, is_definite, is_harmless, too_late

MOST_ATTEMPTS = 3
"""Attempts for one call, at most."""

PAUSE = 0.5
"""Seconds before the same region is tried again, at most: full jitter (AWS Builders' Library, "Timeouts, retries and
backoff with jitter")."""

LONGEST_PAUSE = 2.0
"""Seconds that a call waits here, at most, for a region that said when it may be asked again."""

FALLBACK = "fallback"
"""The cause of a fallback's call: the failed call has passed the route's limits, and may still count there."""

SECOND = "second-leader"
"""The cause of a second call for the same answer, sent because the first shows no sign of life."""

_PERSONAL = frozenset({"unauthorized", "quota", "exhausted"})
_SAME = frozenset({"reconnect", "unauthorized"})
"""Causes of tries that belong to the same attempt."""

OWN_RETRIES = b"x-stainless-retry-count"
"""The field that shows that the SDKs of OpenAI and Anthropic retry on their own."""


class Sent(Struct, frozen=True):
    """
    A call and the answer to it. *own*: the answer was given to the caller's own credential. *good*: it is no refusal or
    error, by its status or its first stream event. *failing*: it says that no answer can be had now. *personal*: that
    is true for this credential only; others may get an answer. *final*: there was more than one attempt, so that the
    caller should not try again if this fails.
    """

    answer: CommittedResponse
    region: str
    own: bool = True
    good: bool = True
    failing: bool = False
    personal: bool = False
    final: bool = False


class Dispatch:
    """
    Sends calls through *client*. *ledger* counts the bytes kept for a second try, *spawn* owns tasks; *now* is
    wall-clock seconds, *clock* monotonic seconds, *draw* uniform in [0, 1). *sharing* is None without a fleet.
    """

    def __init__(
        self,
        client: Client,
        credentials: RegionCredentials,
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

    def adopt(self, most: int) -> None:
        """The latest commit point is *most* bytes from now on."""
        self._attempts.most = most

    def send(self, outgoing: UpstreamCall) -> Coroutine[Any, Any, Sent]:
        """
        Send a call to the allowed regions, one after another, until one answers. The attempts are in
        ``outgoing.attempt_logs`` afterwards, in every case. An error that a service answers counts as an answer.

        Raises ``UpstreamFailed`` if no region answered; ``Refused`` if no region is allowed or the route's limits leave
        no room; and the errors of a streaming body (``ClientGone``, ``Refused``).
        """
        if outgoing.cause == FALLBACK or self._throttle.idle(outgoing.route):
            return self._send(outgoing)
        return self._send_in_turn(outgoing)

    async def _send_in_turn(self, outgoing: UpstreamCall) -> Sent:
        """Send a call once the limits of its route have room for it."""
        limits, body = outgoing.route.limits, outgoing.body
        size = len(body) if isinstance(body, bytes) else body.size or 0
        tokens = estimate(size, declared_output(body)) if limits.tokens_per_minute else 0
        deadline = (
            None if outgoing.deadline is None else outgoing.deadline - 2 * TICK
        )  # so that the caller is told of the limit, not of its own deadline
        seat = await self._throttle.enter(outgoing.route, tokens, deadline=deadline, batch=outgoing.batch)
        began = self._clock()
        try:
            sent = await self._send(outgoing)
        except BaseException as error:
            seconds = self._clock() - began if isinstance(error, UpstreamFailed) else None
            seat.leave(tokens=0, throttled=False, seconds=seconds)
            raise
        status, seconds = sent.answer.status, self._clock() - began
        sent.answer.counts = status < 400 and limits.tokens_per_minute > 0

        def leave(answer: CommittedResponse) -> None:
            seat.leave(tokens=answer.tokens if status < 400 else 0, throttled=status in FULL, seconds=seconds)

        sent.answer.on_close = leave
        return sent

    def spares(self, service: str) -> bool:
        """Whether the budget of *service* has an extra attempt left."""
        return self._regions.budget(service).left(self._clock()) >= 1.0

    def take(self, service: str) -> bool:
        """Take an extra attempt from the budget of *service*. False: none is left, so it must not be made."""
        return self._regions.budget(service).take(self._clock())

    async def _send(self, outgoing: UpstreamCall) -> Sent:
        body = outgoing.body
        rewindable = None
        if not (isinstance(body, bytes) or is_spool(body)):
            rewindable = Rewindable(cast("Stream", body), self._ledger)
        left = self._candidates.hops(outgoing, rewindable or body)
        budget = self._regions.budget(outgoing.site.service.name)
        if not outgoing.cause:
            budget.call(self._clock())
        if not self._is_in_time(outgoing, 0.0):
            raise too_late()
        try:
            result, attempts = await self._try(outgoing, left, rewindable, budget)
        finally:
            if rewindable is not None:
                rewindable.forget()
        if result.answer is None:
            assert result.failure is not None
            raise result.failure
        verdict, status = result.verdict, result.answer.status
        failing = status in FAILING or (status < 400 and (verdict.sign is Sign.ERROR or verdict.window > 0.0))
        personal = verdict.window > 0.0 or verdict.cause in _PERSONAL
        return Sent(
            result.answer,
            result.hop.region.name,
            result.hop.own,
            good=verdict.sign is Sign.GOOD,
            failing=failing,
            personal=personal,
            final=attempts > 1,
        )

    async def _try(
        self, outgoing: UpstreamCall, left: list[Hop], rewindable: Rewindable | None, budget: Budget
    ) -> tuple[AttemptResult, int]:
        """Try regions until one has answered, or no region is left that would. Returns the number of attempts, too."""
        first, only_region = len(outgoing.attempt_logs), len(left) == 1
        best: AttemptResult | None = None
        attempts = 0
        hops = tuple(left)
        nobody, over = None, False  # over: no other region accepts the call now
        cause = outgoing.cause
        try:
            while True:
                pick = await self._candidates.pick(outgoing, left, only_region=only_region)
                if isinstance(pick, Nobody):
                    nobody, over = pick, True
                    break
                if best is not None and not budget.take(self._clock()):
                    self._candidates.give_back(outgoing, pick)
                    over = True
                    break
                left.remove(pick.hop)
                over = pick.last
                outgoing.attempt_logs.append(AttemptLog(pick.hop.region.name, cause))
                result = await self._attempt(outgoing, pick, left)
                best = result if best is None else better(best, result)
                logs = outgoing.attempt_logs[first:]
                attempts = 1 if len(logs) == 1 else _attempts(logs)
                verdict = result.verdict
                cause = verdict.cause
                bound = not (verdict.elsewhere or verdict.retry_here) or _is_bound(rewindable, result)
                if bound or not await self._goes_on(outgoing, pick, left, result, attempts):
                    break
        except BaseException:
            if best is not None:
                best.close()
            raise
        if best is None:
            assert nobody is not None, "who is not refused has tried"
            raise UpstreamFailed(Cause.NO_REGION, nobody.why, sent=False, retry_after=max(nobody.seconds, 1.0))
        if best.answer is None and best.verdict.sign is Sign.UNANSWERED and (attempts > 1 or over):
            best = self._down(outgoing, best, hops, nobody, attempts)
        return final(best) if attempts > 1 else best, attempts

    def _down(
        self, outgoing: UpstreamCall, best: AttemptResult, hops: tuple[Hop, ...], nobody: Nobody | None, attempts: int
    ) -> AttemptResult:
        """
        No region of *hops* has answered: say when one of them may accept a call again, as far as is known. But if the
        only region fails and is still called, no later time is better.
        """
        now, rule = self._clock(), outgoing.site.service.breaker
        breakers = [self._regions.breaker(hop.place, rule, now, hop.region.url) for hop in hops]
        if len(hops) == 1 and not breakers[0].gone:
            return best
        waits = [breaker.remaining(now) for breaker in breakers]
        soonest = min([*waits, *([] if nobody is None else [nobody.seconds])])
        return structs.replace(best, failure=down(best, soonest, final=attempts > 1))

    async def _goes_on(
        self, outgoing: UpstreamCall, pick: Pick, left: list[Hop], result: AttemptResult, tried: int
    ) -> bool:
        """
        Whether to make another attempt. Before the same region is tried again, this pauses. If there is only one
        region, it is tried again once, unless the caller retries on its own.
        """
        verdict = result.verdict
        if tried >= MOST_ATTEMPTS:
            return False
        if left:
            return verdict.elsewhere and not pick.last and self._is_in_time(outgoing, 0.0)
        by_itself = OWN_RETRIES in outgoing.head.fields
        if (
            tried > 1
            or by_itself
            or not verdict.retry_here
            or verdict.wait > LONGEST_PAUSE
            or not is_harmless(outgoing, result)
        ):
            return False
        pause = max(verdict.wait, PAUSE * self._draw())
        if not self._is_in_time(outgoing, pause):
            return False
        await self._sleep(pause)
        left.append(pick.hop)
        return True

    def _is_in_time(self, outgoing: UpstreamCall, seconds: float) -> bool:
        """Whether somebody will still wait after so many *seconds*."""
        return outgoing.shared or outgoing.deadline is None or self._clock() + seconds < outgoing.deadline

    # ---- one attempt, or two in a race ----

    async def _attempt(self, outgoing: UpstreamCall, pick: Pick, left: list[Hop]) -> AttemptResult:
        if outgoing.on_sign is not None:
            outgoing.on_sign()
        if isinstance(pick.hop.body, Rewindable) or outgoing.creates:
            return await self._make(outgoing, pick)
        route, after = outgoing.route, None
        if route.retry.hedge:
            self._regions.hedges(outgoing.site.service.name).call(self._clock())
            after = self.paces.usual(route.name, streaming=outgoing.streaming)
        began = self._clock()
        result = await (self._make(outgoing, pick) if after is None else self._race(outgoing, pick, left, after))
        if result.verdict.sign is Sign.GOOD:
            self.paces.note(route.name, self._clock() - began, streaming=outgoing.streaming)
        return result

    def _make(self, outgoing: UpstreamCall, pick: Pick) -> Coroutine[Any, Any, AttemptResult]:
        """One attempt, which may be a probe."""
        if pick.permit.probe:
            return self._probe(outgoing, pick)
        return self._attempts.make(outgoing, pick.hop, pick.breaker, pick.permit)

    async def _probe(self, outgoing: UpstreamCall, pick: Pick) -> AttemptResult:
        judged = False
        try:
            result = await self._attempts.make(outgoing, pick.hop, pick.breaker, pick.permit)
            judged = result.verdict.sign is not Sign.NEUTRAL
        finally:
            if not judged:
                self._candidates.yield_probe(outgoing, pick)
        return result

    async def _race(self, outgoing: UpstreamCall, pick: Pick, left: list[Hop], after: float) -> AttemptResult:
        """
        One attempt, and a second one if it takes longer than *after* seconds. The first answer counts, and the other
        attempt is cancelled (Dean and Barroso, "The Tail at Scale", 2013).
        """
        race = Race(self._spawn)
        hedge: _Hedge | None = None
        best: AttemptResult | None = None
        try:
            try:
                race.enter(self._make(outgoing, pick))
                best = await race.next(after)
                if best is None and self._regions.hedges(outgoing.site.service.name).take(self._clock()):
                    hedge = _Hedge(outgoing)
                    await self._hedge(hedge, pick, left, race)
                while best is None or (not is_definite(best) and race.running):
                    result = await race.next(None)
                    assert result is not None
                    best = better(best, result)
            finally:
                await race.over()
                if hedge is not None and not hedge.sent:  # most late calls end just after that time
                    self._regions.hedges(outgoing.site.service.name).give_back()
                    hedge.forget()
        except BaseException:
            if best is not None:
                best.close()
            raise
        return best

    async def _hedge(self, hedge: _Hedge, pick: Pick, left: list[Hop], race: Race) -> None:
        """Start the second attempt, at another region if there is one; not if the only region left has trouble."""
        outgoing = hedge.outgoing
        second = await self._candidates.pick(outgoing, left or [pick.hop])
        if isinstance(second, Nobody):
            return
        if second.last or race.won:
            self._candidates.give_back(outgoing, second)
            return
        if second.hop in left:
            left.remove(second.hop)
        race.enter(self._make(hedge.begin(second.hop.region.name), second))


class _Hedge:
    """A second attempt of *outgoing*; it costs budget only once it has been *sent*."""

    def __init__(self, outgoing: UpstreamCall) -> None:
        self.outgoing = outgoing
        self.sent = False
        self._try: AttemptLog | None = None

    def begin(self, region: str) -> UpstreamCall:
        """The upstream call for the second attempt, which is added to the log."""
        self._try = AttemptLog(region, "hedge")
        self.outgoing.attempt_logs.append(self._try)
        return structs.replace(self.outgoing, on_sent=self._mark)

    def forget(self) -> None:
        """The second attempt was never sent: remove it from the log."""
        if self._try is not None:
            self.outgoing.attempt_logs.remove(self._try)

    def _mark(self) -> None:
        self.sent = True
        if self.outgoing.on_sent is not None:
            self.outgoing.on_sent()


def _attempts(logs: list[AttemptLog]) -> int:
    """How many attempts were logged. One that was repeated for its old connection or credential counts once."""
    return len([one for one in logs if one.cause not in _SAME])


def _is_bound(rewindable: Rewindable | None, result: AttemptResult) -> bool:
    """Whether no other region can get the body: it is spent, or its upload to this region (early answer) still runs."""
    return rewindable is not None and (rewindable.spent or (result.answer is not None and not rewindable.ended))
