"""A provider whose every answer is another one, so that a story sees which of them it was given."""

from __future__ import annotations

import asyncio
import json

import pytest

from sidecar.core.rules import CacheMode, CacheRule
from tests.scenarios.answers import LAST_CHUNK, STREAM_HEAD, chat_events, chunks, completion, whole
from tests.scenarios.lab import Lab

REVALIDATE = CacheRule(mode=CacheMode.DETERMINISTIC, ttl=60.0, stale_while_revalidate=600.0)

IF_ERROR = CacheRule(mode=CacheMode.DETERMINISTIC, ttl=60.0, stale_if_error=600.0)

ERROR = b'{"error": {"message": "no", "type": "server_error"}}'


class Oracle:
    """
    A provider whose every answer is another one, in the form asked for, when it may *go*.

    *way* is how it fails: a status, ``silent``, ``broken`` off before an event or a whole answer, ``cut`` after some
    events, or ``unfinished``, an answer that is not complete; ``""`` where it doesn't.
    """

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.way = ""
        self.count = 0

    async def __call__(self, _head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        text = f"answer {self.count}"
        stream = json.loads(body).get("stream")
        await self.go.wait()
        match self.way:
            case "":
                writer.write(
                    STREAM_HEAD + chunks(chat_events(text)) + LAST_CHUNK if stream else whole(completion(text))
                )
            case "silent":
                await asyncio.Event().wait()
            case "broken":
                writer.write(STREAM_HEAD + b"20\r\ndata:" if stream else whole(completion(text))[:-10])
                await writer.drain()
                writer.close()
            case "cut":
                writer.write(STREAM_HEAD + chunks(chat_events(text)[:2]))
                await writer.drain()
                writer.close()
            case "unfinished":
                writer.write(whole(completion(text).replace(b'"stop"', b"null")))
            case status:
                writer.write(whole(ERROR, status=f"{status} No"))


async def refreshed(lab: Lab) -> None:
    """Wait until a refresh has begun and is over."""
    await lab.until(lambda: not lab.sidecar.proxy.refreshes)
    await lab.settle()


@pytest.fixture
async def oracle(script):
    """A provider whose every answer is another one; its script is ``oracle``."""
    handler = Oracle()
    upstream = await script(handler)
    upstream.oracle = handler
    return upstream
