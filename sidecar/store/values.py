"""
Plain reads, writes and deletions of values in Redis, by way of aiocache.

The rule: bytes in, bytes out, and nothing without an expiry. The client is the fleet's; deadlines are those of who
calls, and so are errors. A reply of another shape is ``FleetAway``, for the link to judge.
"""

from __future__ import annotations

from typing import Any

from aiocache.backends.redis import RedisCache
from aiocache.base import BaseCache
from aiocache.serializers import NullSerializer

from sidecar.errors import FleetAway


class Values(RedisCache):  # type: ignore[misc]  # aiocache has no types
    """aiocache's ``RedisCache`` over *client*, redis-py's of whatever kind. Of its methods, those here are for use."""

    def __init__(self, client: Any) -> None:
        BaseCache.__init__(self, serializer=_Bytes(), timeout=None)
        self.client = client
        client.set_response_callback("PSETEX", _written)  # the library's takes whatever comes for a success

    def __repr__(self) -> str:
        return "<Values>"

    async def get(self, key: bytes) -> bytes | None:
        """The value at *key*."""
        value: bytes | None = await super().get(key)
        if value is not None and type(value) is not bytes:
            raise FleetAway("malformed", "a value is none")
        return value

    async def set(self, key: bytes, value: bytes, ttl: float) -> None:
        """Put *value* at *key*, for *ttl* seconds: more than 0."""
        if ttl <= 0.0:
            raise ValueError("a value without time to live isn't kept")
        await super().set(key, value, ttl=max(float(ttl), 0.001))

    async def delete(self, key: bytes) -> bool:
        """Forget what is at *key*. Tells whether there was something."""
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
