"""
One attempt: send a call to one region, and read the answer up to its commit point.

The rule: an attempt ends in one value: an answer or a failure, with a verdict on the region. Its permit is settled
then; if the attempt was cancelled, the permit is given back. This module does not choose regions or try another one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

from msgspec import Struct, structs

from sidecar.core.http.headers import CREDENTIAL_QUERY, fields_of, forward
from sidecar.core.memory_budget import Ledger
from sidecar.core.model import Pairs
from sidecar.core.region.breaker import Breaker, Permit, Sign, State, Transition
from sidecar.core.region.regions import Place, Regions
from sidecar.core.region.verdict import Verdict, judge_failure
from sidecar.core.request.principal import without_credentials
from sidecar.core.rules import AzureIdentity, StoredCredential, Timeouts
from sidecar.errors import Cause, Refused, UpstreamFailed
from sidecar.net.base import Spool, Stream
from sidecar.upstream.call import AttemptLog, AttemptResult, Hop, UpstreamCall
from sidecar.upstream.commit import Answer, CommittedResponse, commit
from sidecar.upstream.replay import Rewindable

CREDENTIAL_SECONDS = 10.0
"""Seconds a call waits for a credential that must be fetched first."""

TICK = 0.005
"""Seconds that an event loop's timer may be early: the timers of uvloop count in milliseconds."""

CERTAIN_CONNECT = 1.0
"""Seconds: a connection that takes longer shows a fault, even if the caller wanted to wait less."""

PATIENT = 0.9
"""A caller that waits this part of the route's own time is patient; the defaults of the SDKs are about as long."""

NO_CREDENTIAL = Verdict(Sign.NEUTRAL, "no-credential", elsewhere=True)

Stored = StoredCredential | AzureIdentity
Field = tuple[bytes, bytes]


class Client(Protocol):
    """Sends the request; see ``net/outbound/client``."""

    async def send(
        self,
        *,
        method: bytes,
        base: str,
        target: bytes,
        pairs: Pairs,
        body: bytes | Spool | Stream,
        timeouts: Timeouts,
        streaming: bool,
        on_sent: Callable[[], None],
    ) -> Answer:
        """Send a request; returns when the answer's head is known. Raises ``UpstreamFailed``."""


class RegionCredentials(Protocol):
    """Regions' own credentials: see ``identity/credentials``."""

    def field(self, credential: Stored) -> Field | None:
        """The header field to send, or None if it must be fetched first."""

    async def obtain(self, credential: Stored, *, seconds: float) -> Field | None:
        """The same, but wait until it has been fetched."""

    async def renew(self, credential: Stored, used: bytes, *, seconds: float) -> Field | None:
        """Another credential than *used*, which the service refused."""


class _Course(Struct):
    """
    The progress of an attempt. *began*: when its last request began; *connect*: seconds allowed for the connection;
    *sent*: when the whole request had been sent, None before that.
    """

    began: float
    connect: float = float("inf")
    sent: float | None = None

    def begin(self, now: float, connect: float) -> None:
        """A request begins: the first one, or a repeated one."""
        self.began, self.connect, self.sent = now, connect, None


class Attempts:
    """
    Makes attempts. *now* is wall-clock seconds, *clock* monotonic seconds, *draw* uniform in [0, 1). *most* is the
    latest commit point of an answer, bytes.
    """

    def __init__(
        self,
        client: Client,
        credentials: RegionCredentials,
        regions: Regions,
        ledger: Ledger,
        *,
        now: Callable[[], float],
        clock: Callable[[], float],
        draw: Callable[[], float],
        most: int,
    ) -> None:
        self._client = client
        self._credentials = credentials
        self._regions = regions
        self._ledger = ledger
        self._now = now
        self._clock = clock
        self._draw = draw
        self.most = most

    async def make(self, outgoing: UpstreamCall, hop: Hop, breaker: Breaker, permit: Permit) -> AttemptResult:
        """Send *outgoing* to *hop*'s region. Raises the errors of a streaming body (``ClientGone``, ``Refused``)."""
        began = self._clock()
        spent = self._regions.windows.until(hop.room, began) > 0.0
        course = _Course(began)
        try:
            if hop.region.credential is None:
                answer, verdict = await self._send(outgoing, hop, None, course)
                result = AttemptResult(hop, verdict, answer)
            else:
                result = await self._send_with(hop.region.credential, outgoing, hop, course)
        except UpstreamFailed as failure:
            verdict = judge_failure(failure, repeats=outgoing.repeats)
            if outgoing.limit is not None and self._clock() >= outgoing.limit - TICK:
                failure.by_own_deadline = True
                verdict = structs.replace(verdict, elsewhere=False, retry_here=False)
                if not self._has_waited(
                    outgoing, course, failure.cause
                ):  # an impatient caller says nothing about the region
                    verdict = structs.replace(verdict, sign=Sign.NEUTRAL)
            elif failure.cause is Cause.CONNECT_TIMEOUT and course.connect < outgoing.route.timeouts.connect:
                failure.by_own_deadline = True  # other readers of the flight may have more time for a connection
            failure.__traceback__ = None  # its frames would keep each other and their objects in memory
            result = AttemptResult(hop, verdict, failure=failure)
        except BaseException:
            if self._has_waited(outgoing, course, Cause.FIRST_BYTE_TIMEOUT):  # the caller had waited long enough
                changed = breaker.settle(permit, Sign.UNANSWERED, 0.0, self._clock(), self._draw())
                if changed is not None:
                    self._tell(hop.place, changed, f"no whole answer for {self._silence(course):.1f} s")
            else:
                breaker.release(permit)
            raise
        # the caller sets the speed of a body that still arrives
        seconds = self._silence(course) if isinstance(hop.body, Rewindable) else self._clock() - began
        self._settle(result, breaker, permit, seconds, spent=spent)
        return result

    def _has_waited(self, outgoing: UpstreamCall, course: _Course, cause: Cause) -> bool:
        """Whether the region was silent for so long that it is at fault, even if the caller was impatient."""
        if cause is Cause.CONNECT_TIMEOUT:
            return self._clock() - course.began >= PATIENT * min(outgoing.route.timeouts.connect, CERTAIN_CONNECT)
        return self._silence(course) >= PATIENT * _first_byte(outgoing)

    def _silence(self, course: _Course) -> float:
        return 0.0 if course.sent is None else self._clock() - course.sent

    async def _send_with(self, stored: Stored, outgoing: UpstreamCall, hop: Hop, course: _Course) -> AttemptResult:
        """Send it with the region's own credential; with a newer one, if the service refuses that."""
        field = self._credentials.field(stored) or await self._credentials.obtain(stored, seconds=CREDENTIAL_SECONDS)
        if field is None:
            why = f"The credential of region {hop.region.name} cannot be had; see the log."
            return AttemptResult(hop, NO_CREDENTIAL, failure=Refused(503, "no-credential", why))
        answer, verdict = await self._send(outgoing, hop, field, course)
        if verdict.refresh:
            course.sent = None  # the region has answered; now we wait for the credential
            seconds = 0.0 if _is_spent(hop.body) else CREDENTIAL_SECONDS  # 0: only the next call can use it
            try:
                newer = await self._credentials.renew(stored, field[1], seconds=seconds)
            except BaseException:
                answer.close()
                raise
            if newer is not None and _is_kept(hop.body):  # the upload of an early answer went on in the meantime
                answer.close()
                outgoing.attempt_logs.append(AttemptLog(hop.region.name, verdict.cause))
                answer, verdict = await self._send(outgoing, hop, newer, course)
        return AttemptResult(hop, verdict, answer)

    async def _send(
        self, outgoing: UpstreamCall, hop: Hop, field: Field | None, course: _Course
    ) -> tuple[CommittedResponse, Verdict]:
        """Send it. If a reused connection died before any byte of the answer, send it again."""
        head, site = outgoing.head, outgoing.site
        target = hop.target
        if field is not None:
            target = without_credentials(target, CREDENTIAL_QUERY | site.service.dialect.credential_query)
        timeouts, deadline = outgoing.route.timeouts, outgoing.deadline
        if deadline is not None:
            timeouts = self._shortened(timeouts, deadline, shared=outgoing.shared)

        def on_sent() -> None:
            course.sent = self._clock()
            if outgoing.on_sent is not None:
                outgoing.on_sent()

        send = partial(
            self._client.send,
            method=head.method,
            base=hop.region.url,
            target=target,
            pairs=forward(
                head.pairs,
                head.fields,
                identity=outgoing.identity,
                replace=(field,) if field else (),
                scopes=site.service.dialect.scopes,
                credentials=site.service.credential_headers,
            ),
            body=hop.body,
            timeouts=timeouts,
            streaming=outgoing.streaming,
            on_sent=on_sent,
        )
        course.begin(self._clock(), timeouts.connect)
        try:
            return await self._commit(outgoing, await send())
        except UpstreamFailed as failure:
            if not _died_of_age(failure) or _is_spent(hop.body):
                raise
        outgoing.attempt_logs.append(AttemptLog(hop.region.name, "reconnect"))
        course.begin(self._clock(), timeouts.connect)
        return await self._commit(outgoing, await send())

    async def _commit(self, outgoing: UpstreamCall, answer: Answer) -> tuple[CommittedResponse, Verdict]:
        fields = fields_of(answer.pairs)
        if outgoing.on_sign is not None:
            outgoing.on_sign()
        noted = None
        if outgoing.on_head is not None and answer.status < 400:  # an error may still be replaced by an answer
            noted = outgoing.on_head(answer.status, fields)
        endpoint = outgoing.site.endpoint if outgoing.head.method != b"HEAD" else None
        committed, verdict = await commit(
            answer,
            fields,
            endpoint,
            self._ledger,
            self._now(),
            most=self.most,
            judged=outgoing.identity,
            streaming=outgoing.streaming,
            on_sign=outgoing.on_sign,
        )
        committed.noted = noted
        return committed, verdict

    def _shortened(self, timeouts: Timeouts, deadline: float, *, shared: bool) -> Timeouts:
        """*timeouts* for a caller that gives up at *deadline*; *shared* as in ``UpstreamCall``."""
        left = max(deadline - self._clock(), 0.001)
        connect = min(timeouts.connect, left / 2)  # so that another region can be asked in time
        if shared:
            return replace(timeouts, connect=max(connect, min(timeouts.connect, CERTAIN_CONNECT)))
        return replace(
            timeouts,
            connect=connect,
            first_byte=min(timeouts.first_byte, left),
            stream_first_byte=min(timeouts.stream_first_byte, left),
        )

    def _settle(self, result: AttemptResult, breaker: Breaker, permit: Permit, seconds: float, *, spent: bool) -> None:
        """One synchronous step. *spent*: the quota was used up before the call, so an answer shows room."""
        hop, verdict, regions = result.hop, result.verdict, self._regions
        now = self._clock()
        if result.answer is None and verdict.sign is Sign.NEUTRAL:
            breaker.release(permit)
            return
        changed = breaker.settle(permit, verdict.sign, seconds, now, self._draw())
        if changed is not None:
            self._tell(hop.place, changed, _describe(result, seconds))
        if result.answer is None or breaker.retired:
            return
        if verdict.window:
            regions.windows.open(hop.room, now + verdict.window, exhausted=verdict.exhausted)
        if verdict.sign is Sign.GOOD:
            if spent:
                regions.windows.good(hop.room)
            if seconds:  # else it answered before the whole request was sent
                regions.latency.note(hop.place, seconds, now)
        result.answer.on_break = partial(self._broke, hop.place, breaker, permit)

    def _broke(self, place: Place, breaker: Breaker, permit: Permit) -> None:
        changed = breaker.broke(permit, self._clock(), self._draw())
        if changed is not None:
            self._tell(place, changed, "an answer broke after it had begun")

    def _tell(self, place: Place, changed: Transition, detail: str) -> None:
        """Report the change of a breaker's state; *detail* is why the region is not called."""
        if changed.after is State.OPEN:
            changed = structs.replace(changed, detail=detail)
        self._regions.tell(place, changed)


def _first_byte(outgoing: UpstreamCall) -> float:
    timeouts = outgoing.route.timeouts
    return timeouts.stream_first_byte if outgoing.streaming else timeouts.first_byte


def _describe(result: AttemptResult, seconds: float) -> str:
    """How an attempt ended, for people."""
    if result.answer is None:
        return str(result.failure)
    slow = f" after {seconds:.1f} s" if result.verdict.sign is Sign.GOOD else ""
    return f"status {result.answer.status} ({result.verdict.cause}){slow}"


def _is_spent(body: bytes | Spool | Stream | Rewindable) -> bool:
    return isinstance(body, Rewindable) and body.spent


def _is_kept(body: bytes | Spool | Stream | Rewindable) -> bool:
    """Whether the whole body is kept for a resend. The rest of a body that still arrives is not read any more."""
    return not isinstance(body, Rewindable) or (body.ended and not body.spent)


def _died_of_age(failure: UpstreamFailed) -> bool:
    return failure.cause is Cause.DISCONNECTED and failure.reused and not failure.answered
