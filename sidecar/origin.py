"""
Fetching an answer from where it comes from.

The rule: what comes back is poured into a flight, opened to its readers at the commit point, and kept only when it is
whole. What cannot be had is replaced by a spare entry where there is one, before anybody has been told of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from sidecar.attempt import Trip, Try
from sidecar.commit import COMMIT_BYTES, COMPLAINT_BYTES, Committed
from sidecar.core.dialect import Completeness, Watch
from sidecar.core.draft import Draft
from sidecar.core.headers import relay, replay, retry_fields, upstream_id, upstream_region
from sidecar.core.memo import Memo
from sidecar.core.model import Entry, Fields, Form, Outcome, Usage
from sidecar.core.policy import (
    ABSENT,
    FAILING,
    UNSHAREABLE_SECONDS,
    Directives,
    Drop,
    Keep,
    Reason,
    Serve,
    form_of,
    judge,
    judge_spare,
    reaches_everyone,
    retain,
    share,
)
from sidecar.core.principal import Accepted, Principal
from sidecar.core.rescue import cause_of
from sidecar.core.usage import names_usage, with_usage
from sidecar.delivery import viewed
from sidecar.dispatch import Dispatch, Sent
from sidecar.errand import Call, Errand, book, trip_of
from sidecar.errors import Cause, Refused, UpstreamFailed
from sidecar.flight.flight import Flight, Reader
from sidecar.flight.opening import Opening
from sidecar.flight.table import Flights
from sidecar.net.base import Spool, Stream
from sidecar.standby import Standby, StandIn
from sidecar.store.base import NOTHING, Fetched, Store

_INLINE_BYTES = 256 * 1024  # a larger answer is judged in a thread


class Origin:
    """
    Fetches answers from where they come from: the tier behind memory, then the service. *lease_wait* is how long a
    streaming call waits for another process's answer; *now* is wall-clock seconds, *clock* monotonic seconds.
    """

    def __init__(
        self,
        *,
        dispatch: Dispatch,
        standby: Standby,
        store: Store,
        flights: Flights,
        accepted: Accepted,
        lease_wait: float,
        now: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._dispatch = dispatch
        self._standby = standby
        self._store = store
        self._flights = flights
        self._accepted = accepted
        self._lease_wait = lease_wait
        self._now = now
        self._clock = clock
        self._refuses_usage: Memo[tuple[str, str, str], bool] = Memo(256)

    def __repr__(self) -> str:
        return f"<Origin {self._accepted!r}>"

    def patience(self, errand: Errand) -> float:
        """How long another process's answer is waited for, seconds."""
        call = errand.call
        seconds = self._lease_wait if call.facts.view.stream else call.route.timeouts.first_byte
        left = self._left(errand)
        return seconds if left is None else max(min(seconds, left), 0.0)

    def _left(self, errand: Errand) -> float | None:
        """How many seconds more the caller waits, where it has said that."""
        deadline = errand.deadline
        return None if deadline is None else deadline - self._clock()

    async def look(self, errand: Errand, *, patience: float) -> Fetched:
        """What lies behind memory, if it is for this caller; *patience* is for what another process fetches."""
        approach, call, known, now = errand.approach, errand.call, errand.known, self._now
        principal, asked = call.principal, approach.asked
        if principal.local or asked.no_cache or not self._accepted.knows(approach.site.place, principal, now()):
            return NOTHING

        def suffices(entry: Entry) -> bool:
            verdict = judge(entry, asked, call.fresh, now())
            return verdict is not ABSENT and (known is None or entry.at > known.at)

        return await self._store.fetch(errand.key, suffices, patience=patience)

    async def opening(self, reader: Reader, errand: Errand) -> Opening | None:
        """
        The answer's head. None when the answer is not for this caller, whom the flight has *released* then, or when a
        stream has waited long enough for another process, in a flight of callers who wait longer.

        Raises the flight's error, or ``UpstreamFailed`` when the caller's own time is over.
        """
        flight, left = reader.flight, self._left(errand)
        if left is None:
            return await self._opening_of(reader, errand.call)
        try:
            async with asyncio.timeout(max(left, 0.0)):
                return await self._opening_of(reader, errand.call)
        except TimeoutError:
            detail = "the caller waits no longer"
            raise UpstreamFailed(Cause.FIRST_BYTE_TIMEOUT, detail, sent=flight.sent) from None

    async def _opening_of(self, reader: Reader, call: Call) -> Opening | None:
        flight, wait = reader.flight, self._lease_wait
        if call.facts.view.stream and flight.patience > wait:
            try:
                async with asyncio.timeout(wait):
                    return await reader.opening()
            except TimeoutError:
                if flight.patience > wait:
                    return None
        return await reader.opening()

    async def fetch(self, errand: Errand, flight: Flight, behind: Entry | None) -> None:
        """
        Send a call and pour its answer into *flight*. Where none can be had, something else serves, if it may: what
        lies *behind* memory or in it, or a stand-in.
        """
        try:
            sent = await self.send(errand, flight)
        except (UpstreamFailed, Refused) as failure:
            if not await self._make_do(errand, flight, behind, failure):
                raise
            return
        try:
            if sent.failing and await self._make_do(errand, flight, behind, sent):
                return
            await self.pour(errand, flight, sent)
        except UpstreamFailed as failure:
            if flight.opening is not None:
                raise
            flight.rewind()
            if not await self._make_do(errand, flight, behind, failure):
                raise
        finally:
            sent.answer.close()

    async def _make_do(
        self, errand: Errand, flight: Flight, behind: Entry | None, failure: UpstreamFailed | Refused | Sent
    ) -> bool:
        """Whether something else than a region's answer serves: a spare entry, or a stand-in."""
        if isinstance(failure, Refused) and failure.status not in FAILING:
            return False
        spare = await self._spare(errand, flight, behind)
        if spare is not None:
            if not isinstance(failure, Sent):
                _booked(errand, flight).cause = cause_of(failure)
            await substitute(flight, spare, Outcome.STALE_ERROR)
            return True
        if not errand.call.route.fallback or errand.known is not None:
            return False
        if isinstance(failure, Sent) and (failure.personal or not reaches_everyone(failure.answer.status)):
            credential = errand.call.principal.credential
            flight.release(lambda reader: reader.credential == credential)  # others may have room left
        trip = self._trip(errand, errand.request.body, [])
        try:
            call, full = errand.call, isinstance(failure, Refused)
            found = await self._standby.stand_in(trip, call.endpoint, call.facts.view, models=not full)
        finally:
            book(trip, _booked(errand, flight))
        if found is None:
            return False
        try:
            await self._pour_stand_in(errand, flight, found)
        finally:
            found.sent.answer.close()
        return True

    async def _pour_stand_in(self, errand: Errand, flight: Flight, found: StandIn) -> None:
        """From a stand-in into a flight. Whoever waits in another process makes do for itself."""
        flight.judged(None)
        sent, draft = found.sent, _booked(errand, flight)
        fields = sent.answer.fields
        form = form_of(fields)
        flight.usage = errand.call.facts.view.usage
        draft.region, draft.reason, draft.model = sent.region, Reason.FALLBACK, found.model or draft.model
        opening = self._opening(sent, fields, form, usage=flight.usage, kept=False)
        if share(sent.answer.status, fields, form):
            self._part(errand, flight)
        flight.open(replace(opening, outcome=Outcome.FALLBACK, model=found.model))
        while chunk := await self._read_on(errand, flight, sent.answer):
            await flight.push(chunk)
        body = flight.body()
        if body is not None and found.model:
            draft.usage = errand.call.endpoint.answers.usage(body, form)
            sent.answer.tokens = draft.usage.total or None

    async def _spare(self, errand: Errand, flight: Flight, behind: Entry | None) -> Serve | None:
        """
        An old answer, if there is a form of it for this caller. Looked for only when it is needed: a call may take
        minutes, and a purge in that time takes the spare too.
        """
        call, approach, now = errand.call, errand.approach, self._now()
        if not self._accepted.knows(approach.site.place, call.principal, now):
            return None
        spare = self._store.peek(errand.key) or (None if flight.superseded else behind)
        found, view = judge_spare(spare, approach.asked, call.fresh, now), call.facts.view
        if found is None or view.stream == (found.entry.form is Form.EVENTS):
            return found
        convert = partial(viewed, found.entry, call.endpoint, view)
        body = convert() if len(found.entry.body) <= _INLINE_BYTES else await asyncio.to_thread(convert)
        return found if body is not None else None

    async def send(self, errand: Errand, flight: Flight) -> Sent:
        """Send a call; with its stream's usage asked for where the caller did not, without it where that is refused."""
        call, facts, body = errand.call, errand.call.facts, errand.request.body
        began = self._clock()
        trip = self._trip(errand, body, [], flight.mark_sent, partial(self._on_head, errand, flight))
        try:
            if facts.inject_usage and isinstance(body, bytes) and self._takes_usage(errand):
                flight.usage = True
                sent = await self._dispatch.send(replace(trip, body=with_usage(body)))
                if sent.answer.status in {400, 422}:
                    complaint = await _read_complaint(sent.answer)
                    if names_usage(complaint):
                        self._refuses_usage.put(_deployment(errand), True)
                        sent.answer.close()
                        flight.usage = False
                        sent = await self._dispatch.send(replace(trip, cause="usage-refused"))
                    else:
                        sent.answer.unread(complaint)
            else:
                flight.usage = facts.view.usage
                sent = await self._dispatch.send(trip)
        finally:
            draft = _booked(errand, flight)
            draft.upstream_seconds += self._clock() - began
            book(trip, draft)
        self.note(errand.approach.site.place, call.principal, sent, draft)
        if sent.own and sent.good and 200 <= sent.answer.status < 300:
            self._accepted.note(errand.approach.site.place, call.principal, now=self._now())
        return sent

    def _trip(
        self,
        errand: Errand,
        body: bytes | Spool | Stream,
        tries: list[Try],
        on_sent: Callable[[], None] = lambda: None,
        on_head: Callable[[int, Fields], None] = lambda _, __: None,
    ) -> Trip:
        trip = trip_of(
            errand.request,
            errand.call,
            errand.call.route,
            errand.call.principal,
            body=body,
            tries=tries,
            started=errand.draft.started,
            shared=True,
            on_sent=on_sent,
            on_head=on_head,
        )
        return trip if errand.known is None else replace(trip, batch=True, deadline=None)  # nobody waits for a refresh

    def _takes_usage(self, errand: Errand) -> bool:
        return self._refuses_usage.get(_deployment(errand)) is None

    def note(self, place: str, principal: Principal, sent: Sent, draft: Draft) -> None:
        """
        What an answer's head tells of the call. A refused credential is forgotten, whatever the call; accepted it is
        only by an operation that we know, for some paths of a service answer everybody; and neither is told by an
        answer that a region's own credential has earned.
        """
        answer = sent.answer
        draft.region, draft.upstream_status = sent.region, answer.status
        draft.upstream_id, draft.upstream_region = upstream_id(answer.fields), upstream_region(answer.fields)
        if sent.own and answer.status in {401, 403}:
            self._accepted.withdraw(place, principal)

    async def read(self, answer: Committed, draft: Draft) -> bytes:
        """The next bytes of an answer, the wait for them booked."""
        began = self._clock()
        try:
            return await answer.read()
        finally:
            draft.upstream_seconds += self._clock() - began

    async def pour(self, errand: Errand, flight: Flight, sent: Sent) -> None:
        """From an upstream's answer into a flight; open to readers at the commit point, kept at the end."""
        answer, answers = sent.answer, errand.call.endpoint.answers
        fields = answer.fields
        form = form_of(fields)
        unshareable = self._share(errand, flight, sent, fields, form)
        kept = not unshareable and errand.call.fresh.ttl > 0 and flight.holds(answer.length or 0)
        opening = self._opening(sent, fields, form, usage=flight.usage, kept=kept)
        watch = answers.watch() if form is Form.EVENTS and not unshareable else None
        while chunk := await self._read_on(errand, flight, answer):
            if watch is not None and not flight.size and _is_object(chunk):
                watch = None  # a document that calls itself a stream
            if watch is not None:
                watch.feed(chunk)
                flight.boundary = watch.boundary
            await flight.push(chunk)
            if watch is not None and watch.ended and answers.streams and not flight.complete:
                flight.complete = answer.complete = True  # whoever leaves now has had it all
                flight.generating = False
                await self._keep(errand, flight, opening)
                flight.settled = True
            if flight.opening is None and _is_committed(flight, form, watch):
                flight.open(opening if not flight.windowed else replace(opening, kept=False))
        if watch is not None:
            watch.close()
            if not (watch.ended or watch.failed):
                raise UpstreamFailed(Cause.TRUNCATED, "the stream ended without its last event", answered=True)
        if not flight.complete:
            kept = not unshareable and await self._keep(errand, flight, opening)
        usage = _booked(errand, flight).usage
        answer.tokens = usage.total or None if usage is not None else None
        if flight.opening is None:
            flight.open(replace(opening, length=flight.size, kept=kept))

    async def _read_on(self, errand: Errand, flight: Flight, answer: Committed) -> bytes:
        began = self._clock()
        try:
            return await answer.read()
        except UpstreamFailed:
            if not flight.complete:
                raise
            return b""  # all that counts has come
        finally:
            _booked(errand, flight).upstream_seconds += self._clock() - began

    def _on_head(self, errand: Errand, flight: Flight, status: int, fields: Fields) -> None:
        """Who waits for an answer that turns out to be another's need not wait for its commit point."""
        if status == 200 and share(status, fields, form_of(fields)):
            self._part(errand, flight)
            flight.judged(None)

    def _part(self, errand: Errand, flight: Flight) -> None:
        self._flights.mark(errand.key, self._now() + UNSHAREABLE_SECONDS)
        flight.release(lambda _: False)

    def _share(self, errand: Errand, flight: Flight, sent: Sent, fields: Fields, form: Form) -> str:
        """Let go of the readers whom an answer with this head is not for; why it is not for all, else ``""``."""
        status = sent.answer.status
        unshareable = share(status, fields, form)
        if not unshareable and form is Form.WHOLE and not _is_framed(fields):
            unshareable = Reason.UNFRAMED  # it may be cut, and nothing in it would tell
        if not sent.own and not self._accepted.knows(errand.approach.site.place, errand.call.principal, self._now()):
            unshareable = unshareable or Reason.UNPROVEN  # it was the region's credential that was accepted
        if status == 200 and unshareable and unshareable is not Reason.UNFRAMED:
            self._part(errand, flight)
        elif sent.personal or not reaches_everyone(status):
            flight.release(lambda reader: reader.credential == errand.call.principal.credential)
        if unshareable:
            flight.judged(None)
        _booked(errand, flight).reason = unshareable
        return unshareable

    def _opening(self, sent: Sent, fields: Fields, form: Form, *, usage: bool, kept: bool) -> Opening:
        answer, now = sent.answer, self._now()
        shared = replay(answer.pairs)
        if answer.status >= 400:
            shared += retry_fields(fields, now)
        own = relay(answer.pairs, fields, now, own=sent.own)
        return Opening(answer.status, own, shared, form, answer.length, kept, sent.region, usage=usage)

    async def _keep(self, errand: Errand, flight: Flight, opening: Opening) -> bool:
        """Store a complete answer, if it is one that may be stored."""
        form = opening.form
        call, asked = errand.call, errand.approach.asked
        body = flight.body()
        if body is None:
            _booked(errand, flight).reason = Reason.ANSWER_TOO_LARGE
            return False
        judged = partial(_judge, call, asked, body, form)
        verdict, usage, model = judged() if len(body) <= _INLINE_BYTES else await asyncio.to_thread(judged)
        draft = _booked(errand, flight)
        draft.usage = usage
        if not isinstance(verdict, Keep):
            draft.reason = verdict.reason
            if verdict.reason == Completeness.FAILED:  # whatever its status said, nothing was accepted
                self._accepted.withdraw(errand.approach.site.place, call.principal)
            return False
        if flight.superseded:
            draft.reason = Reason.SUPERSEDED
            return False
        entry = Entry(
            status=200,
            headers=opening.shared,
            body=body,
            form=form,
            service=errand.approach.site.service.name,
            route=call.route.name,
            model=model or call.model,
            at=self._now(),
            ttl=verdict.fresh.ttl,
            stale_while_revalidate=verdict.fresh.while_revalidate,
            stale_if_error=verdict.fresh.if_error,
            usage=usage,
            region=draft.region,
            seconds=draft.upstream_seconds,
            tags=call.route.cache.tags + asked.tags,
            partition=call.principal.partition,
            position=flight.position,
        )
        draft.stored = self._store.put(errand.key, entry)
        if draft.stored:
            flight.judged(entry)
        self._flights.unmark(errand.key)
        return draft.stored


async def substitute(flight: Flight, serve: Serve, outcome: Outcome) -> None:
    """An entry serves in place of a service's answer."""
    entry = serve.entry
    pairs = (*entry.headers, (b"age", b"%d" % serve.age))
    length = len(entry.body)
    flight.open(Opening(entry.status, pairs, pairs, entry.form, length, found=serve, outcome=outcome))
    await flight.push(entry.body)


def _booked(errand: Errand, flight: Flight) -> Draft:
    """The draft in which the call's cost is booked by now."""
    return flight.draft or errand.draft


def _is_committed(flight: Flight, form: Form, watch: Watch | None) -> bool:
    """Whether readers may have what there is: from here on a failure breaks their answers."""
    if flight.windowed:
        return True
    if watch is not None:
        return watch.committed
    return form is Form.EVENTS or flight.size > COMMIT_BYTES


def _is_framed(fields: Fields) -> bool:
    return b"content-length" in fields or b"transfer-encoding" in fields


def _deployment(errand: Errand) -> tuple[str, str, str]:
    site = errand.approach.site
    return site.service.name, site.resource, errand.call.model


def _is_object(chunk: bytes) -> bool:
    return chunk.lstrip()[:1] == b"{"


async def _read_complaint(answer: Committed) -> bytes:
    read = b""
    try:
        while len(read) < COMPLAINT_BYTES and (chunk := await answer.read()):
            read += chunk
    except BaseException:
        answer.close()
        raise
    return read


def _judge(call: Call, asked: Directives, body: bytes, form: Form) -> tuple[Keep | Drop, Usage, str]:
    answers = call.endpoint.answers
    verdict = retain(call.endpoint, call.route, asked, body, form)
    return verdict, answers.usage(body, form), answers.model(body, form)
