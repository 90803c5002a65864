"""
Passing a call through, byte for byte.

The rule: nothing is looked up and nothing is stored. At most the answer is observed, for counting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct

from sidecar.core.answer.blame import blame_of_answer
from sidecar.core.cache.changes import SAFE, target_of
from sidecar.core.cache.observation import Observations, essence
from sidecar.core.cache.policy import FAILING, Reason, form_of
from sidecar.core.dialect import Watch
from sidecar.core.draft import Draft
from sidecar.core.http.headers import relay
from sidecar.core.model import Fields, Head, Outcome
from sidecar.core.request.operation import ACCEPTED
from sidecar.core.request.plan import RequestPlan
from sidecar.core.request.principal import Principal
from sidecar.core.rules import Route
from sidecar.core.site.next_address import through_here
from sidecar.core.site.recognise import Site
from sidecar.errors import Refused, UpstreamFailed
from sidecar.net.base import Exchange, Request
from sidecar.proxy.deliver import Stamp
from sidecar.proxy.operation.accept import Acceptance
from sidecar.proxy.receive import Receiver
from sidecar.proxy.request import Call, book, deadline_of, upstream_call_of
from sidecar.upstream.call import UpstreamCall
from sidecar.upstream.dispatch import Dispatch, Sent
from sidecar.upstream.fallback import Fallback, has_room

_OBSERVED_BYTES = 1024 * 1024


class PassThrough(Struct):
    """
    Where a call's answer is sent, and its ``Cache-Status`` (*status*). *changes*: if the call succeeds, the stored
    answers of these targets are out of date. *id_field* is as in ``Stamp``.
    """

    draft: Draft
    status: bytes
    exchange: Exchange
    changes: tuple[bytes, ...] = ()
    id_field: bytes = b""


class Relay:
    """Sends calls to the service and its answers back. *now* is wall-clock seconds, *clock* monotonic seconds."""

    def __init__(
        self,
        dispatch: Dispatch,
        fallback: Fallback,
        receiver: Receiver,
        acceptance: Acceptance,
        observations: Observations,
        *,
        now: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._dispatch = dispatch
        self._fallback = fallback
        self._receiver = receiver
        self._acceptance = acceptance
        self._observations = observations
        self._now = now
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Relay {self._observations!r}>"

    async def run(
        self, request: Request, call: Call | None, route: Route, principal: Principal, passed: PassThrough
    ) -> None:
        """One call. *call* is None when its body was not read."""
        draft = passed.draft
        deadline = deadline_of(request.head.fields, draft.started)
        outgoing = upstream_call_of(
            request, call, route, principal, body=request.body, attempt_logs=[], deadline=deadline
        )
        watch = call.endpoint.answers.watch() if call is not None and draft.streamed else None
        try:
            sent = await self._send(outgoing, call, principal, passed)
            try:
                if passed.changes and draft.outcome is not Outcome.FALLBACK and 200 <= sent.answer.status < 400:
                    self._receiver.outdate(passed.changes)
                await self._relay_answer(sent, request, route, call, watch, passed)
            finally:
                sent.answer.close()
        except asyncio.CancelledError:
            if watch is None or not watch.ended:
                draft.cause = "client-gone"
            raise

    async def _send(self, outgoing: UpstreamCall, call: Call | None, principal: Principal, passed: PassThrough) -> Sent:
        """A region's answer, or a fallback answer."""
        draft = passed.draft
        try:
            try:
                sent = await self._dispatch.send(outgoing)
            except (UpstreamFailed, Refused) as failure:
                if isinstance(failure, Refused) and failure.status not in FAILING:
                    raise
                found = await self._fall_back(outgoing, call, passed, models=has_room(failure))
                if found is None:
                    raise
                return found
            self._receiver.note(outgoing.site.place, principal, sent, draft)
            if sent.failing:
                try:
                    found = await self._fall_back(outgoing, call, passed)
                except BaseException:
                    sent.answer.close()
                    raise
                if found is not None:
                    sent.answer.close()
                    return found
        finally:
            draft.upstream_seconds = self._clock() - draft.started
            book(outgoing, draft)
        return sent

    async def _fall_back(
        self, outgoing: UpstreamCall, call: Call | None, passed: PassThrough, *, models: bool = True
    ) -> Sent | None:
        if call is None or not outgoing.route.fallback:
            return None
        found = await self._fallback.answer(outgoing, call.endpoint, call.facts.view, models=models)
        if found is None:
            return None
        draft = passed.draft
        draft.outcome, draft.reason = Outcome.FALLBACK, Reason.FALLBACK
        if found.model:
            draft.model, draft.upstream_status = found.model, found.sent.answer.status
        passed.status = b"sidecar; fwd=bypass; detail=fallback"
        return found.sent

    async def _relay_answer(
        self, sent: Sent, request: Request, route: Route, call: Call | None, watch: Watch | None, passed: PassThrough
    ) -> None:
        draft, exchange, answer = passed.draft, passed.exchange, sent.answer
        site = request.plan.site
        fields = await self._begin(sent, request, route, passed)
        observed = call is not None and call.observe and not self._receiver.allowance(call, site, fields).reason
        seen: list[bytes] | None = [] if call is not None and (observed or answer.counts) else None
        while chunk := await self._receiver.read(answer, draft):
            if watch is not None:
                watch.feed(chunk)
                answer.complete = watch.ended
            if draft.began is None and draft.status < 400:
                draft.began = self._clock()
            draft.bytes_out += len(chunk)
            if seen is not None and draft.bytes_out <= _OBSERVED_BYTES:
                seen.append(chunk)
            await exchange.write(chunk)
        exchange.end()
        if seen is None or call is None or draft.status != 200:
            return
        form = form_of(fields)
        if answer.counts and draft.bytes_out <= _OBSERVED_BYTES and b"content-encoding" not in fields:
            answer.tokens = call.endpoint.answers.usage(b"".join(seen), form).total or None
        if observed and call.key is not None:
            said = essence(call.endpoint, b"".join(seen), form)
            draft.observed = self._observations.note(call.key, said)

    async def _begin(self, sent: Sent, request: Request, route: Route, passed: PassThrough) -> Fields:
        answer, draft, head, plan = sent.answer, passed.draft, request.head, request.plan
        site: Site = plan.site
        fields = answer.fields
        written = draft.outcome is Outcome.FALLBACK and not sent.region  # a file, which no model has given
        id_field = passed.id_field if written else b""
        stamp = Stamp(draft.request_id, passed.status, "" if written else draft.model, sent.region, id_field)
        pairs = relay(answer.pairs, fields, self._now(), own=sent.own)
        pairs = through_here(pairs, fields, head, site)
        operation = site.endpoint.operation if site.endpoint is not None else None
        if operation is not None and answer.status == ACCEPTED and len(site.regions) > 1:
            pairs = await self._acceptance.pin(plan, route, sent, head, operation, pairs)
        pairs += stamp.pairs()
        passed.exchange.begin(answer.status, pairs, answer.length)
        draft.status = answer.status
        draft.error_origin = blame_of_answer(answer.status, own=sent.own)
        return fields


def changed_by(plan: RequestPlan, head: Head) -> tuple[bytes, ...]:
    """The targets that a successful call with *head* changes, in each partition of its caller."""
    site = plan.site
    if head.method in SAFE or not site.service.dialect.honours:
        return ()
    partitions = {plan.identities.caller(plan, route).principal.partition for route in site.routes}
    return tuple(target_of(site, partition) for partition in partitions)
