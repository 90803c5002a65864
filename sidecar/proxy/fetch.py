"""
Steps 9 to 11: a flight gets its answer, from the fleet's store or from a region.

The rule: the caller that leads a flight first looks in the fleet's store itself. For most answers of the fleet that is
enough. If it is not, a separate task fetches the answer; that task can live longer than its first caller.
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
from sidecar.proxy.flight.flight import Flight
from sidecar.proxy.flight.reader import Reader
from sidecar.proxy.flight.table import Flights
from sidecar.proxy.request import Fetch, FetchMode, lend
from sidecar.store.base import NOTHING, Fetched, Lease, Store
from sidecar.upstream.dispatch import SECOND


class Fetching:
    """Fetches answers for flights. *refresh* starts a fetch of a newer answer; *now* is wall-clock seconds."""

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
        Fetch for the reserved flight of *reader*, its first. If a stored entry serves this caller alone and unchanged,
        return it; the flight is then removed. None: the flight has been launched, and its task will bring the answer.
        """
        # 9: the fleet's tier
        flight, late = reader.flight, mode is FetchMode.COALESCE_LATE
        flight.position = self._store.purges.position
        flight.inherits = partial(self._store.tags, fetch.key)
        try:
            fetched = NOTHING
            if mode is not FetchMode.BYPASS_STORE:
                fetched = await self._look(fetch, flight)
            flight.patience = 0.0
            found = self._judge_as_it_stands(fetch, flight, fetched)
        except BaseException:
            reader.leave()
            if flight.readers:  # other callers have joined: look for the answer again, for them
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
        """Fetch one answer in a flight's own task, for all its readers."""
        flight.position = self._store.purges.position
        flight.inherits = partial(self._store.tags, fetch.key)
        fetched = await self._look(fetch, flight)
        flight.patience = 0.0
        self._hold(fetch, flight, fetched, late=late)
        await self._bring(fetch, fetched, flight)

    async def second(self, first: Flight, fetch: Fetch, flight: Flight) -> None:
        """
        Fetch a second time, for the readers of *first*, whose call is stuck. Take what another process fetches; or send
        a call, if the budget has an extra attempt and more than one caller waits.

        Raises ``UpstreamFailed`` if neither is possible. It is tried again when *first* has been silent for the same
        time again.
        """
        flight.position = self._store.purges.position
        flight.inherits = partial(self._store.tags, fetch.key)

        def beside() -> Beside:
            if first.readers <= 1 or not self._origin.spares(fetch):
                return Beside.LOOK
            return Beside.NOW if first.leased else Beside.STUCK  # the process that holds the lease decides

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
        """Look in the fleet's store, as long as *flight* may wait; if the other process is stuck, fetch here."""
        beside = partial(self._origin.beside, fetch, flight)
        while True:
            fetched = await self._origin.look(fetch, patience=flight.patience, beside=beside)
            if not fetched.second or self._origin.take(fetch):
                return fetched
            assert fetched.lease is not None
            fetched.lease.release(failed=True)  # another call took the extra attempt, so wait for the first call

    def _launch(self, fetch: Fetch, flight: Flight, work: Callable[[Flight], Awaitable[None]]) -> None:
        self._flights.launch(flight, work)
        lend(fetch.request.body, flight)

    def _hold(
        self, fetch: Fetch, flight: Flight, fetched: Fetched, *, late: bool = False, second: bool = False
    ) -> None:
        """
        Make sure that the lease is given back in every case, and that a stored answer is shared. Unless the flight is
        *late* or *second*, others may fetch beside it when its call is stuck.
        """
        lease = fetched.lease
        if not (late or second or fetched.second):
            flight.leased = lease is not None
            flight.watch(partial(self._origin.silence, fetch), partial(_stall, lease))
        alone = fetched.waited or late or fetch.call.principal.local
        flight.on_verdict(partial(self._share, fetch.key, lease, alone=alone))
        if lease is None:
            return
        flight.on_supersede(partial(lease.release, failed=False))  # callers after a purge need not wait for this
        assert flight.task is not None
        flight.task.add_done_callback(partial(_give_back, lease, flight))

    def _bring(self, fetch: Fetch, fetched: Fetched, flight: Flight, *, cause: str = "") -> Awaitable[None]:
        """Serve what was *fetched*, or send a call."""
        known, entry = fetch.known, fetched.entry
        found = self._judge(fetch, entry)
        if found is not None and (known is None or found.entry.at > known.at):
            return substitute(flight, found, Outcome.HIT_REDIS if found.ttl >= 0 else Outcome.STALE)
        if known is not None and entry is not None and fetched.lease is None:
            # another process refreshes it, or has just failed to
            return substitute(flight, Serve(known, 0, 0), Outcome.STALE)
        # 10: a region; 11: share at its head, retain at its end
        if entry is not None:
            flight.tags.update(entry.tags)
        behind = None if entry is None else self._store.hold(entry)
        return self._origin.fetch(fetch, flight, behind, cause=SECOND if fetched.second else cause)

    def _judge_as_it_stands(self, fetch: Fetch, flight: Flight, fetched: Fetched) -> Serve | None:
        """The entry that serves the leader, if it needs no fetch and no conversion, and nobody else joined."""
        entry = fetched.entry
        if entry is None or fetched.lease is not None or flight.readers > 1:
            return None
        return self._take(fetch, fetched.verdict) if as_it_stands(entry, fetch.call.facts.view) else None

    def _judge(self, fetch: Fetch, entry: Entry | None) -> Serve | None:
        """The stored entry, if it may serve; if it should be refreshed, start a refresh."""
        if entry is None:
            return None
        fields = fetch.request.head.fields
        return self._take(fetch, self._access.may_have(fetch.plan, fetch.call, fetch.key, fields, entry, self._now()))

    def _take(self, fetch: Fetch, found: Serve | Refresh | None) -> Serve | None:
        """The entry that is *found* to serve; if it should be refreshed, start a refresh."""
        if isinstance(found, Refresh):
            found = found.serve
            if fetch.known is None:
                self._refresh(fetch, found.entry)
        return found

    def _share(self, key: Key, lease: Lease | None, entry: Entry | None, *, alone: bool) -> None:
        """Share *entry*, or nothing if None. *alone*: this process must not share it outside a lease."""
        if lease is not None and entry is not None:
            lease.keep(entry)
        elif lease is not None:
            lease.release(failed=True)  # other processes need not wait until the answer ends
        elif entry is not None and not alone:
            self._store.share(key, entry)


def _stall(lease: Lease | None, stuck: bool) -> None:  # noqa: FBT001  as Pulse calls it
    if lease is not None:
        lease.stall(stuck=stuck)


def _give_back(lease: Lease, flight: Flight, task: asyncio.Task[None]) -> None:
    """The fetch is over. If no caller waited for it any more, another process may fetch at once."""
    lease.release(failed=not (task.cancelled() or flight.superseded))
