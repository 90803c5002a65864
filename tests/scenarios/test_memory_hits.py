"""A call answered once is answered from memory the next time."""

from __future__ import annotations

from sidecar.core.model import Outcome
from tests.scenarios.conftest import CHAT


async def test_second_call_is_a_hit(lab, provider):
    """The second equal call never reaches the provider, and says so."""
    first = await lab.ask(CHAT)
    second = await lab.ask(CHAT)

    assert "sidecar; fwd=miss; stored" == first.cache
    assert second.cache.startswith("sidecar; hit; ttl=")
    assert first.json() == second.json()
    assert 1 == provider.calls
    assert [Outcome.MISS, Outcome.HIT_MEMORY] == [record.outcome for record in lab.records]
    assert 1 == len({record.key for record in lab.records if len(record.key) == 16})
    assert "age" in second.headers
    assert "set-cookie" not in second.headers
    assert second.headers["x-request-id"] == second.headers["x-sidecar-request-id"]  # ours, where SDKs look for one
    assert first.headers["x-request-id"] != first.headers["x-sidecar-request-id"]


async def test_sampled_call_passes_through(lab, provider):
    """A chat without an explicit temperature of 0 is never looked up, and the reason is told."""
    call = {name: value for name, value in CHAT.items() if name != "temperature"}

    replies = [await lab.ask(call) for _ in range(2)]

    assert ["sidecar; fwd=bypass; detail=not-deterministic"] * 2 == [reply.cache for reply in replies]
    assert 2 == provider.calls
    assert [b"", b""] == [record.key for record in lab.records]
