"""Deleting answers from Redis, and a Redis that goes away meanwhile."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from sidecar.core.key.keyring import Keyring, SecretKey
from sidecar.core.rules import SealRule
from sidecar.errors import FleetAway
from sidecar.redis_link.names import RedisNames
from sidecar.store.redis_erase import ErasedValues, RedisEraser
from sidecar.store.seal import Seal

NAMES = RedisNames("team-a")


class Link:
    """A Redis with some values that nobody can open; it goes away at the command number *last*."""

    def __init__(self, count: int, last: int = 10**6) -> None:
        self.keys = [NAMES.entry(b"%032d" % number) for number in range(count)]
        self.left = last

    async def run(self, work, budget, *, op):
        self.left -= 1
        if self.left < 0:
            raise FleetAway("timeout", "no answer")
        return await work(self)

    async def scan(self, cursor, *, match, count):
        return 0, [*self.keys, *self.keys[:3]]  # a page may repeat a name

    async def strlen(self, key):
        return 7


async def get(_key):
    return b"foreign"


def eraser(link: Link) -> RedisEraser:
    keyring = Keyring((SecretKey.derive("a", b"s" * 32),))
    seal = Seal(lambda: keyring, SealRule(), random=os.urandom, limit=1000)
    values = SimpleNamespace(get=get)
    return RedisEraser(link, values, NAMES, seal, lambda: keyring, budget=lambda _=0: None, limit=1000)


async def test_what_cannot_be_opened():
    """It is counted once, and the first names are told; it is not deleted: there is nothing here that could."""
    names = tuple(f"{number:032}" for number in range(5))

    assert ErasedValues(0, 20, names) == await eraser(Link(20)).erase(lambda *_: True)


@pytest.mark.parametrize("last", [0, 1, 2, 5, 11])
async def test_away(last):
    """Wherever it stops, whoever asked hears of it: what was not looked at may still be there."""
    with pytest.raises(FleetAway):
        await eraser(Link(20, last)).erase(lambda *_: True)
