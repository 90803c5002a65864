"""The secret is rotated under load: one is added, they change places, the old one goes."""

from __future__ import annotations

import asyncio
import json

import pytest

from sidecar.cli.keygen import line
from sidecar.core.rules import MemoryRule
from tests.scenarios.answers import completion, said, whole
from tests.scenarios.conftest import CHAT

MOVED, LEFT, NEW = range(10), range(10, 20), range(20, 30)


@pytest.fixture
async def box(script):
    """An upstream that tells which question it was asked, and counts how often."""

    async def answer(_head, body, writer):
        writer.write(whole(completion(f"Box {json.loads(body)['seed']}.")))

    return await script(answer)


async def ask(labs, numbers):
    """Every lab every question, one after the other."""
    for number in numbers:
        for lab in labs:
            reply = await lab.ask({**CHAT, "seed": number})

            assert (200, f"Box {number}.") == (reply.status, said(reply.body))


async def test_rotation_under_load(build_fleet, box, redis_server, tmp_path):
    """Only what the removed secret alone had sealed is asked for anew; all else is found all the time."""
    secrets = tmp_path / "cache.key"
    old, new = line(), line()
    secrets.write_text(f"{old}\n")
    labs = await build_fleet(box.url, 3, memory=MemoryRule(max_entries=1))
    running = True

    async def rotate(*lines):
        """Write the file as a mounted volume does, and wait until all have read it."""
        fresh = tmp_path / "fresh"
        fresh.write_text("".join(f"{one}\n" for one in lines))
        fresh.replace(secrets)
        ids = [one.partition(":")[0] for one in lines]
        rings = [lab.sidecar.fleet.seal._keyring for lab in labs]
        await labs[0].until(lambda: all(ids == [key.id for key in ring().keys] for ring in rings))

    async def press():
        while running:
            await ask(labs, MOVED)

    await ask(labs[:1], (*MOVED, *LEFT))
    await labs[0].until(lambda: len(redis_server.call("KEYS", "*:e")) == 20)
    pressing = asyncio.ensure_future(press())
    await rotate(old, new)
    await ask(labs, LEFT)
    assert 20 == box.calls

    await rotate(new, old)
    await ask(labs, NEW)
    assert 30 == box.calls

    await asyncio.sleep(0)
    before = [len(lab.records) for lab in labs]
    await labs[0].until(lambda: all(len(lab.records) > was + 20 for lab, was in zip(labs, before, strict=True)))
    await rotate(new)
    await ask(labs, (*MOVED, *NEW))
    assert 30 == box.calls

    await ask(labs, LEFT)
    assert 40 == box.calls
    running = False
    await pressing

    assert 40 == box.calls
    assert 0 == sum(lab.sidecar.fleet.seal.faults.total() for lab in labs)
