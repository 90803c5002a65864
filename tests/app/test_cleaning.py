"""What a process lets go of when something is purged, and when it may say so."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.app.cleaning import Cleaning
from sidecar.core.cache.purges import ALL, Purges, Scope, ScopeKind, Tail
from sidecar.core.memory_budget import Ledger
from sidecar.proxy.flight.reader import Reader
from sidecar.proxy.flight.table import Flights

LOG = b"\x0a" * 16
INVOICES = Scope(ScopeKind.ROUTE, "invoices")


class Desk:
    """A process with flights; it hears of purges as from the log."""

    def __init__(self) -> None:
        self.tasks = []
        self.done = []
        self.purges = Purges()
        self.flights = Flights(spawn=self.spawn, ledger=Ledger(1000), limit=100, report=self.done.append)
        self.cleaning = Cleaning(self.purges, self.flights, self.sweep)
        self.cleaning.settle = self.settle
        self.cleaning.on_confirm = lambda: self.done.append(self.cleaning.confirmed.number)
        self.cleaning.forget.append(self.done.append)

    def spawn(self, work, *, name):
        self.tasks.append(asyncio.create_task(work, name=name))
        return self.tasks[-1]

    async def sweep(self):
        self.done.append("swept")

    async def settle(self):
        self.done.append("settled")

    def hear(self, number, *scopes):
        """The log says that *scopes* have been purged, the last of them as *number*."""
        news = self.purges.learn(Tail(LOG, number, purges=tuple((scope, number) for scope in scopes)), 0.0)
        self.flights.detach(news)
        self.cleaning.take(news)


@pytest.fixture
def desk():
    return Desk()


async def test_the_order(desk):
    """What is held is let go with the purge, and again when the last call has ended; then the purge is confirmed."""
    desk.hear(3, INVOICES)
    before = list(desk.done)
    await desk.cleaning.clean()

    assert [(INVOICES,)] == before
    assert [(INVOICES,), "swept", "settled", (INVOICES,), 3] == desk.done


async def test_confirmed_once(desk):
    """Nothing new is nothing to confirm, and an older place is never confirmed after a newer one."""
    desk.hear(3, INVOICES)
    await desk.cleaning.clean()
    await desk.cleaning.clean()

    assert [3] == [each for each in desk.done if type(each) is int]


async def test_calls_under_way(desk):
    """What was on its way is waited for, and no other call."""
    ended, other = asyncio.Event(), asyncio.Event()

    async def fetch(until):
        await until.wait()

    def lead(key, scope, until):
        flight = desk.flights.lead(key, lambda _: fetch(until), generating=True, scopes=lambda: (scope,))
        return Reader(flight)  # without one the call would be given up

    readers = [lead(1, INVOICES, ended), lead(2, Scope(ScopeKind.ROUTE, "chat"), other)]
    desk.hear(3, INVOICES)
    cleaning = asyncio.ensure_future(desk.cleaning.clean())
    while "settled" not in desk.done:  # noqa: ASYNC110  one turn of the loop after the other
        await asyncio.sleep(0)
    waiting, confirmed = desk.cleaning.waiting, desk.cleaning.confirmed.number
    ended.set()
    await cleaning
    other.set()
    await asyncio.gather(*desk.tasks, return_exceptions=True)
    for reader in readers:
        reader.leave()

    assert (1, 0, 3) == (waiting, confirmed, desk.cleaning.confirmed.number)


async def test_a_place_without_news(desk):
    """The log may go on without anything new for this process; that is confirmed as well."""
    running = asyncio.ensure_future(desk.cleaning.run())
    desk.hear(3, ALL)
    while desk.cleaning.confirmed.number != 3:  # noqa: ASYNC110  as above
        await asyncio.sleep(0)
    desk.purges.learn(Tail(LOG, 4), 0.0)
    async with asyncio.timeout(60):
        while desk.cleaning.confirmed.number != 4:  # noqa: ASYNC110  it looks every second
            await asyncio.sleep(0.01)
    running.cancel()

    assert [3, 4] == [each for each in desk.done if type(each) is int]
