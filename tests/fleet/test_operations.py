"""The fleet's operations in a real Redis: what one process has started, another knows."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator

import pytest
from msgspec import structs

from sidecar.core.key.fingerprint import key_of_id
from sidecar.core.key.keyring import name as name_of
from sidecar.core.key.keyring import parse
from sidecar.core.rules import SealRule
from sidecar.fleet.operations import LARGEST, RUNNING_SECONDS, STORED_SECONDS, FleetOperations
from sidecar.redis_link.names import RedisNames
from sidecar.store.seal import Seal
from tests.core.request.operations import STARTED, started
from tests.fleet.pods import NAMES, ODD_REPLIES, Pods, answering
from tests.redis_servers import RedisServer


def at(id_: str, names: RedisNames = NAMES) -> bytes:
    """The key of an operation."""
    return names.operation(names.operation_name(id_))


BY_ID = at("7f")


class Process:
    """One process of the fleet, with *secret* in its file."""

    def __init__(self, pods, *, secret=b"s", link=None, names=NAMES):
        self.keyring = parse(b"id:" + b64encode(secret * 32))
        self.admitted = True
        self.bugs = []
        seal = Seal(lambda: self.keyring, SealRule("unused"), random=lambda size: b"r" * size, limit=1 << 20)
        self.operations = FleetOperations(
            link or pods.link(),
            names,
            seal,
            lambda: self.keyring,
            admits=lambda *_: self.admitted,
            timeout=5.0,
            report=self.bugs.append,
        )

    @property
    def running(self) -> bytes:
        return NAMES.running(name_of(self.keyring.first, STARTED.key))


@pytest.fixture
async def pods(redis_server: RedisServer) -> AsyncIterator[Pods]:
    async with Pods(redis_server) as pods:
        yield pods


def test_names():
    """An id cannot be read in its name, namespaces don't mix, and a running operation stands beside its answer."""
    digest = BY_ID.removeprefix(b"team-a:{").removesuffix(b"}:p")

    assert 16 == len(bytes.fromhex(digest.decode()))
    assert 3 == len({BY_ID[7:], at("8f")[7:], at("7f", RedisNames("team-b"))[7:]})
    assert NAMES.entry(b"n")[:-1] == NAMES.running(b"n")[:-1]


async def test_known_everywhere(pods: Pods):
    """By its id, for a day; sealed, so that Redis shows nothing of it."""
    one, other = Process(pods).operations, Process(pods).operations
    await one.put(STARTED)

    assert STARTED == await other.find("7f")
    assert await other.find("8f") is None
    value = pods.server.call("GET", BY_ID)
    assert not any(told in value for told in (b"prebuilt", b"invoices", b"contoso", b"analyzeResults"))
    assert 86_300_000 < pods.server.call("PTTL", BY_ID) <= 86_400_000
    await other.forget("7f")
    assert await one.find("7f") is None


async def test_joined(pods: Pods):
    """By its key while it runs; when its result is stored, a little longer; when it has failed, no longer."""
    one, other = Process(pods), Process(pods)

    assert await one.operations.announce(STARTED)
    assert STARTED == await other.operations.running(STARTED.key)
    assert await other.operations.running(key_of_id("another document")) is None
    assert RUNNING_SECONDS * 990 < pods.server.call("PTTL", one.running) <= RUNNING_SECONDS * 1000
    await one.operations.ended(STARTED.key, stored=True)
    assert STORED_SECONDS * 900 < pods.server.call("PTTL", one.running) <= STORED_SECONDS * 1000
    assert STARTED == await other.operations.running(STARTED.key)
    await other.operations.ended(STARTED.key, stored=False)
    assert await one.operations.running(STARTED.key) is None


async def test_purged(pods: Pods):
    """After a purge nobody joins it; its own callers are still answered."""
    process = Process(pods)
    await process.operations.put(STARTED)
    await process.operations.announce(STARTED)
    process.admitted = False

    assert await process.operations.running(STARTED.key) is None
    assert STARTED == await process.operations.find("7f")


async def test_other_secret(pods: Pods):
    """What another secret has sealed is unknown, and no error."""
    await Process(pods, secret=b"t").operations.put(STARTED)
    process = Process(pods)

    assert await process.operations.find("7f") is None
    assert [] == process.bugs


async def test_another_name(pods: Pods):
    """A value that somebody has copied to another id, or to another key, is none of that."""
    process = Process(pods)
    await process.operations.put(STARTED)
    await process.operations.announce(STARTED)
    pods.server.call("SET", at("8f"), pods.server.call("GET", BY_ID), "PX", "60000")
    pods.server.call("SET", BY_ID, pods.server.call("GET", process.running), "PX", "60000")

    assert await process.operations.find("8f") is None
    assert await process.operations.find("7f") is None
    assert [] == process.bugs


@pytest.mark.parametrize("value", [b"", b"x", b"x" * (LARGEST + 1)], ids=["empty", "short", "large"])
async def test_foreign_values(pods: Pods, value):
    """What is not ours is nothing."""
    process = Process(pods)
    pods.server.call("SET", BY_ID, value, "PX", "60000")

    assert await process.operations.find("7f") is None
    assert [] == process.bugs


@pytest.mark.parametrize("reply", ODD_REPLIES.values(), ids=ODD_REPLIES.keys())
async def test_odd_replies(pods: Pods, reply):
    """A server that answers nonsense costs nothing but the fleet's help."""
    async with answering([reply]) as url:
        process = Process(pods, link=pods.link(url))
        await process.operations.put(STARTED)

        assert await process.operations.find("7f") is None
        assert await process.operations.running(STARTED.key) is None
        await process.operations.ended(STARTED.key, stored=True)
        await process.operations.forget("7f")
    assert [] == process.bugs


async def test_away(pods: Pods):
    """Without Redis nobody else knows it, and nobody waits."""
    process = Process(pods, link=pods.link("redis://127.0.0.1:1/0"))
    await process.operations.put(STARTED)

    assert not await process.operations.announce(STARTED)
    assert await process.operations.find("7f") is None


async def test_too_large(pods: Pods):
    """A call whose address is beyond any measure is not written; that is a value, and no bug."""
    process = Process(pods)
    huge = structs.replace(started("8f"), query=b"q" * (2 * LARGEST))
    await process.operations.put(huge)

    assert await process.operations.find("8f") is None
    assert [] == process.bugs
