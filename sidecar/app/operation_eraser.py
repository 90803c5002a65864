"""
Erases what Redis has of long-running operations: who may ask for which result, and which operations run.

The rule: an operation is erased if the purges no longer allow the answer of its key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from sidecar.admin.erasure import ErasedPlace
from sidecar.core.cache.purges import Scope
from sidecar.errors import FleetAway
from sidecar.fleet.operations import FleetOperations, IsGone
from sidecar.redis_link.link import RedisLink, TimeBudget
from sidecar.redis_link.names import RedisNames
from sidecar.store.redis_erase import AT_ONCE
from sidecar.store.warm import pages


class OperationEraser:
    """An ``Eraser`` of *operations*. *budget* gives the time for one command."""

    where = "operations in Redis"

    def __init__(
        self, operations: FleetOperations, link: RedisLink, names: RedisNames, budget: Callable[[], TimeBudget]
    ) -> None:
        self._operations = operations
        self._link = link
        self._names = names
        self._budget = budget

    def __repr__(self) -> str:
        return f"<OperationEraser {self._operations!r}>"

    async def erase(self, scope: Scope, gone: IsGone, *, dry_run: bool) -> ErasedPlace:  # noqa: ARG002  *gone* says it
        """Walk through all operations. Raises ``FleetAway``."""
        erased, unopened = set[bytes](), set[bytes]()  # a page may repeat a name
        away: list[FleetAway] = []

        async def look_at(where: bytes, name: bytes) -> None:
            try:
                done = await self._operations.erase(where, name, gone, dry_run=dry_run)
            except FleetAway as error:
                away.append(error)
                return
            if done is None:
                unopened.add(where)
            elif done:
                erased.add(where)

        for key_of in (self._names.operation, self._names.running):
            async with aclosing(pages(self._link, key_of, self._budget)) as found:
                async for names in found:
                    for start in range(0, len(names), AT_ONCE):
                        async with asyncio.TaskGroup() as group:
                            for name in names[start : start + AT_ONCE]:
                                group.create_task(look_at(key_of(name), name))
                        if away:
                            raise away[0]
        note = f"{len(unopened)} values were left alone, because no present secret opens them" if unopened else ""
        return ErasedPlace(self.where, len(erased), note=note)
