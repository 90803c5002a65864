"""A service whose streams stay open for as long as a story wants, and twenty callers of it."""

from __future__ import annotations

import asyncio

from tests.scenarios.answers import LAST_CHUNK, STREAM_HEAD, chat_events, chunks
from tests.scenarios.caller import Caller
from tests.scenarios.conftest import CHAT
from tests.scenarios.processes import Process

EVENTS = chat_events("One", " two", " three.")

TEXT = "One two three."


class Streaming:
    """A service that streams the beginning of its answer at once and the rest when *go* is set."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, _head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunks(EVENTS[:2]))
        await self.go.wait()
        writer.write(chunks(EVENTS[2:]) + LAST_CHUNK)


CALLS = [
    {**CHAT, "stream": True, "seed": number}
    if number % 4
    else {"model": "gpt-4o", "stream": True, "messages": CHAT["messages"]}  # never looked up
    for number in range(20)
]


async def opened(process: Process, dial) -> list[Caller]:
    """Twenty streams of which the beginning has come."""
    callers = [await dial(process.port, call) for call in CALLS]
    for caller in callers:
        await caller.until(b'"One"')
    return callers
