"""
Step 8: a caller's place in a flight, and what it gets from there.

The rule: nobody gets what is not for it. Who has not proved itself flies with those of the very same credential, and
what serves in place of a service's answer is judged by each caller's own wishes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from sidecar.core.cache.changes import target_of
from sidecar.core.cache.policy import Serve
from sidecar.core.draft import Draft
from sidecar.core.model import Outcome, Record
from sidecar.net.base import Exchange
from sidecar.proxy.access import Access
from sidecar.proxy.deliver import Stamp, deliver, hit, miss_status
from sidecar.proxy.fill import Origin
from sidecar.proxy.flight.flight import Flight, Reader
from sidecar.proxy.flight.opening import Opening
from sidecar.proxy.flight.table import Flights
from sidecar.proxy.request import Fetch, FetchMode, is_batch, scopes_within
from sidecar.upstream.dispatch import OWN_RETRIES
from sidecar.upstream.fallback import refuses


class Coalescer:
    """
    Lets callers join flights, and leave them. *record* hears of requests whose cost is known only after their callers
    have left; *now* is wall-clock seconds, *clock* monotonic seconds.
    """

    def __init__(
        self,
        flights: Flights,
        origin: Origin,
        access: Access,
        *,
        record: Callable[[Record], None],
        now: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._flights = flights
        self._origin = origin
        self._access = access
        self._record = record
        self._now = now
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Coalescer {self._flights!r}>"

    def join(self, fetch: Fetch, mode: FetchMode, *, proven: bool) -> tuple[Reader, bool]:
        """A place in the key's flight, and whether it is another caller's. One look, then join or lead: no await."""
        alone = mode is FetchMode.PRIVATE
        plan, call, key = fetch.plan, fetch.call, fetch.key
        # who has not proved itself shares a flight only with those who present the very same credential; and what may
        # become of a call that fails is its route's to say, and its caller's
        fields = fetch.request.head.fields
        terms = (call.route.name, refuses(fields), is_batch(fields), OWN_RETRIES in fields)
        form = (
            call.facts.view if mode is FetchMode.BYPASS_STORE else None
        )  # who has found no form of an answer shares one of its own
        shelf = (key, b"" if proven else call.principal.credential, mode, form, terms)
        flight = None if alone or plan.asked.no_cache else self._flights.find(shelf)
        if flight is not None and not flight.fits(fields):
            flight, alone = None, True  # its answer is for requests with another value in a field of its Vary
        if flight is not None and not self._tag(fetch, flight):
            flight = None
        collapsed = flight is not None
        if flight is None:
            private = alone or self._flights.marked(key, self._clock())
            flight = self._flights.reserve(
                None if private else shelf,
                generating=call.endpoint.generating,
                scopes=partial(scopes_within, fetch),
                target=target_of(plan.site, call.principal.partition),
            )
            flight.patience = self._origin.patience(fetch) if mode is FetchMode.COALESCE and not private else 0.0
        return flight.join(call.principal.credential, fetch.draft, fetch.question, fields), collapsed

    def leave(self, reader: Reader, draft: Draft) -> None:
        """Leave a flight. A caller whose own call goes on has its record when that is over, with what it cost."""
        reader.leave()
        task = reader.flight.task
        if task is None or not reader.owes:
            return

        def land(_: object) -> None:
            draft.running -= 1
            if draft.ended is not None and not draft.running:
                self._record(draft.freeze())

        draft.running += 1
        task.add_done_callback(land)

    def leave_all(self, readers: Iterable[Reader], draft: Draft) -> None:
        """Leave all flights that a caller waits in."""
        for reader in readers:
            self.leave(reader, draft)

    async def deliver(
        self, fetch: Fetch, exchange: Exchange, reader: Reader, opening: Opening, *, collapsed: bool
    ) -> FetchMode | None:
        """Deliver a flight's answer. Returns in which way to fetch another: there is no form of it for this caller."""
        call, draft = fetch.call, fetch.draft
        if opening.found is not None or opening.outcome is Outcome.FALLBACK:
            draft.outcome = opening.outcome
            draft.model = opening.model or draft.model
        else:
            draft.outcome = Outcome.COLLAPSED if collapsed else Outcome.MISS
        if collapsed and not draft.attempts:  # else it has taken over the call's cost, and whose that is
            draft.region, draft.upstream_status = opening.region, opening.status
        status = miss_status(opening, collapsed=collapsed)
        model = opening.model if opening.outcome is Outcome.FALLBACK else call.model  # none has written a file
        dialect = fetch.plan.site.service.dialect
        ours = opening.found is not None or not (reader.owner and opening.region)  # no service's id of it is shown
        stamp = Stamp(draft.request_id, status, model, opening.region, dialect.request_id if ours else b"")
        draft.status, draft.error_origin = opening.status, opening.blame

        def begin() -> None:
            if opening.status < 400:
                draft.began = self._clock()

        written = await deliver(exchange, reader, opening, call.facts.view, call.endpoint, dialect, stamp, begin)
        draft.bytes_out = written or 0
        if collapsed:
            draft.upstream_seconds = self._clock() - draft.started  # it waited for the service all the while
        return None if written is not None else FetchMode.BYPASS_STORE

    def serve(self, fetch: Fetch, found: Serve, exchange: Exchange, *, proven: bool) -> FetchMode | None:
        """Answer with an entry from behind memory, as it stands. Returns in which way to fetch: it isn't for it."""
        if not self._still(fetch, proven=proven):
            return FetchMode.PRIVATE
        if not self._origin.note(fetch, found.entry):
            return FetchMode.BYPASS_STORE
        draft, entry = fetch.draft, found.entry
        draft.outcome = Outcome.HIT_REDIS if found.ttl >= 0 else Outcome.STALE
        draft.status, draft.bytes_out = entry.status, len(entry.body)
        model, id_field = fetch.call.model, fetch.plan.site.service.dialect.request_id
        exchange.respond(hit(found, entry.body, entry.form, draft.request_id, model, Outcome.HIT_REDIS, id_field))
        draft.began = self._clock()
        return None

    def divert(self, fetch: Fetch, opening: Opening, *, collapsed: bool, proven: bool) -> FetchMode | None:
        """
        In which way to fetch instead, where what a flight came to is not the service's answer to this call, and not for
        this caller; None: it is.
        """
        found, stale = opening.found, opening.outcome is Outcome.STALE_ERROR
        if found is None:
            return None
        if not self._still(fetch, proven=proven):
            return FetchMode.PRIVATE
        if collapsed:
            at = max(self._now(), found.entry.at + found.age)  # it has become no younger since it was found
            fields = fetch.request.head.fields
            if self._access.may_have(fetch.plan, fetch.call, fetch.key, fields, found.entry, at, stale=stale) is None:
                return FetchMode.PRIVATE
        elif stale:
            return None  # its tags were noted before it was chosen
        return None if self._origin.note(fetch, found.entry) else FetchMode.BYPASS_STORE

    def _tag(self, fetch: Fetch, flight: Flight) -> bool:
        """A purge by a tag of this caller's takes the answer of *flight*, too. False: that cannot be seen to."""
        if flight.kept is not None:
            return self._origin.note(fetch, flight.kept)
        flight.tags.update(fetch.plan.asked.tags)
        return True

    def _still(self, fetch: Fetch, *, proven: bool) -> bool:
        """Whether a caller that had proved itself may still have a stored answer: it may have waited for minutes."""
        return not proven or self._access.proven(fetch.plan, fetch.call.principal)
