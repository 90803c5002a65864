"""What a service refuses in one call is no answer to another, of the same key, that did not ask for it."""

from __future__ import annotations

import asyncio
import json

import pytest

from sidecar.core.rules import CacheMode, CacheRule, Share
from tests.scenarios.answers import chat_events, chunks, completion, said, whole
from tests.scenarios.conftest import CHAT, LAST_CHUNK, STREAM_HEAD

REFUSALS = ["400 Bad Request", "404 Not Found", "413 Too Large", "415 Unsupported", "422 Unprocessable"]
OPTIONS = [
    {"stream": True}, {"service_tier": "flex"}, {"prompt_cache_retention": "24h"}, {"prompt_cache_key": "k"},
    {"user": "u"}, {"metadata": {"a": "b"}}, {"stream": True, "stream_options": {"include_usage": True}},
]  # fmt: skip


class Strict:
    """A service that refuses whatever has *options*, with *status*; while *go* is clear it holds its answers back."""

    def __init__(self, options: dict, status: str) -> None:
        self.options, self.status = options, status
        self.go = asyncio.Event()

    async def __call__(self, _head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        asked = json.loads(body)
        await self.go.wait()
        if self.options.items() <= asked.items():
            writer.write(whole(b'{"error":{"message":"No such option."}}', status=self.status))
        elif asked.get("stream"):
            writer.write(STREAM_HEAD + chunks(chat_events("A box.")) + LAST_CHUNK)
        else:
            writer.write(whole(completion("A box.")))


@pytest.mark.parametrize("status", REFUSALS)
@pytest.mark.parametrize("options", OPTIONS, ids="+".join)
async def test_who_did_not_ask_for_it(options, status, build_lab, script, dial):
    """A caller that joined makes a call of its own; one that asked for the very same has its answer."""
    service = Strict(options, status)
    upstream = await script(service)
    lab = await build_lab(upstream.url)
    first = await dial(lab, CHAT | options)
    await lab.until(lambda: upstream.calls == 1)
    others = [await dial(lab, body) for body in (CHAT | options, CHAT, CHAT)]
    await lab.until(lambda: lab.waiting == 4)
    service.go.set()
    replies = [await caller.reply() for caller in (first, *others)]

    number = int(status[:3])
    assert [number, number, 200, 200] == [reply.status for reply in replies]
    assert ["A box."] * 2 == [said(reply.body) for reply in replies[2:]]
    assert 2 == upstream.calls
    await lab.settle()


@pytest.mark.parametrize("status", ["500 Broken", "503 Away"])
async def test_what_fails_fails_for_all(status, build_lab, script, dial):
    """What the service lacks is everybody's."""
    service = Strict({"service_tier": "flex"}, status)
    upstream = await script(service)
    lab = await build_lab(upstream.url)
    first = await dial(lab, CHAT | {"service_tier": "flex"})
    await lab.until(lambda: upstream.calls == 1)
    second = await dial(lab)
    await lab.until(lambda: lab.waiting == 2)
    service.go.set()
    replies = [await caller.reply() for caller in (first, second)]

    assert [int(status[:3])] * 2 == [reply.status for reply in replies]


@pytest.mark.parametrize("name", ["x-made-up", "openai-made-up"])
async def test_a_field_that_does_not_count(name, build_lab, script, dial):
    """At the vendor's own host a field is no part of the key, and may be refused all the same."""
    go = asyncio.Event()

    async def answer(head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        refused = name.encode() in head.lower()
        writer.write(whole(b"{}", status="400 Bad Request") if refused else whole(completion("A box.")))

    upstream = await script(answer)
    lab = await build_lab(upstream.url)
    first = await dial(lab, headers={name: "1"})
    await lab.until(lambda: upstream.calls == 1)
    others = [await dial(lab, headers=headers) for headers in ({name: "1"}, {}, {"traceparent": "other"})]
    await lab.until(lambda: lab.waiting == 4)
    go.set()
    replies = [await caller.reply() for caller in (first, *others)]

    assert [400, 400, 200, 200] == [reply.status for reply in replies]
    assert 2 == upstream.calls


@pytest.mark.parametrize(
    ("fields", "own"),
    [
        ({"idempotency-key": "used"}, {"idempotency-key": "fresh"}),
        ({"repeatability-request-id": "used"}, {}),
        ({"tracestate": "x" * 5000}, {"tracestate": "x"}),
        ({"prefer": "wait=1"}, {}),
    ],
    ids=["reused", "reused, and none", "too long", "preference"],
)
@pytest.mark.parametrize("status", ["400 Bad Request", "409 Conflict", "422 Unprocessable", "431 Too Large"])
async def test_a_fault_of_the_leaders_own_fields(fields, own, status, build_lab, script, dial):
    """A field that never counts may be what a service refuses; then that is told to its own caller alone."""
    go = asyncio.Event()
    name, value = next(iter(fields.items()))

    async def answer(head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        refused = f"{name}: {value}\r\n".encode() in head.lower()
        writer.write(whole(b"{}", status=status) if refused else whole(completion("A box.")))

    upstream = await script(answer)
    lab = await build_lab(upstream.url)
    first = await dial(lab, headers=fields)
    await lab.until(lambda: upstream.calls == 1)
    other = await dial(lab, headers=own)
    await lab.until(lambda: lab.waiting == 2)
    go.set()
    replies = [await caller.reply() for caller in (first, other)]

    assert [int(status[:3]), 200] == [reply.status for reply in replies]


async def test_a_project_without_rights(build_lab, script, dial):
    """One key in two projects: what one project may not do says nothing of the other, where all callers share."""
    go = asyncio.Event()

    async def answer(head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        refused = b"openai-project: p1" in head.lower()
        writer.write(whole(b"{}", status="403 Forbidden") if refused else whole(completion("A box.")))

    upstream = await script(answer)
    lab = await build_lab(upstream.url, cache=CacheRule(mode=CacheMode.ALWAYS, share=Share("service")))
    first = await dial(lab, headers={"openai-project": "p1"})
    await lab.until(lambda: upstream.calls == 1)
    other = await dial(lab, headers={"openai-project": "p2"})
    await lab.until(lambda: lab.waiting == 2)
    go.set()
    replies = [await caller.reply() for caller in (first, other)]

    assert [403, 200] == [reply.status for reply in replies]


async def test_refusals_of_large_bodies(build_lab, script, dial):
    """A large body is compared byte for byte: many callers that wait cost nobody time."""
    service = Strict({"service_tier": "flex"}, "400 Bad Request")
    upstream = await script(service)
    lab = await build_lab(upstream.url, cache=CacheRule(mode=CacheMode.ALWAYS))
    large = CHAT | {"messages": [{"role": "user", "content": "x" * 40_000}], "service_tier": "flex"}
    first = await dial(lab, large)
    await lab.until(lambda: upstream.calls == 1)
    same = [await dial(lab, large) for _ in range(3)]
    other = await dial(lab, {name: value for name, value in large.items() if name != "service_tier"})
    await lab.until(lambda: lab.waiting == 5)
    service.go.set()
    replies = [await caller.reply() for caller in (first, *same, other)]

    assert [400] * 4 + [200] == [reply.status for reply in replies]
    assert 2 == upstream.calls
