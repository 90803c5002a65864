"""
Attempts of the same call that run at the same time.

The rule: each ends in one result. One result is taken; the others are closed, with their connection and permit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from sidecar.upstream.call import AttemptResult


class Race:
    """Attempts that run at the same time. Each ends in one result; a result that is not taken is closed."""

    def __init__(self, spawn: Callable[..., asyncio.Task[None]]) -> None:
        self._spawn = spawn
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: asyncio.Queue[AttemptResult | BaseException] = asyncio.Queue()
        self.running = 0

    @property
    def won(self) -> bool:
        """Whether there is a result that was not taken yet."""
        return not self._ends.empty()

    def enter(self, attempt: Coroutine[Any, Any, AttemptResult]) -> None:
        """Start one more attempt. Then wait for a result: a task that is cancelled before it begins cannot clean up."""
        self.running += 1
        self._tasks.add(self._spawn(self._run(attempt), name="attempt"))

    async def next(self, seconds: float | None) -> AttemptResult | None:
        """The next result; None if none came within *seconds*."""
        try:
            async with asyncio.timeout(seconds):
                result = await self._ends.get()
        except TimeoutError:
            return None
        self.running -= 1
        if isinstance(result, BaseException):
            raise result
        return result

    async def over(self) -> None:
        """Close the results that were not taken, and cancel the attempts that still run."""
        while not self._ends.empty():
            result = self._ends.get_nowait()
            if isinstance(result, AttemptResult):
                result.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, attempt: Coroutine[Any, Any, AttemptResult]) -> None:
        try:
            self._ends.put_nowait(await attempt)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  it is raised where the result is waited for
            self._ends.put_nowait(error)
