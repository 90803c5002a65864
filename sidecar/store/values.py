"""
Plain reads, writes and deletions of values in Redis, by way of aiocache.

The rule: bytes in, bytes out, and nothing without an expiry. The client is the fleet's; deadlines and errors are the
caller's matter. A reply of another form raises ``FleetAway``, which the link counts.
"""

from __future__ import annotations

from typing import Any

from aiocache.backends.redis import RedisCache
from aiocache.base import BaseCache
from aiocache.serializers import NullSerializer

from sidecar.errors import FleetAway


class Values(RedisCache):  # type: ignore[misc]  # aiocache has no types
    """aiocache's ``RedisCache`` over *client*, any of redis-py's clients. Use only the methods defined here."""

    def __init__(self, client: Any) -> None:
        BaseCache.__init__(self, serializer=_Bytes(), timeout=None)
        self.client = client
        client.set_response_callback("PSETEX", _written)  # the library's own callback accepts any reply as a success

    def __repr__(self) -> str:
        return "<Values>"

    async def get(self, key: bytes) -> bytes | None:
        """The value at *key*."""
        value: bytes | None = await super().get(key)
        if value is not None and type(value) is not bytes:
            raise FleetAway("malformed", "a value is malformed")
        return value

    async def set(self, key: bytes, value: bytes, ttl: float) -> None:
        """Put *value* at *key*, for *ttl* seconds: more than 0."""
        if ttl <= 0.0:
            raise ValueError("a value without time to live isn't kept")
        await super().set(key, value, ttl=max(float(ttl), 0.001))

    async def delete(self, key: bytes) -> bool:
        """Delete what is at *key*. Returns whether there was something."""
        return bool(await super().delete(key))

    async def _close(self, *_: Any, **__: Any) -> None:
        await self.client.aclose()


def _written(reply: Any, **_: Any) -> bool:
    if reply != b"OK":
        raise FleetAway("malformed", "a write has another answer than OK")
    return True


class _Bytes(NullSerializer):  # type: ignore[misc]  # as above
    """Values as they are, and not decoded."""

    DEFAULT_ENCODING = None
