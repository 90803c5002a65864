"""A route that only observes: nothing is served, and what a cache would have done is told."""

from __future__ import annotations

from sidecar.core.rules import CacheMode, CacheRule
from tests.scenarios.conftest import CHAT, completion, whole


async def test_observing_route(build_lab, script):
    """Three equal calls go upstream; the second answer says the same as the first, the third something else."""
    texts = iter(["four", "four", "five"])
    numbers = iter(range(9))

    async def answer(head, body, writer):
        writer.write(whole(completion(next(texts), number=next(numbers))))

    upstream = await script(answer)
    lab = await build_lab(f"http://127.0.0.1:{upstream.port}", cache=CacheRule(mode=CacheMode.OBSERVE))

    replies = [await lab.ask(CHAT) for _ in range(3)]

    assert 3 == upstream.calls
    assert ["sidecar; fwd=bypass; detail=observe"] * 3 == [reply.cache for reply in replies]
    assert ["first", "same", "different"] == [record.observed for record in lab.records]
    exposed = lab.sidecar.metrics.exposition().decode()
    assert 'sidecar_observed_total{result="same",route="cached"} 1.0' in exposed
