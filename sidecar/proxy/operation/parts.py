"""
The parts that deal with long-running operations, made together.

The rule: parts are made here; what they do stands in their own files.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from sidecar.core.cache.purges import Scope
from sidecar.proxy.access import Access
from sidecar.proxy.flight.table import Flights
from sidecar.proxy.operation.accept import Acceptance
from sidecar.proxy.operation.follow import Follower
from sidecar.proxy.operation.polls import Polls
from sidecar.proxy.operation.records import OperationRecords
from sidecar.proxy.operation.table import OperationTable
from sidecar.proxy.receive import Receiver
from sidecar.store.base import Store
from sidecar.tasks import Spawn
from sidecar.upstream.dispatch import Dispatch


class LongOperations:
    """For the arguments see the parts: *table*, what this process knows; *follower*, *acceptance* and *polls*."""

    def __init__(
        self,
        receiver: Receiver,
        access: Access,
        *,
        dispatch: Dispatch,
        flights: Flights,
        store: Store,
        records: OperationRecords,
        limit: int,
        purge: Callable[[tuple[Scope, ...]], Awaitable[Any]],
        spawn: Spawn,
        now: Callable[[], float],
        clock: Callable[[], float],
        random: Callable[[int], bytes],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.table = table = OperationTable(clock)
        self.follower = Follower(
            dispatch, receiver, store, records, access, now=now, clock=clock, limit=limit, sleep=sleep
        )
        self.acceptance = Acceptance(self.follower, table, records, now=now, clock=clock, random=random)
        self.polls = Polls(
            self.follower,
            table,
            records,
            flights,
            store,
            dispatch,
            access,
            purge=purge,
            spawn=spawn,
            now=now,
            sleep=sleep,
        )

    def __repr__(self) -> str:
        return f"<LongOperations {self.table!r}>"
