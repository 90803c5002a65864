"""
A stand-in for the machine's identity endpoint (IMDS): ``python -m tests.bench.identity_endpoint PORT SECONDS``.

The rule: its tokens hold for SECONDS and end in the epoch second at which they expire, so that a region can refuse
them after that (see ``region.Behaviour``); two of four requests fail, with 410 as while it is updated, and with 500.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from itertools import count

from tests.scenarios.answers import whole

PATH = "/metadata/identity/oauth2/token"

_FAULTS = {3: "410 Gone", 0: "500 Internal Server Error"}  # by the request's number, modulo 4


async def _serve(port: int, seconds: int) -> None:
    numbers = count(1)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(_answer(await reader.readuntil(b"\r\n\r\n"), next(numbers), seconds))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    await server.serve_forever()


def _answer(head: bytes, number: int, seconds: int) -> bytes:
    if not head.startswith(b"GET %b?" % PATH.encode()) or b"\r\nmetadata: true\r\n" not in head.lower():
        return whole(b'{"error":"invalid_request"}', status="400 Bad Request")
    if fault := _FAULTS.get(number % 4):
        return whole(b'{"error":"temporarily_unavailable"}', status=fault)
    until = time.time() + seconds
    token = {
        "access_token": f"bench-{number}-{until:.3f}",
        "expires_in": str(seconds),
        "expires_on": f"{until:.0f}",
        "resource": "https://cognitiveservices.azure.com",
        "token_type": "Bearer",
    }
    return whole(json.dumps(token).encode())


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
