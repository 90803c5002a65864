"""Callers that ask at once, leave, delete or never come back: nobody loses the result of an accepted operation."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from sidecar.core.rules import Limits, MemoryRule, Route
from sidecar.proxy.operation import table as tables
from tests.scenarios.document_sdks import document
from tests.scenarios.operation_desks import KEPT, Desk, service


@pytest.fixture
def build_desk(build_lab, provider):
    async def build(**more: Any) -> Desk:
        services = (service(f"http://127.0.0.1:{provider.port}"),)
        lab = await build_lab("", services=services, routes=(Route("documents", cache=KEPT),), **more)
        lab.clocks.without_pauses()
        return Desk(lab)

    return build


def status_of(reply: Any) -> str:
    return str(json.loads(reply.body).get("status"))


async def test_polls_at_once(build_desk, provider):
    """Several polls of one id wait for the same result: each of them gets it, and the service is not asked again."""
    provider.documents.faults.paused = True
    provider.documents.faults.failing = b"blurred"  # what fails is not stored, so that no poll finds it there
    desk = await build_desk()
    started = await desk.start(b"%PDF-1 blurred")
    polls = [asyncio.create_task(desk.poll(started)) for _ in range(5)]
    await desk.lab.until(lambda: desk.lab.waiting == 6)
    provider.documents.faults.paused = False
    found = await asyncio.gather(*polls)

    assert ["failed"] * 5 == [status_of(reply) for reply in found]
    assert {"sidecar; hit; detail=operation-result"} == {reply.headers["cache-status"] for reply in found}


async def test_deleted_while_others_wait(build_desk, provider):
    """One of several callers deletes while it runs: the others get their results, and then the service is told."""
    provider.documents.faults.paused = True
    desk = await build_desk()
    first, second, third = [await desk.start() for _ in range(3)]
    gone = await desk.poll(first, method="DELETE")
    provider.documents.faults.paused = False
    await desk.lab.until(lambda: all(flight.over for flight in desk.lab.sidecar.flights))
    await desk.lab.until(lambda: not desk.lab.sidecar.cleaning.waiting)
    before = provider.documents.deleted
    found = [status_of(await desk.result(one)) for one in (second, third)]
    await desk.lab.until(lambda: provider.documents.deleted == 1)

    assert (204, 0) == (gone.status, before)
    assert ["succeeded"] * 2 == found


async def test_deleted_before_another_asks(build_desk, provider):
    """The result is there, and one caller deletes it before another has asked for it."""
    desk = await build_desk()
    first = await desk.start()
    await desk.result(first)
    second = await desk.start()
    gone = await desk.poll(first, method="DELETE")
    found = await desk.result(second)
    await desk.lab.until(lambda: provider.documents.deleted == 1)

    assert second.headers["cache-status"].startswith("sidecar; hit")
    assert (204, "succeeded") == (gone.status, status_of(found))
    assert "sidecar; fwd=miss" == (await desk.start()).headers["cache-status"]


async def test_more_than_are_known(build_desk, provider, monkeypatch):
    """Nobody asks for any of many operations, and not all ids can be remembered: each result is kept."""
    monkeypatch.setattr(tables, "MOST", 4)
    provider.documents.faults.paused = True
    desk = await build_desk()
    for number in range(30):
        await desk.start(document(f"document {number}"))
    provider.documents.faults.paused = False
    await desk.lab.until(lambda: desk.lab.sidecar.memory.entries == 30)

    assert 30 == provider.documents.asked == provider.documents.analyses.total()


async def test_results_of_many(build_desk, provider):
    """Results that nobody fetches take nothing from what the calls under way may have."""
    desk = await build_desk(limits=Limits(inflight_memory=1 << 20, drain_seconds=2.0))
    for number in range(40):
        started = await desk.start(document(f"document {number}", pages=20))
        await desk.lab.until(desk.lab.settled)
        assert 202 == started.status

    assert 40 == desk.lab.sidecar.memory.entries


async def test_no_room_for_a_result(build_desk, provider):
    """A result for which there is no memory comes from the service, and nothing waits for readers that never come."""
    provider.documents.faults.paused = True
    desk = await build_desk(memory=MemoryRule())
    started = await desk.start(document("x", pages=300))
    ledger = desk.lab.sidecar.ledger
    taken = ledger.limit - ledger.held
    assert ledger.take(taken)
    provider.documents.faults.paused = False
    await desk.lab.until(lambda: all(flight.over for flight in desk.lab.sidecar.flights))
    found = await desk.result(started)
    ledger.give(taken)

    assert 300 == len(json.loads(found.body)["analyzeResult"]["pages"])


async def test_ids_are_keys(build_desk, provider):
    """Whoever knows an id may ask for its result: no line of the log and no record repeats one."""
    desk = await build_desk()
    replies = [await desk.start() for _ in range(2)]
    for reply in replies:
        await desk.result(reply)
    await desk.lab.settle()
    told = b"".join(desk.lab.logs).decode() + repr(desk.lab.records)
    ids = {reply.headers["apim-request-id"] for reply in replies}

    assert 2 == len(ids)
    assert not [id_ for id_ in ids if id_ in told]
