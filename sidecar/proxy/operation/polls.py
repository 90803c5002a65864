"""
The answers to callers that ask about a long-running operation by its id, or erase its result.

The rule: a caller may ask about the operations of its own partition, and learns of others not even that they exist. A
poll waits for the result a few seconds, and gets an answer that SDKs understand; what goes wrong at the service while
the operation runs does not reach it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from msgspec import structs

from sidecar.core.answer.blame import blame_of_answer
from sidecar.core.cache.policy import FAILING
from sidecar.core.cache.purges import Scope, ScopeKind
from sidecar.core.dialect import Endpoint, LongOperation, Poll
from sidecar.core.draft import Draft
from sidecar.core.http.directives import NOTHING_ASKED
from sidecar.core.http.headers import lines, relay
from sidecar.core.model import Entry, Facts, Pairs
from sidecar.core.request.operation import ALONE, LIES, Started, to_entry
from sidecar.core.request.plan import RequestPlan
from sidecar.core.rules import CacheMode, CacheRule, Region, Route
from sidecar.core.site.recognise import Site
from sidecar.errors import Refused, UpstreamFailed
from sidecar.net.base import Exchange, Request, Response
from sidecar.proxy.access import Access
from sidecar.proxy.deliver import Stamp
from sidecar.proxy.flight.flight import Flight
from sidecar.proxy.flight.reader import Reader
from sidecar.proxy.flight.table import Flights
from sidecar.proxy.operation.end import end_of
from sidecar.proxy.operation.follow import Follower, asking, pinned, region_of
from sidecar.proxy.operation.records import OperationRecords
from sidecar.proxy.operation.table import OperationTable
from sidecar.proxy.request import Call, Fetch, scopes_within
from sidecar.store.base import Store
from sidecar.tasks import CONVERTED_IN_LOOP, Spawn, in_thread_if_large
from sidecar.upstream.dispatch import Dispatch

_RETRY: Pairs = ((b"retry-after", b"1"),)
"""Without it, or with 0, one SDK waits 30 s; with a fraction another asks without a pause."""

_LOOK_SECONDS = 1.0
_PIECE = 256 * 1024
_COMPLAINT = 64 * 1024
_NO_CONTENT = 204
_GONE = frozenset({404, 410})
_JSON: Pairs = ((b"content-type", b"application/json; charset=utf-8"),)
_RESULT = b"sidecar; hit; detail=operation-result"
_RUNNING = b"sidecar; detail=operation-running"
_ERASED = b"sidecar; detail=operation-erased"
_DOUBTED = b"sidecar; fwd=request; detail=operation"
_ANSWERED = 200
_UNAVAILABLE = 503


class Polls:
    """
    Answers by what *table* and *records* know. *purge* removes answers from the whole fleet, *spawn* owns tasks; *now*
    is wall-clock seconds, *sleep* pauses a task.
    """

    def __init__(
        self,
        follower: Follower,
        table: OperationTable,
        records: OperationRecords,
        flights: Flights,
        store: Store,
        dispatch: Dispatch,
        access: Access,
        *,
        purge: Callable[[tuple[Scope, ...]], Awaitable[Any]],
        spawn: Spawn,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._follower = follower
        self._table = table
        self._records = records
        self._flights = flights
        self._store = store
        self._dispatch = dispatch
        self._access = access
        self._purge = purge
        self._spawn = spawn
        self._now = now
        self._sleep = sleep

    def __repr__(self) -> str:
        return f"<Polls {self._table!r}>"

    async def find(self, plan: RequestPlan) -> Started | None:
        """
        The operation that a call asks about; None if it is not known here, so that only the service can answer. Raises
        ``Refused`` if it is another caller's.
        """
        site, identities = plan.site, plan.identities
        id_ = _poll_of(site).id.lower()  # a service may take it in any case
        known = self._table.find(id_)
        started = known.started if known is not None else await self._records.find(id_)
        if started is None or (started.service, started.resource) != (site.service.name, site.resource):
            return None
        if started.permits(identities.shared_as(plan, started.share), identities.shared_as(plan, ALONE)):
            return started
        raise _not_found()

    async def answer(self, request: Request, started: Started, draft: Draft, exchange: Exchange) -> RequestPlan | None:
        """
        Answer a call that asks about an operation. Returns a plan if the service itself must answer: with a part of the
        result, or with one that is too large to be kept.
        """
        plan: RequestPlan = request.plan
        region = region_of(plan.site, started.origin)
        poll = _poll_of(plan.site)
        if not self._is_proven(plan, started) and await self._doubt(request, started, region, draft, exchange):
            return None
        if request.head.method == b"DELETE":
            await self._erase(request, started, region, draft, exchange)
            return None
        if started.known and not poll.part and await self._tell(request, started, region, draft, exchange):
            return None
        if region is None:
            return plan
        target = started.origin.target
        if poll.part:
            rest = plan.site.path.rpartition(poll.id)[2]
            target = target.partition(b"?")[0] + rest.encode("latin-1") + b"?" + plan.site.query
        return pinned(plan, region, target)

    # ---- who asks ----

    def _is_proven(self, plan: RequestPlan, started: Started) -> bool:
        """Whether the service is known to accept this caller's credential, as it has that of the operation's call."""
        asker = plan.identities.shared_as(plan, started.share)
        return asker.credential == started.credential or self._access.proven(plan, asker)

    async def _doubt(
        self, request: Request, started: Started, region: Region | None, draft: Draft, exchange: Exchange
    ) -> bool:
        """
        Let the service judge a credential of which nothing is known but what it says of itself: ask it about the
        operation, once. True: the caller is answered, for it was refused or the service could not be asked.
        """
        plan: RequestPlan = request.plan
        if region is None:
            raise _not_found()
        asker = plan.identities.shared_as(plan, started.share)
        endpoint = _starting_endpoint(plan.site, started)
        polls = request.head.method == b"GET" and started.known and not _poll_of(plan.site).part
        try:
            status, pairs, body = await self._ask(b"GET", request, started, region)
        except UpstreamFailed:
            if not polls:
                raise
            status, pairs, body = _UNAVAILABLE, (), b""
        if status in FAILING and polls and endpoint is not None and endpoint.operation is not None:
            self._say_running(started, endpoint.operation, draft, exchange)  # so that it asks again
            return True
        if status != _ANSWERED:  # nothing but an answer about the operation proves that the credential is accepted
            draft.error_origin = blame_of_answer(status, own=True)
            await _respond(exchange, draft, status, pairs, _DOUBTED, body)
            return True
        self._access.accept(plan, asker)
        return False

    # ---- the result ----

    async def _tell(
        self, request: Request, started: Started, region: Region | None, draft: Draft, exchange: Exchange
    ) -> bool:
        """Answer with the result, or that the operation runs. False: only the service can answer."""
        plan: RequestPlan = request.plan
        known = self._table.find(started.id)
        endpoint = _starting_endpoint(plan.site, started)
        if endpoint is None or endpoint.operation is None:
            return False
        operation = endpoint.operation
        flight = known.reader.flight if known is not None and known.reader is not None else None
        if flight is None:
            entry = (known.entry if known is not None else None) or await self._stored(started)
            if entry is not None:
                await self._give(started, operation, entry.status, entry.headers, entry.body, draft, exchange)
                return True
            ended = None
        else:
            ended = await end_of(flight, request)
            if ended is None:
                self._say_running(started, operation, draft, exchange)
                return True
        if ended is None or ended.result is None or ended.result.status >= 300:
            # nobody follows it here, or it failed for whoever did: ask with the credential of this caller
            if region is None:
                return False
            flight = self._resume(request, started, region, endpoint, draft)
            ended = await end_of(flight, request)
            if ended is None:
                self._say_running(started, operation, draft, exchange)
                return True
            if flight.error is not None:
                raise flight.error
        body, result = ended
        if body is None or result is None:
            return False  # too large to be kept
        await self._give(started, operation, result.status, result.pairs, body, draft, exchange)
        return True

    async def _give(
        self,
        started: Started,
        operation: LongOperation,
        status: int,
        pairs: Pairs,
        body: bytes,
        draft: Draft,
        exchange: Exchange,
    ) -> None:
        """Answer with a result, or with what the service says instead of one."""
        if status < 300:
            present = partial(operation.present, body, started.id, _instant(self._now()))
            body = await in_thread_if_large(len(body), CONVERTED_IN_LOOP, present)
        draft.error_origin = blame_of_answer(status, own=True)
        pairs = tuple([pair for pair in pairs if pair[0] != LIES])
        await _respond(exchange, draft, status, pairs, _RESULT, body)
        self._table.fetched(started.id)

    def _say_running(self, started: Started, operation: LongOperation, draft: Draft, exchange: Exchange) -> None:
        body = operation.running(started.id, _instant(started.at))
        draft.status, draft.bytes_out = 200, len(body)
        stamp = Stamp(draft.request_id, _RUNNING)
        pairs = (*_JSON, *_RETRY, *stamp.pairs(), (b"content-length", b"%d" % len(body)))
        exchange.respond(Response(200, lines(pairs), body))

    async def _stored(self, started: Started) -> Entry | None:
        """The result in the store, here or in the fleet."""
        held = self._store.find(started.key)
        entry = held.entry if held is not None else None
        if entry is None:
            fetched = await self._store.fetch(started.key, bool, patience=0.0)
            if fetched.lease is not None:
                fetched.lease.release(failed=False)
            entry = fetched.entry
        return entry

    def _resume(self, request: Request, started: Started, region: Region, endpoint: Endpoint, draft: Draft) -> Flight:
        """Follow the operation here, with the credential of this caller; the result waits for its next poll."""
        fetch = self._fetch(request, started, endpoint, draft)
        known = self._table.find(started.id)
        purged = known is not None and known.purged
        if started.position.incarnation:  # found in the fleet, perhaps after a purge that this process has not seen
            purged = purged or not self._store.purges.allows(started.key, to_entry(started))
        shelf = ("operation", started.service, started.resource, started.origin, fetch.call.principal.credential)
        flight = self._flights.find(shelf)
        if flight is None:
            flight = self._flights.reserve(shelf, generating=False, scopes=partial(scopes_within, fetch))
            self._table.add(started, reader=Reader(flight))
            self._flights.launch(flight, partial(self._follower.resume, fetch, started, region))
            if purged:
                flight.supersede()
        else:
            self._table.add(started, reader=Reader(flight))
        return flight

    def _fetch(self, request: Request, started: Started, endpoint: Endpoint, draft: Draft) -> Fetch:
        """The call that has started the operation, as far as it is recorded, with this caller's credential."""
        plan: RequestPlan = request.plan
        fresh = started.fresh
        rule = CacheRule(
            mode=CacheMode.ALWAYS,
            ttl=fresh.ttl,
            share=started.share,
            stale_while_revalidate=fresh.while_revalidate,
            stale_if_error=fresh.if_error,
        )
        asker = plan.identities.shared_as(plan, started.share)
        call = Call(
            endpoint,
            Facts(model=started.model),
            Route(started.route, cache=rule),
            started.model,
            structs.replace(asker, partition=started.partition),
            fresh,
            started.key,
        )
        plan = structs.replace(plan, asked=NOTHING_ASKED)
        return Fetch(Request(request.head, b"", plan), plan, call, started.key, structs.replace(draft))

    # ---- erasing it ----

    async def _erase(
        self, request: Request, started: Started, region: Region | None, draft: Draft, exchange: Exchange
    ) -> None:
        """
        Remove the result, here, in the fleet and at the service. As long as other callers wait for the result of the
        same operation, they can ask the service for it: it is told when they have it.
        """
        await self._purge((Scope(ScopeKind.KEY, started.key.address.hex()),))
        self._table.drop(started.id)
        await self._records.forget(started.id)
        await self._records.erase_key(started.key)
        if region is not None and self._table.waits(started.origin):
            _ = self._spawn(self._erase_later(request, started, region), name="erase")
        elif region is not None:
            status, pairs, body = await self._ask(b"DELETE", request, started, region)
            if status >= 300 and status not in _GONE:
                draft.error_origin = blame_of_answer(status, own=True)
                await _respond(exchange, draft, status, pairs, _ERASED, body)
                return
        await _respond(exchange, draft, _NO_CONTENT, (), _ERASED, b"")

    async def _ask(self, method: bytes, request: Request, started: Started, region: Region) -> tuple[int, Pairs, bytes]:
        """The service's answer about *started*'s origin, the beginning of its body."""
        plan: RequestPlan = request.plan
        asker = plan.identities.shared_as(plan, started.share)
        outgoing = asking(method, request.head, plan, Route(started.route), asker, started.origin, region)
        sent = await self._dispatch.send(outgoing)
        answer = sent.answer
        try:
            body = b""
            while len(body) < _COMPLAINT and (chunk := await answer.read()):
                body += chunk
        finally:
            answer.close()
        return answer.status, relay(answer.pairs, answer.fields, self._now(), own=sent.own), body

    async def _erase_later(self, request: Request, started: Started, region: Region) -> None:
        """
        Let the service erase it, once no caller waits for the result. Nobody hears if that fails: the service drops
        every result after a day anyway.
        """
        while self._table.waits(started.origin):
            await self._sleep(_LOOK_SECONDS)
        with suppress(UpstreamFailed, Refused):
            await self._ask(b"DELETE", request, started, region)


def _not_found() -> Refused:
    return Refused(404, "operation-not-found", "There is no operation with this id, or its time is over.")


def _poll_of(site: Site) -> Poll:
    assert site.endpoint is not None, "only polls come here"
    assert site.endpoint.poll is not None, "as above"
    return site.endpoint.poll


def _starting_endpoint(site: Site, started: Started) -> Endpoint | None:
    """The endpoint whose call has started the operation."""
    return site.service.dialect.locate(b"POST", started.path)


async def _respond(exchange: Exchange, draft: Draft, status: int, pairs: Pairs, said: bytes, body: bytes) -> None:
    draft.status, draft.bytes_out = status, len(body)
    pairs = (*pairs, *Stamp(draft.request_id, said).pairs())
    if len(body) <= _PIECE:
        exchange.respond(Response(status, lines((*pairs, (b"content-length", b"%d" % len(body)))), body))
        return
    exchange.begin(status, pairs, len(body))
    for start in range(0, len(body), _PIECE):
        await exchange.write(body[start : start + _PIECE])
    exchange.end()


def _instant(at: float) -> str:
    """A time as the services write it (RFC 3339)."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
