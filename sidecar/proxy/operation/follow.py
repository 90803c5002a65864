"""
Following an operation at its service until it has a result.

The rule: it is polled at the region that has started it, at the pace that the service asks for. What is wrong with a
single poll (429, 5xx, a broken connection) is nobody's business: the next poll follows. The flight gets the body of the
last poll, and the answer's head says what that poll said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from msgspec import structs

from sidecar.core.cache.policy import FAILING
from sidecar.core.dialect import Progress
from sidecar.core.http.headers import fields_of, relay, replay, retry_fields
from sidecar.core.http.retry_after import seconds_to_wait, waits
from sidecar.core.model import MOST_TAGS, Fields, Form, Head, Pairs
from sidecar.core.request.operation import ACCEPTED, ALONE, LIES, OperationOrigin, Started, origin_of
from sidecar.core.request.plan import RequestPlan
from sidecar.core.request.principal import Principal
from sidecar.core.rules import NO_LIMITS, Region, RetryRule, Route
from sidecar.core.site.recognise import Site
from sidecar.errors import Cause, Refused, UpstreamFailed
from sidecar.net.base import Request
from sidecar.proxy.access import Access
from sidecar.proxy.flight.flight import Flight
from sidecar.proxy.flight.opening import Opening
from sidecar.proxy.operation.records import OperationRecords
from sidecar.proxy.receive import Receiver
from sidecar.proxy.request import Fetch, booked, let_go, tags_of, upstream_call_of
from sidecar.store.base import Store
from sidecar.tasks import SCANNED_IN_LOOP, in_thread_if_large
from sidecar.upstream.call import UpstreamCall
from sidecar.upstream.commit import COMPLAINT_BYTES, COMPLAINT_SECONDS, CommittedResponse
from sidecar.upstream.dispatch import Dispatch, Sent

PACE_SECONDS = 1.0
"""Between two polls where the service does not say."""

LONGEST_PAUSE = 30.0
"""Between two polls, at most, whatever the service says or how often polls have failed."""

FOLLOWED_SECONDS = 3600.0
"""An operation is followed for so long; later polls of its callers follow it anew."""

UNREADABLE_POLLS = 5
"""So many polls in a row may have an answer that cannot be read."""

ANSWERED = 200
REQUEST_TIMEOUT = 408

_OF_THE_BODY = frozenset({b"content-type", b"content-length", b"content-encoding", b"transfer-encoding", b"expect"})


class Polled(NamedTuple):
    """
    The answer to one poll. *body* is None where it is too large to be kept. *progress* is what it says of the
    operation; *wait* for how many seconds the service asks, None if it does not say. *own* as in ``Sent``.
    """

    status: int
    fields: Fields
    pairs: Pairs
    body: bytes | None
    progress: Progress
    wait: float | None
    own: bool


class Follower:
    """
    Follows operations through *dispatch*; *receiver* stores their results in *store*, and *records* tells the fleet.
    *now* is wall-clock seconds, *clock* monotonic seconds; *limit* is the largest result that is kept, bytes.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        receiver: Receiver,
        store: Store,
        records: OperationRecords,
        access: Access,
        *,
        now: Callable[[], float],
        clock: Callable[[], float],
        limit: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._dispatch = dispatch
        self._receiver = receiver
        self._store = store
        self._records = records
        self._access = access
        self._now = now
        self._clock = clock
        self._sleep = sleep
        self.limit = limit

    def __repr__(self) -> str:
        return f"<Follower {self._dispatch!r}>"

    async def begin(self, fetch: Fetch, flight: Flight, sent: Sent) -> bool:
        """
        The service has answered a call: if that has started an operation, tell the callers, and follow it. False: the
        answer is an ordinary one.
        """
        answer, site, operation = sent.answer, fetch.plan.site, fetch.call.endpoint.operation
        if operation is None or answer.status != ACCEPTED:
            return False
        region = next(region for region in site.regions if region.name == sent.region)
        origin = origin_of(answer.fields, region, operation, site.path, site.query)
        if origin is None:
            flight.release(lambda _: False)  # whatever has been accepted is its caller's own
            return False
        await _read_out(answer)
        let_go(fetch, flight)
        pairs = relay(answer.pairs, answer.fields, self._now(), own=sent.own)
        started = self.started(fetch, origin.id, origin, flight)
        announced = not fetch.call.principal.local and await self._records.announce(started)
        flight.open(_opening(started, pairs))
        if announced:
            flight.judged(None)  # callers in other processes join the operation now
        await self._follow(fetch, flight, origin, region, announced=announced, own=sent.own)
        return True

    async def join(self, fetch: Fetch, flight: Flight) -> bool:
        """Follow the operation that another process has started for this key. False: there is none."""
        principal, site = fetch.call.principal, fetch.plan.site
        asks_anew = fetch.known is not None or fetch.plan.asked.no_cache
        if fetch.call.endpoint.operation is None or asks_anew or principal.local:
            return False
        if not self._access.proven(fetch.plan, principal):
            return False
        running = await self._records.running(fetch.key)
        region = None if running is None else region_of(site, running.origin)
        if running is None or region is None:
            return False
        try:
            first = await self._poll(fetch, running.origin, region)
        except Refused:
            return False  # this caller's route does not allow that region
        if first is not None and (first.status >= 300 or first.progress is Progress.FAILED):
            await self._records.ended(fetch.key, stored=False)
            return False
        let_go(fetch, flight)
        flight.open(_opening(running, joined=True))
        flight.judged(None)
        await self._follow(fetch, flight, running.origin, region, first=first, announced=True)
        return True

    async def resume(self, fetch: Fetch, started: Started, region: Region, flight: Flight) -> None:
        """Follow an operation of which this process knows nothing but what was recorded."""
        flight.position = started.position
        flight.tags.update(started.tags)
        flight.open(_opening(started))
        await self._follow(fetch, flight, started.origin, region, announced=started.known)

    def started(self, fetch: Fetch, id_: str, origin: OperationOrigin, flight: Flight | None = None) -> Started:
        """What must be known of the operation that *fetch* has started or joined, under *id_*."""
        call, plan = fetch.call, fetch.plan
        site, principal = plan.site, call.principal
        tags = (*tags_of(call, plan), *(() if flight is None else sorted(flight.tags)))
        return Started(
            id=id_,
            key=fetch.key,
            partition=principal.partition,
            owner=plan.identities.shared_as(plan, ALONE).partition,
            share=call.route.cache.share,
            service=site.service.name,
            resource=site.resource,
            path=site.path,
            query=site.query,
            route=call.route.name,
            model=call.model,
            origin=origin,
            at=self._now(),
            fresh=call.fresh,
            credential=principal.credential,
            tags=tuple(dict.fromkeys(tags))[:MOST_TAGS],
            position=self._store.purges.position if flight is None else flight.position,
        )

    async def _follow(
        self,
        fetch: Fetch,
        flight: Flight,
        origin: OperationOrigin,
        region: Region,
        *,
        first: Polled | None = None,
        announced: bool = False,
        own: bool = True,
    ) -> None:
        """Poll until the operation has ended; put the last poll's body into the flight, and store it if it may be."""
        polled = await self._until_ended(fetch, origin, region, first)
        booked(fetch, flight).region = region.name
        flight.result = result = _result(polled, origin, self._now())
        kept = False
        if polled.body is None:
            flight.outgrow()
        else:
            flight.fill(polled.body)
            if polled.status == ANSWERED and polled.progress is not Progress.UNKNOWN:
                kept = await self._receiver.keep(fetch, flight, result, polled.fields, own=own and polled.own)
        if kept and flight.kept is not None and not fetch.call.principal.local:
            self._store.share(fetch.key, flight.kept)
        if announced:
            await self._records.ended(fetch.key, stored=kept)

    async def _until_ended(self, fetch: Fetch, origin: OperationOrigin, region: Region, first: Polled | None) -> Polled:
        """The answer to the last poll. Raises ``UpstreamFailed`` if the operation has not ended in an hour."""
        until = self._clock() + FOLLOWED_SECONDS
        polled, failed, unreadable = first, 0, 0
        if polled is None:
            polled = await self._poll(fetch, origin, region)
        while True:
            if polled is None:
                failed += 1
                pause = PACE_SECONDS * 2 ** min(failed - 1, 5)
            else:
                unreadable = unreadable + 1 if polled.progress is Progress.UNKNOWN else 0
                is_running = polled.progress is Progress.RUNNING or 0 < unreadable < UNREADABLE_POLLS
                if polled.status >= 300 or not is_running:
                    return polled
                failed, pause = 0, PACE_SECONDS if polled.wait is None else polled.wait
            if self._clock() >= until:
                raise UpstreamFailed(Cause.FIRST_BYTE_TIMEOUT, "the operation has not ended in an hour")
            await self._sleep(min(max(pause, PACE_SECONDS), LONGEST_PAUSE))
            polled = await self._poll(fetch, origin, region)

    async def _poll(self, fetch: Fetch, origin: OperationOrigin, region: Region) -> Polled | None:
        """One poll; None if it has failed in a way that passes. Raises ``Refused`` if the route forbids *region*."""
        operation = fetch.call.endpoint.operation
        assert operation is not None, "only operations are followed"
        try:
            call, head = fetch.call, fetch.request.head
            question = asking(b"GET", head, fetch.plan, call.route, call.principal, origin, region)
            sent = await self._dispatch.send(question)
        except UpstreamFailed:
            return None
        answer = sent.answer
        try:
            status, fields = answer.status, answer.fields
            body = await self._read(answer)
        except UpstreamFailed:
            return None
        finally:
            answer.close()
        if status < 400:
            wait = min(waits(fields, self._now()).values(), default=None)  # other fields speak of limits
        else:
            wait = seconds_to_wait(fields, body or b"", self._now())
        if status in FAILING or status == REQUEST_TIMEOUT:
            return Polled(
                ACCEPTED, fields, answer.pairs, b"", Progress.RUNNING, max(wait or 0.0, PACE_SECONDS), sent.own
            )
        progress = Progress.UNKNOWN
        if body is None:
            progress = Progress.SUCCEEDED  # nothing but a result is so large
        elif status < 300:
            progress = await in_thread_if_large(len(body), SCANNED_IN_LOOP, operation.progress, body)
            if status == ACCEPTED and progress is Progress.UNKNOWN:
                progress = Progress.RUNNING
        return Polled(status, fields, answer.pairs, body, progress, wait, sent.own)

    async def _read(self, answer: CommittedResponse) -> bytes | None:
        """The body of a poll's answer; None if it is larger than any entry."""
        chunks: list[bytes] = []
        size = answer.length or 0
        while size <= self.limit and (chunk := await answer.read()):
            chunks.append(chunk)
            size = max(size, sum(map(len, chunks)))
        return b"".join(chunks) if size <= self.limit else None


def region_of(site: Site, origin: OperationOrigin) -> Region | None:
    """The region of *site* at which an operation runs; None if the rules do not have it any more."""
    return next((region for region in site.regions if region.name == origin.region), None)


def pinned(plan: RequestPlan, region: Region, target: bytes) -> RequestPlan:
    """*plan* with nothing but *target* at *region* to go to."""
    path, _, query = target.partition(b"?")
    site = structs.replace(
        plan.site, target=target, path=path.decode("latin-1"), query=query, regions=(region,), reads=False
    )
    return structs.replace(plan, site=site)


def asking(
    method: bytes,
    head: Head,
    plan: RequestPlan,
    route: Route,
    principal: Principal,
    origin: OperationOrigin,
    region: Region,
) -> UpstreamCall:
    """A call about an operation, with the credential and the other fields of *head*, whose body it does not have."""
    pairs = tuple([pair for pair in head.pairs if pair[0].lower() not in _OF_THE_BODY])
    question = Head(method, origin.target, head.minor, pairs, fields_of(pairs), head.port)
    request = Request(question, b"", pinned(plan, region, origin.target))
    # the limits and the usual time of a route are about the calls that do its work
    route = replace(route, name=f"{route.name} polls", limits=NO_LIMITS, retry=RetryRule(), fallback=())
    outgoing = upstream_call_of(request, None, route, principal, body=b"", attempt_logs=[], deadline=None, shared=True)
    return structs.replace(outgoing, model="", identity=True)


async def _read_out(answer: CommittedResponse) -> None:
    """
    Read the rest of an answer whose head says all, so that its connection can be used again. If it breaks off, is long
    or comes slowly, the operation has been accepted all the same.
    """
    size = 0
    try:
        with suppress(TimeoutError, UpstreamFailed):
            async with asyncio.timeout(COMPLAINT_SECONDS):
                while size <= COMPLAINT_BYTES and (chunk := await answer.read()):
                    size += len(chunk)
    finally:
        answer.close()


def _opening(started: Started, pairs: Pairs = (), *, joined: bool = False) -> Opening:
    region = started.origin.region
    return Opening(ACCEPTED, pairs, (), Form.WHOLE, region=region, started=started, joined=joined)


def _result(polled: Polled, origin: OperationOrigin, now: float) -> Opening:
    """The head of the last poll, for every caller; a stored one also says where the service has the result."""
    shared = replay(polled.pairs, polled.fields)
    if polled.status >= 400:
        shared += retry_fields(polled.fields, now)
    return Opening(polled.status, shared, (*shared, (LIES, origin.target)), Form.WHOLE, region=origin.region)
