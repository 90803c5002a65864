"""
What this process lets go of when something is purged, and how far it has done so.

The rule: a purge is confirmed when this process holds nothing any more of what it removes: no entry, no remembered
request, no write that waits for Redis, and no call whose answer was on its way when the purge came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from sidecar.core.cache.purges import Purges, Scope
from sidecar.core.model import Position
from sidecar.proxy.flight.flight import Flight
from sidecar.proxy.flight.table import Flights

LOOK_SECONDS = 1.0
"""How often the log's position is compared with the one that is confirmed."""


OVERWRITES = 3
"""How often freed memory is overwritten after an erasure, once in ``LOOK_SECONDS``."""


class Cleaning:
    """
    *sweep* removes the entries of all purges so far from memory. In a fleet, ``settle`` waits for the writes to Redis
    that were under way, and ``on_confirm`` is called when there is more to confirm.

    Each of ``forget`` is called with the scopes of a purge, in the same step in which the purge is carried out, and
    again when the last call has ended that was under way then. It lets go of what it holds of them, and raises nothing.
    """

    def __init__(self, purges: Purges, flights: Flights, sweep: Callable[[], Awaitable[None]]) -> None:
        self._purges = purges
        self._flights = flights
        self._sweep = sweep
        self._leaving: set[Flight] = set()
        self._taken: set[Scope] = set()
        self._due = asyncio.Event()
        self._overwriting = 0
        self.confirmed = Position()
        self.forget: list[Callable[[tuple[Scope, ...]], None]] = []
        self.settle: Callable[[], Awaitable[None]] = _nothing_to_settle
        self.on_confirm: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<Cleaning confirmed {self.confirmed.number}, {self.waiting} calls to end>"

    @property
    def waiting(self) -> int:
        """How many calls are still under way whose answers were purged."""
        return sum(not flight.over for flight in self._leaving)

    def take(self, scopes: tuple[Scope, ...]) -> None:
        """A purge has been carried out: memory serves none of its entries, and its flights are detached."""
        for forget in self.forget:
            forget(scopes)
        self._leaving = {flight for flight in self._flights if flight.superseded}
        self._taken.update(scopes)
        self._due.set()

    async def clean(self) -> None:
        """Wait until nothing is held of what has been purged so far."""
        position, leaving = self._purges.position, self._leaving
        taken = frozenset(self._taken)
        await self._sweep()
        await self.settle()
        ending = [flight.task for flight in leaving if flight.task is not None and not flight.task.done()]
        if ending:
            await asyncio.wait(ending)
        for forget in self.forget:
            forget(tuple(taken))
        self._taken -= taken
        if position.incarnation != self.confirmed.incarnation or position.number > self.confirmed.number:
            self.confirmed = position
            self.on_confirm()

    async def run(self) -> None:
        """Clean whenever something is purged, here or by another process."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._due.wait()
            if self._due.is_set() or self.confirmed != self._purges.position:
                self._due.clear()
                await self.clean()
            elif self._overwriting:  # a second later: what asked for it may have held the request until its receipt
                self._overwriting -= 1
                await _overwrite()

    def overwrite(self) -> None:
        """Something is erased: also overwrite freed memory, as far as that can be done, in the next seconds."""
        self._overwriting = OVERWRITES


async def _overwrite() -> None:
    """Overwrite freed memory."""
    from sidecar.app.freed_memory import overwrite  # noqa: PLC0415  what it needs is loaded only by who erases

    await overwrite()


async def _nothing_to_settle() -> None:
    """A process without a fleet writes to no Redis."""
