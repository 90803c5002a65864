"""A record tells when its caller got its first content, and whose the error was if it got none."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.app.clocks import running
from sidecar.core.model import Outcome
from sidecar.core.rules import Route, RouteLimits
from tests.scenarios.answers import said
from tests.scenarios.box import STREAM, TEXT, Box
from tests.scenarios.conftest import CHAT, STREAM_HEAD, chunk, whole
from tests.scenarios.desks import metric
from tests.scenarios.redis_contents import written

UNKNOWN = {**STREAM, "temperature": 1}


@pytest.mark.parametrize("body", [STREAM, UNKNOWN], ids=["looked-up", "passed-on"])
async def test_stream(body, build_lab, script, dial):
    """First content is when the first event was handed on, not when the last was; who joins later has its own."""
    box = Box()
    box.head.set()
    upstream = await script(box)
    lab = await build_lab(upstream.url)
    before = running()
    leader = await dial(lab, body)
    await leader.until(b'"It"')
    seen = running()
    other = await dial(lab, body)
    await other.until(b'"It"')
    box.rest.set()
    replies = [await leader.reply(), await other.reply()]
    await lab.settle()

    assert [TEXT] * 2 == [said(reply.body) for reply in replies]
    for record in lab.records:
        assert record.first_content_seconds < record.seconds
        assert record.error_origin == ""
    assert lab.records[0].first_content_seconds <= seen - before
    assert 2.0 == sum(metric(lab, "first_content_seconds_count").values())
    assert {} == metric(lab, "errors_total")


async def test_hits(lab):
    """An answer from memory is there at once, and counts; so does a miss that is one document."""
    for _ in range(3):
        await lab.ask()

    assert [Outcome.MISS, Outcome.HIT_MEMORY, Outcome.HIT_MEMORY] == [record.outcome for record in lab.records]
    assert all(0.0 < record.first_content_seconds <= record.seconds for record in lab.records)
    assert {'service="openai"': 3.0} == metric(lab, "first_content_seconds_count")


async def test_hits_of_the_fleet(build_fleet, provider, redis_server):
    """An answer that another process has fetched counts, too."""
    one, other = await build_fleet(f"http://127.0.0.1:{provider.port}")
    await one.ask()
    await written(redis_server)
    await other.ask()

    [record] = other.records
    assert Outcome.HIT_REDIS is record.outcome
    assert 0.0 < record.first_content_seconds <= record.seconds


@pytest.mark.parametrize("body", [CHAT, {**CHAT, "temperature": 1}], ids=["looked-up", "passed-on"])
@pytest.mark.parametrize(("status", "origin"), [(400, "caller"), (401, "caller"), (429, "upstream"), (500, "upstream")])
async def test_errors_that_services_answer(status, origin, body, build_lab, script):
    """They are handed on as they are; each is somebody's, and none of it is content."""

    async def no(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(b'{"error": {"message": "no"}}', status=f"{status} No"))

    lab = await build_lab((await script(no)).url)

    assert status == (await lab.ask(body)).status
    [record] = lab.records
    assert (origin, None) == (record.error_origin, record.first_content_seconds)
    assert {f'origin="{origin}",service="openai"': 1.0} == metric(lab, "errors_total")


async def test_a_stream_that_breaks(build_lab, script):
    """It was content until it broke; the error is the service's all the same."""

    async def cut(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(b'data: {"choices":[{"delta":{"content":"It"}}]}\n\n'))
        await writer.drain()
        writer.transport.abort()

    lab = await build_lab((await script(cut)).url)

    assert (await lab.ask(STREAM)).broken
    await lab.settle()
    [record] = lab.records
    assert (200, Outcome.ERROR, "upstream") == (record.status, record.outcome, record.error_origin)
    assert record.first_content_seconds is not None


async def test_errors_of_callers(build_lab, script, dial):
    """Who asks for what there is not, in a form that is none, or leaves, has no one else to ask."""
    box = Box()
    upstream = await script(box)
    lab = await build_lab(upstream.url)
    only = await lab.ask(headers={"cache-control": "only-if-cached"})
    lost = await lab.ask(path="/nowhere")
    gone = await dial(lab, CHAT)
    await lab.until(lambda: upstream.calls == 1)
    gone.vanish()
    await lab.until(lambda: len(lab.records) == 3)

    assert (504, 404) == (only.status, lost.status)
    assert ["caller"] * 3 == [record.error_origin for record in lab.records]
    assert [None] * 3 == [record.first_content_seconds for record in lab.records]
    assert {'origin="caller",service="openai"': 2.0, 'origin="caller",service=""': 1.0} == metric(lab, "errors_total")


async def test_our_own_limits(build_lab, script):
    """A call for which a route has no room is refused by this sidecar."""
    box = Box()
    upstream = await script(box)
    lab = await build_lab(upstream.url, routes=(Route("tight", limits=RouteLimits(concurrency=1, queue=0)),))
    first = asyncio.ensure_future(lab.ask())
    await lab.until(lambda: upstream.calls == 1)
    second = await lab.ask({**CHAT, "seed": 1})
    box.head.set()
    box.rest.set()

    assert 200 == (await first).status
    assert 429 == second.status
    assert ["sidecar", ""] == [record.error_origin for record in lab.records]
    assert {'origin="sidecar",service="openai"': 1.0} == metric(lab, "errors_total")
