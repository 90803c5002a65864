"""
What the arm in Redis needs of the fleet.

The rule: descriptions only. The fleet stands on the same floor, so neither knows the other; ``app`` brings them
together.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from sidecar.core.cache.beside import Beside
from sidecar.core.model import Entry, Key

T = TypeVar("T")


class FetchLook(Protocol):
    """What a look found; see ``fleet/lease.LeaseLook``."""

    @property
    def value(self) -> bytes | None:
        """What stands there."""

    @property
    def seconds(self) -> float:
        """How long what was found has to live."""

    @property
    def grant(self) -> Any:
        """The lease, if it was taken."""

    @property
    def held(self) -> bool:
        """Whether another process has it."""


class FetchLeases(Protocol):
    """What is needed of the fleet's leases; see ``fleet/lease.Leases``."""

    @property
    def ceiling(self) -> float:
        """Seconds between two looks, at most."""

    def budget(self, size: int = 0) -> Any:
        """The time that Redis has for one call that writes *size* bytes."""

    async def look(
        self, name: bytes, budget: Any, *, seen: bytes = b"", note: bytes = b"", beside: Beside = Beside.NEVER
    ) -> FetchLook:
        """Read, or take the lease."""

    async def wait(self, name: bytes, seconds: float) -> None:
        """Until there may be something new."""

    async def keep(self, grant: Any, value: bytes, seconds: float) -> bool:
        """Store and give back, if the lease is ours."""

    def stall(self, grant: Any, *, stuck: bool) -> None:
        """Tell those who wait that its call is stuck, or goes on after all."""

    def release(self, grant: Any, *, failed: bool) -> None:
        """Give back."""

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do *work* in a task that ``close`` waits for."""

    async def close(self, seconds: float) -> None:
        """Give everything back, and finish."""


class EntryLink(Protocol):
    """What is needed of the fleet's link to Redis; see ``redis_link/link.RedisLink``."""

    async def run(self, work: Callable[[Any], Awaitable[T]], budget: Any, *, op: str = ...) -> T:
        """Do *work* with the client, within *budget*; *op* names it for metrics. Raises ``FleetAway``."""


class EntryNames(Protocol):
    """What is needed of the names; see ``redis_link/names.RedisNames``."""

    def entry(self, name: bytes) -> bytes:
        """Where the entry called *name* stands."""


class PurgeNotes(Protocol):
    """What memory needs of the fleet's log of purges; see ``fleet/purge_log.PurgeLog``."""

    forgot: bool
    """Redis may have lost what has been noted."""

    def note(self, key: Key, entry: Entry, tags: tuple[str, ...]) -> bool:
        """Have a purge of one of *tags* take the entry of *key* in the whole fleet. False: there is no room."""

    async def catch_up(self) -> None:
        """Read the log, where this process has not run for a while."""


class EntryValues(Protocol):
    """What is needed of aiocache's cache; see ``store/values``."""

    async def get(self, key: bytes) -> bytes | None:
        """The bytes that stand at *key*."""

    async def set(self, key: bytes, value: bytes, ttl: float) -> None:
        """Put *value* there for *ttl* seconds."""

    async def delete(self, key: bytes) -> bool:
        """Forget what is at *key*. Tells whether there was something."""
