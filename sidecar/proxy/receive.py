"""
Receiving the answer of a service.

The rule: the bytes are written into a flight. Readers get them from the commit point on. Only a whole answer is stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from sidecar.core.answer.blame import blame_of_answer
from sidecar.core.cache.allowance import Allowance, allowance, bounded
from sidecar.core.cache.policy import (
    UNSHAREABLE_SECONDS,
    Audience,
    Drop,
    Keep,
    Reason,
    audience,
    form_of,
    media_of,
    retain,
    share,
)
from sidecar.core.cache.purges import mark_of
from sidecar.core.cache.variants import fits, variant
from sidecar.core.dialect import Completeness, Judged, Watch
from sidecar.core.draft import Draft, shown
from sidecar.core.http.headers import relay, replay, retry_fields, upstream_id, upstream_region
from sidecar.core.model import MOST_TAGS, Entry, Fields, Form, Outcome, Usage
from sidecar.core.request.principal import Accepted, Principal
from sidecar.core.site.next_address import through_here
from sidecar.core.site.recognise import Site
from sidecar.errors import UpstreamFailed
from sidecar.proxy.flight.flight import Flight
from sidecar.proxy.flight.opening import Opening
from sidecar.proxy.flight.seat import Seat
from sidecar.proxy.flight.table import Flights
from sidecar.proxy.live import check_end, is_committed, watch_of
from sidecar.proxy.request import Call, Fetch, booked, tags_of
from sidecar.store.base import Store
from sidecar.tasks import SCANNED_IN_LOOP, in_thread_if_large
from sidecar.upstream.commit import CommittedResponse, says_json
from sidecar.upstream.dispatch import Sent
from sidecar.upstream.fallback import FallbackAnswer

_UNJUDGED = (Judged(Completeness.UNREADABLE, Usage(), "", ""), Drop(Reason.READER_FAILED))


class AnswerFacts(Struct, frozen=True, gc=False):
    """What the head of an answer tells: its form, why it cannot be shared (``""`` if it can), and what it allows."""

    form: Form
    unshareable: str
    allowed: Allowance


class Receiver:
    """Receives answers. *now* is wall-clock seconds, *clock* monotonic seconds, *report* gets bugs."""

    def __init__(
        self,
        store: Store,
        flights: Flights,
        accepted: Accepted,
        *,
        now: Callable[[], float],
        clock: Callable[[], float],
        report: Callable[[BaseException], None],
    ) -> None:
        self._store = store
        self._flights = flights
        self._accepted = accepted
        self._now = now
        self._clock = clock
        self._report = report

    def __repr__(self) -> str:
        return f"<Receiver {self._accepted!r}>"

    def note(self, place: str, principal: Principal, sent: Sent, draft: Draft) -> None:
        """
        Note what the answer's head tells. If the service refused the caller's own credential, that is no longer
        accepted. A region's credential does not matter here. Only a whole answer proves acceptance; see ``_keep``.
        """
        answer = sent.answer
        draft.region, draft.upstream_status = sent.region, answer.status
        draft.upstream_id, draft.upstream_region = upstream_id(answer.fields), upstream_region(answer.fields)
        if sent.own and answer.status in {401, 403}:
            self._accepted.withdraw(place, principal)

    def allowance(self, call: Call, site: Site, fields: Fields) -> Allowance:
        """What an answer with *fields*, which has just come from *site*, allows."""
        honours, shared = site.service.dialect.honours, call.principal.shared
        return allowance(fields, call.route.cache, honours=honours, shared=shared, now=self._now())

    def outdate(self, targets: Iterable[bytes]) -> None:
        """A call has changed *targets*: stored answers and running fetches of them are out of date now."""
        now = self._now()
        for target in targets:
            self._flights.outdate(target)
            self._store.outdate(target, now)

    async def read(self, answer: CommittedResponse, draft: Draft) -> bytes:
        """The next bytes of an answer; the waiting time is added to the draft."""
        began = self._clock()
        try:
            return await answer.read()
        finally:
            draft.upstream_seconds += self._clock() - began

    async def receive(self, fetch: Fetch, flight: Flight, sent: Sent) -> None:
        """Receive an answer into a flight. Readers get it from the commit point on; it is stored at its end."""
        answer, fields = sent.answer, sent.answer.fields
        head: AnswerFacts = answer.noted or self._facts(fetch, answer.status, fields)
        form, allowed = head.form, head.allowed
        unshareable = self._share(fetch, flight, sent, head)
        fits = flight.holds(answer.length or 0) and (form is Form.WHOLE or fetch.call.endpoint.answers.streams)
        lasts = bounded(fetch.call.fresh, allowed, self._now()).ttl > 0
        kept = not (unshareable or allowed.reason) and lasts and fits
        opening = self._opening(fetch, sent, form, usage=flight.usage, kept=kept)

        async def settle() -> bool:
            return not unshareable and await self._keep(fetch, flight, opening, allowed, own=sent.own)

        watch = watch_of(fetch.call.endpoint, answer) if form is Form.EVENTS and not unshareable else None
        kept = await self._flow(fetch, flight, answer, opening, watch, settle)
        if flight.opening is None:
            flight.open(replace(opening, length=flight.size, kept=kept))

    async def receive_fallback(self, fetch: Fetch, flight: Flight, found: FallbackAnswer) -> None:
        """Receive a fallback answer into a flight; it is not stored. Callers in other processes find their own."""
        flight.judged(None)
        sent, draft, answers = found.sent, booked(fetch, flight), fetch.call.endpoint.answers
        fields, form = sent.answer.fields, form_of(sent.answer.fields)
        flight.usage = fetch.call.facts.view.usage
        draft.reason = Reason.FALLBACK
        if found.model:  # else keep what was noted of the failure
            draft.model, draft.region, draft.upstream_status = found.model, sent.region, sent.answer.status
        opening = self._opening(fetch, sent, form, usage=flight.usage, kept=False)
        opening = replace(opening, outcome=Outcome.FALLBACK, model=found.model)
        unshareable = share(sent.answer.status, fields, form)
        if unshareable:
            self._part(fetch, flight)
        else:
            self._confine(fetch, flight, self.allowance(fetch.call, fetch.plan.site, fields))
        flight.open(opening)

        async def settle() -> bool:
            body = flight.body()
            if body is not None and found.model:
                booked(fetch, flight).usage = answers.usage(body, form)
            return False

        watch = watch_of(fetch.call.endpoint, sent.answer) if form is Form.EVENTS and not unshareable else None
        await self._flow(fetch, flight, sent.answer, opening, watch, settle)

    async def _flow(
        self,
        fetch: Fetch,
        flight: Flight,
        answer: CommittedResponse,
        opening: Opening,
        watch: Watch | None,
        settle: Callable[[], Awaitable[bool]],
    ) -> bool:
        """
        Copy the bytes of an answer into a flight. *watch* checks that a stream reaches its last event. *settle* runs
        when all content has come, and returns whether the answer is stored; this method returns the same.
        """
        kept, form = False, opening.form
        # a call for a stream got another form: send it on before its end, although only the end shows what it is
        live = fetch.call.facts.view.stream and form is Form.WHOLE and 200 <= opening.status < 300
        if live := live and not says_json(answer.fields):
            opening = replace(opening, kept=False)
        while chunk := await self._read_on(fetch, flight, answer):
            if watch is not None and not flight.size and _is_object(chunk):
                watch = None  # a JSON document with the content type of a stream
                opening = replace(opening, kept=False)
            if watch is not None:
                if flight.size or watch is not answer.watch:  # the beginning has been watched
                    watch.feed(chunk)
                flight.boundary = watch.boundary
            await flight.push(chunk)
            if watch is not None and watch.ended and fetch.call.endpoint.answers.streams and not flight.complete:
                flight.complete = answer.complete = True  # a reader that leaves now has received all content
                flight.generating = False
                kept = await settle()
                flight.settled = True
            if flight.opening is None and (live or answer.heartbeats_only or is_committed(flight, form, watch)):
                flight.open(opening if not flight.windowed else replace(opening, kept=False))
        if watch is not None:
            check_end(watch)
        if not flight.complete:
            kept = await settle()
        usage = booked(fetch, flight).usage
        answer.tokens = usage.total or None if usage is not None else None
        return kept

    async def _read_on(self, fetch: Fetch, flight: Flight, answer: CommittedResponse) -> bytes:
        began = self._clock()
        try:
            return await answer.read()
        except UpstreamFailed:
            if not flight.complete:
                raise
            return b""  # all that counts has come
        finally:
            booked(fetch, flight).upstream_seconds += self._clock() - began

    def on_head(self, fetch: Fetch, flight: Flight, status: int, fields: Fields) -> AnswerFacts | None:
        """If the head shows that some readers may not have the answer, release them before the commit point."""
        if status != 200:
            return None
        head = self._facts(fetch, status, fields)
        if head.unshareable:
            self._part(fetch, flight)
            flight.judged(None)
        else:
            self._confine(fetch, flight, head.allowed)
        return head

    def _facts(self, fetch: Fetch, status: int, fields: Fields) -> AnswerFacts:
        form = form_of(fields)
        allowed = self.allowance(fetch.call, fetch.plan.site, fields)
        return AnswerFacts(form, share(status, fields, form), allowed)

    def _part(self, fetch: Fetch, flight: Flight) -> None:
        self._flights.mark(fetch.key, self._clock() + UNSHAREABLE_SECONDS)
        flight.release(lambda _: False)

    def _confine(self, fetch: Fetch, flight: Flight, allowed: Allowance) -> None:
        """Release the readers that may not have this answer, by what its head has *allowed*."""
        if allowed.personal:
            self._flights.mark(fetch.key, self._now() + UNSHAREABLE_SECONDS)
            flight.release(lambda reader: reader.credential == fetch.call.principal.credential)
        elif allowed.reason:
            self._part(fetch, flight)
        if allowed.reason:
            flight.judged(None)
        if allowed.vary:
            given = variant(fetch.key, allowed.vary, fetch.request.head.fields)
            flight.narrow(partial(fits, fetch.key, given))

    def _share(self, fetch: Fetch, flight: Flight, sent: Sent, head: AnswerFacts) -> str:
        """
        Release the readers that may not have an answer with this head. Returns why the answer cannot be shared, ``""``
        if it can. The limits that the answer itself sets are checked separately.
        """
        status, unshareable = sent.answer.status, head.unshareable
        if not unshareable and head.form is Form.WHOLE and not _is_framed(sent.answer.fields):
            unshareable = Reason.UNFRAMED  # if it were cut, nothing in it would show that
        if not sent.own and not self._accepted.knows(
            fetch.plan.site.place, fetch.call.principal, self._now(), self._clock()
        ):
            unshareable = unshareable or Reason.UNPROVEN  # the region's credential was accepted, not the caller's
        if status == 200 and unshareable and unshareable is not Reason.UNFRAMED:
            self._part(fetch, flight)
        elif (keep := _audience(fetch, sent)) is not None:
            flight.release(keep, together=audience(status) in {Audience.SAME_QUESTION, Audience.SAME_BOTH})
        if status == 200:
            self._confine(fetch, flight, head.allowed)
        if unshareable:
            flight.judged(None)
        booked(fetch, flight).reason = unshareable
        return unshareable

    def _opening(self, fetch: Fetch, sent: Sent, form: Form, *, usage: bool, kept: bool) -> Opening:
        answer, fields, now = sent.answer, sent.answer.fields, self._now()
        shared = replay(answer.pairs, fields)
        if answer.status >= 400:
            shared += retry_fields(fields, now)
        own = through_here(relay(answer.pairs, fields, now, own=sent.own), fields, fetch.request.head, fetch.plan.site)
        return Opening(
            answer.status,
            own,
            shared,
            form,
            answer.length,
            kept,
            sent.region,
            usage=usage,
            blame=blame_of_answer(answer.status, own=sent.own),
        )

    async def keep(self, fetch: Fetch, flight: Flight, opening: Opening, fields: Fields, *, own: bool) -> bool:
        """Store the result of an operation, if that is allowed, from the answer with *fields* that brought it."""
        unshareable = share(opening.status, fields, opening.form)
        place, principal = fetch.plan.site.place, fetch.call.principal
        if not own and not self._accepted.knows(place, principal, self._now(), self._clock()):
            unshareable = unshareable or Reason.UNPROVEN
        allowed = self.allowance(fetch.call, fetch.plan.site, fields)
        return await self._keep(fetch, flight, opening, replace(allowed, reason=unshareable or allowed.reason), own=own)

    async def _keep(self, fetch: Fetch, flight: Flight, opening: Opening, allowed: Allowance, *, own: bool) -> bool:
        """
        Store a complete answer, if storing is allowed. *own*: the service answered the caller's own credential. That
        credential is accepted then, unless the service gives such answers to everybody.
        """
        form = opening.form
        call, asked = fetch.call, fetch.plan.asked
        body = flight.body()
        if body is None:
            booked(fetch, flight).reason = allowed.reason or Reason.ANSWER_TOO_LARGE
            return False
        judge = partial(call.endpoint.answers.judged, body, form, call.facts, media_of(opening.shared), opening.pairs)
        try:
            judged = await in_thread_if_large(len(body), SCANNED_IN_LOOP, judge)
            verdict = retain(call.endpoint, call.route, asked, judged.complete)
        except Exception as error:  # noqa: BLE001  a bug in what is only for the cache must cost nobody the answer
            self._report(error)
            judged, verdict = _UNJUDGED
        draft = booked(fetch, flight)
        draft.usage, draft.finish = judged.usage, shown(judged.finish)
        if not isinstance(verdict, Keep):
            draft.reason = verdict.reason
            # whatever its status said, nothing was accepted; but an operation that failed was
            if verdict.reason == Completeness.FAILED and call.endpoint.operation is None:
                self._accepted.withdraw(fetch.plan.site.place, call.principal)
            return False
        if own and call.endpoint.proves:
            self._accepted.note(fetch.plan.site.place, call.principal, self._now(), self._clock())
        now = self._now()
        fresh = bounded(verdict.fresh, allowed, now)
        if allowed.reason or fresh.ttl <= 0:
            draft.reason = allowed.reason or Reason.EXPIRED
            return False
        if flight.superseded:
            draft.reason = Reason.SUPERSEDED
            return False
        said = tags_of(call, fetch.plan)
        route = mark_of(call.route.name)  # it is the answer's own route from now on
        others = (*sorted(flight.tags), *flight.inherits())
        tags = tuple(dict.fromkeys((*said, *[tag for tag in others if tag != route])))
        entry = Entry(
            status=200,
            headers=opening.shared,
            body=body,
            form=form,
            service=fetch.plan.site.service.name,
            route=call.route.name,
            model=judged.model or call.model,
            at=now,
            ttl=fresh.ttl,
            stale_while_revalidate=fresh.while_revalidate,
            stale_if_error=fresh.if_error,
            usage=judged.usage,
            region=draft.region,
            seconds=draft.upstream_seconds,
            tags=tags[:MOST_TAGS],
            partition=call.principal.partition,
            position=flight.position,
            vary=variant(fetch.key, allowed.vary, fetch.request.head.fields),
            strict=allowed.strict,
            age=allowed.age,
            target=flight.target,
        )
        draft.stored = self._store.put(fetch.key, entry)
        if draft.stored and len(tags) > MOST_TAGS and not self._store.note(fetch.key, entry, tags[MOST_TAGS:]):
            self._store.drop(fetch.key)
            draft.stored = False
        if draft.stored:
            flight.kept = entry
            flight.judged(entry)
        self._flights.unmark(fetch.key)
        return draft.stored


def _audience(fetch: Fetch, sent: Sent) -> Callable[[Seat], bool] | None:
    """Which of the waiting readers, beside the owner, may have the answer; None: all."""
    whose = audience(sent.answer.status)
    credential = fetch.call.principal.credential
    if sent.personal or whose is Audience.SAME_CREDENTIAL:
        return lambda reader: reader.credential == credential
    if whose is Audience.EVERYONE:
        return None
    question, anybody = fetch.question(), whose is Audience.SAME_QUESTION
    return lambda reader: (anybody or reader.credential == credential) and reader.question() == question


def _is_framed(fields: Fields) -> bool:
    return b"content-length" in fields or b"transfer-encoding" in fields


def _is_object(chunk: bytes) -> bool:
    return chunk.lstrip()[:1] == b"{"
