"""
What happens to one request, from its arrival to its record. The module calls this "the line".

The rule: ``core`` takes the decisions and the other modules do the work; this file only connects them. The numbers in
the comments are the twelve steps of a request. ``answer`` serves a hit from memory without a task and without an await.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from msgspec import structs

from sidecar.core.cache.held import Held
from sidecar.core.cache.observation import Observations
from sidecar.core.cache.policy import Refresh, Serve
from sidecar.core.dialect import BodyForm
from sidecar.core.ids import Ids
from sidecar.core.model import Entry, Form, Head, Key, Outcome, Record
from sidecar.core.request.plan import RequestPlan, RequestPlans, VerifyToken
from sidecar.core.request.principal import Accepted
from sidecar.core.rules import Mode, Rules
from sidecar.core.site.recognise import choose_route
from sidecar.errors import Refused, UpstreamFailed
from sidecar.net.base import Admission, Exchange, Pending, Request, Response
from sidecar.proxy.access import Access
from sidecar.proxy.conclude import Conclusion
from sidecar.proxy.deliver import hit, is_as_stored, viewed
from sidecar.proxy.fetch import Fetching
from sidecar.proxy.fill import Origin
from sidecar.proxy.flight.table import Flights
from sidecar.proxy.join import Coalescer
from sidecar.proxy.lookup import CallReader
from sidecar.proxy.operation.parts import LongOperations
from sidecar.proxy.passthrough import PassThrough, Relay, changed_by
from sidecar.proxy.receive import Receiver
from sidecar.proxy.refresh import Refreshes
from sidecar.proxy.request import ANYWAY, Call, Fetch, FetchMode, Missed, deadline_of, draft_of
from sidecar.proxy.wait import Waiting
from sidecar.store.base import Store
from sidecar.tasks import CONVERTED_IN_LOOP, in_thread_if_large
from sidecar.upstream.dispatch import Dispatch
from sidecar.upstream.fallback import Fallback

# Every hit uses these constants, because reading a member from its enumeration takes 60 ns (Python 3.11).
_JSON = BodyForm.JSON
_HIT = Outcome.HIT_MEMORY
_STALE = Outcome.STALE
_SURELY = 5e-324  # the smallest draw there is: with it an early refresh is certain


class Proxy:
    """
    The request handler that the listener calls (``net/base.Application``).

    *now* is wall-clock seconds, *clock* monotonic seconds. *record* gets one record per request, *report* gets bugs.
    *draw* is uniform in (0, 1]. Every request id begins with *instance*. *operations* makes the parts for long-running
    operations.
    """

    def __init__(
        self,
        *,
        plans: RequestPlans,
        secret: bytes,
        store: Store,
        flights: Flights,
        dispatch: Dispatch,
        fallback: Fallback,
        accepted: Accepted,
        observations: Observations,
        operations: Callable[[Receiver, Access], LongOperations],
        record: Callable[[Record], None],
        report: Callable[[BaseException], None],
        now: Callable[[], float],
        clock: Callable[[], float],
        draw: Callable[[], float],
        instance: bytes,
    ) -> None:
        self._lookup = CallReader(plans, secret, report)
        self._store = store
        self._purges = store.purges
        self._flights = flights
        self._access = access = Access(accepted, store, now=now, clock=clock)
        self.ids = Ids(instance)
        self._conclusion = conclusion = Conclusion(self.ids, record=record, report=report, now=now, clock=clock)
        self.refuse = conclusion.refuse
        receiver = Receiver(store, flights, accepted, now=now, clock=clock, report=report)
        self.operations = operations(receiver, access)
        self._origin = Origin(
            dispatch=dispatch,
            fallback=fallback,
            receiver=receiver,
            follower=self.operations.follower,
            store=store,
            access=access,
            now=now,
            clock=clock,
        )
        self._relaying = Relay(
            dispatch, fallback, receiver, self.operations.acceptance, observations, now=now, clock=clock
        )
        self._record = record
        self._now = now
        self._clock = clock
        self._draw = draw
        acceptance = self.operations.acceptance
        self._coalescer = Coalescer(flights, self._origin, access, acceptance, record=record, now=now, clock=clock)
        self._fetching = Fetching(self._origin, access, store, flights, self._refresh_behind, now)
        self._waiting = Waiting(flights, self._origin, second=self._fetching.second, leave=self._coalescer.leave)
        self._origin.lease_wait = plans.rules.lease_wait
        self.refreshes = Refreshes(flights, self._fetching.fly, lambda fetch: conclusion.tell(fetch.draft), clock)
        self._urged: Key | None = None

    def __repr__(self) -> str:
        return f"<Proxy {self.ids.given} requests, {self._flights!r}, {self._lookup!r}>"

    def switch(self, mode: Mode) -> None:
        """New calls follow *mode*; calls under way keep the mode in which they began."""
        self._lookup.switch(mode)

    def adopt(self, rules: Rules, mode: Mode, verify: VerifyToken) -> None:
        """
        New calls follow *rules* in *mode*, and *verify* checks their tokens; calls under way finish on the rules with
        which they began. The listener must forget its heads before the next await.
        """
        self._lookup.adopt(self._lookup.plans.revised(replace(rules, mode=mode), verify))
        self._origin.lease_wait = rules.lease_wait
        self.operations.follower.limit = rules.memory.max_entry_bytes

    def forget_requests(self) -> None:
        """Let go of the heads and bodies of earlier requests. The listener must forget its heads before an await."""
        self._lookup.forget_requests()

    @property
    def deciding_fields(self) -> Mapping[bytes, bool]:
        """See ``Application.deciding_fields``; other rules read other fields."""
        return self._lookup.plans.deciding_fields

    @property
    def splits(self) -> Mapping[str, tuple[str, ...]]:
        """The header fields that make nearly every key unique, by route."""
        return self._lookup.splits

    def key_of(self, head: Head, body: bytes) -> Key | None:
        """The key of a request, or None if it has no key. Raises ``Refused`` if the head is not acceptable."""
        plan = self._lookup.plans.switched(Mode.NORMAL).find(head)  # entries outlast a mode that looks nothing up
        return None if plan.bypass is not None else self._lookup.call(plan, head, body, None).key

    def admit(self, head: Head) -> Admission:
        """Steps 1 and 2; see ``Application.admit``."""
        # 1: the head is read; 2: service, endpoint, routes, and what the head alone rules out
        plan = self._lookup.plans.find(head)
        if plan.bypass is not None and not plan.site.reads:
            return Admission(collect=False, plan=plan)
        endpoint = plan.site.endpoint
        assert endpoint is not None
        content_type = head.fields.get(b"content-type", b"")
        return Admission(True, plan, self._lookup.observer(endpoint, content_type))

    def answer(self, request: Request) -> Response | Pending:
        """Steps 3 to 7; see ``Application.answer``."""
        started = self._clock()
        plan: RequestPlan = request.plan
        body = request.body
        endpoint = plan.site.endpoint
        if endpoint is not None and endpoint.poll is not None:
            return Pending(partial(self._poll, request, started))
        if (plan.bypass is not None and not plan.site.reads) or request.overflowed:
            return Pending(partial(self._relay, request, None, started))
        if isinstance(request.read, Missed):
            return Pending(partial(self._fetch, request, request.read.call, request.read.key, started))
        call: Call = request.read or self._lookup.call(plan, request.head, body, request.observer)
        if call.key is None or call.observe:
            return Pending(partial(self._relay, request, call, started))
        if call.endpoint.operation is not None:
            return Pending(partial(self._fetch, request, call, call.key, started))
        size = len(body) if isinstance(body, bytes) else 0
        held = self._store.find(call.key)
        verdict = None if held is None else self._judge(held, plan, call, call.key, request.head, started)
        answer = None if verdict is None else self._remember(verdict, plan, call, size, started)
        if answer is None:
            return Pending(partial(self._fetch, request, call, call.key, started))
        if isinstance(verdict, Refresh):
            self._refresh(request, call, call.key, verdict.serve.entry)
        return answer

    def try_hit(self, learnt: Any, body: bytes) -> Response | Call | Missed | None:
        """
        Steps 3 to 7 for a request with the same head as an earlier one; see ``Application.try_hit``. Returns the call
        if memory has no answer to it, as ``Missed`` if it has nothing of its key.
        """
        started = self._clock()
        plan: RequestPlan = learnt
        endpoint = plan.site.endpoint
        if endpoint is None or endpoint.body is not _JSON or endpoint.operation is not None:
            return None
        call = self._lookup.call(plan, plan.head, body, None)
        if call.key is None or call.observe:
            return call
        held = self._store.find(call.key)
        if held is None:
            return Missed(call, call.key)
        verdict = self._judge(held, plan, call, call.key, None, started)
        if verdict is None:
            return call
        if isinstance(verdict, Refresh):
            self._urged = call.key
            return call  # a refresh needs the request itself
        return self._remember(verdict, plan, call, len(body), started) or call

    def _remember(
        self, verdict: Serve | Refresh, plan: RequestPlan, call: Call, size: int, started: float
    ) -> Response | None:
        """Step 7: answer from own memory, unless converting takes too long; *size* is the request body's, bytes."""
        found = verdict.serve if isinstance(verdict, Refresh) else verdict
        entry, view = found.entry, call.facts.view
        if len(entry.body) > CONVERTED_IN_LOOP and not is_as_stored(entry, view):
            return None
        body = viewed(entry, call.endpoint, view)
        return None if body is None else self._serve(found, body, plan, call, size, started)

    def _judge(
        self, held: Held, plan: RequestPlan, call: Call, key: Key, head: Head | None, clock: float
    ) -> Serve | Refresh | None:
        """
        How *held*, which memory has of *key*, may serve the call at *clock*, monotonic seconds. If only the deciding
        fields of the request are known, *head* is None; then an entry that depends on other fields does not serve.
        """
        if clock > self._purges.until:
            return None  # this process was paused, and does not yet know the purges of that time
        draw = self._draw() if call.fresh.while_revalidate else 1.0
        if self._urged is not None:  # try_hit has drawn a refresh for this key; now the request is complete
            draw = _SURELY if self._urged == key else draw
            self._urged = None
        entry, fields = held.entry, None if head is None else head.fields
        found = self._access.may_have(plan, call, key, fields, entry, held.time(self._now(), clock), draw=draw)
        if found is not None and (plan.asked.tags or entry.route != call.route.name):
            return found if self._access.note(plan, call, key, entry) else None
        return found  # the entry already has all tags of this call

    def _serve(
        self, verdict: Serve, view: tuple[bytes, Form], plan: RequestPlan, call: Call, size: int, started: float
    ) -> Response:
        entry, request_id = verdict.entry, self.ids.give(call.key)
        body, form = view
        seconds, service = self._clock() - started, plan.site.service
        self._record(
            Record(
                self._now(), request_id, service.name, call.route.name, call.endpoint.name,
                _HIT if verdict.ttl >= 0 else _STALE, entry.status, plan.head.method,
                entry.model, seconds=seconds, bytes_in=size, bytes_out=len(body), usage=entry.usage,
                streamed=call.facts.view.stream, key=call.key.address if call.key is not None else b"",
                first_content_seconds=seconds,
            )
        )  # fmt: skip
        return hit(verdict, body, form, request_id, call.model, id_field=service.dialect.request_id)

    async def _fetch(self, request: Request, call: Call, key: Key, started: float, exchange: Exchange) -> None:
        """Step 8: memory has no answer. This process fetches once for each key; other callers join that fetch."""
        plan: RequestPlan = request.plan
        draft = draft_of(request, call, call.route, Outcome.MISS, self.ids.give(key), self._now(), started)
        fetch = Fetch(request, plan, call, key, draft, deadline_of(request.head.fields, started))
        try:
            if self._clock() > self._purges.until:
                await self._store.catch_up()
            if plan.asked.only_if_cached and not await self._look(fetch, exchange):
                raise Refused(504, "only-if-cached", "The call asked for a stored answer only, and there is none.")  # noqa: TRY301  one place answers errors
            mode: FetchMode | None = None if draft.recorded else FetchMode.COALESCE
            while mode is not None:
                mode = await self._join(fetch, exchange, mode)
        except Exception as error:  # noqa: BLE001  whatever it is, the caller gets an answer or a clean break
            self._conclusion.settle(error, plan, draft, exchange, b"sidecar; fwd=miss")
        finally:
            self._conclusion.tell(draft)

    async def _join(self, fetch: Fetch, exchange: Exchange, mode: FetchMode) -> FetchMode | None:
        """
        Join the key's flight or lead a new one, and deliver its answer. If the answer is not for this caller, return
        the mode in which to fetch instead.
        """
        plan, call, draft = fetch.plan, fetch.call, fetch.draft
        proven = self._access.proven(plan, call.principal)
        # look again: the answer may have been stored between the first look and this task's first step
        found = None if mode in ANYWAY else self._find(fetch)
        if found is not None and await self._reply(fetch, found, exchange):
            return None
        reader, collapsed = self._coalescer.join(fetch, mode, proven=proven)
        readers = [reader]
        try:
            if not collapsed:
                behind = await self._fetching.lead(fetch, reader, mode)
                if behind is not None:
                    return await self._coalescer.serve(fetch, behind, exchange, proven=proven)
            opening = await self._waiting.opening(readers, fetch)
            reader = readers[0]
            collapsed = not reader.owner
            if opening is None:
                late = not reader.released or (reader.together and mode is FetchMode.COALESCE)
                return FetchMode.COALESCE_LATE if late else FetchMode.PRIVATE
            instead = self._coalescer.divert(fetch, opening, collapsed=collapsed, proven=proven)
            if instead is not None:
                return instead
            return await self._coalescer.deliver(fetch, exchange, reader, opening, collapsed=collapsed)
        except asyncio.CancelledError:
            if not reader.satisfied:
                draft.cause = "client-gone"
            raise
        except (UpstreamFailed, Refused) as failure:
            late = fetch.deadline is not None and self._clock() >= fetch.deadline
            if not (collapsed and failure.by_own_deadline) or exchange.started or late:
                raise
            return mode  # another caller had no time left; this one still has
        finally:
            self._coalescer.leave(draft, *readers)

    async def _reply(self, fetch: Fetch, found: Serve | Refresh, exchange: Exchange) -> bool:
        """Answer from memory after all; False if this caller's form of the entry is impossible."""
        call, draft = fetch.call, fetch.draft
        if isinstance(found, Refresh):
            self._refresh(fetch.request, call, fetch.key, found.serve.entry)
            found = found.serve
        if call.endpoint.operation is not None:
            await self._coalescer.promise(fetch, exchange, found, _HIT)
            return True
        entry, view = found.entry, call.facts.view
        size = 0 if is_as_stored(entry, view) else len(entry.body)
        body = await in_thread_if_large(size, CONVERTED_IN_LOOP, viewed, entry, call.endpoint, view)
        if body is None:
            return False
        draft.recorded = True
        exchange.respond(self._serve(found, body, fetch.plan, call, draft.bytes_in, draft.started))
        return True

    async def _look(self, fetch: Fetch, exchange: Exchange) -> bool:
        """Look for an answer in memory and in the fleet's store, but do not call the service."""
        found = self._find(fetch)
        if found is None:
            fetched = await self._origin.look(fetch, patience=0.0)
            if fetched.lease is not None:
                fetched.lease.release(failed=False)
            found = self._find(fetch)
        return found is not None and await self._reply(fetch, found, exchange)

    def _find(self, fetch: Fetch) -> Serve | Refresh | None:
        """Look for an answer in own memory."""
        held, head = self._store.find(fetch.key), fetch.request.head
        return None if held is None else self._judge(held, fetch.plan, fetch.call, fetch.key, head, self._clock())

    def _refresh_behind(self, fetch: Fetch, known: Entry) -> None:
        self._refresh(fetch.request, fetch.call, fetch.key, known)

    def _refresh(self, request: Request, call: Call, key: Key, known: Entry) -> None:
        """Fetch a newer answer than *known*, for later callers."""
        draft = draft_of(request, call, call.route, Outcome.REFRESH, self.ids.give(), self._now(), self._clock())
        self.refreshes.begin(Fetch(request, request.plan, call, key, draft, known=known))

    async def _poll(self, request: Request, started: float, exchange: Exchange) -> None:
        """Answer a call that asks about an operation; if only the service can answer it, pass it through."""
        plan: RequestPlan = request.plan
        route = choose_route(plan.site, request.head.fields, "")
        draft = draft_of(request, None, route, Outcome.POLL, self.ids.give(), self._now(), started)
        draft.reason = ""
        instead: RequestPlan | None = plan
        try:
            operation = await self.operations.polls.find(plan)
            if operation is not None:
                instead = await self.operations.polls.answer(request, operation, draft, exchange)
        except Exception as error:  # noqa: BLE001  as in _fetch
            instead = None
            self._conclusion.settle(error, plan, draft, exchange, b"sidecar; detail=operation")
        finally:
            draft.recorded = instead is not None
            self._conclusion.tell(draft)
        if instead is not None:
            await self._relay(structs.replace(request, plan=instead), None, started, exchange)

    async def _relay(self, request: Request, call: Call | None, started: float, exchange: Exchange) -> None:
        """Step 10 alone: pass a call through, byte for byte. *call* is None when its body was not read."""
        plan: RequestPlan = request.plan
        site, head = plan.site, request.head
        route = call.route if call is not None else choose_route(site, head.fields, "")
        draft = draft_of(request, call, route, Outcome.BYPASS, self.ids.give(), self._now(), started)
        status = b"sidecar; fwd=bypass; detail=%b" % draft.reason.encode("ascii")
        try:
            if plan.asked.only_if_cached:
                raise Refused(504, "only-if-cached", "The call asked for a stored answer; this kind is never stored.")  # noqa: TRY301  as in _fetch
            principal = plan.identities.caller(plan, route).principal
            id_field = site.service.dialect.request_id
            passed = PassThrough(draft, status, exchange, changed_by(plan, head), id_field)
            await self._relaying.run(request, call, route, principal, passed)
        except Exception as error:  # noqa: BLE001  as in _fetch
            self._conclusion.settle(error, plan, draft, exchange, status)
        finally:
            self._conclusion.tell(draft)
