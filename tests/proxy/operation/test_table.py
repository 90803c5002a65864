"""The operations of one process: what waits for its caller, and for how long."""

from __future__ import annotations

import pytest

from sidecar.core.memory_budget import Ledger
from sidecar.proxy.flight.flight import Stage
from sidecar.proxy.flight.reader import Reader
from sidecar.proxy.flight.table import Flights
from sidecar.proxy.operation import table as tables
from sidecar.proxy.operation.table import HELD_SECONDS, OperationTable
from tests.core.request.operations import STARTED, started


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def table(clock):
    return OperationTable(lambda: clock[0])


def flight():
    flights = Flights(spawn=None, ledger=Ledger(1 << 20), limit=1 << 20, report=None)
    return flights.reserve(None, generating=False)


def test_found_by_its_id(table):
    table.add(STARTED)

    assert STARTED is table.find("7f").started
    assert table.find("8f") is None


def test_running_for_long(table, clock):
    """A result that is not there yet does not have to be fetched."""
    running = flight()
    table.add(STARTED, reader=Reader(running))
    clock[0] = 10 * HELD_SECONDS
    table.sweep()

    assert table.find("7f").reader.flight is running
    assert 1 == running.readers


def test_nobody_fetches_it(table, clock):
    """A minute after the end the result waits no longer; the id is known for a day."""
    over = flight()
    table.add(STARTED, reader=Reader(over))
    over.stage = Stage.DONE
    clock[0] = HELD_SECONDS - 1
    table.sweep()
    before = over.readers
    clock[0] = HELD_SECONDS
    table.sweep()

    assert (1, 0) == (before, over.readers)
    assert table.find("7f").reader is None
    clock[0] = 86_400.0
    table.sweep()
    assert table.find("7f") is None


def test_known_anew(table):
    """Whoever follows an operation anew does not leave the earlier flight waiting."""
    first, second = flight(), flight()
    table.add(STARTED, reader=Reader(first))
    table.add(STARTED, reader=Reader(second))

    assert (0, 1, 1) == (first.readers, second.readers, len(table))


def test_dropped(table):
    held = flight()
    table.add(STARTED, reader=Reader(held))
    table.drop("7f")
    table.drop("7f")

    assert (0, 0) == (held.readers, len(table))


def test_most(table, monkeypatch):
    """Beyond the limit the oldest go, and what waits for them."""
    monkeypatch.setattr(tables, "MOST", 2)
    oldest = flight()
    table.add(STARTED, reader=Reader(oldest))
    for number in range(2):
        table.add(started(str(number)))

    assert (2, 0) == (len(table), oldest.readers)
    assert table.find("7f") is None
