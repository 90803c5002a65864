"""A flight table with real tasks, a ledger that is checked at the end, and readers that read to the end."""

import asyncio

import pytest

from sidecar.core.memory_budget import Ledger
from sidecar.core.model import Form
from sidecar.proxy.flight.opening import Opening
from sidecar.proxy.flight.table import Flights

MIB = 1024 * 1024

OWN = ((b"x-request-id", b"of the owner"),)
SHARED = ((b"content-type", b"application/json"),)


class Airfield:
    """A table of flights, the tasks it spawned, and the bugs it reported."""

    opening = Opening(200, OWN, SHARED, Form.EVENTS)

    def __init__(self, *, limit=MIB, memory=64 * MIB, marks=4096):
        self.tasks = set()
        self.bugs = []
        self.ledger = Ledger(memory)
        self.flights = Flights(spawn=self.spawn, ledger=self.ledger, limit=limit, report=self.bugs.append, marks=marks)

    def spawn(self, coroutine, *, name):
        task = asyncio.create_task(coroutine, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def lead(self, fetch, key="key", *, generating=False):
        return self.flights.lead(key, fetch, generating=generating)

    async def read(self, reader):
        """All that *reader* gets, as a caller reads it; None for one that was released."""
        try:
            if await reader.opening() is None:
                return None
            chunks = []
            while chunk := await reader.read():
                chunks.append(chunk)
            return b"".join(chunks)
        finally:
            reader.leave()

    def reading(self, reader):
        """A task that does so."""
        return self.spawn(self.read(reader), name="reader")

    async def settle(self):
        """Let everything run that can."""
        for _ in range(20):
            await asyncio.sleep(0)

    def check(self):
        """Nothing is left over."""

        assert set() == self.tasks
        assert "<Flights 0 flying, 0 joinable, 0 for nobody>" == repr(self.flights)
        assert 0 == self.ledger.held


@pytest.fixture
async def airfield():
    """An airfield on which nothing may be left at the end, and no bug may have been met."""
    field = Airfield()
    yield field
    await field.settle()
    field.check()

    assert [] == field.bugs


@pytest.fixture
def airfields():
    """Makes airfields with other bounds."""
    return Airfield
