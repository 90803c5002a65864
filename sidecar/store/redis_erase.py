"""
Deletes answers from Redis, so that their bytes are gone, and not only invalid.

The rule: a value is deleted if the purges no longer allow it to serve anybody. A value that cannot be opened is left
alone, counted and named: nobody can tell whose answer it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, NamedTuple

from sidecar.core.key.keyring import Keyring
from sidecar.core.key.keyring import name as name_of
from sidecar.core.model import Entry, Key
from sidecar.errors import FleetAway
from sidecar.redis_link.link import RedisLink, TimeBudget
from sidecar.redis_link.names import RedisNames
from sidecar.store.seal import ALLOWANCE, Seal
from sidecar.store.values import Values
from sidecar.store.warm import pages
from sidecar.tasks import SCANNED_IN_LOOP, in_thread_if_large

AT_ONCE = 8
"""How many values are looked at together."""

MOST_NAMED = 5
"""The most values that could not be opened and are named."""


class ErasedValues(NamedTuple):
    """*erased*: how many were deleted, or only counted. *unopened*: how many were left alone, with some *names*."""

    erased: int = 0
    unopened: int = 0
    names: tuple[str, ...] = ()


class RedisEraser:
    """The values of *names*. *budget* gives the time for one command with a value of so many bytes."""

    def __init__(
        self,
        link: RedisLink,
        values: Values,
        names: RedisNames,
        seal: Seal,
        keyring: Callable[[], Keyring],
        *,
        budget: Callable[..., TimeBudget],
        limit: int,
    ) -> None:
        self._link = link
        self._values = values
        self._names = names
        self._seal = seal
        self._keyring = keyring
        self._budget = budget
        self._largest = limit + ALLOWANCE

    def __repr__(self) -> str:
        return f"<RedisEraser {self._names!r}>"

    async def erase_key(self, key: Key) -> ErasedValues:
        """Delete the answer of *key*, under the name that each secret gives it. Raises ``FleetAway``."""
        names = [name_of(secret, key) for secret in self._keyring().keys]
        return ErasedValues(sum([await self._delete(name) for name in names]))

    async def erase(self, gone: Callable[[Key, Entry], bool], *, dry_run: bool = False) -> ErasedValues:
        """Walk through all values, and delete those of which *gone* is true. Raises ``FleetAway``."""
        erased, unopened = set[bytes](), set[bytes]()  # a page may repeat a name

        away: list[FleetAway] = []

        async def look_at(name: bytes) -> None:
            try:
                opened = await self._open(name)
                if opened is _UNOPENED:
                    unopened.add(name)
                elif opened is not None and gone(*opened) and (dry_run or await self._delete(name)):
                    erased.add(name)
            except FleetAway as error:
                away.append(error)

        async with aclosing(pages(self._link, self._names.entry, self._budget)) as found:
            async for names in found:
                for start in range(0, len(names), AT_ONCE):
                    async with asyncio.TaskGroup() as group:
                        for name in names[start : start + AT_ONCE]:
                            group.create_task(look_at(name))
                    if away:
                        raise away[0]
        shown = tuple(name.decode("ascii") for name in sorted(unopened)[:MOST_NAMED])
        return ErasedValues(len(erased), len(unopened), shown)

    async def _open(self, name: bytes) -> Any:
        """The key and the entry under *name*; ``_UNOPENED`` for what cannot be opened, None if nothing is there."""
        where = self._names.entry(name)
        size = await self._link.run(lambda client: client.strlen(where), self._budget(), op="strlen")
        if not size:
            return None
        if type(size) is not int or size > self._largest:
            return _UNOPENED
        value = await self._link.run(lambda _: self._values.get(where), self._budget(size), op="get")
        if value is None:
            return None
        opened = await in_thread_if_large(len(value), SCANNED_IN_LOOP, self._seal.unseal, name, value)
        return _UNOPENED if opened is None else opened

    async def _delete(self, name: bytes) -> bool:
        where = self._names.entry(name)
        return await self._link.run(lambda _: self._values.delete(where), self._budget(), op="delete")


_UNOPENED = object()
