"""
Step 8: waiting for the head of an answer, beside a second call where the first is stuck.

The rule: a call that shows no sign of life holds up nobody but itself. One of those who wait for it leads a second
call, and whichever of the two has a good answer first serves them all; there is no third.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from sidecar.core.cache.policy import FAILING
from sidecar.core.draft import Draft
from sidecar.errors import Cause, UpstreamFailed
from sidecar.proxy.fill import Origin
from sidecar.proxy.flight.flight import Flight, Reader, changed
from sidecar.proxy.flight.opening import Opening
from sidecar.proxy.flight.table import Flights
from sidecar.proxy.request import Fetch, lend, scopes_within

FetchSecond = Callable[[Flight, Fetch, Flight], Awaitable[None]]
Leave = Callable[[Reader, Draft], None]


class Waiting:
    """
    Waits for answers. *second* fetches beside a flight that is stuck, *leave* leaves a flight. *lease_wait* is how long
    a stream waits for another process's answer, seconds.
    """

    def __init__(
        self, flights: Flights, origin: Origin, *, second: FetchSecond, leave: Leave, lease_wait: float
    ) -> None:
        self._flights = flights
        self._origin = origin
        self._second = second
        self._leave = leave
        self._lease_wait = lease_wait

    def __repr__(self) -> str:
        return f"<Waiting {self._flights!r}>"

    async def opening(self, readers: list[Reader], fetch: Fetch) -> Opening | None:
        """
        The answer's head. *readers* are the caller's: of the flight that it has boarded, and perhaps of a second one;
        left in it is the one by which to read on. None when the answer is not for this caller, whom the flight has
        *released* then, or when a stream has waited long enough for another process, in a flight of callers who wait
        longer.

        Raises the flight's error, or ``UpstreamFailed`` when the caller's own time is over.
        """
        left = self._origin.left(fetch)
        if left is None and not fetch.call.facts.view.stream:
            return await self._soonest(readers, fetch)
        if left is None:
            return await self._in_turn(readers, fetch)
        try:
            async with asyncio.timeout(max(left, 0.0)):
                return await self._in_turn(readers, fetch)
        except TimeoutError:
            detail = "the caller waits no longer"
            raise UpstreamFailed(Cause.FIRST_BYTE_TIMEOUT, detail, sent=readers[0].flight.sent) from None

    async def _in_turn(self, readers: list[Reader], fetch: Fetch) -> Opening | None:
        flight, wait = readers[0].flight, self._lease_wait
        if fetch.call.facts.view.stream and flight.patience > wait:
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
                        self._leave(reader, fetch.draft)
                readers[:] = [found]
                return await found.opening()
            flight = readers[0].flight
            if len(readers) > 1 and readers[1].flight.error is not None:
                self._leave(readers.pop(), fetch.draft)  # it came to nothing; there may be another
            second = self._join_second(flight, fetch) if flight.stuck and len(readers) == 1 else None
            if second is None:
                await changed(*readers)
            else:
                readers.append(second)

    def _join_second(self, first: Flight, fetch: Fetch) -> Reader | None:
        """
        A place in the flight beside *first*, which is begun where it isn't there; None: there is none, or not for this
        caller. One look, then join or lead: no await. Who is alone may yet hear of an answer to another process.
        """
        call, fields, second = fetch.call, fetch.request.head.fields, first.second
        join = partial(Flight.join, credential=call.principal.credential, draft=fetch.draft, fields=fields)
        if second is not None:
            if second.over or second.windowed or not second.fits(fields):
                return None
            if second.kept is not None and not self._origin.note(fetch, second.kept):
                return None
            second.tags.update(fetch.plan.asked.tags)
            return join(second, question=fetch.question)
        if first.seconded or not (first.readers > 1 or first.leased):
            return None
        generating = call.endpoint.generating
        scopes = partial(scopes_within, fetch)
        second = self._flights.reserve(None, generating=generating, scopes=scopes, target=first.target)
        reader = join(second, question=fetch.question)
        self._flights.launch(second, partial(self._second, first, fetch))
        lend(fetch.request.body, second)
        first.help(second)
        return reader


def settled(readers: list[Reader]) -> Reader | None:
    """
    By which of its *readers* a caller goes on, None while that is open. An error counts only when there is no better
    answer to come; but what the first call is refused is told at once, for it is the service's answer to the question.
    Nor counts an answer that isn't for this caller, while a call of its own is under way.
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
