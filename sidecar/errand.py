"""
A call on its way, and the fetching of its answer.

The rule: what the line found out about a call travels in one frozen value; what comes back is poured into a flight,
opened to its readers at the commit point, and kept only when it is whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from msgspec import Struct

from sidecar.core.approach import Approach
from sidecar.core.dialect import Endpoint
from sidecar.core.draft import Draft
from sidecar.core.headers import fields_of, relay, replay, upstream_id
from sidecar.core.model import Entry, Facts, Form, Key, Pairs, Usage
from sidecar.core.policy import (
    UNSHAREABLE_SECONDS,
    Directives,
    Drop,
    Keep,
    Reason,
    form_of,
    reaches_everyone,
    retain,
    share,
)
from sidecar.core.principal import Accepted, Principal
from sidecar.core.rules import Route
from sidecar.core.usage import names_usage, with_usage
from sidecar.dispatch import Answer, Dispatch, Sent
from sidecar.errors import Cause, UpstreamFailed
from sidecar.flight.flight import Flight, Opening
from sidecar.flight.table import Flights
from sidecar.net.base import Request
from sidecar.store.base import Store

COMMIT_BYTES = 1024 * 1024
"""A whole answer up to this size is handed on only when it is there to its end; so a broken one becomes an error."""

_INLINE_BYTES = 256 * 1024  # a larger answer is judged in a thread
_COMPLAINT_BYTES = 64 * 1024


class Call(Struct, frozen=True, gc=False):
    """
    A request whose body is read: what it asks, by which route and for whom, and the key of its answer.

    *bypass*: why it goes upstream as it is, else ``""``; then there is no key. *observe*: it goes upstream as it is
    and whether it would have hit is only measured.
    """

    endpoint: Endpoint
    facts: Facts
    route: Route
    model: str
    principal: Principal
    key: Key | None
    bypass: str = ""
    observe: bool = False


class Errand(Struct, frozen=True, gc=False):
    """One request that memory could not answer, with what is known of it."""

    request: Request
    approach: Approach
    call: Call
    key: Key
    draft: Draft


class Origin:
    """Fetches answers from where they come from. *now* is wall-clock seconds, *clock* monotonic seconds."""

    def __init__(
        self,
        *,
        dispatch: Dispatch,
        store: Store,
        flights: Flights,
        accepted: Accepted,
        now: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._dispatch = dispatch
        self._store = store
        self._flights = flights
        self._accepted = accepted
        self._now = now
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Origin {self._accepted!r}>"

    async def send(self, errand: Errand, flight: Flight) -> Sent:
        """Send a call; with its stream's usage asked for where the caller did not, without it where that is refused."""
        request, call, draft = errand.request, errand.call, errand.draft
        body = request.body
        send = partial(
            self._dispatch.send,
            errand.approach.site,
            request.head,
            timeouts=call.route.timeouts,
            streaming=call.facts.view.stream,
            identity=True,
            on_sent=flight.mark_sent,
        )
        began = self._clock()
        try:
            if call.facts.inject_usage and isinstance(body, bytes):
                sent = await send(with_usage(body))
                if sent.answer.status == 400:
                    complaint = await _read_some(sent.answer, _COMPLAINT_BYTES)
                    if names_usage(complaint):
                        sent.answer.close()
                        draft.attempts += sent.attempts
                        sent = await send(body)
                    else:
                        sent = Sent(_Peeked(complaint, sent.answer), sent.region, sent.attempts)
            else:
                sent = await send(body)
        finally:
            draft.upstream_seconds = self._clock() - began
        self.note(errand.approach, call.route, call.principal, sent, draft)
        return sent

    def note(self, approach: Approach, route: Route, principal: Principal, sent: Sent, draft: Draft) -> None:
        """What an answer's head tells of the call, and of its caller's credential."""
        answer = sent.answer
        service = approach.site.service.name
        draft.region, draft.upstream_status = sent.region, answer.status
        draft.attempts += sent.attempts
        draft.upstream_id = upstream_id(answer.pairs)
        if 200 <= answer.status < 300:
            self._accepted.note(service, principal, shared=route.cache.share.kind != "principal", now=self._now())
        elif answer.status in {401, 403}:
            self._accepted.withdraw(service, principal)

    async def pour(self, errand: Errand, flight: Flight, sent: Sent) -> None:
        """From an upstream's answer into a flight; open to readers at the commit point, kept at the end."""
        answer, endpoint, call, key = sent.answer, errand.call.endpoint, errand.call, errand.key
        fields = fields_of(answer.pairs)
        form = form_of(fields)
        framed = b"content-length" in fields or b"transfer-encoding" in fields
        own, shared = relay(answer.pairs, fields), replay(answer.pairs)
        unshareable = share(answer.status, fields, form)
        if answer.status == 200 and unshareable:
            self._flights.mark(key, self._now() + UNSHAREABLE_SECONDS)
            flight.release(lambda _: False)
        elif not reaches_everyone(answer.status):
            flight.release(lambda reader: reader.credential == call.principal.credential)
        errand.draft.reason = unshareable
        opening = Opening(answer.status, own, shared, form, answer.length, not unshareable, sent.region)
        watch = endpoint.answers.watch() if form is Form.EVENTS and answer.status == 200 else None
        while chunk := await answer.read():
            if watch is not None:
                watch.feed(chunk)
                flight.boundary = watch.boundary
            await flight.push(chunk)
            if flight.opening is None and (
                flight.windowed or (flight.size > COMMIT_BYTES if watch is None else watch.committed)
            ):
                flight.open(opening)
        if watch is not None and not (watch.ended or watch.failed):
            raise UpstreamFailed(Cause.TRUNCATED, "the stream ended without its last event", answered=True)
        if watch is None and not framed and not unshareable:
            unshareable = errand.draft.reason = Reason.UNFRAMED  # it may have been cut, and nothing in it would tell
        kept = not unshareable and await self._keep(errand, flight, shared, form)
        if flight.opening is None:
            flight.open(Opening(answer.status, own, shared, form, flight.size, kept, sent.region))

    async def _keep(self, errand: Errand, flight: Flight, shared: Pairs, form: Form) -> bool:
        """Store a complete answer, if it is one that may be stored."""
        call, draft, asked = errand.call, errand.draft, errand.approach.asked
        body = flight.body()
        if body is None:
            draft.reason = Reason.ANSWER_TOO_LARGE
            return False
        judged = partial(_judge, call, asked, body, form)
        verdict, usage, model = judged() if len(body) <= _INLINE_BYTES else await asyncio.to_thread(judged)
        draft.usage = usage
        if not isinstance(verdict, Keep):
            draft.reason = verdict.reason
            self._flights.mark(errand.key, self._now() + UNSHAREABLE_SECONDS)
            return False
        entry = Entry(
            status=200,
            headers=shared,
            body=body,
            form=form,
            service=errand.approach.site.service.name,
            route=call.route.name,
            model=model or call.model,
            at=self._now(),
            ttl=verdict.ttl,
            usage=usage,
            region=draft.region,
            seconds=draft.upstream_seconds,
            tags=call.route.cache.tags + asked.tags,
        )
        draft.stored = self._store.put(errand.key, entry)
        self._flights.unmark(errand.key)
        return draft.stored


class _Peeked:
    """An answer of which the beginning has been read already."""

    def __init__(self, beginning: bytes, answer: Answer) -> None:
        self.status, self.pairs, self.length = answer.status, answer.pairs, answer.length
        self._beginning = beginning
        self._answer = answer

    async def read(self) -> bytes:
        beginning, self._beginning = self._beginning, b""
        return beginning or await self._answer.read()

    def close(self) -> None:
        self._answer.close()


async def _read_some(answer: Answer, limit: int) -> bytes:
    read = b""
    while len(read) < limit and (chunk := await answer.read()):
        read += chunk
    return read


def _judge(call: Call, asked: Directives, body: bytes, form: Form) -> tuple[Keep | Drop, Usage, str]:
    answers = call.endpoint.answers
    verdict = retain(call.endpoint, call.route, asked, body, form)
    return verdict, answers.usage(body, form), answers.model(body, form)
