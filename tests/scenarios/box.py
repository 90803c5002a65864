"""A provider that is stopped before its answer, and in the middle of it."""

from __future__ import annotations

import asyncio
import json

from tests.scenarios.answers import chat_events, chunks
from tests.scenarios.conftest import CHAT, LAST_CHUNK, STREAM_HEAD, completion, whole

STREAM = {**CHAT, "stream": True}

EVENTS = chat_events("It", " is", " a box.")

TEXT = "It is a box."

VECTORS = json.dumps({
    "object": "list", "model": "text-embedding-3-small", "usage": {"prompt_tokens": 1, "total_tokens": 1},
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.5]}],
}).encode()  # fmt: skip


class Box:
    """A provider that waits for *head* before its answer, and for *rest* in the middle of it."""

    def __init__(self) -> None:
        self.head, self.rest = asyncio.Event(), asyncio.Event()

    async def __call__(self, _head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        asked = json.loads(body)
        await self.head.wait()
        if asked.get("stream"):
            first, rest = STREAM_HEAD + chunks(EVENTS[:2]), chunks(EVENTS[2:]) + LAST_CHUNK
        else:
            answer = whole(VECTORS if "input" in asked else completion(TEXT))
            middle = answer.index(b"\r\n\r\n") + 10
            first, rest = answer[:middle], answer[middle:]
        writer.write(first)
        await self.rest.wait()
        writer.write(rest)
