"""
Reads what a namespace holds, for a process that starts with an empty memory.

The rule: Redis may hold millions of other keys, so each command is small, and never ``KEYS``.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from typing import Any

from sidecar.errors import FleetAway
from sidecar.redis_link.link import RedisLink, TimeBudget

COUNT = 200
"""Keys that one command goes through: some 50 microseconds of Redis' time."""

_NAME = re.compile(rb"[A-Za-z0-9_-]{32}\Z")
_SPECIAL = re.compile(rb"([*?\[\]\\])")


async def pages(
    link: RedisLink, where: Callable[[bytes], bytes], budget: Callable[[], TimeBudget]
) -> AsyncGenerator[list[bytes], None]:
    """
    The names of the entries whose keys match *where*, some at a time, in no order; a name may come twice.

    In a Cluster it reads from all primaries. Each command has a *budget*; raises ``FleetAway``.
    """
    before, after = where(b"\0").split(b"\0")
    pattern = _SPECIAL.sub(rb"\\\1", before) + b"*" + _SPECIAL.sub(rb"\\\1", after)
    for target in await link.run(_servers, budget(), op="scan"):
        cursor = 0
        while True:
            cursor, keys = await link.run(_page(target, cursor, pattern), budget(), op="scan")
            names = [key[len(before) : len(key) - len(after)] for key in keys]
            yield [name for name in names if _NAME.match(name)]
            if cursor == 0:
                break


async def _servers(client: Any) -> list[dict[str, Any]]:
    """The arguments that choose each server that holds entries."""
    if not hasattr(client, "get_primaries"):
        return [{}]
    await client.initialize()
    return [{"target_nodes": node} for node in client.get_primaries()]


def _page(target: dict[str, Any], cursor: int, pattern: bytes) -> Callable[[Any], Any]:
    async def page(client: Any) -> tuple[int, list[bytes]]:
        following, keys = await client.scan(cursor, match=pattern, count=COUNT, **target)
        if isinstance(following, dict):  # a Cluster answers by server
            (following,) = following.values()
        if type(following) is not int or type(keys) is not list or any(type(key) is not bytes for key in keys):
            raise FleetAway("malformed", "a page of keys is malformed")
        return following, keys

    return page
