"""
What the line needs from the place where the fleet keeps its operations.

The rule: descriptions only; ``fleet/operations`` keeps them in Redis, and ``app`` joins the two. None of the methods
raises, except cancellation: where Redis is away, an operation is known to this process alone.
"""

from __future__ import annotations

from typing import Protocol

from sidecar.core.model import Key
from sidecar.core.request.operation import Started


class OperationRecords(Protocol):
    """The operations that every process of the fleet knows: by id, and by key while they run."""

    async def put(self, started: Started) -> None:
        """Let the fleet know an operation by its id."""

    async def find(self, id_: str) -> Started | None:
        """The operation of that id."""

    async def forget(self, id_: str) -> None:
        """No process answers for that id any more."""

    async def erase_key(self, key: Key) -> None:
        """After a purge of *key*: delete its result from the fleet's store, and that its operation runs."""

    async def announce(self, started: Started) -> bool:
        """Let callers of the same key join the operation. False: the fleet does not know it."""

    async def running(self, key: Key) -> Started | None:
        """The operation that runs for *key*, if no purge has come since it was started."""

    async def ended(self, key: Key, *, stored: bool) -> None:
        """It runs no longer. If its result is *stored*, callers may still join it until the store has it for sure."""


class NoRecords:
    """The records of a process without a fleet."""

    async def put(self, started: Started) -> None:
        """Nothing: this process knows it."""

    async def find(self, id_: str) -> Started | None:  # noqa: ARG002 - the port's, as the others
        """Nothing."""
        return None

    async def forget(self, id_: str) -> None:
        """Nothing."""

    async def erase_key(self, key: Key) -> None:
        """Nothing."""

    async def announce(self, started: Started) -> bool:  # noqa: ARG002
        """Nobody else needs to know it."""
        return False

    async def running(self, key: Key) -> Started | None:  # noqa: ARG002
        """Nothing."""
        return None

    async def ended(self, key: Key, *, stored: bool) -> None:
        """Nothing."""
