"""Documents larger than memory, and many at once: what they hold is bounded, and they are the documents they were."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from sidecar.core.model import Outcome
from sidecar.core.rules import CacheRule, Limits, Route
from sidecar.net.inbound import disk_queue
from sidecar.net.inbound.disk_queue import HIGH
from sidecar.net.inbound.spool import Spools
from tests.scenarios.document_sdks import document
from tests.scenarios.operation_desks import KEPT, KEY, Desk, service

MIB = 1024 * 1024
SIZE = 20 * MIB
FORMS = ("bytes", "base64", "form")


@pytest.fixture
def build_desk(build_lab, provider):
    async def build(memory: int, rule: CacheRule = KEPT) -> Desk:
        limits = replace(Limits(), inflight_memory=memory, drain_seconds=2.0)
        routes = (Route("documents", cache=rule),)
        services = (service(f"http://127.0.0.1:{provider.port}"),)
        lab = await build_lab("", services=services, routes=routes, limits=limits)
        lab.clocks.without_pauses()
        return Desk(lab)

    return build


@pytest.fixture
def spooled(monkeypatch):
    """One item for each body that went to the disk: where it went."""
    found: list[Spools] = []
    create = Spools.create

    def counted(spools: Spools) -> Any:
        found.append(spools)
        return create(spools)

    monkeypatch.setattr(Spools, "create", counted)
    return found


def filled(text: str, size: int) -> bytes:
    """A document of one page with *text*, and of *size* bytes."""
    return document(text).ljust(size, b"\0")


def written(data: bytes, form: str) -> tuple[bytes, str]:
    """*data* in a form, and the content type of that."""
    if form == "base64":
        return json.dumps({"base64Source": base64.b64encode(data).decode()}).encode(), "application/json"
    if form == "form":
        head = b'Content-Disposition: form-data; name="f"; filename="a.pdf"'
        return b"--x\r\n%b\r\n\r\n%b\r\n--x--\r\n" % (head, data), "multipart/form-data; boundary=x"
    return data, "application/pdf"


async def analyse(desk: Desk, data: bytes, form: str) -> Any:
    """The result of *data*, uploaded in a form."""
    body, kind = written(data, form)
    return await desk.analyse(body, headers=KEY | {"content-type": kind})


async def test_larger_than_memory(build_desk, provider, spooled):
    """Each form goes to the disk, is hashed on its way, and has the key that it has where memory has room for it."""
    data = filled("A large one", SIZE)
    desk = await build_desk(MIB)
    ledger = desk.lab.sidecar.ledger
    results = [await analyse(desk, data, form) for form in FORMS]
    await desk.lab.settle()
    assert (3, 0) == (len(spooled), ledger.held)
    assert ledger.peak <= MIB

    ledger.limit = 2 * SIZE
    results += [await analyse(desk, data, form) for form in FORMS]
    await desk.lab.settle()
    assert (3, 0) == (len(spooled), ledger.held)
    assert SIZE <= ledger.peak <= 2 * SIZE

    starts = [one for one in desk.lab.records if one.outcome is not Outcome.POLL]
    assert [Outcome.MISS, *[Outcome.HIT_MEMORY] * 5] == [one.outcome for one in starts]
    assert (1, 1) == (len({one.key for one in starts}), provider.documents.asked)
    assert [results[0]] * 6 == results


@pytest.mark.parametrize("queue", [HIGH, 128 * 1024], ids=["fast disk", "slow disk"])
async def test_many_at_once(build_desk, provider, spooled, monkeypatch, queue):
    """
    Twenty documents, each twice at once and in another form: each is analysed once, and memory is bounded. Where the
    disk has too much to do, all wait for it, and go on.
    """
    monkeypatch.setattr(disk_queue, "HIGH", queue)
    monkeypatch.setattr(disk_queue, "LOW", queue // 4)
    memory, count = 4 * MIB, 20
    desk = await build_desk(memory)
    uploads = [
        (filled(f"Document {number}", MIB), FORMS[place % 3]) for place, number in enumerate([*range(count)] * 2)
    ]
    results = await asyncio.gather(*(analyse(desk, *each) for each in uploads))
    await desk.lab.settle()

    assert results[:count] == results[count:]
    assert count == len({result["content"] for result in results})
    assert (count, 0) == (provider.documents.asked, desk.lab.held)
    assert desk.lab.sidecar.ledger.peak <= memory
    assert {0} == {spools.queue.waiting for spools in spooled}
