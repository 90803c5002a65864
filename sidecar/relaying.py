"""
Passing a call through, byte for byte.

The rule: nothing is looked up and nothing kept; what goes by is at most watched, to be counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct

from sidecar.attempt import Trip
from sidecar.core.blame import blame_of_answer
from sidecar.core.dialect import Watch
from sidecar.core.draft import Draft
from sidecar.core.headers import relay
from sidecar.core.model import Fields, Outcome
from sidecar.core.observation import Observations, essence
from sidecar.core.policy import FAILING, Reason, form_of
from sidecar.core.principal import Principal
from sidecar.core.recognise import Site
from sidecar.core.rules import Route
from sidecar.delivery import Stamp
from sidecar.dispatch import Dispatch, Sent
from sidecar.errand import Call, book, trip_of
from sidecar.errors import Refused, UpstreamFailed
from sidecar.net.base import Exchange, Request
from sidecar.reception import Reception
from sidecar.standby import Standby, has_room

_OBSERVED_BYTES = 1024 * 1024


class Passage(Struct):
    """
    Where a call's answer goes, and what is said of it: *status* is its ``Cache-Status``. *changes*: the targets of
    which what is kept is out of date once the call has succeeded. *id_field* is as in ``Stamp``.
    """

    draft: Draft
    status: bytes
    exchange: Exchange
    changes: tuple[bytes, ...] = ()
    id_field: bytes = b""


class Relay:
    """Sends calls on and their answers back. *now* is wall-clock seconds, *clock* monotonic seconds."""

    def __init__(
        self,
        dispatch: Dispatch,
        standby: Standby,
        reception: Reception,
        observations: Observations,
        *,
        now: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._dispatch = dispatch
        self._standby = standby
        self._reception = reception
        self._observations = observations
        self._now = now
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Relay {self._observations!r}>"

    async def run(
        self, request: Request, call: Call | None, route: Route, principal: Principal, passage: Passage
    ) -> None:
        """One call. *call* is None when its body was not read."""
        draft = passage.draft
        trip = trip_of(request, call, route, principal, body=request.body, tries=[], started=draft.started)
        watch = call.endpoint.answers.watch() if call is not None and draft.streamed else None
        try:
            sent = await self._send(trip, call, principal, passage)
            try:
                if draft.outcome is not Outcome.FALLBACK and 200 <= sent.answer.status < 400:
                    self._reception.outdate(passage.changes)
                await self._pass_on(sent, trip.site, call, watch, passage)
            finally:
                sent.answer.close()
        except asyncio.CancelledError:
            if watch is None or not watch.ended:
                draft.cause = "client-gone"
            raise

    async def _send(self, trip: Trip, call: Call | None, principal: Principal, passage: Passage) -> Sent:
        """A region's answer, or what stands in for it."""
        draft = passage.draft
        try:
            try:
                sent = await self._dispatch.send(trip)
            except (UpstreamFailed, Refused) as failure:
                if isinstance(failure, Refused) and failure.status not in FAILING:
                    raise
                found = await self._stand_in(trip, call, passage, models=has_room(failure))
                if found is None:
                    raise
                return found
            self._reception.note(trip.site.place, principal, sent, draft)
            if sent.failing:
                try:
                    found = await self._stand_in(trip, call, passage)
                except BaseException:
                    sent.answer.close()
                    raise
                if found is not None:
                    sent.answer.close()
                    return found
        finally:
            draft.upstream_seconds = self._clock() - draft.started
            book(trip, draft)
        return sent

    async def _stand_in(self, trip: Trip, call: Call | None, passage: Passage, *, models: bool = True) -> Sent | None:
        if call is None or not trip.route.fallback:
            return None
        found = await self._standby.stand_in(trip, call.endpoint, call.facts.view, models=models)
        if found is None:
            return None
        draft = passage.draft
        draft.outcome, draft.reason = Outcome.FALLBACK, Reason.FALLBACK
        if found.model:
            draft.model, draft.upstream_status = found.model, found.sent.answer.status
        passage.status = b"sidecar; fwd=bypass; detail=fallback"
        return found.sent

    async def _pass_on(self, sent: Sent, site: Site, call: Call | None, watch: Watch | None, passage: Passage) -> None:
        draft, exchange, answer = passage.draft, passage.exchange, sent.answer
        fields = self._begin(sent, passage)
        observed = call is not None and call.observe and not self._reception.allowance(call, site, fields).reason
        seen: list[bytes] | None = [] if call is not None and (observed or answer.counts) else None
        while chunk := await self._reception.read(answer, draft):
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

    def _begin(self, sent: Sent, passage: Passage) -> Fields:
        answer, draft = sent.answer, passage.draft
        fields = answer.fields
        written = draft.outcome is Outcome.FALLBACK and not sent.region  # a file, which no model has given
        id_field = passage.id_field if written else b""
        stamp = Stamp(draft.request_id, passage.status, "" if written else draft.model, sent.region, id_field)
        pairs = (*relay(answer.pairs, fields, self._now(), own=sent.own), *stamp.pairs())
        passage.exchange.begin(answer.status, pairs, answer.length)
        draft.status = answer.status
        draft.error_origin = blame_of_answer(answer.status, own=sent.own)
        return fields
