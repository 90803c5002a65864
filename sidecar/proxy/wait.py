"""
Step 8: waiting for the head of an answer, and for a second call if the first is stuck.

The rule: a stuck call delays only itself. One of the callers that wait for it leads a second call. The first good
answer of the two serves all of them; there is no third call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from sidecar.core.cache.policy import FAILING
from sidecar.core.draft import Draft
from sidecar.errors import Cause, UpstreamFailed
from sidecar.proxy.fill import Origin
from sidecar.proxy.flight.flight import Flight
from sidecar.proxy.flight.opening import Opening
from sidecar.proxy.flight.reader import Reader
from sidecar.proxy.flight.seat import changed
from sidecar.proxy.flight.table import Flights
from sidecar.proxy.request import Fetch, lend, scopes_within

FetchSecond = Callable[[Flight, Fetch, Flight], Awaitable[None]]
Leave = Callable[[Draft, Reader], None]


class Waiting:
    """
    Waits for answers. *second* fetches beside a stuck flight, *leave* leaves a flight. A stream waits for another
    process's answer no longer than *origin*'s ``lease_wait``.
    """

    def __init__(self, flights: Flights, origin: Origin, *, second: FetchSecond, leave: Leave) -> None:
        self._flights = flights
        self._origin = origin
        self._second = second
        self._leave = leave

    def __repr__(self) -> str:
        return f"<Waiting {self._flights!r}>"

    def opening(self, readers: list[Reader], fetch: Fetch) -> Coroutine[Any, Any, Opening | None]:
        """
        Wait for the answer's head. *readers* are this caller's: one in the flight that it joined, perhaps one in a
        second flight. When this returns, only the reader to go on with is left in *readers*. Returns None if the answer
        is not for this caller (its reader is *released*), or if a stream has waited long enough for another process
        while others wait longer.

        Raises the flight's error, or ``UpstreamFailed`` if the caller's own time is over.
        """
        left = self._origin.left(fetch)
        return self._in_turn(readers, fetch) if left is None else self._in_time(readers, fetch, left)

    async def _in_time(self, readers: list[Reader], fetch: Fetch, left: float) -> Opening | None:
        try:
            async with asyncio.timeout(max(left, 0.0)):
                return await self._in_turn(readers, fetch)
        except TimeoutError:
            detail = "the caller waits no longer"
            raise UpstreamFailed(Cause.FIRST_BYTE_TIMEOUT, detail, sent=readers[0].flight.sent) from None

    def _in_turn(self, readers: list[Reader], fetch: Fetch) -> Coroutine[Any, Any, Opening | None]:
        if fetch.call.facts.view.stream and readers[0].flight.patience > self._origin.lease_wait:
            return self._until_lease(readers, fetch)
        return self._soonest(readers, fetch)

    async def _until_lease(self, readers: list[Reader], fetch: Fetch) -> Opening | None:
        """As ``_soonest``; None if a stream has waited long enough for another process while others wait longer."""
        flight, wait = readers[0].flight, self._origin.lease_wait
        try:
            async with asyncio.timeout(wait):
                return await self._soonest(readers, fetch)
        except TimeoutError:
            if flight.patience > wait:
                return None
        return await self._soonest(readers, fetch)

    async def _soonest(self, readers: list[Reader], fetch: Fetch) -> Opening | None:
        while True:
            found = settled(readers)
            if found is not None:
                for reader in readers:
                    if reader is not found:
                        self._leave(fetch.draft, reader)
                readers[:] = [found]
                return await found.opening()
            flight = readers[0].flight
            if len(readers) > 1 and readers[1].flight.error is not None:
                self._leave(fetch.draft, readers.pop())  # the second call failed; another may be started
            second = self._join_second(flight, fetch) if flight.stuck and len(readers) == 1 else None
            if second is None:
                await changed(*readers)
            else:
                readers.append(second)

    def _join_second(self, first: Flight, fetch: Fetch) -> Reader | None:
        """
        A reader in the second flight beside *first*, which is started if needed. None: impossible, or not for this
        caller. No await between look and join. A single caller may also look for another process's answer.
        """
        call, fields, second = fetch.call, fetch.request.head.fields, first.second
        credential, draft, question = call.principal.credential, fetch.draft, fetch.question
        if second is not None:
            if second.over or second.windowed or not second.fits(fields):
                return None
            if second.kept is not None and not self._origin.note(fetch, second.kept):
                return None
            second.tags.update(fetch.plan.asked.tags)
            return Reader(second, credential, draft, question, fields)
        if first.seconded or not (first.readers > 1 or first.leased):
            return None
        generating = call.endpoint.generating
        scopes = partial(scopes_within, fetch)
        second = self._flights.reserve(None, generating=generating, scopes=scopes, target=first.target)
        reader = Reader(second, credential, draft, question, fields)
        self._flights.launch(second, partial(self._second, first, fetch))
        lend(fetch.request.body, second)
        second.seconded = True
        first.help(second)
        return reader


def settled(readers: list[Reader]) -> Reader | None:
    """
    The reader with which a caller goes on, or None if that is not yet known. An error counts only if no better answer
    can come. But if the service refuses the first call, the caller is told at once: that is the service's answer. An
    answer for other callers does not count while this caller has a call of its own under way.
    """
    for reader in readers:
        opening = reader.flight.opening
        refused = () if reader is readers[0] else range(400, 600)
        if (
            opening is not None
            and not reader.released
            and opening.status not in FAILING
            and opening.status not in refused
        ):
            return reader
    for reader in readers:
        if reader.released and not any(other.owner for other in readers):
            return reader
    for reader in readers:
        if not _is_over(reader):
            return None
    return next((reader for reader in readers if reader.flight.opening is not None and not reader.released), readers[0])


def _is_over(reader: Reader) -> bool:
    flight = reader.flight
    return reader.released or flight.opening is not None or flight.error is not None
