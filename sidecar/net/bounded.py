"""
Answers that are read whole, for clients that ask for small things.

The rule: whoever reads says how much it takes; nothing is kept of an answer that is longer.
"""

from __future__ import annotations

import aiohttp


class TooLongError(ValueError):
    """An answer is longer than its reader takes."""


async def read_whole(content: aiohttp.StreamReader, most: int) -> bytes:
    """All of *content*. Raises ``TooLongError`` for more than *most* bytes."""
    parts, size = [], 0
    async for part in content.iter_any():
        parts.append(part)
        size += len(part)
        if size > most:
            raise TooLongError
    return b"".join(parts)
