"""
A stand-in of Document Intelligence for large bodies: ``python -m tests.bench.analyses PORT``.

The rule: bodies are counted, not kept. A call gets 202 and an operation, each poll the same small result.
``GET /count`` tells how many calls have come.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast
from uuid import uuid4

import uvloop

_RESULT = json.dumps({
    "status": "succeeded",
    "createdDateTime": "2026-01-01T00:00:00Z",
    "lastUpdatedDateTime": "2026-01-01T00:00:01Z",
    "analyzeResult": {"apiVersion": "2024-11-30", "modelId": "prebuilt-read", "content": "x" * 2000,
                      "pages": [{"pageNumber": 1}]},
}).encode()  # fmt: skip
_ACCEPTED = (
    b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nOperation-Location: http://127.0.0.1:%d%b/analyzeResults/%b\r\n\r\n"
)
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"


class AnalysisConnection(asyncio.Protocol):
    """One connection. Bodies have a Content-Length."""

    asked = 0
    port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._head = b""
        self._path = b""
        self._left = 0

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
            if not self._left:
                self._accept()
            return
        self._head += data
        head, end, body = self._head.partition(b"\r\n\r\n")
        if not end:
            return
        self._head = b""
        target = head.split(b" ", 2)[1]
        if head.startswith(b"GET"):
            found = b"%d" % AnalysisConnection.asked if target == b"/count" else _RESULT
            self._transport.write(_ANSWER % (len(found), found))
            return
        self._path = target.partition(b":analyze")[0]
        self._left = int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]) - len(body)
        if not self._left:
            self._accept()

    def _accept(self) -> None:
        AnalysisConnection.asked += 1
        self._transport.write(_ACCEPTED % (AnalysisConnection.port, self._path, str(uuid4()).encode()))


async def _serve(port: int) -> None:
    AnalysisConnection.port = port
    server = await asyncio.get_running_loop().create_server(AnalysisConnection, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
