"""
Steps 9 to 11: what a flight brings, from behind memory or from a region.

The rule: whoever leads a flight looks behind memory itself. That is all that most answers of the fleet need; only where
it isn't does the fetch begin, in a task of its own that outlives its first caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from sidecar.core.cache.beside import Beside
from sidecar.core.cache.policy import Refresh, Serve
from sidecar.core.model import Entry, Key, Outcome
from sidecar.errors import Cause, UpstreamFailed
from sidecar.proxy.access import Access
from sidecar.proxy.deliver import as_it_stands
from sidecar.proxy.fill import Origin, substitute
from sidecar.proxy.flight.flight import Flight, Reader
from sidecar.proxy.flight.table import Flights
from sidecar.proxy.request import Fetch, FetchMode, lend
from sidecar.store.base import NOTHING, Fetched, Lease, Store
from sidecar.upstream.dispatch import SECOND


class Fetching:
    """Fetches for flights. *refresh* is asked for a newer answer than an entry's; *now* is wall-clock seconds."""

    def __init__(
        self,
        origin: Origin,
        access: Access,
        store: Store,
        flights: Flights,
        refresh: Callable[[Fetch, Entry], None],
        now: Callable[[], float],
    ) -> None:
        self._origin = origin
        self._access = access
        self._store = store
        self._flights = flights
        self._refresh = refresh
        self._now = now

    def __repr__(self) -> str:
        return f"<Fetching for {self._flights!r}>"

    async def lead(self, fetch: Fetch, reader: Reader, mode: FetchMode) -> Serve | None:
        """
        Fetch for the reserved flight of *reader*, its first. Returns what serves this caller and nobody else, as it
        stands, and then there is no flight any more; None: the flight has been launched, and brings the answer.
        """
        # 9: the fleet's tier
        flight, late = reader.flight, mode is FetchMode.COALESCE_LATE
        flight.position = self._store.position
        flight.inherits = partial(self._store.tags, fetch.key)
        try:
            fetched = NOTHING
            if mode is not FetchMode.BYPASS_STORE:
                fetched = await self._look(fetch, flight)
            flight.patience = 0.0
            found = self._judge_as_it_stands(fetch, flight, fetched)
        except BaseException:
            reader.leave()
            if flight.readers:  # who has joined meanwhile gets an answer all the same: looked for anew
                self._launch(fetch, flight, partial(self.fly, fetch, late=late))
            else:
                self._flights.ground(flight)
            raise
        if found is not None:
            self._flights.ground(flight)
            return found
        self._launch(fetch, flight, partial(self._bring, fetch, fetched))
        self._hold(fetch, flight, fetched, late=late)
        return None

    async def fly(self, fetch: Fetch, flight: Flight, *, late: bool = False) -> None:
        """Fetch one answer in a flight's own task, for whoever reads along."""
        flight.position = self._store.position
        flight.inherits = partial(self._store.tags, fetch.key)
        fetched = await self._look(fetch, flight)
        flight.patience = 0.0
        self._hold(fetch, flight, fetched, late=late)
        await self._bring(fetch, fetched, flight)

    async def second(self, first: Flight, fetch: Fetch, flight: Flight) -> None:
        """
        Fetch beside *first*, whose call is stuck, for those who wait for it: from behind memory what another process
        fetches beside it, or by a call, if there is an extra attempt left and more than one waits.

        Raises ``UpstreamFailed`` where there is nothing; then it can be tried again when *first* has been silent for as
        long once more.
        """
        flight.position = self._store.position
        flight.inherits = partial(self._store.tags, fetch.key)

        def beside() -> Beside:
            if first.readers <= 1 or not self._origin.spares(fetch):
                return Beside.LOOK
            return Beside.NOW if first.leased else Beside.STUCK  # where another holds the lease, it is for it to say

        try:
            timeouts, streaming = fetch.call.route.timeouts, fetch.call.facts.view.stream
            patience = timeouts.stream_first_byte if streaming else timeouts.first_byte
            fetched = await self._origin.look(fetch, patience=patience, beside=beside)
            if self._judge(fetch, fetched.entry) is None:
                free = fetched.lease is not None or not (fetched.waited or first.readers <= 1)
                if not (free and self._origin.take(fetch)):
                    if fetched.lease is not None:
                        fetched.lease.release(failed=True)
                    raise UpstreamFailed(Cause.NO_REGION, "there is no second call", sent=False)
                first.seconded = True
            self._hold(fetch, flight, fetched, second=True)
            await self._bring(fetch, fetched, flight, cause=SECOND)
        finally:
            if not first.seconded:
                first.second = None
                first.rest()

    async def _look(self, fetch: Fetch, flight: Flight) -> Fetched:
        """What lies behind memory, waited for as long as *flight* may; beside a process that is stuck it is fetched."""

        def beside() -> Beside:
            return Beside.STUCK if flight.patience and self._origin.spares(fetch) else Beside.NEVER

        while True:
            fetched = await self._origin.look(fetch, patience=flight.patience, beside=beside)
            if not fetched.second or self._origin.take(fetch):
                return fetched
            assert fetched.lease is not None
            fetched.lease.release(failed=True)  # the attempt has gone to another call; the first is waited for

    def _launch(self, fetch: Fetch, flight: Flight, work: Callable[[Flight], Awaitable[None]]) -> None:
        self._flights.launch(flight, work)
        lend(fetch.request.body, flight)

    def _hold(
        self, fetch: Fetch, flight: Flight, fetched: Fetched, *, late: bool = False, second: bool = False
    ) -> None:
        """
        See to it that a lease is given back, whatever becomes of the flight, and that others get what is kept. Unless
        it is *late* or *second*, others may fetch beside it once it shows no sign of life.
        """
        lease = fetched.lease
        if not (late or second or fetched.second):
            flight.leased = lease is not None
            flight.watch(partial(self._origin.silence, fetch), partial(_stall, lease))
        alone = fetched.waited or late or fetch.call.principal.local
        flight.on_verdict(partial(self._share, fetch.key, lease, alone=alone))
        if lease is None:
            return
        flight.on_supersede(partial(lease.release, failed=False))  # whoever asks after a purge need not wait for us
        assert flight.task is not None
        flight.task.add_done_callback(partial(_give_back, lease, flight))

    async def _bring(self, fetch: Fetch, fetched: Fetched, flight: Flight, *, cause: str = "") -> None:
        known, entry = fetch.known, fetched.entry
        found = self._judge(fetch, entry)
        if found is not None and (known is None or found.entry.at > known.at):
            await substitute(flight, found, Outcome.HIT_REDIS if found.ttl >= 0 else Outcome.STALE)
        elif known is not None and entry is not None and fetched.lease is None:
            # another process refreshes it, or has just failed to
            await substitute(flight, Serve(known, 0, 0), Outcome.STALE)
        else:
            # 10: a region; 11: share at its head, retain at its end
            if entry is not None:
                flight.tags.update(entry.tags)
            behind = None if entry is None else self._store.hold(entry)
            await self._origin.fetch(fetch, flight, behind, cause=SECOND if fetched.second else cause)

    def _judge_as_it_stands(self, fetch: Fetch, flight: Flight, fetched: Fetched) -> Serve | None:
        """What serves the flight's leader, where that needs no fetch, no form but its own, and nobody has joined."""
        entry = fetched.entry
        if entry is None or fetched.lease is not None or flight.readers > 1:
            return None
        return self._judge(fetch, entry) if as_it_stands(entry, fetch.call.facts.view) else None

    def _judge(self, fetch: Fetch, entry: Entry | None) -> Serve | None:
        """Whether what lies behind memory serves; a newer answer is asked for where it should be."""
        if entry is None:
            return None
        fields = fetch.request.head.fields
        found = self._access.may_have(fetch.plan, fetch.call, fetch.key, fields, entry, self._now())
        if isinstance(found, Refresh):
            found = found.serve
            if fetch.known is None:
                self._refresh(fetch, found.entry)
        return found

    def _share(self, key: Key, lease: Lease | None, entry: Entry | None, *, alone: bool) -> None:
        """What becomes of an answer is known: None is for nobody else. *alone*: another process sees to the fleet."""
        if lease is not None and entry is not None:
            lease.keep(entry)
        elif lease is not None:
            lease.release(failed=True)  # who waits elsewhere need not wait for its end
        elif entry is not None and not alone:
            self._store.share(key, entry)


def _stall(lease: Lease | None, stuck: bool) -> None:  # noqa: FBT001  as Pulse calls it
    if lease is not None:
        lease.stall(stuck=stuck)


def _give_back(lease: Lease, flight: Flight, task: asyncio.Task[None]) -> None:
    """The fetch is over. Where nobody waited for it any more, another process goes on at once."""
    lease.release(failed=not (task.cancelled() or flight.superseded))
