"""Long-running operations on their way through a sidecar, as callers without an SDK see them."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from sidecar.admin.actions import PurgeRequest
from sidecar.core.model import Outcome
from sidecar.core.rules import CacheRule, Limits, MemoryRule, Route
from tests.scenarios.document_sdks import document
from tests.scenarios.operation_desks import IMPATIENT, KEPT, KEY, OFF, OTHER, START, Desk, service, standing
from tests.scenarios.searched import search


@pytest.fixture
def build_desk(build_lab, provider):
    async def build(*urls: str, rule: CacheRule = KEPT, **more: Any) -> Desk:
        services = (service(*(urls or (f"http://127.0.0.1:{provider.port}",))),)
        lab = await build_lab("", services=services, routes=(Route("documents", cache=rule),), **more)
        lab.clocks.without_pauses()
        return Desk(lab)

    return build


@pytest.fixture
async def two(provider):
    """Two regions: stand-ins and URLs."""
    async with standing() as (other, url):
        yield (provider, other), (f"http://127.0.0.1:{provider.port}", url)


async def test_what_is_recorded(build_desk, provider):
    """A miss, a hit, and polls that are neither; pages are those of the result, and only the miss has paid them."""
    desk = await build_desk()
    first, second = await desk.analyse(document("x")), await desk.analyse(document("x"))
    await desk.lab.settle()

    assert first == second
    starts = [record for record in desk.lab.records if record.outcome is not Outcome.POLL]
    assert [Outcome.MISS, Outcome.HIT_MEMORY] == [record.outcome for record in starts]
    assert [(1, True, 2), (0, False, 2)] == [(one.attempts, one.stored, one.usage.pages) for one in starts]
    assert {("operation", "GET", 0)} == {
        (one.endpoint, one.method.decode(), one.attempts) for one in desk.lab.records if one.outcome is Outcome.POLL
    }
    assert 2 == provider.documents.pages


async def test_told_at_once(build_desk, provider):
    """A poll that waits is answered when the result comes; one whose caller has little time, before."""
    provider.documents.faults.paused = True
    desk = await build_desk()
    started = await desk.start()
    hasty = await desk.poll(started, headers=KEY | IMPATIENT)
    patient = asyncio.create_task(desk.poll(started))
    await desk.lab.until(lambda: provider.documents.polls > 3)
    provider.documents.faults.paused = False
    found = await patient

    assert ("running", "1") == (json.loads(hasty.body)["status"], hasty.headers["retry-after"])
    assert "sidecar; detail=operation-running" == hasty.headers["cache-status"]
    assert "succeeded" == json.loads(found.body)["status"]
    assert "sidecar; hit; detail=operation-result" == found.headers["cache-status"]
    assert "retry-after" not in found.headers


async def test_nobody_asks(build_desk, provider):
    """The caller has gone, before or after it had its id: the analysis is paid, so its result is kept."""
    desk = await build_desk()
    await desk.start()
    await desk.lab.until(lambda: provider.documents.polls >= 2)
    await desk.lab.until(lambda: desk.lab.sidecar.memory.entries == 1)
    again = await desk.start()

    assert again.headers["cache-status"].startswith("sidecar; hit")
    assert 1 == provider.documents.asked


async def test_failed_over(build_desk, two):
    """The call goes to another region; from then on nothing about the operation goes anywhere else."""
    (first, second), urls = two
    first.documents.faults.starts.extend([503] * 2)
    desk = await build_desk(*urls)
    started = await desk.start()
    found = await desk.result(started)
    hit = await desk.start()

    assert "r2" == started.headers["x-sidecar-region"]
    assert "succeeded" == json.loads(found.body)["status"]
    assert (0, 1) == (first.documents.polls, second.documents.analyses.total())
    assert hit.headers["cache-status"].startswith("sidecar; hit")


@pytest.mark.parametrize("rule", [KEPT, OFF], ids=["kept", "off"])
async def test_pinned(build_desk, two, rule):
    """What is not looked up is polled where it began, too, even if another region stands before that one."""
    (first, second), urls = two
    first.documents.faults.starts.append(503)
    second.documents.faults.running = 3
    desk = await build_desk(*urls, rule=rule)
    result = await desk.analyse()

    assert result["pages"]
    assert (0, 1) == (first.documents.polls, second.documents.analyses.total())


async def test_pinned_for_its_caller(build_desk, two):
    """An operation that is only remembered, not followed, is its caller's as well."""
    _, urls = two
    desk = await build_desk(*urls, rule=OFF)
    started = await desk.start()

    assert 404 == (await desk.poll(started, headers=OTHER)).status
    assert 200 == (await desk.poll(started)).status


async def test_parts(build_desk, provider):
    """A call whose result has parts is passed through, and so are these."""
    desk = await build_desk()
    headers = {"authorization": None, **KEY}
    started = await desk.lab.ask(document("x"), path=f"/docs{START}&output=pdf,figures", headers=headers)
    await desk.result(started)
    pdf = await desk.poll(started, part="/pdf")

    assert "extra-output" in started.headers["cache-status"]
    assert (200, "application/pdf") == (pdf.status, pdf.headers["content-type"])


async def test_too_large_to_keep(build_desk, provider):
    """A result above every limit comes from the service, whole; the operation is followed all the same."""
    desk = await build_desk(memory=MemoryRule(max_entry_bytes=1024))
    first = await desk.analyse(document("x", pages=20))
    second = await desk.analyse(document("x", pages=20))

    assert 20 == len(first["pages"]) == len(second["pages"])
    assert 2 == provider.documents.asked
    assert 0 == desk.lab.sidecar.memory.entries


async def test_purged_while_it_runs(build_desk, provider):
    """Its callers get their result; nobody else does."""
    provider.documents.faults.paused = True
    desk = await build_desk()
    started = await desk.start()
    await desk.lab.sidecar.operations.purge(PurgeRequest("all", "", b"", dry_run=False, fleet=False))
    anew = await desk.start()
    provider.documents.faults.paused = False

    assert "succeeded" == json.loads((await desk.result(started)).body)["status"]
    assert "succeeded" == json.loads((await desk.result(anew)).body)["status"]
    assert "sidecar; fwd=miss" == anew.headers["cache-status"]
    assert 2 == provider.documents.asked


async def test_larger_than_memory(build_desk, provider):
    """A document on its way to the disk is hashed while it comes; its forms are one document, on disk or not."""
    room = 64 * 1024
    data = b"%PDF-1 " + bytes(9 * room)
    forms = [
        (data, "application/pdf"),
        (json.dumps({"base64Source": base64.b64encode(data).decode()}).encode(), "application/json"),
        (b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n%b\r\n--x--\r\n' % data,
         "multipart/form-data; boundary=x"),
    ]  # fmt: skip
    small = await build_desk(limits=replace(Limits(), inflight_memory=room))
    started = [await small.start(body, headers=KEY | {"content-type": kind}) for body, kind in forms]
    results = [json.loads((await small.result(each)).body)["analyzeResult"] for each in started]
    await small.lab.settle()

    assert results[0] == results[1] == results[2]
    assert ["miss", "collapsed", "collapsed"] == [
        one.outcome for one in small.lab.records if one.outcome is not Outcome.POLL
    ] or ["miss", "hit_memory", "hit_memory"] == [
        one.outcome for one in small.lab.records if one.outcome is not Outcome.POLL
    ]
    assert (1, 0) == (provider.documents.asked, small.lab.held)


async def test_body_is_let_go(build_desk, provider):
    """While an operation runs, and while its result waits for its caller, nothing holds the document."""
    provider.documents.faults.paused = True
    desk = await build_desk()
    data = b"%PDF-1 canary " + bytes(300_000)
    started = await desk.start(data)
    await desk.lab.until(lambda: provider.documents.polls > 1)
    held = [kind for kind in search(data[:16]) if kind.startswith("sidecar.") and not kind.startswith("sidecar.demo.")]
    provider.documents.faults.paused = False

    assert [] == held
    assert "succeeded" == json.loads((await desk.result(started)).body)["status"]


@pytest.mark.parametrize("spelling", [str.upper, str.title])
async def test_id_in_another_case(build_desk, provider, spelling):
    """It is the same operation, and no way around the question whose it is."""
    desk = await build_desk()
    started = await desk.start()
    where, _, query = started.headers["operation-location"].removeprefix(desk.lab.url).partition("?")
    folder, _, number = where.rpartition("/")
    path = f"{folder}/{spelling(number)}?{query}"
    mine, other = [
        await desk.lab.ask(b"", path=path, method="GET", headers={"authorization": None, "content-type": None, **key})
        for key in (KEY, OTHER)
    ]

    assert (200, 404) == (mine.status, other.status)
    assert other.headers["cache-status"] == "sidecar; detail=operation-not-found"
