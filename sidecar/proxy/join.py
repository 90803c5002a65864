"""
Step 8: how a caller joins a flight, and what it receives from that flight.

The rule: no caller receives an answer that is not for it. A caller whose credential is not yet accepted shares a flight
only with callers of the same credential. A replacement answer must meet each caller's own wishes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sidecar.core.cache.changes import target_of
from sidecar.core.cache.policy import Serve
from sidecar.core.draft import Draft
from sidecar.core.model import Outcome, Record
from sidecar.net.base import Exchange
from sidecar.proxy.access import Access
from sidecar.proxy.deliver import FOUND_FRESH, Stamp, deliver, hit, hit_status, miss_status
from sidecar.proxy.fill import Origin
from sidecar.proxy.flight.flight import Flight
from sidecar.proxy.flight.opening import Opening
from sidecar.proxy.flight.reader import Reader
from sidecar.proxy.flight.table import Flights
from sidecar.proxy.operation.accept import Acceptance
from sidecar.proxy.request import Fetch, FetchMode, is_batch, scopes_within
from sidecar.upstream.dispatch import OWN_RETRIES
from sidecar.upstream.fallback import refuses


class Coalescer:
    """
    Lets callers join and leave flights. If a caller's cost is known only after it has left, its request goes to
    *record* then. *now* is wall-clock seconds, *clock* monotonic seconds.
    """

    def __init__(
        self,
        flights: Flights,
        origin: Origin,
        access: Access,
        acceptance: Acceptance,
        *,
        record: Callable[[Record], None],
        now: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._flights = flights
        self._origin = origin
        self._access = access
        self._acceptance = acceptance
        self._record = record
        self._now = now
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Coalescer {self._flights!r}>"

    def join(self, fetch: Fetch, mode: FetchMode, *, proven: bool) -> tuple[Reader, bool]:
        """The caller's reader, and whether another caller leads the flight. Find, then join or lead, with no await."""
        alone = mode is FetchMode.PRIVATE
        plan, call, key = fetch.plan, fetch.call, fetch.key
        # a caller whose credential is not yet accepted shares a flight only with callers of the same credential;
        # the route and the caller decide what happens after a failure, so these terms must be equal too
        fields = fetch.request.head.fields
        terms = (call.route.name, refuses(fields), is_batch(fields), OWN_RETRIES in fields)
        form = (
            call.facts.view if mode is FetchMode.BYPASS_STORE else None
        )  # callers for whom no form was found share a flight for their form
        shelf = (key, b"" if proven else call.principal.credential, mode, form, terms)
        flight = None if alone or plan.asked.no_cache else self._flights.find(shelf)
        if flight is not None and not flight.fits(fields):
            flight, alone = None, True  # its answer is for another value of a field in its Vary
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
        return Reader(flight, call.principal.credential, fetch.draft, fetch.question, fields), collapsed

    def leave(self, draft: Draft, *readers: Reader) -> None:
        """Leave flights. If the caller's own call goes on, its record is written at the end of that call."""

        def land(_: object) -> None:
            draft.running -= 1
            if draft.ended is not None and not draft.running:
                self._record(draft.freeze())

        for reader in readers:
            if not reader.stays:
                reader.leave()
            task = reader.flight.task
            if task is not None and reader.owes:
                draft.running += 1
                task.add_done_callback(land)

    async def deliver(
        self, fetch: Fetch, exchange: Exchange, reader: Reader, opening: Opening, *, collapsed: bool
    ) -> FetchMode | None:
        """Deliver a flight's answer. If no form of it fits this caller, return the mode in which to fetch another."""
        call, draft = fetch.call, fetch.draft
        if opening.found is not None or opening.outcome is Outcome.FALLBACK:
            draft.outcome = opening.outcome
            draft.model = opening.model or draft.model
        else:
            draft.outcome = Outcome.COLLAPSED if collapsed else Outcome.MISS
        if collapsed and not draft.attempts:  # else the cost of the call is already booked to this caller
            draft.region, draft.upstream_status = opening.region, opening.status
        if opening.started is not None:
            await self._accept(fetch, exchange, reader, opening, collapsed=collapsed)
            return None
        if opening.found is not None and call.endpoint.operation is not None:
            await self.promise(fetch, exchange, opening.found, opening.outcome)
            return None
        status = miss_status(opening, collapsed=collapsed)
        model = opening.model if opening.outcome is Outcome.FALLBACK else call.model  # a file has no model
        dialect = fetch.plan.site.service.dialect
        ours = opening.found is not None or not (reader.owner and opening.region)  # the service's own id is not shown
        stamp = Stamp(draft.request_id, status, model, opening.region, dialect.request_id if ours else b"")
        draft.status, draft.error_origin = opening.status, opening.blame

        def begin() -> None:
            if opening.status < 400:
                draft.began = self._clock()

        written = await deliver(exchange, reader, opening, call.facts.view, call.endpoint, dialect, stamp, begin)
        draft.bytes_out = written or 0
        if collapsed:
            draft.upstream_seconds = self._clock() - draft.started  # the caller waited for the service all this time
        return None if written is not None else FetchMode.BYPASS_STORE

    async def serve(self, fetch: Fetch, found: Serve, exchange: Exchange, *, proven: bool) -> FetchMode | None:
        """Answer with an entry of the fleet's store. If it is not for this caller, return the mode to fetch in."""
        if not self._still(fetch, proven=proven):
            return FetchMode.PRIVATE
        if not self._access.note(fetch.plan, fetch.call, fetch.key, found.entry):
            return FetchMode.BYPASS_STORE
        if fetch.call.endpoint.operation is not None:
            await self.promise(fetch, exchange, found, Outcome.HIT_REDIS)
            return None
        draft, entry = fetch.draft, found.entry
        draft.outcome = Outcome.HIT_REDIS if found.ttl >= 0 else Outcome.STALE
        draft.status, draft.bytes_out = entry.status, len(entry.body)
        model, id_field = fetch.call.model, fetch.plan.site.service.dialect.request_id
        exchange.respond(hit(found, entry.body, entry.form, draft.request_id, model, Outcome.HIT_REDIS, id_field))
        draft.began = self._clock()
        return None

    async def promise(self, fetch: Fetch, exchange: Exchange, found: Serve, outcome: Outcome) -> None:
        """Answer a call whose operation's result is stored: its caller gets the result by its first poll."""
        draft = fetch.draft
        draft.outcome = Outcome.STALE if found.ttl < 0 and outcome in FOUND_FRESH else outcome
        draft.usage = found.entry.usage
        await self._acceptance.promise(fetch, exchange, found, hit_status(found.ttl, draft.outcome))

    async def _accept(
        self, fetch: Fetch, exchange: Exchange, reader: Reader, opening: Opening, *, collapsed: bool
    ) -> None:
        """Answer a call whose operation runs. Its reader stays in the flight, for the operation's result."""
        draft = fetch.draft
        joined = collapsed or opening.joined
        draft.outcome = Outcome.COLLAPSED if joined else Outcome.MISS
        if joined and not draft.attempts:
            draft.region, draft.upstream_status = opening.region, opening.status
            reader.draft = None  # the cost of the call stays with the caller who has sent it
        reader.stays = True
        await self._acceptance.accept(fetch, exchange, opening, reader, miss_status(opening, collapsed=joined))

    def divert(self, fetch: Fetch, opening: Opening, *, collapsed: bool, proven: bool) -> FetchMode | None:
        """
        Whether this caller must fetch again, because the flight found a stored entry that is not for it. Returns the
        mode of that fetch, or None if the caller may have the flight's answer.
        """
        found, stale = opening.found, opening.outcome is Outcome.STALE_ERROR
        if found is None:
            return None
        if not self._still(fetch, proven=proven):
            return FetchMode.PRIVATE
        if collapsed:
            at = max(self._now(), found.entry.at + found.age)  # its age has not become smaller since it was found
            fields = fetch.request.head.fields
            if self._access.may_have(fetch.plan, fetch.call, fetch.key, fields, found.entry, at, stale=stale) is None:
                return FetchMode.PRIVATE
        elif stale:
            return None  # its tags were noted before it was chosen
        return None if self._origin.note(fetch, found.entry) else FetchMode.BYPASS_STORE

    def _tag(self, fetch: Fetch, flight: Flight) -> bool:
        """Let a purge by this caller's tags remove the answer of *flight* too. False: the tags could not be noted."""
        if flight.kept is not None:
            return self._origin.note(fetch, flight.kept)
        flight.tags.update(fetch.plan.asked.tags)
        return True

    def _still(self, fetch: Fetch, *, proven: bool) -> bool:
        """Whether an accepted caller may still read stored answers: it may have waited for minutes."""
        principal = fetch.call.principal
        return not (proven and principal.needs_proof) or self._access.proven(fetch.plan, principal)
