"""Two keys of one address are still two keys: an address finds an entry, it never proves it."""

from __future__ import annotations

import asyncio
import json

import pytest

from sidecar.core.model import Outcome
from tests.scenarios.answers import LAST_CHUNK, STREAM_HEAD, chat_events, chunks, completion, said, whole
from tests.scenarios.conftest import CHAT


def asking(text: str, *, stream: bool) -> dict:
    """A call that is answered with *text*."""
    return {**CHAT, "messages": [{"role": "user", "content": text}], "stream": stream}


class Echo:
    """A service that says what it was asked, in the form asked for, once *go* is set."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, _head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        await self.go.wait()
        asked = json.loads(body)
        text = asked["messages"][0]["content"]
        streamed = STREAM_HEAD + chunks(chat_events(text[:1], text[1:])) + LAST_CHUNK
        writer.write(streamed if asked["stream"] else whole(completion(text)))


@pytest.fixture(autouse=True)
def constant_address(monkeypatch):
    """Every key has the same address."""
    monkeypatch.setattr("sidecar.core.key.fingerprint.address", lambda _proof: bytes(16))


FORMS = pytest.mark.parametrize(
    "streams",
    [(False, False), (True, True), (False, True), (True, False)],
    ids=["plain", "streams", "stream-second", "stream-first"],
)


@FORMS
async def test_one_after_the_other(streams, build_lab, script):
    """What is stored under the address answers its own question only; the other is asked anew each time."""
    echo = Echo()
    echo.go.set()
    upstream = await script(echo)
    lab = await build_lab(upstream.url)
    order = ["left", "right", "left", "right", "left"]

    replies = [await lab.ask(asking(text, stream=streams[text == "right"])) for text in order]

    assert order == [said(reply.body) for reply in replies]
    assert 3 == upstream.calls
    hit, miss = Outcome.HIT_MEMORY, Outcome.MISS
    await lab.until(lambda: len(lab.records) == 5)
    assert [miss, miss, hit, miss, hit] == [record.outcome for record in lab.records]
    assert [True, False, False, False, False] == [record.stored for record in lab.records]
    if not streams[1]:  # a stream's head goes out before anybody knows
        assert "sidecar; fwd=miss" == replies[1].cache
    assert 1 == lab.sidecar.memory.entries
    assert lab.sidecar.memory.collisions >= 2
    assert f"sidecar_cache_collisions_total {lab.sidecar.memory.collisions}.0" in (
        lab.sidecar.metrics.exposition().decode()
    )


@FORMS
async def test_at_the_same_time(streams, build_lab, script, dial):
    """Calls that meet in the air join those that ask the same, and nobody else's."""
    echo = Echo()
    upstream = await script(echo)
    lab = await build_lab(upstream.url)
    order = ["left", "right"] * 10
    callers = [await dial(lab, asking(text, stream=streams[text == "right"])) for text in order]
    await lab.until(lambda: lab.waiting == 20 and upstream.calls == 2)
    echo.go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert order == [said(reply.body) for reply in replies]
    assert 2 == upstream.calls
    assert 1 == lab.sidecar.memory.entries
    again = [said((await lab.ask(asking(text, stream=False))).body) for text in ("left", "right")]
    assert ["left", "right"] == again
    assert lab.sidecar.memory.collisions >= 1
