"""Requests as bytes, well formed or not."""

from __future__ import annotations

import asyncio

CLOSE = b"GET / HTTP/1.1\r\nHost: localhost:@\r\nConnection: close\r\n\r\n"


async def send(port: int, request: bytes) -> bytes:
    """All that comes for *request*; behind it goes a last one, which makes whole what is not, and ends what goes on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        writer.write((request + CLOSE).replace(b"@", b"%d" % port))
        async with asyncio.timeout(20):
            while data := await reader.read(65536):
                answer += data
    except ConnectionError:
        pass  # it was closed before all was sent
    finally:
        writer.close()
    return answer
