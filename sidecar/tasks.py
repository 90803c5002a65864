"""
Every task of the process.

The rule: nothing else makes tasks. A task without a reference may be collected while it runs, and its exception lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Protocol


class Spawn(Protocol):
    """Starts *work* in a task that its owner holds and waits for at the end; ``Tasks.spawn`` does."""

    def __call__(self, work: Coroutine[Any, Any, None], /, *, name: str) -> asyncio.Task[None]:
        """Start *work* in a task named *name*."""


class Tasks:
    """Owns tasks while they run; *report* hears of what they raise."""

    def __init__(self, report: Callable[[BaseException], None]) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._report = report

    def __repr__(self) -> str:
        return f"<Tasks {len(self._tasks)} running>"

    def __iter__(self) -> Iterator[asyncio.Task[Any]]:
        return iter(tuple(self._tasks))

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Run *work* in a task of its own."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def cancel(self, name: str = "") -> None:
        """Cancel what still runs, or what of it has this *name*, and wait for it."""
        tasks = [task for task in self._tasks if not name or task.get_name() == name]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report(error)
