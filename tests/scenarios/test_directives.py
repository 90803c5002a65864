"""What a caller asks of the cache holds for it alone, also while an equal call is on its way."""

from __future__ import annotations

import asyncio

import pytest

from tests.scenarios.conftest import completion, said, whole

TEXT = "It is a box."
MISS = "sidecar; fwd=miss; stored"
COLLAPSED = "sidecar; fwd=miss; collapsed"


class Gate:
    """A provider that answers when *go* is set."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, _head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        await self.go.wait()
        writer.write(whole(completion(TEXT)))


async def test_no_store_neither_leads_nor_joins(build_lab, script, dial):
    """A call with no-store goes its own way, beside a flight and before one, and leaves nothing."""
    box = Gate()
    upstream = await script(box)
    lab = await build_lab(upstream.url)
    leader = await dial(lab)
    await lab.until(lambda: lab.waiting == 1)
    private = [await dial(lab, headers={"cache-control": "no-store"}) for _ in range(2)]
    await lab.until(lambda: upstream.calls == 3)
    box.go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in [leader, *private]))

    assert [MISS] + ["sidecar; fwd=bypass; detail=no-store"] * 2 == [reply.cache for reply in replies]
    assert 1 == lab.sidecar.memory.entries


@pytest.mark.parametrize("newest_ends", ["first", "last"])
async def test_no_cache_leads_anew(newest_ends, build_lab, script, dial):
    """A no-cache call fetches while an older flight runs; those after it join it; its answer is the one kept."""
    ends = [asyncio.Event(), asyncio.Event()]
    count = 0

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        mine, count = count, count + 1
        await ends[mine].wait()
        writer.write(whole(completion(("old", "new")[mine])))

    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    older = await dial(lab)
    await lab.until(lambda: upstream.calls == 1)
    newer = await dial(lab, headers={"cache-control": "no-cache"})
    await lab.until(lambda: upstream.calls == 2)
    joiner = await dial(lab)
    await lab.until(lambda: lab.waiting == 3)
    order = [(1, (newer, joiner)), (0, (older,))]
    replies = {}
    for number, callers in order if newest_ends == "first" else reversed(order):
        ends[number].set()
        replies |= {caller: await caller.reply() for caller in callers}
    await lab.settle()

    assert ["old", "new", "new"] == [said(replies[caller].body) for caller in (older, newer, joiner)]
    assert COLLAPSED == replies[joiner].cache
    assert "new" == said((await lab.ask()).body)
    assert 2 == upstream.calls


async def test_only_if_cached_never_waits(build_lab, script, dial):
    """only-if-cached gets what is stored, or 504 at once, also while the answer is on its way."""
    box = Gate()
    upstream = await script(box)
    lab = await build_lab(upstream.url)
    leader = await dial(lab)
    await lab.until(lambda: lab.waiting == 1)
    early = await lab.ask(headers={"cache-control": "only-if-cached"})
    box.go.set()
    await leader.reply()
    late = await lab.ask(headers={"cache-control": "only-if-cached"})

    assert (504, "only-if-cached", "false") == (
        early.status, early.json()["error"]["code"], early.headers["x-should-retry"],
    )  # fmt: skip
    assert late.cache.startswith("sidecar; hit; ")
    assert 1 == upstream.calls


@pytest.mark.parametrize(
    ("first", "second", "calls"),
    [
        ({}, {"cache-control": "max-age=0"}, 2),
        ({}, {"cache-control": "max-age=600"}, 1),
        ({"x-sidecar-ttl": "0"}, {}, 2),
        ({"x-sidecar-ttl": "10m"}, {}, 1),
        ({"x-sidecar-ttl": "nonsense"}, {}, 2),
        ({}, {"x-sidecar-ttl": "0s"}, 2),
        ({"x-sidecar-ttl": "900d"}, {}, 1),
        ({}, {"cache-control": "max-age=-1"}, 2),
        ({}, {"cache-control": "max-age=soon"}, 2),
        ({}, {"cache-control": "min-fresh=600"}, 1),
        ({"x-sidecar-ttl": "10m"}, {"cache-control": "min-fresh=700"}, 2),
        ({}, {"cache-control": "min-fresh=900000000"}, 2),
        ({}, {"cache-control": "max-stale=60"}, 1),
        ({}, {"pragma": "no-cache"}, 2),
        ({}, {"pragma": "no-cache", "cache-control": "max-age=600"}, 1),
        ({"pragma": "no-cache"}, {}, 1),
    ],
    ids=[
        "max-age-0", "max-age", "ttl-0", "ttl", "ttl-unreadable", "reader's-ttl-0", "ttl-longer", "max-age-negative",
        "max-age-unreadable", "min-fresh", "min-fresh of less", "min-fresh-long", "max-stale", "pragma",
        "pragma-beside-cache-control", "pragma-stores",
    ],
)  # fmt: skip
async def test_callers_shorten_lifetimes(first, second, calls, build_lab, script):
    """max-age and x-sidecar-ttl shorten what is served and kept, and never make it longer."""

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(completion(TEXT)))

    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    await lab.ask(headers=first)
    reply = await lab.ask(headers=second)

    assert calls == upstream.calls
    if calls == 1:
        ttl = int(reply.cache.partition("ttl=")[2].partition(";")[0])
        assert ttl <= (600 if first.get("x-sidecar-ttl") == "10m" else 3600)


async def test_one_callers_ttl_does_not_queue_the_others(build_lab, script, dial):
    """A caller that wants nothing kept does not stop the others from sharing the next answer."""
    box = Gate()
    upstream = await script(box)
    lab = await build_lab(upstream.url)
    box.go.set()
    await lab.ask(headers={"x-sidecar-ttl": "0"})
    box.go.clear()
    callers = [await dial(lab) for _ in range(4)]
    await lab.until(lambda: lab.waiting == 4)
    box.go.set()
    await asyncio.gather(*(caller.reply() for caller in callers))

    assert 2 == upstream.calls
