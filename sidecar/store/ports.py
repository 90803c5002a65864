"""
What the tier in Redis needs from the fleet.

The rule: descriptions only. The fleet stands on the same floor, so neither imports the other; ``app`` joins them.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from sidecar.core.cache.beside import Beside
from sidecar.redis_link.link import TimeBudget

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
    """The part of the fleet's leases that is needed; see ``fleet/lease.Leases``."""

    @property
    def ceiling(self) -> float:
        """Seconds between two looks, at most."""

    def budget(self, size: int = 0) -> TimeBudget:
        """The time that Redis has for one call that writes *size* bytes."""

    async def look(
        self, name: bytes, budget: TimeBudget, *, seen: bytes = b"", note: bytes = b"", beside: Beside = Beside.NEVER
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

    @property
    def unfinished(self) -> int:
        """How much of what was begun still runs."""

    async def flush(self) -> None:
        """Finish what was begun; what is held stays held."""

    async def close(self, seconds: float) -> None:
        """Give everything back, and finish."""
