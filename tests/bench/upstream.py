"""
The stand-in provider of the benchmarks: ``python -m tests.bench.upstream PORT``.

The rule: it answers any POST with one fixed chat completion of 2 KB, as fast as a Python process can; ``GET /count``
tells how many it has answered, so that a row of hits can prove that none of them came from here.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

import uvloop

_TEXT = "The page is a delivery note, number 77120; it lists no amounts and bears the signature of the warehouse. "
_BODY = json.dumps({
    "id": "chatcmpl-bench",
    "object": "chat.completion",
    "created": 1730000000,
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": _TEXT * 17, "refusal": None},
                 "logprobs": None, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 431, "completion_tokens": 402, "total_tokens": 833},
    "system_fingerprint": "fp_bench",
}).encode()  # fmt: skip
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nx-request-id: req_bench\r\n\r\n"
_ANSWER = _HEAD % len(_BODY) + _BODY


class Provider(asyncio.Protocol):
    """One connection. Bodies are counted, not kept; they need a Content-Length."""

    answered = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._head = b""
        self._left = 0

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
            if not self._left:
                self._answer()
            return
        self._head += data
        head, end, body = self._head.partition(b"\r\n\r\n")
        if not end:
            return
        self._head = b""
        if head.startswith(b"GET"):
            count = b"%d" % Provider.answered
            self._transport.write(_HEAD % len(count) + count)
            return
        self._left = int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]) - len(body)
        if not self._left:
            self._answer()

    def _answer(self) -> None:
        Provider.answered += 1
        self._transport.write(_ANSWER)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
