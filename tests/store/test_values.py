"""Plain values in Redis, by way of aiocache."""

import asyncio

import pytest

from sidecar.core.rules import RedisRule
from sidecar.redis_link.client import build
from sidecar.store.values import Values
from tests.fleet.lookups import as_it_is


def spawn(work, *, name):
    return asyncio.create_task(work, name=name)


@pytest.fixture
async def values(redis_server):
    values = Values(build(RedisRule(redis_server.url), spawn, as_it_is))
    yield values
    await values.close()


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"text", id="text"),
        pytest.param(bytes(range(256)), id="no UTF-8"),
        pytest.param(b"\0" * 1_000_000, id="large"),
    ],
)
async def test_bytes_come_back_as_they_went(values, value):
    """Nothing decodes or packs them."""
    await values.set(b"key", value, 60.0)

    assert value == await values.get(b"key")


async def test_what_was_never_stored_is_none(values):
    """A miss is no error."""

    assert await values.get(b"key") is None


async def test_a_deletion_tells_whether_there_was_something(values):
    """And is no error without."""
    await values.set(b"key", b"value", 60.0)

    assert await values.delete(b"key")
    assert not await values.delete(b"key")
    assert await values.get(b"key") is None


@pytest.mark.parametrize(
    "ttl", [pytest.param(60, id="whole"), pytest.param(59.5, id="parts"), pytest.param(1e-9, id="tiny")]
)
async def test_everything_expires(values, redis_server, ttl):
    """Whatever the number, the server has an expiry for it."""
    await values.set(b"key", b"value", ttl)
    left = redis_server.call("PTTL", "key")

    assert left != -1  # which would be forever
    assert left <= 60_000


@pytest.mark.parametrize("ttl", [0, 0.0, -1.0])
async def test_no_time_to_live_is_a_mistake(values, redis_server, ttl):
    """The library would keep it forever, or ask Redis for an error."""
    with pytest.raises(ValueError, match="time to live"):
        await values.set(b"key", b"value", ttl)

    assert 0 == redis_server.call("EXISTS", "key")


async def test_keys_are_used_as_they_are(values, redis_server):
    """No namespace of aiocache's."""
    await values.set(b"team:{\xff}:e", b"value", 60.0)

    assert [b"team:{\xff}:e"] == redis_server.call("KEYS", "*")
